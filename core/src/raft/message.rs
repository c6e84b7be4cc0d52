//! What members of a group say to each other.
//!
//! Messages may be lost, doubled, late and out of order; each one carries what is needed to judge it alone.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use bytes::Bytes;

use super::types::{Entry, SnapshotMeta};
use crate::ids::{LogIndex, ServerId, Term};

/// A message between two servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender's term when it spoke.
    pub term: Term,
    /// What it said.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A candidate asks for a vote (paper, section 5.2), or whether it would get one (dissertation, section 9.6).
    VoteRequest(VoteRequest),
    /// The answer to it.
    VoteReply(VoteReply),
    /// Entries, or none (a heartbeat), from the leader (paper, section 5.3).
    Append(Append),
    /// The answer to it.
    AppendReply(AppendReply),
    /// A piece of a snapshot (paper, section 7).
    Chunk(Chunk),
    /// The answer to it.
    ChunkReply(ChunkReply),
    /// The leader asks its successor to stand for election at once (dissertation, section 3.10).
    TimeoutNow(TransferMark),
    /// The receiver speaks for a term that is over; the sender's term says which one is not.
    StaleTerm,
    /// The sender wants to found a group with the receiver, in its term (see the module on founding).
    FoundRequest,
    /// The answer to it.
    FoundReply {
        /// The term of the request.
        asked: Term,
        /// Whether the receiver may found the group, as far as the sender is concerned.
        granted: bool,
    },
    /// The sender is bound by the consent that it gave in its term: is the receiver still at it?
    FoundProbe,
    /// The sender neither has founded a group nor ever will in terms up to this one.
    FoundRelease {
        /// The last of these terms.
        up_to: Term,
    },
}

/// A position in a log together with the term of the entry there: two logs with the same entry at a position agree
/// up to it (log matching, paper section 5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Where; zero is before the first entry, where all logs agree.
    pub index: LogIndex,
    /// Term of the entry there.
    pub term: Term,
}

/// Asks for a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRequest {
    /// Only a question: the candidate has not moved to the term it asks for, and nobody is bound by the answer.
    pub pre: bool,
    /// The term that the candidate wants to lead.
    pub election: Term,
    /// The end of its log.
    pub last: Position,
    /// Set if a leader named this candidate its successor, and so released its voters from their promise.
    pub mark: Option<TransferMark>,
}

/// Answers a [`VoteRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteReply {
    /// As in the request.
    pub pre: bool,
    /// As in the request.
    pub election: Term,
    /// The vote, or the prospect of it.
    pub granted: bool,
    /// For how much longer the voter is bound by its promise to a leader. A hint when to ask again.
    pub hold: Duration,
}

/// Proof that a leader gave up its lease in favour of a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferMark {
    /// The leader that steps aside.
    pub leader: ServerId,
    /// Its term.
    pub term: Term,
    /// Its last round that asked for a promise before it stepped aside. A promise to a later round stands.
    pub round: u64,
}

/// Entries or a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// What precedes `entries`.
    pub prev: Position,
    /// Contiguous entries after `prev`; empty in a heartbeat.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: LogIndex,
    /// The leader's latest round of heartbeats, echoed in the answer. Zero: no answer is needed if all is well.
    pub round: u64,
    /// Whether the receiver promises to elect nobody else for the time of the lease.
    pub promise: bool,
    /// Whether the receiver has a vote in the leader's group.
    pub voter: bool,
}

/// Answers an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendReply {
    /// As in the request; the highest one if several are answered at once.
    pub round: u64,
    /// The verdict.
    pub verdict: Verdict,
}

/// Whether a follower's log agrees with its leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It does.
    Accepted {
        /// Up to here the logs are known to agree and the follower's is durable.
        matched: LogIndex,
        /// Up to here they are known to agree.
        verified: LogIndex,
    },
    /// It does not.
    Rejected {
        /// [`Append::prev`] of the rejected message.
        prev: LogIndex,
        /// The follower's last entry that may agree: not after `prev`, and of no later term.
        hint: Position,
    },
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The snapshot's identity, together with leader and term.
    pub meta: SnapshotMeta,
    /// Number of this piece, from zero.
    pub seq: u64,
    /// Its bytes; opaque to Raft.
    pub data: Bytes,
    /// Whether no piece follows.
    pub last: bool,
}

/// Answers a [`Chunk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkReply {
    /// Index of the snapshot in question.
    pub index: LogIndex,
    /// The piece that the follower wants next. Pieces before it arrived.
    pub next: u64,
}

impl Append {
    /// Whether a leader of `term` could have said this. What is not well formed is dropped.
    #[must_use]
    pub fn is_well_formed(&self, term: Term) -> bool {
        let mut last = self.prev;
        for entry in &self.entries {
            if entry.index != last.index.next() || entry.term < last.term {
                return false;
            }
            last = Position { index: entry.index, term: entry.term };
        }
        last.term <= term
    }
}
