//! The vocabulary that gossip shares with the rest of the node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Text;
use crate::ids::Uuid;

/// Largest sum of name and payload of a user event, in bytes (Consul: «Event»).
pub const EVENT_BYTES_MAX: usize = 512;

/// Largest encoding of a user event with its filters, in bytes.
pub const EVENT_ENCODED_BYTES_MAX: usize = 1024;

/// Largest encoding of a member's tags, in bytes: with name and address it fits a datagram several times over.
pub const META_BYTES_MAX: usize = 768;

/// Names of the tags that agents tell about themselves (Consul: «members -detailed»).
pub mod tag {
    /// `consul` on servers, `node` on client agents.
    pub const ROLE: &str = "role";
    /// Value of [`ROLE`] on servers.
    pub const ROLE_SERVER: &str = "consul";
    /// Value of [`ROLE`] on client agents.
    pub const ROLE_CLIENT: &str = "node";
    /// Datacenter.
    pub const DATACENTER: &str = "dc";
    /// Identity of the agent, a UUID.
    pub const ID: &str = "id";
    /// Version of the program.
    pub const BUILD: &str = "build";
    /// Port of the RPC listener; servers only.
    pub const PORT: &str = "port";
    /// Founds a group alone; `1`.
    pub const BOOTSTRAP: &str = "bootstrap";
    /// Port of a server's gossip in the pool of all datacenters.
    pub const WAN_PORT: &str = "wan_join_port";
    /// How many servers found a group together.
    pub const EXPECT: &str = "expect";
    /// Identity of the Raft group that the server belongs to; absent until it belongs to one.
    pub const GROUP: &str = "group";
    /// Version of Raft's protocol.
    pub const RAFT_VERSION: &str = "raft_vsn";
    /// Never votes; `1`.
    pub const READ_REPLICA: &str = "read_replica";
    /// The formats that a server knows, as [`crate::format::Formats`] shows them.
    pub const FORMATS: &str = "formats";
    /// How long this member may be failed before it is forgotten, in seconds (Consul: `advertise_reconnect_timeout`).
    pub const RECONNECT_TIMEOUT: &str = "rc_tm";
}

/// Which pool of gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Pool {
    /// All agents of a datacenter.
    Lan,
    /// The servers of all datacenters.
    Wan,
}

/// What is believed of a member. The numbers are those of Consul's HTTP interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// Believed to be well; also while it is suspected.
    Alive = 1,
    /// It has said that it is about to leave.
    Leaving = 2,
    /// It has left, or was declared to have left by an operator.
    Left = 3,
    /// It was found to be unreachable.
    Failed = 4,
}

impl Status {
    /// As `consul members` writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Alive => "alive",
            Status::Leaving => "leaving",
            Status::Left => "left",
            Status::Failed => "failed",
        }
    }
}

/// A member of a pool, as the node and its clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name, unique in the pool.
    pub name: Text,
    /// Where it receives gossip.
    pub address: SocketAddr,
    /// What it tells about itself; see [`tag`].
    pub tags: Arc<BTreeMap<Text, Text>>,
    /// What is believed of it.
    pub status: Status,
}

impl Member {
    /// The value of a tag; empty when it is absent.
    #[must_use]
    pub fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", Text::as_str)
    }

    /// Its identity, if it tells one.
    #[must_use]
    pub fn id(&self) -> Option<Uuid> {
        Uuid::parse(self.tag(tag::ID))
    }

    /// Whether it is a server.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.tag(tag::ROLE) == tag::ROLE_SERVER
    }

    /// Where a server takes calls of other agents.
    #[must_use]
    pub fn rpc_address(&self) -> Option<SocketAddr> {
        let port = self.tag(tag::PORT).parse().ok()?;
        self.is_server().then(|| SocketAddr::new(self.address.ip(), port))
    }

    /// Its IP address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }
}

/// How a member differs from what was said of it before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// It is there, anew or again, or its status, address or tags have changed.
    Upsert(Member),
    /// It is forgotten: it has been failed or gone for long, or an operator pruned it.
    Reaped(Member),
}

/// A user event (Consul: «Event»).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEvent {
    /// Drawn by the agent that fired it.
    pub id: Uuid,
    /// Name.
    pub name: Text,
    /// Payload.
    pub payload: Bytes,
    /// Only nodes whose name this expression matches act on it; empty: all.
    pub node_filter: Text,
    /// Only nodes with such a service.
    pub service_filter: Text,
    /// Only nodes whose service has such a tag.
    pub tag_filter: Text,
    /// Lamport time at which it was fired.
    pub ltime: u64,
}

/// Why an event was not sent; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventTooBig {
    /// Name and payload together are too big.
    #[error("user event exceeds configured limit of {EVENT_BYTES_MAX} bytes before encoding")]
    Raw,
    /// With its filters it does not fit a datagram.
    #[error("encoded user event exceeds configured limit of {EVENT_ENCODED_BYTES_MAX} bytes after encoding")]
    Encoded,
}

/// Lamport times of a pool, as far as a member knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Of intents to join and to leave.
    pub member: u64,
    /// Of user events.
    pub event: u64,
    /// Of internal queries.
    pub query: u64,
}

/// Why a call over a stream has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// Nobody listens there: the host is alive, the process is not.
    Refused,
    /// No answer in time, or no way to the host.
    TimedOut,
    /// The connection was closed before an answer came.
    Closed,
}

/// What a pool wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a datagram, best effort.
    Datagram {
        /// To whom.
        to: SocketAddr,
        /// Sealed bytes.
        bytes: Bytes,
    },
    /// Open a stream, send one request, read one answer; completed by `on_answer` with the same number.
    Call {
        /// Drawn by the machine, never reused within a process.
        call: u64,
        /// To whom.
        to: SocketAddr,
        /// Sealed request.
        bytes: Bytes,
        /// To be given up after this long.
        timeout: Duration,
    },
    /// Answer a request that `on_call` took.
    Answer {
        /// The adapter's number of the request.
        caller: u64,
        /// Sealed answer.
        bytes: Bytes,
    },
    /// What is believed of a member changed.
    Member(MemberChange),
    /// This member is suspected of having failed. It counts as alive until that is certain, and whoever has a choice does
    /// well to ask others meanwhile.
    Suspected(Text),
    /// A user event has come, once, in no particular order. Also one that this agent fired.
    UserEvent(UserEvent),
    /// An attempt to join ended.
    Joined {
        /// The caller's ticket.
        ticket: u64,
        /// How many of the addresses were contacted.
        contacted: usize,
        /// The last error, if there was one.
        error: Option<Text>,
    },
    /// The leave that was asked for has been spread as far as it will.
    Left,
    /// A change of keys in the whole pool ended, or a listing.
    Keys {
        /// The caller's ticket.
        ticket: u64,
        /// What came of it.
        report: super::KeysReport,
    },
    /// Keep the ring of keys: the first one encrypts.
    SaveKeys(Vec<super::Key>),
    /// Keep these addresses for rejoining after a restart. An empty list after a leave in good order.
    SaveKnown(Vec<SocketAddr>),
    /// Keep these times for [`super::Gossip::resume`] after a restart.
    SaveClocks(Clocks),
    /// Another agent has this member's name and most members know that one: this agent cannot stay. The node halts.
    NameConflict {
        /// Where the other agent is.
        other: SocketAddr,
    },
    /// Something that an operator should read in the log.
    Warn(Text),
}
