//! `/v1/operator/usage`: how much is registered.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::HttpReply;
use crate::api::cluster::{ClusterCall, answer_cluster};
use crate::api::render::json::Json;
use crate::api::route::{Context, Handled};
use crate::node::Published;
use crate::store::model::{Service, ServiceKind};
use crate::store::query::Query;

/// The service that servers are registered as; nobody is billed for it.
const SERVERS: &str = "consul";

pub(in crate::api) fn handle(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    answer_cluster(context, ClusterCall::Usage { stale: context.params.has("stale") })
}

/// Counts of this datacenter.
#[derive(Debug, Default)]
struct Usage {
    nodes: u64,
    names: BTreeSet<String>,
    instances: u64,
    billable: u64,
    connect: BTreeMap<&'static str, u64>,
}

impl Usage {
    fn count(&mut self, service: &Service) {
        self.names.insert(service.service.to_lowercase());
        self.instances += 1;
        let kind = match service.kind {
            ServiceKind::Typical => {
                self.billable += u64::from(service.service != SERVERS);
                service.connect_native.then_some("connect-native")
            }
            other => Some(other.as_str()),
        };
        if let Some(kind) = kind {
            *self.connect.entry(kind).or_default() += 1;
        }
    }
}

/// Counts of nodes, services and instances.
pub(in crate::api) fn render(published: &Published, stale: bool) -> HttpReply {
    let view = &published.view;
    let kinds = ["connect-native", "connect-proxy", "ingress-gateway", "mesh-gateway", "terminating-gateway"];
    let mut usage = Usage { connect: kinds.map(|kind| (kind, 0)).into(), ..Usage::default() };
    for node in view.nodes() {
        usage.nodes += 1;
        view.node_services(&node.name).iter().for_each(|service| usage.count(service));
    }
    let mut json = Json::with_capacity(512);
    json.open(b'{');
    json.key("Usage");
    json.open(b'{');
    json.data_key(&published.about.datacenter);
    json.open(b'{');
    let numbers = [
        ("Nodes", usage.nodes),
        ("Services", usage.names.len() as u64),
        ("ServiceInstances", usage.instances),
        ("BillableServiceInstances", usage.billable),
    ];
    for (key, number) in numbers {
        json.key(key);
        json.number(number);
    }
    json.key("ConnectServiceInstances");
    json.open(b'{');
    for (kind, number) in usage.connect {
        json.key(kind);
        json.number(number);
    }
    json.close(b'}');
    json.close(b'}');
    json.close(b'}');
    json.key("Index");
    json.number(view.evaluate(&Query::Services { meta: Vec::new() }).index.max(1));
    json.key("LastContact");
    json.number(0);
    json.key("KnownLeader");
    json.flag(published.lease.leader.is_some());
    json.key("ConsistencyLevel");
    json.string(if stale { "stale" } else { "leader" });
    json.key("NotModified");
    json.flag(false);
    json.key("Backend");
    json.number(0);
    json.key("ResultsFilteredByACLs");
    json.flag(false);
    json.close(b'}');
    HttpReply::json(200, json.into_bytes())
}
