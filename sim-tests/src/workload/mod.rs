//! Clients: sequential users of the HTTP interface who write down what they asked and what they were told.

pub mod calm;
mod client;
mod event;
mod fence;
mod follower;
mod kv;
mod lifetime;
mod lock;
mod names;
mod registrar;
mod restorer;
mod session;
mod set;
mod txn;
mod watcher;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use proconsul_io_sim::net::{Fabric, HostId};
use proconsul_jepsen::history::History;

pub use client::Client;
pub use names::{Doors, Late, Named};

use crate::audit::Audit;
use follower::Followed;
pub use registrar::Registered;

/// The history of a run. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedHistory(Arc<Mutex<History>>);

impl SharedHistory {
    /// What has been written down so far.
    pub fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What all clients of a run have in common.
#[derive(Clone)]
pub struct Shared {
    /// The network.
    pub fabric: Fabric,
    /// Hosts of the agents that clients may ask.
    pub agents: Vec<HostId>,
    /// Where they write.
    pub history: SharedHistory,
    /// Query parameter of reads that must be linearizable: none for default reads, where clocks allow it.
    pub fresh_mode: &'static str,
    /// Whether nodes may disappear from the catalog at any time, and with them the sessions of clients that asked there.
    pub nodes_go: bool,
    /// Whether earlier states may be restored: what once was may not be, and be again.
    pub restores: bool,
    /// Where they report what breaks a promise at sight.
    pub audit: Audit,
    /// What agents were told to run.
    pub registered: Registered,
    /// The ways into the agents' processes.
    pub doors: Doors,
    /// Instances that are looked up over DNS.
    pub named: Named,
    /// By so much an answer may be older than a bound says, as long as messages of the leader come soon, in nanoseconds.
    pub stale_slack: u64,
    /// What those who follow lists saw last.
    pub followed: Followed,
    /// Set when whoever changes anything has to stop after the present operation.
    pub stop: Arc<AtomicBool>,
    /// Set when watchers have to stop, too.
    pub stop_watching: Arc<AtomicBool>,
}
