//! What a node is made of: its settings, and what a restart gave back.

use std::time::Duration;

use bytes::Bytes;

use super::About;
use crate::Text;
use crate::agent;
use crate::ids::ServerId;
use crate::raft::{BadRecovery, Membership, Recovered, Timing};
use crate::store::{AutopilotSettings, Store};
use crate::wal::Wal;

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Identity, and what clients may see of the settings.
    pub about: About,
    /// Timing of the Raft group.
    pub timing: Timing,
    /// The group to found when the log is empty; `None` waits to be taken up by a group.
    pub found: Option<Membership>,
    /// Servers whose health the leader vouches for in the catalog.
    pub roster: Vec<RosterEntry>,
    /// The agent's own settings.
    pub agent: agent::Config,
    /// For how long a request waits for a leader (Consul: `rpc_hold_timeout`).
    pub hold_timeout: Duration,
    /// When checkpoints are made and how much log is kept behind them.
    pub checkpoints: CheckpointPolicy,
    /// Settings of autopilot that the first leader of a group writes.
    pub autopilot: AutopilotSettings,
    /// For how long deletions are remembered so that an index under a prefix never goes back (Consul: 15 minutes).
    pub tombstone_ttl: Duration,
}

/// A server as the catalog shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterEntry {
    /// Identity.
    pub id: ServerId,
    /// Name of the node.
    pub node: Text,
    /// Address of the node.
    pub address: Text,
    /// Port of the RPC listener.
    pub port: u16,
}

/// When checkpoints are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// After so many applied entries.
    pub entries: u64,
    /// Or after so many bytes of them.
    pub bytes: u64,
    /// So many bytes of entries stay in memory and in the log for followers that lag.
    pub trailing_bytes: u64,
    /// And at most so many entries.
    pub trailing_entries: usize,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        CheckpointPolicy {
            entries: 16_384,
            bytes: 16 << 20,
            trailing_bytes: 4 << 20,
            trailing_entries: 4_096,
        }
    }
}

/// What a node begins with.
#[derive(Debug, Default)]
pub struct Restored {
    /// Term, vote, entries and the checkpoint's meaning.
    pub raft: Recovered,
    /// The checkpoint's state.
    pub store: Store,
    /// The agent's own state.
    pub local: Vec<(Text, Bytes)>,
    /// The log, ready to be continued; `None` for a node that keeps nothing (development mode).
    pub wal: Option<Wal>,
}

/// Why a node could not begin.
#[derive(Debug, thiserror::Error)]
pub enum BadStart {
    /// The agent's own state or its configured services cannot be used.
    #[error(transparent)]
    Agent(#[from] agent::BadStart),
    /// Log and checkpoint do not belong together.
    #[error(transparent)]
    Recovery(#[from] BadRecovery),
}
