//! The node: routes inputs to its machines and their effects to the outbox, and decides nothing else.

/// Deadlines of the leader's duties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DutyTimer {}
