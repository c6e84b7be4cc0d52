//! Agents as processes of this machine: start them, ask them over HTTP, kill them.
//!
//! Everything stays on loopback. What was started is ended by its process id when its [`server::Server`] goes out of
//! scope, and its directory is removed.

pub mod client;
pub mod kill;
pub mod kv;
pub mod ports;
pub mod server;
