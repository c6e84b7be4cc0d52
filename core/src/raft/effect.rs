//! What Raft wants done, and why it may refuse.

use bytes::Bytes;
use thiserror::Error;

use super::message::Message;
use super::types::{Entry, Record, SnapshotMeta};
use crate::ids::{LogIndex, ServerId};

/// Names an [`Effect::Persist`]. Tokens grow; a token being durable means that all smaller ones are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersistToken(pub u64);

/// What Raft wants done. The order of effects is the order in which they must be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a message, or lose it.
    Send {
        /// To whom.
        to: ServerId,
        /// What.
        message: Message,
    },
    /// Append records to the durable log; answer by `on_persisted`. The next one may come before this one is done.
    Persist {
        /// Quoted by `on_persisted`.
        token: PersistToken,
        /// In this order.
        records: Vec<Record>,
    },
    /// Apply these entries at once. Every committed entry comes once, in order, unless a snapshot stands for it.
    Commit {
        /// Contiguous; never empty.
        entries: Vec<Entry>,
    },
    /// The read of this ticket may be answered from any state that includes `index`, which is committed.
    ReadReady {
        /// As in the call.
        ticket: u64,
        /// The read index.
        index: LogIndex,
    },
    /// The read of this ticket cannot be confirmed: this server leads no more.
    ReadFailed {
        /// As in the call.
        ticket: u64,
    },
    /// The group counts on the vote of this server, which has neither log nor term: it has lost what it promised, and must
    /// not go on under this identity. Nothing was changed.
    Forgotten,
    /// Read a piece of the latest checkpoint for a follower; answer by `on_snapshot_data`.
    ReadSnapshot {
        /// The follower.
        to: ServerId,
        /// Number of the piece. Zero begins again, perhaps with a newer checkpoint.
        seq: u64,
    },
    /// A piece of the leader's snapshot arrived. Pieces come once and in order; zero throws away what came before.
    /// After the last one, make the state durable and call `on_snapshot_installed`.
    SnapshotData {
        /// The snapshot's identity.
        meta: SnapshotMeta,
        /// Number of the piece.
        seq: u64,
        /// Its bytes.
        data: Bytes,
        /// Whether it is the last piece.
        last: bool,
    },
    /// Role, term, leader, readiness or lease changed: publish them again. A loss comes before every other effect of
    /// the same call, a gain after them.
    RoleChanged,
}

/// This server does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this server is not the leader")]
pub struct NotLeader {
    /// Who does, if that is known. `None` also while this leader hands over to another server.
    pub leader: Option<ServerId>,
}

/// Why a group cannot be bootstrapped here. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BootstrapError {
    /// This server has a log or a term already.
    #[error("this server already belongs to a group")]
    NotEmpty,
    /// No voter is among the members, or not the server that is to found it.
    #[error("a group needs at least one voter")]
    NoVoter,
    /// This server has given its consent to another founder.
    #[error("another server founds the group")]
    Bound,
}

/// Why membership cannot be changed so. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// Another server must be asked.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// No entry of this leader's own term is committed yet; try again soon.
    #[error("the leader is not ready yet")]
    NotReady,
    /// The former change is not committed yet; try again soon.
    #[error("another membership change is in progress")]
    InProgress,
    /// The server to change is no member.
    #[error("no such member")]
    UnknownMember,
    /// The server to promote has nothing of the log yet; try again when it has.
    #[error("the member has nothing of the log yet")]
    Behind,
    /// Nothing would change.
    #[error("the member is already so")]
    NoChange,
    /// No voter would be left.
    #[error("the last voter cannot be taken away")]
    LastVoter,
}

/// Why leadership cannot be handed over. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// Another server must be asked.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// A former transfer has neither succeeded nor been abandoned.
    #[error("another transfer is in progress")]
    InProgress,
    /// The chosen server is no voter, or is the leader itself, or no other voter exists.
    #[error("no such voter to hand over to")]
    NoTarget,
}

/// Why recovered state cannot be used. The log or the checkpoint lost what had been durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadRecovery {
    /// The log begins after the checkpoint's end.
    #[error(
        "the checkpoint ends at index {snapshot}, but the log begins at {first}: entries between them are lost"
    )]
    Gap {
        /// The checkpoint's index.
        snapshot: LogIndex,
        /// The first recovered entry.
        first: LogIndex,
    },
    /// Entries do not follow each other.
    #[error("the log's entries do not follow each other at index {at}")]
    NotContiguous {
        /// The first entry out of place.
        at: LogIndex,
    },
    /// An entry or the checkpoint is of a later term than the one that was persisted.
    #[error("the log holds an entry of a later term than the last persisted one, at index {at}")]
    TermAhead {
        /// The entry.
        at: LogIndex,
    },
}
