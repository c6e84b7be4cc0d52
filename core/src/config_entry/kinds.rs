//! The kinds of configuration entries of the community edition, and their fields.
//!
//! Source: Consul's documentation, «Configuration entry reference», one page for each kind.

use serde::{Deserialize, Serialize};

use super::schema::Type::{
    Duration, Flag, Free, Integer, Integers, List, Map, Option, Struct, Text, TextMap, Texts, Weight, Word,
};
use super::schema::{Field, always, field};

/// What an entry is about. The order is format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// `service-defaults`
    ServiceDefaults,
    /// `proxy-defaults`
    ProxyDefaults,
    /// `service-router`
    ServiceRouter,
    /// `service-splitter`
    ServiceSplitter,
    /// `service-resolver`
    ServiceResolver,
    /// `ingress-gateway`
    IngressGateway,
    /// `terminating-gateway`
    TerminatingGateway,
    /// `service-intentions`
    ServiceIntentions,
    /// `mesh`
    Mesh,
    /// `exported-services`
    ExportedServices,
    /// `api-gateway`
    ApiGateway,
    /// `bound-api-gateway`: what Consul derives from routes; nobody writes it.
    BoundApiGateway,
    /// `http-route`
    HttpRoute,
    /// `tcp-route`
    TcpRoute,
    /// `inline-certificate`
    InlineCertificate,
    /// `file-system-certificate`
    FileSystemCertificate,
    /// `jwt-provider`
    JwtProvider,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Kind; 17] = [
        Kind::ServiceDefaults,
        Kind::ProxyDefaults,
        Kind::ServiceRouter,
        Kind::ServiceSplitter,
        Kind::ServiceResolver,
        Kind::IngressGateway,
        Kind::TerminatingGateway,
        Kind::ServiceIntentions,
        Kind::Mesh,
        Kind::ExportedServices,
        Kind::ApiGateway,
        Kind::BoundApiGateway,
        Kind::HttpRoute,
        Kind::TcpRoute,
        Kind::InlineCertificate,
        Kind::FileSystemCertificate,
        Kind::JwtProvider,
    ];

    /// Its name in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ServiceDefaults => "service-defaults",
            Kind::ProxyDefaults => "proxy-defaults",
            Kind::ServiceRouter => "service-router",
            Kind::ServiceSplitter => "service-splitter",
            Kind::ServiceResolver => "service-resolver",
            Kind::IngressGateway => "ingress-gateway",
            Kind::TerminatingGateway => "terminating-gateway",
            Kind::ServiceIntentions => "service-intentions",
            Kind::Mesh => "mesh",
            Kind::ExportedServices => "exported-services",
            Kind::ApiGateway => "api-gateway",
            Kind::BoundApiGateway => "bound-api-gateway",
            Kind::HttpRoute => "http-route",
            Kind::TcpRoute => "tcp-route",
            Kind::InlineCertificate => "inline-certificate",
            Kind::FileSystemCertificate => "file-system-certificate",
            Kind::JwtProvider => "jwt-provider",
        }
    }

    /// Reads a name; `None` for what is no kind of the community edition.
    #[must_use]
    pub fn parse(name: &str) -> std::option::Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether it takes part in how the traffic of services is routed.
    #[must_use]
    pub fn routes(self) -> bool {
        matches!(
            self,
            Kind::ServiceDefaults
                | Kind::ProxyDefaults
                | Kind::ServiceRouter
                | Kind::ServiceSplitter
                | Kind::ServiceResolver
        )
    }

    /// The fields besides `Kind`, `Name`, `CreateIndex` and `ModifyIndex`.
    pub(super) fn fields(self) -> &'static [Field] {
        match self {
            Kind::ServiceDefaults => SERVICE_DEFAULTS,
            Kind::ProxyDefaults => PROXY_DEFAULTS,
            Kind::ServiceRouter => SERVICE_ROUTER,
            Kind::ServiceSplitter => SERVICE_SPLITTER,
            Kind::ServiceResolver => SERVICE_RESOLVER,
            Kind::IngressGateway => INGRESS_GATEWAY,
            Kind::TerminatingGateway => TERMINATING_GATEWAY,
            Kind::ServiceIntentions => SERVICE_INTENTIONS,
            Kind::Mesh => MESH,
            Kind::ExportedServices => EXPORTED_SERVICES,
            Kind::ApiGateway => API_GATEWAY,
            Kind::BoundApiGateway => &[],
            Kind::HttpRoute => HTTP_ROUTE,
            Kind::TcpRoute => TCP_ROUTE,
            Kind::InlineCertificate | Kind::FileSystemCertificate => CERTIFICATE,
            Kind::JwtProvider => JWT_PROVIDER,
        }
    }
}

const META: Field = field("Meta", TextMap);

const MESH_GATEWAY: &[Field] = &[field("Mode", Text)];

const EXPOSE: &[Field] = &[
    field("Checks", Flag),
    field(
        "Paths",
        List(&[
            field("ListenerPort", Integer),
            field("Path", Text),
            field("LocalPathPort", Integer),
            field("Protocol", Text),
            always("ParsedFromCheck", Flag),
        ]),
    ),
];

const TRANSPARENT_PROXY: &[Field] = &[field("OutboundListenerPort", Integer), field("DialedDirectly", Flag)];

const ENVOY_EXTENSIONS: &[Field] = &[
    always("Name", Text),
    always("Required", Flag),
    always("Arguments", Free),
    field("ConsulVersion", Text),
    field("EnvoyVersion", Text),
];

const PASSIVE_HEALTH_CHECK: &[Field] = &[
    field("Interval", Duration),
    field("MaxFailures", Integer),
    field("EnforcingConsecutive5xx", Integer),
    field("MaxEjectionPercent", Integer),
    field("BaseEjectionTime", Duration),
];

const UPSTREAM: &[Field] = &[
    field("Name", Text),
    field("Namespace", Text),
    field("Partition", Text),
    field("Peer", Text),
    field("EnvoyListenerJSON", Text),
    field("EnvoyClusterJSON", Text),
    field("Protocol", Word),
    field("ConnectTimeoutMs", Integer),
    field(
        "Limits",
        Option(&[
            field("MaxConnections", Integer),
            field("MaxPendingRequests", Integer),
            field("MaxConcurrentRequests", Integer),
        ]),
    ),
    field("PassiveHealthCheck", Option(PASSIVE_HEALTH_CHECK)),
    field("MeshGateway", Struct(MESH_GATEWAY)),
    field("BalanceOutboundConnections", Text),
];

const RATE: &[Field] = &[
    always("RequestsPerSecond", Integer),
    always("RequestsMaxBurst", Integer),
    field(
        "Routes",
        List(&[
            field("PathExact", Text),
            field("PathPrefix", Text),
            field("PathRegex", Text),
            always("RequestsPerSecond", Integer),
            always("RequestsMaxBurst", Integer),
        ]),
    ),
];

const SERVICE_DEFAULTS: &[Field] = &[
    always("Protocol", Word),
    field("Mode", Text),
    field("TransparentProxy", Option(TRANSPARENT_PROXY)),
    field("MutualTLSMode", Text),
    field("MeshGateway", Struct(MESH_GATEWAY)),
    field("Expose", Struct(EXPOSE)),
    field("ExternalSNI", Text),
    field(
        "UpstreamConfig",
        Option(&[field("Overrides", List(UPSTREAM)), field("Defaults", Option(UPSTREAM))]),
    ),
    field("Destination", Option(&[always("Addresses", Texts), always("Port", Integer)])),
    field("MaxInboundConnections", Integer),
    field("LocalConnectTimeoutMs", Integer),
    field("LocalRequestTimeoutMs", Integer),
    field("BalanceInboundConnections", Text),
    field("RateLimits", Option(&[field("InstanceLevel", Option(RATE))])),
    field("EnvoyExtensions", List(ENVOY_EXTENSIONS)),
    META,
];

const PROXY_DEFAULTS: &[Field] = &[
    always("Config", Free),
    field("Mode", Text),
    field("TransparentProxy", Option(TRANSPARENT_PROXY)),
    field("MutualTLSMode", Text),
    field("MeshGateway", Struct(MESH_GATEWAY)),
    field("Expose", Struct(EXPOSE)),
    field(
        "AccessLogs",
        Option(&[
            field("Enabled", Flag),
            field("DisableListenerLogs", Flag),
            field("Type", Text),
            field("Path", Text),
            field("JSONFormat", Text),
            field("TextFormat", Text),
        ]),
    ),
    field("EnvoyExtensions", List(ENVOY_EXTENSIONS)),
    field("FailoverPolicy", Option(FAILOVER_POLICY)),
    field("PrioritizeByLocality", Option(MESH_GATEWAY)),
    META,
];

const FAILOVER_POLICY: &[Field] = &[field("Mode", Text), field("Regions", Texts)];

const HEADER_CHANGES: &[Field] = &[field("Add", TextMap), field("Set", TextMap), field("Remove", Texts)];

const HEADER_MATCH: &[Field] = &[
    always("Name", Text),
    field("Present", Flag),
    field("Exact", Text),
    field("Prefix", Text),
    field("Suffix", Text),
    field("Contains", Text),
    field("Regex", Text),
    field("IgnoreCase", Flag),
    field("Invert", Flag),
];

const ROUTE_MATCH: &[Field] = &[
    field("PathExact", Text),
    field("PathPrefix", Text),
    field("PathRegex", Text),
    field("CaseInsensitive", Flag),
    field("Header", List(HEADER_MATCH)),
    field(
        "QueryParam",
        List(&[always("Name", Text), field("Present", Flag), field("Exact", Text), field("Regex", Text)]),
    ),
    field("Methods", Texts),
];

const ROUTE_DESTINATION: &[Field] = &[
    field("RequestTimeout", Duration),
    field("IdleTimeout", Duration),
    field("Service", Text),
    field("ServiceSubset", Text),
    field("Namespace", Text),
    field("Partition", Text),
    field("PrefixRewrite", Text),
    field("NumRetries", Integer),
    field("RetryOnConnectFailure", Flag),
    field("RetryOn", Texts),
    field("RetryOnStatusCodes", Integers),
    field("RequestHeaders", Option(HEADER_CHANGES)),
    field("ResponseHeaders", Option(HEADER_CHANGES)),
];

const SERVICE_ROUTER: &[Field] = &[
    always(
        "Routes",
        List(&[
            field("Match", Option(&[field("HTTP", Option(ROUTE_MATCH))])),
            field("Destination", Option(ROUTE_DESTINATION)),
        ]),
    ),
    META,
];

const SERVICE_SPLITTER: &[Field] = &[
    always(
        "Splits",
        List(&[
            always("Weight", Weight),
            field("Service", Text),
            field("ServiceSubset", Text),
            field("Namespace", Text),
            field("Partition", Text),
            field("RequestHeaders", Option(HEADER_CHANGES)),
            field("ResponseHeaders", Option(HEADER_CHANGES)),
        ]),
    ),
    META,
];

const HASH_POLICY: &[Field] = &[
    field("Field", Text),
    field("FieldValue", Text),
    field("CookieConfig", Option(&[field("Session", Flag), field("TTL", Duration), field("Path", Text)])),
    field("SourceIP", Flag),
    field("Terminal", Flag),
];

const SERVICE_RESOLVER: &[Field] = &[
    field("ConnectTimeout", Duration),
    field("RequestTimeout", Duration),
    field("DefaultSubset", Text),
    field("Subsets", Map(&[field("Filter", Text), field("OnlyPassing", Flag)])),
    field(
        "Redirect",
        Option(&[
            field("Service", Text),
            field("ServiceSubset", Text),
            field("Namespace", Text),
            field("Partition", Text),
            field("Datacenter", Text),
            field("Peer", Text),
            field("SamenessGroup", Text),
        ]),
    ),
    field(
        "Failover",
        Map(&[
            field("Service", Text),
            field("ServiceSubset", Text),
            field("Namespace", Text),
            field("Datacenters", Texts),
            field(
                "Targets",
                List(&[
                    field("Service", Text),
                    field("ServiceSubset", Text),
                    field("Partition", Text),
                    field("Namespace", Text),
                    field("Datacenter", Text),
                    field("Peer", Text),
                ]),
            ),
            field("Policy", Option(FAILOVER_POLICY)),
            field("SamenessGroup", Text),
        ]),
    ),
    field(
        "LoadBalancer",
        Option(&[
            field("Policy", Text),
            field(
                "RingHashConfig",
                Option(&[field("MinimumRingSize", Integer), field("MaximumRingSize", Integer)]),
            ),
            field("LeastRequestConfig", Option(&[field("ChoiceCount", Integer)])),
            field("HashPolicies", List(HASH_POLICY)),
        ]),
    ),
    field("PrioritizeByLocality", Option(MESH_GATEWAY)),
    META,
];

const SDS: &[Field] = &[field("ClusterName", Text), field("CertResource", Text)];

const GATEWAY_TLS: &[Field] = &[
    always("Enabled", Flag),
    field("TLSMinVersion", Text),
    field("TLSMaxVersion", Text),
    field("CipherSuites", Texts),
    field("SDS", Option(SDS)),
];

const INGRESS_GATEWAY: &[Field] = &[
    field("TLS", Struct(GATEWAY_TLS)),
    always(
        "Listeners",
        List(&[
            always("Port", Integer),
            always("Protocol", Word),
            field("TLS", Option(GATEWAY_TLS)),
            always(
                "Services",
                List(&[
                    always("Name", Text),
                    always("Hosts", Texts),
                    field("Namespace", Text),
                    field("Partition", Text),
                    field("TLS", Option(&[field("SDS", Option(SDS))])),
                    field("RequestHeaders", Option(HEADER_CHANGES)),
                    field("ResponseHeaders", Option(HEADER_CHANGES)),
                    field("MaxConnections", Integer),
                    field("MaxPendingRequests", Integer),
                    field("MaxConcurrentRequests", Integer),
                    field("PassiveHealthCheck", Option(PASSIVE_HEALTH_CHECK)),
                ]),
            ),
        ]),
    ),
    field(
        "Defaults",
        Option(&[
            field("MaxConnections", Integer),
            field("MaxPendingRequests", Integer),
            field("MaxConcurrentRequests", Integer),
            field("PassiveHealthCheck", Option(PASSIVE_HEALTH_CHECK)),
        ]),
    ),
    META,
];

const TERMINATING_GATEWAY: &[Field] = &[
    always(
        "Services",
        List(&[
            field("Name", Text),
            field("Namespace", Text),
            field("CAFile", Text),
            field("CertFile", Text),
            field("KeyFile", Text),
            field("SNI", Text),
            field("DisableAutoHostRewrite", Flag),
        ]),
    ),
    META,
];

const INTENTION_JWT: &[Field] = &[field(
    "Providers",
    List(&[field("Name", Text), field("VerifyClaims", List(&[field("Path", Texts), field("Value", Text)]))]),
)];

/// The Raft indexes at which an intention with an identity of its own was made and changed.
pub(crate) const LEGACY_INDEXES: [&str; 2] = ["LegacyCreateIndex", "LegacyModifyIndex"];

const SERVICE_INTENTIONS: &[Field] = &[
    always(
        "Sources",
        List(&[
            always("Name", Text),
            field("Action", Text),
            field(
                "Permissions",
                List(&[
                    always("Action", Text),
                    field(
                        "HTTP",
                        Option(&[
                            field("PathExact", Text),
                            field("PathPrefix", Text),
                            field("PathRegex", Text),
                            field("Header", List(HEADER_MATCH)),
                            field("Methods", Texts),
                        ]),
                    ),
                    field("JWT", Option(INTENTION_JWT)),
                ]),
            ),
            always("Precedence", Integer),
            field("LegacyID", Text),
            always("Type", Text),
            field("Description", Text),
            field("LegacyMeta", TextMap),
            field("LegacyCreateTime", Text),
            field("LegacyUpdateTime", Text),
            // Kept for intentions with an identity of their own, and shown to nobody.
            field(LEGACY_INDEXES[0], Integer),
            field(LEGACY_INDEXES[1], Integer),
            field("Namespace", Text),
            field("Partition", Text),
            field("Peer", Text),
            field("SamenessGroup", Text),
        ]),
    ),
    field("JWT", Option(INTENTION_JWT)),
    META,
];

const MESH_TLS: &[Field] =
    &[field("TLSMinVersion", Text), field("TLSMaxVersion", Text), field("CipherSuites", Texts)];

const MESH: &[Field] = &[
    field("TransparentProxy", Struct(&[always("MeshDestinationsOnly", Flag)])),
    field("AllowEnablingPermissiveMutualTLS", Flag),
    field("TLS", Option(&[field("Incoming", Option(MESH_TLS)), field("Outgoing", Option(MESH_TLS))])),
    field(
        "HTTP",
        Option(&[
            always("SanitizeXForwardedClientCert", Flag),
            field(
                "Incoming",
                Option(&[field(
                    "RequestNormalization",
                    Option(&[
                        field("InsecureDisablePathNormalization", Flag),
                        field("MergeSlashes", Flag),
                        field("PathWithEscapedSlashesAction", Text),
                        field("HeadersWithUnderscoresAction", Text),
                    ]),
                )]),
            ),
        ]),
    ),
    field("Peering", Option(&[field("PeerThroughMeshGateways", Flag)])),
    field("ValidateClusters", Flag),
    META,
];

const EXPORTED_SERVICES: &[Field] = &[
    field(
        "Services",
        List(&[
            always("Name", Text),
            field("Namespace", Text),
            field(
                "Consumers",
                List(&[field("Partition", Text), field("Peer", Text), field("SamenessGroup", Text)]),
            ),
        ]),
    ),
    META,
];

const REFERENCE: &[Field] = &[
    always("Kind", Text),
    always("Name", Text),
    always("SectionName", Text),
    field("Namespace", Text),
    field("Partition", Text),
];

const JWT_REQUIREMENT: &[Field] = &[always(
    "Providers",
    List(&[always("Name", Text), field("VerifyClaims", List(&[field("Path", Texts), field("Value", Text)]))]),
)];

const API_GATEWAY: &[Field] = &[
    always(
        "Listeners",
        List(&[
            always("Name", Text),
            always("Hostname", Text),
            always("Port", Integer),
            always("Protocol", Word),
            field(
                "TLS",
                Struct(&[
                    always("Certificates", List(REFERENCE)),
                    always("MaxVersion", Text),
                    always("MinVersion", Text),
                    always("CipherSuites", Texts),
                ]),
            ),
            field("Override", Option(&[field("JWT", Option(JWT_REQUIREMENT))])),
            field("Default", Option(&[field("JWT", Option(JWT_REQUIREMENT))])),
        ]),
    ),
    field("Status", Struct(STATUS)),
    META,
];

/// What Consul's controller reports; accepted when an entry that was read is written back.
const STATUS: &[Field] = &[always("Conditions", List(CONDITION))];

const CONDITION: &[Field] = &[
    field("Type", Text),
    field("Status", Text),
    field("Reason", Text),
    field("Message", Text),
    field("Resource", Option(REFERENCE)),
    field("LastTransitionTime", Text),
];

const HTTP_FILTERS: &[Field] = &[
    always("Headers", List(&[always("Add", TextMap), always("Remove", Texts), always("Set", TextMap)])),
    always("URLRewrite", Option(&[always("Path", Text)])),
    field(
        "RetryFilter",
        Option(&[
            always("NumRetries", Integer),
            always("RetryOn", Texts),
            always("RetryOnStatusCodes", Integers),
            always("RetryOnConnectFailure", Flag),
        ]),
    ),
    field("TimeoutFilter", Option(&[field("RequestTimeout", Duration), field("IdleTimeout", Duration)])),
    field("JWT", Option(JWT_REQUIREMENT)),
];

const HTTP_RESPONSE_FILTERS: &[Field] =
    &[always("Headers", List(&[always("Add", TextMap), always("Remove", Texts), always("Set", TextMap)]))];

const HTTP_ROUTE: &[Field] = &[
    always("Parents", List(REFERENCE)),
    always(
        "Rules",
        List(&[
            field("Filters", Struct(HTTP_FILTERS)),
            field("ResponseFilters", Option(HTTP_RESPONSE_FILTERS)),
            always(
                "Matches",
                List(&[
                    always(
                        "Headers",
                        List(&[always("Match", Text), always("Name", Text), always("Value", Text)]),
                    ),
                    always("Method", Text),
                    field("Path", Struct(&[always("Match", Text), always("Value", Text)])),
                    always(
                        "Query",
                        List(&[always("Match", Text), always("Name", Text), always("Value", Text)]),
                    ),
                ]),
            ),
            always(
                "Services",
                List(&[
                    always("Name", Text),
                    always("Weight", Integer),
                    field("Filters", Struct(HTTP_FILTERS)),
                    field("ResponseFilters", Option(HTTP_RESPONSE_FILTERS)),
                    field("Namespace", Text),
                    field("Partition", Text),
                ]),
            ),
        ]),
    ),
    always("Hostnames", Texts),
    field("Status", Struct(STATUS)),
    META,
];

const TCP_ROUTE: &[Field] = &[
    always("Parents", List(REFERENCE)),
    always("Services", List(&[always("Name", Text), field("Namespace", Text), field("Partition", Text)])),
    field("Status", Struct(STATUS)),
    META,
];

const CERTIFICATE: &[Field] = &[always("Certificate", Text), always("PrivateKey", Text), META];

const JWT_PROVIDER: &[Field] = &[
    field("JSONWebKeySet", Option(JWKS)),
    field("Issuer", Text),
    field("Audiences", Texts),
    field(
        "Locations",
        List(&[
            field(
                "Header",
                Option(&[field("Name", Text), field("ValuePrefix", Text), field("Forward", Flag)]),
            ),
            field("QueryParam", Option(&[field("Name", Text)])),
            field("Cookie", Option(&[field("Name", Text)])),
        ]),
    ),
    field("Forwarding", Option(&[field("HeaderName", Text), field("PadForwardPayloadHeader", Flag)])),
    field("ClockSkewSeconds", Integer),
    field("CacheConfig", Option(&[field("Size", Integer)])),
    META,
];

const JWKS: &[Field] = &[
    field("Local", Option(&[field("JWKS", Text), field("Filename", Text)])),
    field(
        "Remote",
        Option(&[
            field("URI", Text),
            field("RequestTimeoutMs", Integer),
            field("CacheDuration", Duration),
            field("FetchAsynchronously", Flag),
            field(
                "RetryPolicy",
                Option(&[
                    field("NumRetries", Integer),
                    field(
                        "RetryPolicyBackOff",
                        Option(&[field("BaseInterval", Duration), field("MaxInterval", Duration)]),
                    ),
                ]),
            ),
            field(
                "JWKSCluster",
                Option(&[
                    field("DiscoveryType", Text),
                    field(
                        "TLSCertificates",
                        Option(&[
                            field(
                                "CaCertificateProviderInstance",
                                Option(&[field("InstanceName", Text), field("CertificateName", Text)]),
                            ),
                            field(
                                "TrustedCA",
                                Option(&[
                                    field("Filename", Text),
                                    field("EnvironmentVariable", Text),
                                    field("InlineString", Text),
                                    field("InlineBytes", Text),
                                ]),
                            ),
                        ]),
                    ),
                    field("ConnectTimeout", Duration),
                ]),
            ),
        ]),
    ),
];
