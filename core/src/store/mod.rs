//! The replicated state: tables, commands, queries, watches.

pub mod command;
pub mod model;
pub mod query;

/// The replicated state.
#[derive(Clone, Debug, Default)]
pub struct Store {}

/// A read-only picture of the store: a clone of it.
pub type View = Store;

/// Identity of one row in checkpoints: table tag and primary key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey(pub Vec<u8>);
