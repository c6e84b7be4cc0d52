//! What agents say to each other over the RPC port, in the envelope of a [`Format`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Text;
use crate::agent::CatalogState;
use crate::api::{ClusterCall, Elsewhere, Forwarded, HttpReply};
use crate::format::{self, BadEnvelope, Format, Formats};
use crate::ids::Uuid;
use crate::raft::Message;
use crate::store::command::Response;

/// Tells one question from all others that an agent ever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AskId {
    /// The asker's process, by a number that it has drawn: an answer to the process before it is not taken for one to
    /// it.
    pub life: u64,
    /// Never reused within a process, and greater than those of all that was asked before.
    pub number: u64,
}

/// A frame between two servers, or between a client agent and a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Raft's own.
    Raft(Message),
    /// A request to the leader. The identifier is the asker's and comes back with the answer.
    Ask {
        /// Quoted by the answer. What is asked again is asked under another one.
        id: AskId,
        /// What is asked.
        ask: Ask,
    },
    /// The answer to a request.
    Answer {
        /// The asker's identifier.
        id: AskId,
        /// The answer.
        answer: PeerAnswer,
    },
    /// Nobody waits for this answer any more.
    Forget {
        /// The asker's identifier.
        id: AskId,
    },
    /// The first frame of each connection, both ways, always in the first format: what the sender understands.
    Greeting(Formats),
}

/// What one agent asks of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Replicate an encoded command; for the leader only.
    Propose(Bytes),
    /// From which index on is a read linearizable (dissertation, section 6.4)?
    ReadIndex {
        /// Through a quorum, even if there is a lease.
        consistent: bool,
        /// Renew this session while at it.
        renew: Option<Uuid>,
    },
    /// Do what a client asks; for the leader only.
    Lead(ClusterCall),
    /// Do this for a client agent; for any server, which asks the leader in its turn if it has to.
    Serve(Serve),
}

/// What a client agent asks of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Serve {
    /// Answer a client's request.
    Request(Box<Forwarded>),
    /// Replicate an encoded command of the agent's own.
    Command(Bytes),
    /// Say what the catalog has of this node.
    Catalog(Text),
    /// Have a server of another datacenter answer a client's request.
    Elsewhere(Box<Elsewhere>),
}

impl Serve {
    /// Whether being done twice makes no difference.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Serve::Request(request) => request.is_repeatable(),
            Serve::Command(_) => false,
            Serve::Catalog(_) => true,
            Serve::Elsewhere(there) => there.request.is_repeatable(),
        }
    }

    /// The format in which it came to be: whoever does not know that one cannot read it.
    #[must_use]
    pub fn needs(&self) -> Format {
        match self {
            Serve::Elsewhere(_) => Format::FEDERATED,
            Serve::Request(request) if **request == Forwarded::Cluster(ClusterCall::Datacenters) => {
                Format::FEDERATED
            }
            Serve::Request(_) | Serve::Command(_) | Serve::Catalog(_) => Format::FIRST,
        }
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerAnswer {
    /// The command was applied with this response.
    Applied(Response),
    /// Reads of a state that includes this index are linearizable.
    ReadIndex {
        /// The index.
        index: u64,
        /// Whether the session that was to be renewed exists.
        renewed: bool,
    },
    /// This server does not lead; nothing was done.
    NotLeader,
    /// Leadership was lost while the command was under way: it may or may not take effect.
    Unknown,
    /// The reply to a client's request.
    Reply(HttpReply),
    /// What the catalog has of the node.
    Catalog(Box<CatalogState>),
}

/// A frame that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadFrame {
    /// From a newer or broken peer.
    #[error("a frame of format {0}, which this agent does not understand")]
    Format(Format),
    /// Truncated or garbled.
    #[error("garbled frame")]
    Garbled,
}

impl PeerMessage {
    /// The bytes of a frame. A greeting is of the first format, whatever is asked for.
    #[must_use]
    pub fn encode(&self, format: Format) -> Bytes {
        let format = if let PeerMessage::Greeting(_) = self { Format::FIRST } else { format };
        let frame = format::open(format, 64);
        format::close(postcard::to_extend(self, frame).expect("memory is the only sink"))
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// The frame is of another format than `formats`, truncated or garbled.
    pub fn decode(frame: &[u8], formats: Formats) -> Result<PeerMessage, BadFrame> {
        let at = format::body(frame, formats).map_err(|bad| match bad {
            BadEnvelope::Unknown(format) => BadFrame::Format(format),
            BadEnvelope::Damaged | BadEnvelope::Short => BadFrame::Garbled,
        })?;
        postcard::from_bytes(&frame[at..]).map_err(|_| BadFrame::Garbled)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::api::{Read, Write};
    use crate::gossip::KeysChange;
    use crate::ids::{LogIndex, Term};
    use crate::raft::{
        Append, AppendReply, Body, Chunk, Entry, Payload, Position, SnapshotMeta, Verdict, VoteReply,
        VoteRequest,
    };
    use crate::store::query::Query;
    use crate::testing::frugal;
    use crate::testing::fuzz::{cases, damaged, hostile};

    fn id() -> impl Strategy<Value = AskId> {
        any::<(u64, u64)>().prop_map(|(life, number)| AskId { life, number })
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn position() -> impl Strategy<Value = Position> {
        (any::<u64>(), any::<u64>())
            .prop_map(|(index, term)| Position { index: LogIndex(index), term: Term(term) })
    }

    fn body() -> impl Strategy<Value = Body> {
        let entries = vec((position(), bytes()), 0..4).prop_map(|entries| {
            let entry = |(at, data): (Position, Bytes)| Entry {
                term: at.term,
                index: at.index,
                payload: Payload::Command(data),
            };
            entries.into_iter().map(entry).collect()
        });
        prop_oneof![
            (any::<bool>(), any::<u64>(), position()).prop_map(|(pre, election, last)| Body::VoteRequest(
                VoteRequest { pre, election: Term(election), last, mark: None }
            )),
            (any::<bool>(), any::<u64>(), any::<std::time::Duration>()).prop_map(
                |(granted, election, hold)| {
                    Body::VoteReply(VoteReply { pre: !granted, election: Term(election), granted, hold })
                }
            ),
            (position(), entries, any::<u64>(), any::<bool>()).prop_map(
                |(prev, entries, commit, promise)| {
                    Body::Append(Append {
                        prev,
                        entries,
                        commit: LogIndex(commit),
                        round: commit,
                        promise,
                        voter: promise,
                    })
                }
            ),
            (any::<u64>(), position()).prop_map(|(round, hint)| {
                Body::AppendReply(AppendReply {
                    round,
                    verdict: Verdict::Rejected { prev: hint.index, hint },
                })
            }),
            (any::<u64>(), bytes(), any::<bool>()).prop_map(|(seq, data, last)| Body::Chunk(Chunk {
                meta: SnapshotMeta::default(),
                seq,
                data,
                last
            })),
            any::<u64>().prop_map(|term| Body::FoundReply { asked: Term(term), granted: true }),
        ]
    }

    fn message() -> impl Strategy<Value = PeerMessage> {
        let raft = (any::<u64>(), body())
            .prop_map(|(term, body)| PeerMessage::Raft(Message { term: Term(term), body }));
        let ask = prop_oneof![
            bytes().prop_map(Ask::Propose),
            (any::<bool>(), any::<u128>())
                .prop_map(|(consistent, id)| Ask::ReadIndex { consistent, renew: Some(Uuid(id)) }),
            "[ -~]{0,20}"
                .prop_map(|id| Ask::Lead(ClusterCall::RemovePeer { id: Some(id.into()), address: None })),
            bytes().prop_map(|command| Ask::Serve(Serve::Command(command))),
            "[ -~é]{0,20}".prop_map(|key| Ask::Serve(Serve::Request(Box::new(Forwarded::Read(Read::new(
                Query::Kv(key.into())
            )))))),
            any::<u128>().prop_map(|id| Ask::Serve(Serve::Request(Box::new(Forwarded::Write(
                Write::SessionDestroy(Uuid(id))
            ))))),
            "[ -~]{0,20}".prop_map(|dc| Ask::Serve(Serve::Elsewhere(Box::new(Elsewhere {
                datacenter: dc.into(),
                request: Forwarded::Cluster(ClusterCall::Datacenters),
            })))),
            Just(Ask::Lead(ClusterCall::Keys { change: KeysChange::List, local_only: true })),
        ];
        let answer = prop_oneof![
            (any::<u64>(), any::<bool>())
                .prop_map(|(index, renewed)| PeerAnswer::ReadIndex { index, renewed }),
            (200..600_u16, bytes())
                .prop_map(|(status, body)| PeerAnswer::Reply(HttpReply::json(status, body))),
            Just(PeerAnswer::NotLeader),
        ];
        prop_oneof![
            2 => raft,
            3 => (id(), ask).prop_map(|(id, ask)| PeerMessage::Ask { id, ask }),
            2 => (id(), answer).prop_map(|(id, answer)| PeerMessage::Answer { id, answer }),
            1 => id().prop_map(|id| PeerMessage::Forget { id }),
        ]
    }

    proptest! {
        #![proptest_config(cases(512))]

        #[test]
        fn what_is_sent_arrives_in_every_format(message in message()) {
            for format in [Format::FIRST, Format::CHECKED, Format::FEDERATED] {
                prop_assert_eq!(PeerMessage::decode(&message.encode(format), Formats::KNOWN), Ok(message.clone()));
            }
        }

        #[test]
        fn hostile_frames_are_refused_or_read_at_little_cost(
            frame in hostile(message().prop_map(|message| message.encode(Format::FIRST).to_vec()), 200),
        ) {
            let decoded = frugal(frame.len(), || PeerMessage::decode(&frame, Formats::KNOWN));
            let known = frame.first().is_some_and(|format| Formats::KNOWN.contains(Format(*format)));
            prop_assert!(known || decoded.is_err());
        }

        #[test]
        fn damaged_frames_of_checked_formats_are_refused(
            (_, frame) in damaged(
                (message(), prop::sample::select(vec![Format::CHECKED, Format::FEDERATED]))
                    .prop_map(|(message, format)| message.encode(format).to_vec()),
            ),
        ) {
            // A frame that says that it is of the first format is read as such.
            if frame.first() != Some(&Format::FIRST.0) {
                prop_assert!(PeerMessage::decode(&frame, Formats::KNOWN).is_err());
            }
        }
    }
}
