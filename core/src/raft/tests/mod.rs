//! Raft under test: rules, one by one, and whole groups under faults.

mod audit;
mod cluster;
mod faults;
#[cfg(feature = "planted")]
mod planted;
