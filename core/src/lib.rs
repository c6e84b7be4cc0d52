//! Every decision that proconsul takes: gossip, Raft, its log, the store, leader duties, the agent, the semantics of the
//! HTTP and DNS interfaces.
//!
//! Nothing in this crate reads a clock, draws a random number that was not seeded from outside, opens a socket or a
//! file, spawns a task or waits. It is one deterministic function of its configuration, its seed and its inputs. The
//! production daemon and the simulator drive it through the same loop.

pub mod agent;
pub mod api;
pub mod boundary;
pub mod config_entry;
pub mod coordinate;
pub mod cx;
pub mod dns;
pub mod duration;
pub mod format;
pub mod gossip;
pub mod ids;
pub mod marks;
pub mod network;
pub mod node;
pub mod planted;
pub mod raft;
pub mod rng;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod timers;
pub mod wal;

/// A short, immutable, cheaply cloned string: names, keys, addresses.
pub type Text = smol_str::SmolStr;
