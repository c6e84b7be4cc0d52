//! Worlds of simulated servers and clients: plans drawn from seeds, faults, workloads, auditors, sweeps and replays.
//!
//! Exists only with the feature `sim`; see `docs/simulation.md`.
#![cfg(all(feature = "sim", madsim))]

pub mod audit;
pub mod cluster;
pub mod draw;
pub mod gossip;
pub mod ground;
pub mod http;
pub mod log;
pub mod nemesis;
pub mod plan;
pub mod runner;
pub mod server;
pub mod settling;
pub mod shrink;
pub mod workload;
pub mod world;
