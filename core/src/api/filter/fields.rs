//! The fields of rows that expressions may speak of, by the names that the API shows.

use crate::store::query::Query;

/// The fields of rows of one kind.
pub(crate) type Fields = &'static [(&'static str, Type)];

/// What a field holds.
#[derive(Debug)]
pub(crate) enum Type {
    /// A string.
    Text,
    /// A whole number.
    Number,
    /// True or false.
    Flag,
    /// A list of strings.
    Texts,
    /// Strings by name.
    TextMap,
    /// Values by name.
    Map(&'static Type),
    /// Fields.
    Struct(Fields),
    /// A list of rows.
    List(Fields),
}

use Type::{Flag, List, Map, Number, Struct, Text, TextMap, Texts};

/// A node of the catalog.
const NODE: Fields = &[
    ("ID", Text),
    ("Node", Text),
    ("Address", Text),
    ("Datacenter", Text),
    ("TaggedAddresses", TextMap),
    ("Meta", TextMap),
];

/// A check.
pub(crate) const CHECK: Fields = &[
    ("Node", Text),
    ("CheckID", Text),
    ("Name", Text),
    ("Status", Text),
    ("Notes", Text),
    ("Output", Text),
    ("ServiceID", Text),
    ("ServiceName", Text),
    ("ServiceTags", Texts),
    ("Type", Text),
];

/// A service of a node, or of an agent.
pub(crate) const SERVICE: Fields = &[
    ("Kind", Text),
    ("ID", Text),
    ("Service", Text),
    ("Tags", Texts),
    ("Address", Text),
    ("TaggedAddresses", ADDRESSES),
    ("Meta", TextMap),
    ("Port", Number),
    ("Weights", WEIGHTS),
    ("EnableTagOverride", Flag),
    ("Proxy", PROXY),
    ("Connect", CONNECT),
];

/// An instance of a service with its node, as the catalog shows it.
const SERVICE_NODE: Fields = &[
    ("ID", Text),
    ("Node", Text),
    ("Address", Text),
    ("Datacenter", Text),
    ("TaggedAddresses", TextMap),
    ("NodeMeta", TextMap),
    ("ServiceKind", Text),
    ("ServiceID", Text),
    ("ServiceName", Text),
    ("ServiceTags", Texts),
    ("ServiceAddress", Text),
    ("ServiceTaggedAddresses", ADDRESSES),
    ("ServiceWeights", WEIGHTS),
    ("ServiceMeta", TextMap),
    ("ServicePort", Number),
    ("ServiceEnableTagOverride", Flag),
    ("ServiceProxy", PROXY),
    ("ServiceConnect", CONNECT),
];

/// An instance of a service with its node and its checks.
pub(super) const HEALTH: Fields =
    &[("Node", Struct(NODE)), ("Service", Struct(SERVICE)), ("Checks", List(CHECK))];

/// Where a node is.
const COORDINATE: Fields = &[("Node", Text), ("Segment", Text)];

/// A member of the cluster.
pub(crate) const MEMBER: Fields = &[
    ("Name", Text),
    ("Addr", Text),
    ("Port", Number),
    ("Tags", TextMap),
    ("Status", Number),
    ("ProtocolMin", Number),
    ("ProtocolMax", Number),
    ("ProtocolCur", Number),
    ("DelegateMin", Number),
    ("DelegateMax", Number),
    ("DelegateCur", Number),
];

const ADDRESSES: Type = Map(&Struct(&[("Address", Text), ("Port", Number)]));
const WEIGHTS: Type = Struct(&[("Passing", Number), ("Warning", Number)]);
const CONNECT: Type = Struct(&[("Native", Flag)]);
const MESH_GATEWAY: Type = Struct(&[("Mode", Text)]);

const PROXY: Type = Struct(&[
    ("DestinationServiceName", Text),
    ("DestinationServiceID", Text),
    ("LocalServiceAddress", Text),
    ("LocalServicePort", Number),
    ("Upstreams", UPSTREAMS),
    ("MeshGateway", MESH_GATEWAY),
    ("Expose", Struct(&[("Checks", Flag), ("Paths", PATHS)])),
]);

const UPSTREAMS: Type = List(&[
    ("DestinationType", Text),
    ("DestinationNamespace", Text),
    ("DestinationName", Text),
    ("Datacenter", Text),
    ("LocalBindAddress", Text),
    ("LocalBindPort", Number),
    ("MeshGateway", MESH_GATEWAY),
]);

const PATHS: Type =
    List(&[("ListenerPort", Number), ("Path", Text), ("LocalPathPort", Number), ("Protocol", Text)]);

/// A configuration entry: what entries of most kinds have.
const CONFIG_ENTRY: Fields = &[
    ("Kind", Text),
    ("Name", Text),
    ("Protocol", Text),
    ("ExternalSNI", Text),
    ("DefaultSubset", Text),
    ("MeshGateway", MESH_GATEWAY),
    ("Meta", TextMap),
];

/// An intention.
const INTENTION: Fields = &[
    ("ID", Text),
    ("Description", Text),
    ("SourceNS", Text),
    ("SourceName", Text),
    ("DestinationNS", Text),
    ("DestinationName", Text),
    ("SourceType", Text),
    ("Action", Text),
    ("Meta", TextMap),
    ("Precedence", Number),
];

/// The fields of what a query finds; `None` when it cannot be filtered.
pub(crate) fn of_query(query: &Query) -> Option<Fields> {
    match query {
        Query::Kv(_)
        | Query::KvTree(_)
        | Query::KvKeys { .. }
        | Query::Session(_)
        | Query::NodeSessions(_)
        | Query::Sessions
        | Query::Services { .. }
        | Query::Transaction(_)
        | Query::ConfigEntry { .. }
        | Query::DiscoveryChain { .. }
        | Query::GatewayServices(_)
        | Query::UiOverview
        | Query::UiGateway(_)
        | Query::UiTopology(_)
        | Query::State
        | Query::PreparedQueries
        | Query::PreparedQuery(_)
        | Query::Explain(_)
        | Query::Execute(_)
        | Query::ExecuteLent(_)
        | Query::Intention(_)
        | Query::ExactIntention { .. }
        | Query::MatchIntentions { .. }
        | Query::CheckIntention { .. }
        | Query::AuthorizeConnect { .. }
        | Query::UiGatewayIntentions(_) => None,
        Query::Intentions => Some(INTENTION),
        Query::Coordinates | Query::NodeCoordinates(_) => Some(COORDINATE),
        Query::ConfigEntries(_) => Some(CONFIG_ENTRY),
        Query::Nodes { .. } | Query::UiNodes(_) => Some(NODE),
        Query::ServiceNodes(_) => Some(SERVICE_NODE),
        Query::Node(_) => Some(SERVICE),
        Query::NodeChecks(_) | Query::ServiceChecks { .. } | Query::ChecksInState { .. } => Some(CHECK),
        Query::ServiceHealth { .. } | Query::IngressHealth { .. } | Query::UiServices => Some(HEALTH),
    }
}
