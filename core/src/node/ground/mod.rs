//! Whole pools of agents in one plain event loop: gossip, RPC and clients together, without a task or a socket. The
//! core's tests and the simulator's search for defects run it.

#![cfg_attr(not(test), allow(dead_code, reason = "the stories of the tests use more of it"))]

mod disk;
pub(crate) mod world;
mod worlds;

pub use worlds::run;
