//! Discovery chains: where the traffic for a service goes, by its router, splitters and resolvers.
//!
//! Source: Consul's documentation, «Discovery chain» and «Discovery chain internals».

mod compile;
mod target;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Doc, GLOBAL, Kind, free, schema};
use crate::Text;
use crate::api::render::json::Json;
use crate::duration;

pub(crate) use compile::compile;
pub(crate) use target::Target;

/// What a service speaks unless something else is said.
pub(crate) const TCP: &str = "tcp";

/// How long a connection attempt may take unless something else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The entries that a chain is made from.
pub(crate) trait Entries {
    /// The fields of an entry.
    fn fields(&self, kind: Kind, name: &str) -> Option<Doc<'_>>;
}

/// What a client would have instead of what the entries say; empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Overrides {
    /// Protocol.
    pub protocol: Text,
    /// Mode of mesh gateways.
    pub mesh_gateway: Text,
    /// Timeout of connection attempts; zero: none.
    pub connect_timeout: Duration,
}

impl Overrides {
    /// Reads the body of a request; what it does not know means nothing.
    ///
    /// # Errors
    /// What cannot be read, in Consul's words.
    pub(crate) fn parse(value: &Value) -> Result<Overrides, String> {
        let read = schema::read_known(OVERRIDES, value)?;
        let read = Doc(&read);
        let nanos = duration::parse(read.text("OverrideConnectTimeout")).unwrap_or(0);
        let mode = read.object("OverrideMeshGateway").map_or("", |gateway| gateway.text("Mode"));
        Ok(Overrides {
            protocol: read.text("OverrideProtocol").into(),
            mesh_gateway: if mode == "default" { "" } else { mode }.into(),
            connect_timeout: Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)),
        })
    }
}

const OVERRIDES: &[schema::Field] = &[
    schema::field("OverrideConnectTimeout", schema::Type::Duration),
    schema::field("OverrideProtocol", schema::Type::Word),
    schema::field("OverrideMeshGateway", schema::Type::Option(&[schema::field("Mode", schema::Type::Text)])),
];

/// For whom a chain is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) service: &'a str,
    /// The datacenter that the traffic comes from.
    pub(crate) datacenter: &'a str,
    /// The domain that the names of the mesh end with.
    pub(crate) trust_domain: &'a str,
    pub(crate) overrides: &'a Overrides,
}

/// A compiled chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    service: String,
    datacenter: String,
    /// Tells chains apart that differ by overrides; empty: none changed anything.
    customization: String,
    protocol: String,
    start: String,
    nodes: BTreeMap<String, Node>,
    targets: BTreeMap<String, Target>,
}

/// A step of a chain.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Router { name: String, routes: Vec<(Map<String, Value>, String)> },
    Splitter { name: String, splits: Vec<Split>, balancer: Option<Value> },
    Resolver(Resolver),
}

/// A share of the traffic.
#[derive(Clone, Debug, PartialEq)]
struct Split {
    weight: f64,
    definition: Map<String, Value>,
    next: String,
}

/// The end of a chain.
#[derive(Clone, Debug, PartialEq)]
struct Resolver {
    name: String,
    connect_timeout: Duration,
    request_timeout: String,
    /// No entry says anything about the service.
    default: bool,
    failover: Vec<String>,
    balancer: Option<Value>,
}

/// The protocol of a service, as its own entry or that of all services says.
pub(crate) fn protocol_of(entries: &impl Entries, service: &str) -> String {
    let own = entries.fields(Kind::ServiceDefaults, service).map_or("", |fields| fields.text("Protocol"));
    let global = entries
        .fields(Kind::ProxyDefaults, GLOBAL)
        .and_then(|fields| fields.object("Config"))
        .map_or("", |config| config.text("protocol"));
    [own, global].into_iter().find(|protocol| !protocol.is_empty()).unwrap_or(TCP).to_lowercase()
}

// Weights are finite numbers.
impl Eq for Chain {}

impl Chain {
    /// What the chain's service speaks.
    pub(crate) fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Writes the chain as the HTTP API shows it.
    pub(crate) fn write(&self, json: &mut Json) {
        json.open(b'{');
        for (key, value) in [
            ("ServiceName", self.service.as_str()),
            ("Namespace", "default"),
            ("Datacenter", &self.datacenter),
            ("CustomizationHash", &self.customization),
            ("Protocol", &self.protocol),
            ("StartNode", &self.start),
        ] {
            if !value.is_empty() {
                json.key(key);
                json.string(value);
            }
        }
        json.key("Nodes");
        json.open(b'{');
        for (id, node) in &self.nodes {
            json.data_key(id);
            node.write(json);
        }
        json.close(b'}');
        json.key("Targets");
        json.open(b'{');
        for (id, target) in &self.targets {
            json.data_key(id);
            target.write(json);
        }
        json.close(b'}');
        json.close(b'}');
    }
}

impl Node {
    fn write(&self, json: &mut Json) {
        let (kind, name) = match self {
            Node::Router { name, .. } => ("router", name),
            Node::Splitter { name, .. } => ("splitter", name),
            Node::Resolver(resolver) => ("resolver", &resolver.name),
        };
        json.open(b'{');
        json.key("Type");
        json.string(kind);
        json.key("Name");
        json.string(name);
        match self {
            Node::Router { routes, .. } => {
                json.key("Routes");
                json.open(b'[');
                for (definition, next) in routes {
                    json.next();
                    json.open(b'{');
                    json.key("Definition");
                    free(json, &Value::Object(definition.clone()));
                    json.key("NextNode");
                    json.string(next);
                    json.close(b'}');
                }
                json.close(b']');
            }
            Node::Splitter { splits, .. } => {
                json.key("Splits");
                json.open(b'[');
                for split in splits {
                    json.next();
                    json.open(b'{');
                    if !split.definition.is_empty() {
                        json.key("Definition");
                        free(json, &Value::Object(split.definition.clone()));
                    }
                    json.key("Weight");
                    schema::weight(json, split.weight);
                    json.key("NextNode");
                    json.string(&split.next);
                    json.close(b'}');
                }
                json.close(b']');
            }
            Node::Resolver(resolver) => resolver.write(json),
        }
        let balancer = match self {
            Node::Router { .. } => None,
            Node::Splitter { balancer, .. } => balancer.as_ref(),
            Node::Resolver(resolver) => resolver.balancer.as_ref(),
        };
        if let Some(balancer) = balancer {
            json.key("LoadBalancer");
            free(json, balancer);
        }
        json.close(b'}');
    }
}

impl Resolver {
    fn write(&self, json: &mut Json) {
        json.key("Resolver");
        json.open(b'{');
        json.key("ConnectTimeout");
        json.string(&duration::format(self.connect_timeout));
        if !self.request_timeout.is_empty() {
            json.key("RequestTimeout");
            json.string(&self.request_timeout);
        }
        if self.default {
            json.key("Default");
            json.flag(true);
        }
        json.key("Target");
        json.string(&self.name);
        if !self.failover.is_empty() {
            json.key("Failover");
            json.open(b'{');
            json.key("Targets");
            json.strings(&self.failover);
            json.close(b'}');
        }
        json.close(b'}');
    }
}
