//! Raft under test: rules, one by one, and whole groups under faults.

mod audit;
mod bench;
mod cluster;
mod faults;
mod founding;
#[cfg(feature = "planted")]
mod planted;
mod rules;
mod scenarios;
