//! Raft (Ongaro and Ousterhout; Ongaro's dissertation), sans-IO.

pub mod types;

pub use types::*;
