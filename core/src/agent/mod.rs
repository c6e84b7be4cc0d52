//! The agent's own services and checks, and how the catalog is repaired towards them.

/// Deadlines of the agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {}
