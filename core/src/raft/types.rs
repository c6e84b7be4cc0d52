//! What Raft persists and what it tells its surroundings.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Text;
use crate::ids::{LogIndex, ServerId, Term};

/// An entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Term of the leader that made it.
    pub term: Term,
    /// Position.
    pub index: LogIndex,
    /// Content.
    pub payload: Payload,
}

/// Content of a log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// First entry of a leader's term; commits what earlier terms left (dissertation, section 6.4).
    Noop,
    /// An encoded command of the store. Opaque to Raft.
    Command(Bytes),
    /// The group's members from here on; effective as soon as it is in the log (section 4.1).
    Membership(Membership),
}

/// Who belongs to the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Members by identity.
    pub servers: BTreeMap<ServerId, Member>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `host:port` of its RPC listener; may change, the identity may not.
    pub address: Text,
    /// Whether it votes and counts for commit.
    pub voter: bool,
}

/// What must survive a crash besides the log itself (Raft paper, figure 2, persistent state).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// Latest term seen.
    pub term: Term,
    /// Who got this server's vote in that term.
    pub vote: Option<ServerId>,
}

/// What a snapshot or checkpoint stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// Last entry that it includes.
    pub index: LogIndex,
    /// Term of that entry.
    pub term: Term,
    /// Membership as of that entry.
    pub membership: Membership,
}

/// A record of the durable log, in the order in which they must become durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A new term or vote.
    HardState(HardState),
    /// The next entry.
    Entry(Entry),
    /// Every entry at or after this index is void (a follower's conflict, paper section 5.3).
    Truncate(LogIndex),
    /// The log starts over after a snapshot was installed: every entry is void, the next one follows this one.
    Reset {
        /// Index that the snapshot ends with.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
}

/// What the durable log and the checkpoint gave back after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Last persisted term and vote.
    pub hard: HardState,
    /// The state machine's checkpoint.
    pub snapshot: SnapshotMeta,
    /// Entries, contiguous. May begin before the checkpoint's index and may be empty.
    pub entries: Vec<Entry>,
}

/// Timing of a group. All members should be configured alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Election timeout; each wait is drawn from one to two times this.
    pub election: Duration,
    /// For how long a voter that heard from a leader refuses to elect another one. The leader answers reads
    /// without asking for this long, less the drift bound.
    pub lease: Duration,
    /// Bound on how much faster or slower than real time any member's monotonic clock runs, in parts per million.
    pub drift_ppm: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat: Duration::from_millis(75),
            election: Duration::from_millis(1_000),
            lease: Duration::from_millis(300),
            drift_ppm: 10_000,
        }
    }
}

/// Deadlines of Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// No leader was heard of for an election timeout.
    Election,
    /// The leader's next heartbeat is due.
    Heartbeat,
    /// The leader checks that it still hears from a quorum.
    CheckQuorum,
}
