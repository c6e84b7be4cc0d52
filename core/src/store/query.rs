//! What may be read: queries, and what they depend on.

use serde::{Deserialize, Serialize};

use super::intentions::Side;
use super::model::Health;
use super::prepared::{Execute, Lent};
use super::transaction::Lookup;
use crate::Text;
use crate::config_entry::{Kind, Overrides};
use crate::ids::Uuid;

/// A read of the replicated state. Equal queries are evaluated and rendered once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Query {
    /// One key.
    Kv(Text),
    /// Every entry under a prefix, in byte order.
    KvTree(Text),
    /// The keys under a prefix, cut after the first separator that follows it (empty: not cut).
    KvKeys {
        /// Prefix.
        prefix: Text,
        /// Separator.
        separator: Text,
    },
    /// One session.
    Session(Uuid),
    /// The sessions of a node.
    NodeSessions(Text),
    /// All sessions.
    Sessions,
    /// All nodes with this metadata.
    Nodes {
        /// Pairs that must all match.
        meta: Vec<(Text, Text)>,
    },
    /// Names of all services with their tags, on nodes with this metadata.
    Services {
        /// Pairs that must all match.
        meta: Vec<(Text, Text)>,
    },
    /// The instances of one service with their nodes (`/v1/catalog/service`).
    ServiceNodes(ServiceSelector),
    /// One node with its services (`/v1/catalog/node`).
    Node(Text),
    /// The checks of one node (`/v1/health/node`).
    NodeChecks(Text),
    /// The checks of one service's instances (`/v1/health/checks`).
    ServiceChecks {
        /// Service name.
        service: Text,
        /// Pairs that the node must match.
        meta: Vec<(Text, Text)>,
    },
    /// The instances of one service with their nodes and checks (`/v1/health/service`, DNS).
    ServiceHealth {
        /// Which instances.
        select: ServiceSelector,
        /// Only instances all of whose checks, and whose node's checks, pass.
        passing: bool,
    },
    /// Checks by state; `None` is any (`/v1/health/state`).
    ChecksInState {
        /// State.
        state: Option<Health>,
        /// Pairs that the node must match.
        meta: Vec<(Text, Text)>,
    },
    /// The coordinates of all nodes (`/v1/coordinate/nodes`).
    Coordinates,
    /// The coordinate of one node (`/v1/coordinate/node`).
    NodeCoordinates(Text),
    /// A transaction that only reads (`/v1/txn`); has no index.
    Transaction(Vec<Lookup>),
    /// The whole state, to be saved (`/v1/snapshot`); its rows are walked apart from the answer.
    State,
    /// One configuration entry (`/v1/config/:kind/:name`).
    ConfigEntry {
        /// What it is about.
        kind: Kind,
        /// Its name, without regard to letter case.
        name: Text,
    },
    /// The configuration entries of a kind; `None`: all (`/v1/config/:kind`).
    ConfigEntries(Option<Kind>),
    /// All prepared queries (`/v1/query`).
    PreparedQueries,
    /// One prepared query.
    PreparedQuery(Uuid),
    /// The prepared query that a name stands for, filled in if it is a template (`/v1/query/:name/explain`); has no
    /// index.
    Explain(Text),
    /// What a prepared query finds (`/v1/query/:name/execute`); has no index.
    Execute(Box<Execute>),
    /// Where the traffic for a service goes (`/v1/discovery-chain`).
    DiscoveryChain {
        /// The service.
        service: Text,
        /// The datacenter that the traffic comes from.
        datacenter: Text,
        /// What the client would have instead of what entries say.
        overrides: Box<Overrides>,
    },
    /// The services that a gateway is for (`/v1/catalog/gateway-services`).
    GatewayServices(Text),
    /// The instances of gateways that let traffic in for a service (`/v1/health/ingress`).
    IngressHealth {
        /// The service.
        service: Text,
        /// Only instances all of whose checks, and whose node's checks, pass.
        passing: bool,
    },
    /// All nodes, or one, with everything on them (`/v1/internal/ui/nodes`).
    UiNodes(Option<Text>),
    /// A summary of every service (`/v1/internal/ui/services`).
    UiServices,
    /// How many nodes, instances and checks are in which state (`/v1/internal/ui/catalog-overview`).
    UiOverview,
    /// A summary of every service of a gateway (`/v1/internal/ui/gateway-services-nodes`).
    UiGateway(Text),
    /// The services around a service (`/v1/internal/ui/service-topology`).
    UiTopology(Text),
    /// All intentions (`/v1/connect/intentions`).
    Intentions,
    /// The intention that was made under an identity.
    Intention(Uuid),
    /// The intention for a pair of services (`/v1/connect/intentions/exact`).
    ExactIntention {
        /// The service that speaks.
        source: Text,
        /// The service that is spoken to.
        destination: Text,
    },
    /// The intentions that concern these services on one side (`/v1/connect/intentions/match`).
    MatchIntentions {
        /// Which side.
        side: Side,
        /// What each is called in the answer, and its name.
        names: Vec<(Text, Text)>,
    },
    /// Whether one service may speak to another (`/v1/connect/intentions/check`).
    CheckIntention {
        /// The service that speaks.
        source: Text,
        /// The service that is spoken to.
        destination: Text,
    },
    /// The intentions that concern the services of a gateway (`/v1/internal/ui/gateway-intentions`).
    UiGatewayIntentions(Text),
    /// Whether one service may open a connection to another, and why (`/v1/agent/connect/authorize`).
    AuthorizeConnect {
        /// The service that speaks.
        source: Text,
        /// The service that is spoken to.
        destination: Text,
    },
    /// What a prepared query of another datacenter finds here; has no index.
    ExecuteLent(Box<Lent>),
}

/// Which instances of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceSelector {
    /// Name, without regard to letter case.
    pub service: Text,
    /// Tags that must all be there, without regard to letter case.
    pub tags: Vec<Text>,
    /// Pairs that the node's metadata must all match.
    pub node_meta: Vec<(Text, Text)>,
    /// Only instances that take mesh traffic for the service (`/v1/catalog/connect`, `/v1/health/connect`).
    pub connect: bool,
}

/// What a read looked at, or a commit touched. A parked read wakes when one of its keys is touched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchKey {
    /// One KV key, present or not.
    Kv(Text),
    /// Everything under a KV prefix. Only looked at; a commit touches keys.
    KvPrefix(Text),
    /// One session.
    Session(Uuid),
    /// The sessions of one node (lower-case name).
    NodeSessions(Text),
    /// The set of sessions.
    Sessions,
    /// The set of nodes or any node's own row.
    Nodes,
    /// One node: its row, its services, its checks (lower-case name).
    Node(Text),
    /// The set of service names and their tags.
    Services,
    /// One service: its instances, their nodes, their checks and their nodes' checks (lower-case name).
    Service(Text),
    /// The instances that take mesh traffic for one service, likewise (lower-case name).
    ServiceConnect(Text),
    /// Any check.
    Checks,
    /// The coordinate of any node.
    Coordinates,
    /// The coordinate of one node (lower-case name).
    NodeCoordinates(Text),
    /// One configuration entry (its name in lower case).
    ConfigEntry(Kind, Text),
    /// Any configuration entry of a kind.
    ConfigKind(Kind),
    /// Any configuration entry.
    ConfigEntries,
    /// Any prepared query.
    PreparedQueries,
    /// One prepared query.
    PreparedQuery(Uuid),
    /// Everything: a snapshot was restored.
    All,
}
