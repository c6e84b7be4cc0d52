//! The replicated state: tables, commands, queries, watches.

pub mod command;
pub mod model;
pub mod query;
