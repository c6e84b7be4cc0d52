//! The rows of the store, as they are replicated, kept and checkpointed.
//!
//! Every row carries the Raft index that made it and the one that last changed it, which clients know as
//! `CreateIndex` and `ModifyIndex`. Rows are postcard-encoded: field order is format.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Text;
use crate::ids::Uuid;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvEntry {
    /// The whole key; slashes have no meaning but the one that readers give them.
    pub key: Text,
    /// Opaque.
    pub value: Bytes,
    /// Opaque to the store; client libraries mark their locks with it.
    pub flags: u64,
    /// How often the key has been locked. With key and session a fencing number.
    pub lock_index: u64,
    /// The session that holds the lock.
    pub session: Option<Uuid>,
    /// Raft index of creation.
    pub create_index: u64,
    /// Raft index of the last change.
    pub modify_index: u64,
}

/// A node of the catalog: an agent's host, or something external that was registered by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The agent's identity; `None` for external nodes.
    pub id: Option<Uuid>,
    /// Name as registered. Looked up without regard to letter case.
    pub name: Text,
    /// Address that discovery answers with.
    pub address: Text,
    /// The datacenter that the node belongs to.
    pub datacenter: Text,
    /// Further addresses by tag (`lan`, `wan`, `lan_ipv4` …).
    pub tagged_addresses: BTreeMap<Text, Text>,
    /// Free-form metadata.
    pub meta: BTreeMap<Text, Text>,
    /// Raft index of creation.
    pub create_index: u64,
    /// Raft index of the last change.
    pub modify_index: u64,
}

/// An address with a port, as services have them per network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// IP address or name.
    pub address: Text,
    /// Port.
    pub port: u16,
}

/// DNS SRV weights by health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// Weight while all checks pass.
    pub passing: u32,
    /// Weight while the worst check warns.
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Weights { passing: 1, warning: 1 }
    }
}

/// What a service instance is (the `Kind` of the HTTP API).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ServiceKind {
    /// An ordinary service: the empty string on the wire.
    #[default]
    Typical,
    /// `connect-proxy`
    ConnectProxy,
    /// `mesh-gateway`
    MeshGateway,
    /// `terminating-gateway`
    TerminatingGateway,
    /// `ingress-gateway`
    IngressGateway,
}

impl ServiceKind {
    const ALL: [ServiceKind; 5] = [
        ServiceKind::Typical,
        ServiceKind::ConnectProxy,
        ServiceKind::MeshGateway,
        ServiceKind::TerminatingGateway,
        ServiceKind::IngressGateway,
    ];

    /// How the kind is called; an ordinary service has no name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceKind::Typical => "",
            ServiceKind::ConnectProxy => "connect-proxy",
            ServiceKind::MeshGateway => "mesh-gateway",
            ServiceKind::TerminatingGateway => "terminating-gateway",
            ServiceKind::IngressGateway => "ingress-gateway",
        }
    }

    /// The kind that is called so.
    #[must_use]
    pub fn parse(name: &str) -> Option<ServiceKind> {
        ServiceKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One instance of a service on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What it is.
    pub kind: ServiceKind,
    /// Identity within the node.
    pub id: Text,
    /// Name of the service. Looked up without regard to letter case.
    pub service: Text,
    /// Tags in the order given.
    pub tags: Vec<Text>,
    /// Own address; empty means the node's.
    pub address: Text,
    /// Further addresses by tag (`lan`, `wan`, `virtual` …).
    pub tagged_addresses: BTreeMap<Text, ServiceAddress>,
    /// Free-form metadata.
    pub meta: BTreeMap<Text, Text>,
    /// Port; zero when it has none.
    pub port: u16,
    /// DNS weights.
    pub weights: Weights,
    /// Whether the catalog's tags win over the owning agent's at anti-entropy.
    pub enable_tag_override: bool,
    /// The proxy part of a registration as canonical JSON; empty when there is none.
    pub proxy: Text,
    /// Whether the service speaks the mesh protocol itself.
    pub connect_native: bool,
    /// Raft index of creation. Zero in an agent's local state.
    pub create_index: u64,
    /// Raft index of the last change. Zero in an agent's local state.
    pub modify_index: u64,
}

/// State of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Health {
    /// All is well.
    Passing,
    /// Degraded, still discoverable.
    Warning,
    /// Out of discovery.
    #[default]
    Critical,
}

impl Health {
    /// As the HTTP API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Passing => "passing",
            Health::Warning => "warning",
            Health::Critical => "critical",
        }
    }

    /// Reads the HTTP API's word. `None` for anything but `passing`, `warning` and `critical`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Health> {
        match word {
            "passing" => Some(Health::Passing),
            "warning" => Some(Health::Warning),
            "critical" => Some(Health::Critical),
            _ => None,
        }
    }
}

/// What the catalog knows about how a check is run; shown to clients, never acted on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDefinition {
    /// URL of an HTTP check.
    pub http: Text,
    /// Headers of an HTTP check.
    pub header: BTreeMap<Text, Vec<Text>>,
    /// Method of an HTTP check.
    pub method: Text,
    /// Body of an HTTP check.
    pub body: Text,
    /// Whether certificates are not verified.
    pub tls_skip_verify: bool,
    /// `host:port` of a TCP check.
    pub tcp: Text,
    /// Time between two runs.
    pub interval: Option<Duration>,
    /// Limit of one run.
    pub timeout: Option<Duration>,
    /// How long a check may be critical before its service is removed.
    pub deregister_critical_service_after: Option<Duration>,
}

/// A check of a node, or of one service instance on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Name of the node.
    pub node: Text,
    /// Identity within the node.
    pub id: Text,
    /// For people.
    pub name: Text,
    /// Current state.
    pub status: Health,
    /// For people.
    pub notes: Text,
    /// What the last run said.
    pub output: Text,
    /// The instance that the check is about; empty for a check of the node.
    pub service_id: Text,
    /// Name of that instance's service, filled in by the store.
    pub service_name: Text,
    /// Tags of that instance, filled in by the store.
    pub service_tags: Vec<Text>,
    /// `ttl`, `http`, `tcp`, `script` …; empty for checks that nobody runs.
    pub kind: Text,
    /// Time between two runs as it was written (Consul's `Interval`, e.g. `10s`); empty when there is none.
    pub interval: Text,
    /// Limit of one run as it was written; empty when there is none.
    pub timeout: Text,
    /// How it is run.
    pub definition: CheckDefinition,
    /// Raft index of creation. Zero in an agent's local state.
    pub create_index: u64,
    /// Raft index of the last change. Zero in an agent's local state.
    pub modify_index: u64,
}

/// What happens to a session's locks when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionBehavior {
    /// The lock is given up, the key stays.
    #[default]
    Release,
    /// The key is deleted.
    Delete,
}

/// A check of a service that a session depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceCheck {
    /// The check's id on the session's node.
    pub id: Text,
}

/// A session: what locks are held by, for as long as its node, its checks and its TTL allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Identity.
    pub id: Uuid,
    /// For people.
    pub name: Text,
    /// The node that it dies with.
    pub node: Text,
    /// How long its keys cannot be locked after it was invalidated (Chubby, section 2.4).
    pub lock_delay: Duration,
    /// What happens to its keys.
    pub behavior: SessionBehavior,
    /// The TTL as it was written (`10s`); empty when there is none.
    pub ttl: Text,
    /// The same, parsed.
    pub ttl_parsed: Option<Duration>,
    /// Checks of the node that it depends on.
    pub node_checks: Vec<Text>,
    /// Checks of services that it depends on; `None` is written as null, an empty list as `[]`.
    pub service_checks: Option<Vec<ServiceCheck>>,
    /// Further checks that it depends on, of the node or of services: the field that the two before it replaced.
    pub checks: Vec<Text>,
    /// Raft index of creation.
    pub create_index: u64,
    /// Raft index of the last change.
    pub modify_index: u64,
}
