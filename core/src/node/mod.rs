//! The node: routes inputs to its machines and their effects to the outbox, and decides nothing else.

mod published;

pub use published::{About, Lease, Published};

/// Deadlines of the leader's duties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DutyTimer {
    /// The earliest session TTL.
    SessionTtl,
    /// The earliest end of a lock-delay.
    LockDelay,
    /// Old tombstones are due to be forgotten.
    Tombstones,
}
