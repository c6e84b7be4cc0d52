//! The semantics of the HTTP interface: from a parsed request to a rendered reply, without a socket.

mod agent;
mod answer;
#[cfg(test)]
mod api_test;
mod cache;
mod catalog;
mod cluster;
#[cfg(test)]
mod cluster_test;
mod config;
mod connect;
mod coordinate;
mod discovery;
mod elsewhere;
mod event;
mod filter;
mod front;
mod health;
mod intention;
mod kv;
mod membership;
mod near;
mod operator;
mod params;
mod prepared;
#[cfg(test)]
mod prepared_test;
mod probes;
mod process;
mod refused;
pub mod render;
mod route;
mod session;
mod snapshot;
mod status;
mod txn;
#[cfg(test)]
mod txn_test;
mod ui;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Text;
use crate::config_entry::{Draft, Kind};
use crate::ids::Uuid;
use crate::store::command::{Deregistration, KvCommand, Registration};
use crate::store::model::SessionBehavior;
use crate::store::query::Query;
use crate::store::{AutopilotSettings, IntentionCommand, Operation, PreparedCommand, PreparedQuery, Restore};
use crate::time::{Mono, Now};

pub use answer::{Answer, answer, query_meta};
pub use cache::{AgentCache, CachedRead, Onward, Settled};
pub use cluster::{ClusterCall, EventsRead, Forwarded, Place, render_cluster};
pub use elsewhere::{Elsewhere, NO_PATH, from_elsewhere};
pub use event::{render_event, render_events};
pub use front::{Admission, Front, LimitMode, RequestLimiter, RequestLimits, Waits, Work};
pub use operator::autopilot::{render_autopilot_health, render_autopilot_state};
pub use operator::keyring::render_keys;
pub use operator::raft::render_raft_configuration;
pub(crate) use params::parse_bool;
pub use params::{WAIT_DEFAULT, WAIT_LIMIT, WAIT_MAX};
pub use process::{LogLevel, Wish};
pub use render::{
    content_hash, indented, render_agent_call, render_local_service, render_record, render_renewed,
    render_response, render_rows,
};
pub use route::{
    BODY_MAX, BodyLimit, Headers, HttpRequest, Routed, body_limit, endpoint_labels, endpoint_place, route,
    streams_body, work,
};
pub use snapshot::SavedState;

/// What a client asks of the node, with the right that it has to ask.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked.
    pub call: Call,
    /// Who asks.
    pub authorizer: Authorizer,
}

/// Decides what a client may do. Everything is allowed as long as there are no access rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorizer;

impl Authorizer {
    /// Whether the client may do this to the thing of this name.
    #[must_use]
    pub fn allows(self, _permission: Permission, _name: &str) -> bool {
        true
    }
}

/// What a right is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Nothing that needs a right.
    None,
    /// Keys.
    Key,
    /// Sessions.
    Session,
    /// Nodes.
    Node,
    /// Services.
    Service,
    /// The agent itself.
    Agent,
    /// User events.
    Event,
    /// The keys of gossip.
    Keyring,
    /// Prepared queries.
    Query,
    /// The group of servers.
    Operator,
    /// Access rules.
    Acl,
    /// Configuration entries; which right that is depends on the kind.
    Config,
    /// Who may speak to whom.
    Intention,
}

/// A right that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// None.
    None,
    /// To see.
    Read(Resource),
    /// To change.
    Write(Resource),
}

impl Permission {
    fn of(resource: Resource, write: bool) -> Permission {
        match (resource, write) {
            (Resource::None, _) => Permission::None,
            (resource, false) => Permission::Read(resource),
            (resource, true) => Permission::Write(resource),
        }
    }
}

/// What can be asked of a node, parsed.
#[derive(Clone, Debug)]
pub enum Call {
    /// A read of the replicated state.
    Read(Read),
    /// A change of the replicated state.
    Write(Write),
    /// A change of the agent's own state; never forwarded.
    Agent(crate::agent::Call),
    /// About the cluster: gossip, the Raft group, autopilot.
    Cluster(ClusterCall),
    /// A DNS question that this agent has no state to answer from, and the prepared query that its name stands for if that
    /// is another datacenter's. The reply's body is the answer; an empty one says that there is none, and 404 that such a
    /// query finds nothing here.
    Dns(Box<crate::dns::Question>, Option<Box<PreparedQuery>>),
    /// Waits for a change of one local service (`/v1/agent/service/:id?hash=`).
    LocalService(LocalServiceRead),
    /// For another datacenter.
    Elsewhere(Box<Elsewhere>),
}

/// A read with all that decides how it is answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Read {
    /// What is read.
    pub query: Query,
    /// How fresh it must be.
    pub consistency: Consistency,
    /// Whether it waits for a change.
    pub blocking: Option<Blocking>,
    /// Keeps only rows for which this expression holds (Consul: «Filtering»); empty: all.
    pub filter: Text,
    /// A stale answer that is older than this is not good enough; then the read counts as a default one.
    pub max_stale: Option<Duration>,
    /// How it is rendered.
    pub shape: Shape,
    /// Rows on nodes that are near this one come first; empty: in the order of their names.
    pub near: Text,
}

impl Read {
    /// A read in the default mode that neither waits nor filters.
    #[must_use]
    pub fn new(query: Query) -> Read {
        Read {
            query,
            consistency: Consistency::Default,
            blocking: None,
            filter: Text::default(),
            max_stale: None,
            shape: Shape::default(),
            near: Text::default(),
        }
    }
}

/// Freshness of a read (Consul: «Consistency modes»).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Consistency {
    /// Linearizable as long as clocks drift less than the configured bound.
    #[default]
    Default,
    /// Linearizable without any clock: leadership is confirmed by a quorum for this read.
    Consistent,
    /// Whatever this server has; how old that is stands in the headers.
    Stale,
}

/// A blocking query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blocking {
    /// Answer when the index is greater than this (never zero here).
    pub index: u64,
    /// Or after this long, jitter not included.
    pub wait: Duration,
}

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shape {
    /// Indented JSON.
    pub pretty: bool,
    /// The bare value of one key; instances and nodes as agents send them to each other ([`crate::dns::kept`]).
    pub raw: bool,
    /// The services of a node as a list instead of a map (`/v1/catalog/node-services`).
    pub list: bool,
}

/// Waits for a local service to differ from a known content hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalServiceRead {
    /// Id of the service.
    pub id: Text,
    /// The hash that the client knows.
    pub hash: Text,
    /// How long to wait.
    pub wait: Duration,
    /// How the result is written.
    pub shape: Shape,
}

/// A change of the replicated state, before identifiers are drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// One operation on one key.
    Kv(KvCommand),
    /// `/v1/catalog/register`
    Register(Box<Registration>),
    /// `/v1/catalog/deregister`
    Deregister(Deregistration),
    /// `/v1/session/create`
    SessionCreate(SessionSpec),
    /// `/v1/session/destroy`
    SessionDestroy(Uuid),
    /// `/v1/session/renew`: not logged, answered by the leader's timers.
    SessionRenew(Uuid),
    /// `/v1/operator/autopilot/configuration`
    Autopilot {
        /// The new settings, as a whole.
        settings: Box<AutopilotSettings>,
        /// Only if the settings were last changed at this index.
        cas: Option<u64>,
    },
    /// `/v1/txn`, if anything in it writes.
    Transaction(Vec<Operation>),
    /// `/v1/snapshot`: begins a restore. Its name is drawn by the node.
    RestoreBegin,
    /// A further step of a restore.
    Restore(Restore),
    /// `/v1/config`
    ConfigSet {
        /// The entry; it makes sense by itself.
        entry: Box<Draft>,
        /// Only if the entry was last changed at this index; zero: only if there is none.
        cas: Option<u64>,
    },
    /// `/v1/config/:kind/:name`
    ConfigDelete {
        /// What it is about.
        kind: Kind,
        /// Its name.
        name: Text,
        /// Only if the entry was last changed at this index.
        cas: Option<u64>,
    },
    /// `/v1/query`. The identity of a new query is drawn by the node.
    Prepared(PreparedCommand),
    /// `/v1/connect/intentions`. The identity of a new intention is drawn by the node.
    Intention(IntentionCommand),
}

/// What a client wants of a new session; validated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// For people.
    pub name: Text,
    /// The node it belongs to.
    pub node: Text,
    /// Lock-delay.
    pub lock_delay: Duration,
    /// What happens to its keys.
    pub behavior: SessionBehavior,
    /// The TTL as it was written, and parsed. Zero, as in `0s`, is kept as written and never ends the session.
    pub ttl: Option<(Text, Duration)>,
    /// Checks of the node.
    pub node_checks: Vec<Text>,
    /// Checks of services.
    pub service_checks: Option<Vec<Text>>,
    /// Further checks of either kind (`Checks`, which the two before it replaced).
    pub checks: Vec<Text>,
}

/// A rendered reply. Headers that every reply has are the adapter's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpReply {
    /// Status code.
    pub status: u16,
    /// Content type.
    pub content_type: ContentType,
    /// Index and leader headers, for reads of the replicated state.
    pub meta: Option<QueryMeta>,
    /// Further headers.
    pub headers: Vec<(Text, Text)>,
    /// The body.
    pub body: Bytes,
}

/// Content types in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentType {
    /// No body, no header.
    None,
    /// `application/json`
    Json,
    /// `text/plain; charset=utf-8`
    Text,
    /// `text/plain`: raw values.
    Raw,
    /// `text/html; charset=utf-8`: redirects.
    Html,
}

/// `X-Consul-Index`, `X-Consul-KnownLeader`, `X-Consul-LastContact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryMeta {
    /// Index of the result; zero only for transactions, whose answers tell none.
    pub index: u64,
    /// Whether the answering server knows a leader.
    pub known_leader: bool,
    /// The answer has everything that had been committed so many milliseconds ago: that is when the leader was heard to
    /// say what had been committed. Zero on a leader that has a quorum.
    pub last_contact_ms: u64,
}

impl QueryMeta {
    /// Milliseconds since a state had everything. If that is not known: as many as clients can take that count
    /// nanoseconds in 64 bits, about 292 years (as Consul says then).
    #[must_use]
    pub fn age_ms(as_of: Option<Mono>, now: Now) -> u64 {
        const UNKNOWN: u64 = i64::MAX as u64 / 1_000_000;
        let age = as_of.map(|as_of| u64::try_from(now.mono.since(as_of).as_millis()).unwrap_or(UNKNOWN));
        age.map_or(UNKNOWN, |age| age.min(UNKNOWN))
    }
}

impl HttpReply {
    /// A reply without a body.
    #[must_use]
    pub fn empty(status: u16) -> HttpReply {
        HttpReply {
            status,
            content_type: ContentType::None,
            meta: None,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// A JSON reply.
    #[must_use]
    pub fn json(status: u16, body: impl Into<Bytes>) -> HttpReply {
        HttpReply {
            status,
            content_type: ContentType::Json,
            meta: None,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// A plain text reply: every error is one.
    #[must_use]
    pub fn text(status: u16, body: impl Into<Bytes>) -> HttpReply {
        HttpReply {
            status,
            content_type: ContentType::Text,
            meta: None,
            headers: Vec::new(),
            body: body.into(),
        }
    }
}
