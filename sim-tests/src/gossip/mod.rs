//! Gossip alone at scale: thousands of machines of `proconsul_core::gossip` in one loop, and experiments with them.
//!
//! Each experiment is a function from parameters to a row of a table; `bin/gossip.rs` prints the tables of
//! `docs/gossip.md`, the tests run small versions with stated bounds.

pub mod cut;
pub mod events;
pub mod keys;
pub mod kill;
pub mod lifeguard;
pub mod links;
pub mod load;
pub mod net;
pub mod pools;
pub mod spread;
pub mod times;
