//! Raft under test: rules, one by one, and whole groups under faults.

mod bench;
mod founding;
#[cfg(feature = "planted")]
mod planted;
mod rules;
mod scenarios;
mod sweep;

use super::ground::{cluster, faults, founding as founding_ground};
