//! What a node is made of: its settings, and what a restart gave back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{About, JoinPolicy, NewerFormat};
use crate::Text;
use crate::agent;
use crate::config_entry::Draft;
use crate::gossip::{self, Pool};
use crate::raft::{BadRecovery, BootstrapError, Membership, Recovered, Timing};
use crate::store::{AutopilotSettings, Store};
use crate::wal::Wal;

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Identity, and what clients may see of the settings.
    pub about: About,
    /// Timing of the Raft group.
    pub timing: Timing,
    /// How a server with an empty log comes to a group.
    pub forming: FormingPolicy,
    /// The operator's word on who belongs to the group, after a majority was lost for good (Consul: `peers.json`).
    pub recover: Option<Membership>,
    /// The datacenter's pool of gossip.
    pub lan: gossip::Config,
    /// The pool of all datacenters' servers; none on client agents.
    pub wan: Option<gossip::Config>,
    /// Whom to join, by pool.
    pub join: BTreeMap<Pool, JoinPolicy>,
    /// Whether what the agent keeps for itself survives a restart. Without: development mode.
    pub keeps_local: bool,
    /// Whether that includes the keys of gossip; without, the configured key counts at every start (Consul:
    /// `disable_keyring_file`).
    pub keeps_keys: bool,
    /// The agent's own settings.
    pub agent: agent::Config,
    /// For how long a request waits for a leader (Consul: `rpc_hold_timeout`).
    pub hold_timeout: Duration,
    /// When checkpoints are made and how much log is kept behind them.
    pub checkpoints: CheckpointPolicy,
    /// Settings of autopilot that the first leader of a group writes.
    pub autopilot: AutopilotSettings,
    /// Configuration entries that a leader writes when it begins, unless there are such.
    pub config_entries: Vec<Draft>,
    /// For how long deletions are remembered so that an index under a prefix never goes back (Consul: 15 minutes).
    pub tombstone_ttl: Duration,
}

/// How a server with an empty log comes to a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FormingPolicy {
    /// Founds this group at once, together with all its other members, which do the same.
    Found(Membership),
    /// Founds a group of itself, unless it finds one (Consul: `bootstrap`).
    Alone,
    /// Founds one together with so many servers, itself included, once they see each other (Consul:
    /// `bootstrap_expect`).
    Expect(u32),
    /// Waits to be taken up.
    #[default]
    Wait,
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
    /// What gossip kept cannot be used.
    #[error(transparent)]
    Gossip(#[from] agent::persist::BadPersisted),
    /// The members that an operator puts in place cannot be a group.
    #[error(transparent)]
    Recover(#[from] BootstrapError),
    /// The checkpoint is of a later format.
    #[error("the checkpoint: {0}")]
    Format(#[from] NewerFormat),
    /// Log and checkpoint do not belong together.
    #[error(transparent)]
    Recovery(#[from] BadRecovery),
}
