//! What servers say to each other, behind a version byte.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::Uuid;
use crate::raft::Message;
use crate::store::command::Response;

/// Format of frames. A frame with another version is dropped.
const VERSION: u8 = 1;

/// A frame between servers.
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
}

/// What a server asks of the leader for its clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Replicate an encoded command.
    Propose(Bytes),
    /// From which index on is a read linearizable (dissertation, section 6.4)?
    ReadIndex {
        /// Through a quorum, even if there is a lease.
        consistent: bool,
        /// Renew this session while at it.
        renew: Option<Uuid>,
    },
}

/// What the leader answers.
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
}

/// A frame that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadFrame {
    /// From a newer or broken peer.
    #[error("frame format {0}, this server speaks format 1")]
    Version(u8),
    /// Truncated or garbled.
    #[error("garbled frame")]
    Garbled,
}

impl PeerMessage {
    /// The bytes of a frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_u8(VERSION);
        let frame = postcard::to_extend(self, FrameBuffer(frame)).expect("memory is the only sink");
        frame.0.freeze()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// The frame is of another version, truncated or garbled.
    pub fn decode(frame: &[u8]) -> Result<PeerMessage, BadFrame> {
        match frame.split_first() {
            Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|_| BadFrame::Garbled),
            Some((&version, _)) => Err(BadFrame::Version(version)),
            None => Err(BadFrame::Garbled),
        }
    }
}

/// Lets postcard write into `BytesMut`.
struct FrameBuffer(BytesMut);

impl Extend<u8> for FrameBuffer {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

impl Extend<u8> for &mut FrameBuffer {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}
