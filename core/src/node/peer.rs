//! What agents say to each other over the RPC port, in the envelope of a [`Format`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Text;
use crate::agent::CatalogState;
use crate::api::{ClusterCall, Forwarded, HttpReply};
use crate::format::{self, BadEnvelope, Format, Formats};
use crate::ids::Uuid;
use crate::raft::Message;
use crate::store::command::Response;

/// A frame between two servers, or between a client agent and a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Raft's own.
    Raft(Message),
    /// A request to the leader. The identifier is the asker's and comes back with the answer.
    Ask {
        /// Quoted by the answer; never reused by one asker within a process.
        id: u64,
        /// What is asked.
        ask: Ask,
    },
    /// The answer to a request.
    Answer {
        /// The asker's identifier.
        id: u64,
        /// The answer.
        answer: PeerAnswer,
    },
    /// Nobody waits for this answer any more.
    Forget {
        /// The asker's identifier.
        id: u64,
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
}

impl Serve {
    /// Whether being done twice makes no difference.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Serve::Request(request) => request.is_repeatable(),
            Serve::Command(_) => false,
            Serve::Catalog(_) => true,
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
