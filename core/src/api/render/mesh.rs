//! What gateways are for, and the summaries that the user interface shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::json::Json;
use super::{list, rows};
use crate::node::About;
use crate::store::model::{Check, Health, Service, ServiceKind};
use crate::store::{Decision, GatewayService, Instance, UiGateway, UiNeighbour, UiNode, UiTopology};

/// The key of metadata that says which other system a service was registered by.
const EXTERNAL_SOURCE: &str = "external-source";

/// The services of a gateway.
pub(super) fn gateway_services(json: &mut Json, services: &[GatewayService]) {
    if services.is_empty() {
        json.raw(b"null");
        return;
    }
    list(json, services, gateway_service);
}

fn gateway_service(json: &mut Json, service: &GatewayService) {
    let named = |json: &mut Json, key: &'static str, name: &str| {
        json.key(key);
        json.open(b'{');
        json.key("Name");
        json.string(name);
        json.close(b'}');
    };
    json.open(b'{');
    named(json, "Gateway", &service.gateway);
    named(json, "Service", &service.service);
    json.key("GatewayKind");
    json.string(if service.ingress { "ingress-gateway" } else { "terminating-gateway" });
    if service.port > 0 {
        json.key("Port");
        json.number(u64::try_from(service.port).unwrap_or(0));
    }
    if !service.protocol.is_empty() {
        json.key("Protocol");
        json.string(&service.protocol);
    }
    if !service.hosts.is_empty() {
        json.key("Hosts");
        json.strings(&service.hosts);
    }
    for (key, value) in &service.tls {
        json.key(key);
        json.string(value);
    }
    if service.from_wildcard {
        json.key("FromWildcard");
        json.flag(true);
    }
    for key in ["CreateIndex", "ModifyIndex"] {
        json.key(key);
        json.number(service.modify_index);
    }
    json.close(b'}');
}

/// A node with everything on it.
pub(super) fn ui_node(json: &mut Json, found: &UiNode) {
    let node = &found.node;
    json.open(b'{');
    json.key("ID");
    json.display_or_empty(node.id);
    json.key("Node");
    json.string(&node.name);
    json.key("Address");
    json.string(&node.address);
    json.key("TaggedAddresses");
    json.map(&node.tagged_addresses);
    json.key("Meta");
    json.map(&node.meta);
    json.key("Services");
    list(json, &found.services, |json, service: &Arc<Service>| rows::service(json, service));
    json.key("Checks");
    list(json, &found.checks, |json, check: &Arc<Check>| rows::check(json, check));
    json.close(b'}');
}

/// What there is to say about all instances of a service.
#[derive(Default)]
struct Summary<'a> {
    kind: ServiceKind,
    tags: BTreeSet<&'a str>,
    nodes: Vec<&'a str>,
    sources: BTreeSet<&'a str>,
    instances: usize,
    /// By state: passing, warning, critical.
    checks: [usize; 3],
    native: bool,
    /// Checks of nodes that were counted.
    counted: BTreeSet<(&'a str, &'a str)>,
}

fn slot(health: Health) -> usize {
    match health {
        Health::Passing => 0,
        Health::Warning => 1,
        Health::Critical => 2,
    }
}

impl<'a> Summary<'a> {
    fn of(instances: impl IntoIterator<Item = &'a Arc<Instance>>) -> Summary<'a> {
        let mut summary = Summary::default();
        for instance in instances {
            summary.add(instance);
        }
        summary
    }

    fn add(&mut self, instance: &'a Instance) {
        let service = &instance.service;
        self.kind = service.kind;
        self.instances += 1;
        self.native |= service.connect_native;
        self.tags.extend(service.tags.iter().map(|tag| tag.as_str()));
        if !self.nodes.contains(&instance.node.name.as_str()) {
            self.nodes.push(&instance.node.name);
        }
        self.sources.extend(service.meta.get(EXTERNAL_SOURCE).map(|source| source.as_str()));
        for check in &instance.checks {
            if self.counted.insert((&check.node, &check.id)) {
                self.checks[slot(check.status)] += 1;
            }
        }
    }

    /// Writes the fields into an object that is open.
    fn write(&self, json: &mut Json, name: &str, addresses: &[String], proxied: bool) {
        let texts = |json: &mut Json, key: &'static str, texts: Vec<&str>| {
            json.key(key);
            if texts.is_empty() {
                json.raw(b"null");
            } else {
                json.strings(texts);
            }
        };
        if self.kind != ServiceKind::Typical {
            json.key("Kind");
            json.string(self.kind.as_str());
        }
        json.key("Name");
        json.string(name);
        texts(json, "Tags", self.tags.iter().copied().collect());
        texts(json, "Nodes", self.nodes.clone());
        for (key, count) in [
            ("InstanceCount", self.instances),
            ("ChecksPassing", self.checks[0]),
            ("ChecksWarning", self.checks[1]),
            ("ChecksCritical", self.checks[2]),
        ] {
            json.key(key);
            json.number(count as u64);
        }
        texts(json, "ExternalSources", self.sources.iter().copied().collect());
        json.key("GatewayConfig");
        json.open(b'{');
        if !addresses.is_empty() {
            json.key("Addresses");
            json.strings(addresses);
        }
        json.close(b'}');
        json.key("ConnectNative");
        json.flag(self.native);
        json.key("ConnectedWithProxy");
        json.flag(proxied);
    }
}

/// The names of services that proxies speak for.
fn proxied(instances: &[Arc<Instance>]) -> BTreeSet<String> {
    instances
        .iter()
        .filter(|instance| instance.service.kind == ServiceKind::ConnectProxy)
        .filter_map(|instance| {
            let proxy: serde_json::Value = serde_json::from_str(&instance.service.proxy).ok()?;
            Some(proxy["DestinationServiceName"].as_str()?.to_lowercase())
        })
        .collect()
}

/// One summary for each service, in the order of their names.
pub(super) fn ui_services(json: &mut Json, instances: &[Arc<Instance>]) {
    let mut by_name: BTreeMap<&str, Summary<'_>> = BTreeMap::new();
    for instance in instances {
        by_name.entry(&instance.service.service).or_default().add(instance);
    }
    let proxied = proxied(instances);
    list(json, &by_name, |json, (name, summary)| {
        json.open(b'{');
        summary.write(json, name, &[], proxied.contains(&name.to_lowercase()));
        json.close(b'}');
    });
}

/// The services of a gateway, each with what it is reached by.
pub(super) fn ui_gateway(json: &mut Json, about: &About, found: &[UiGateway]) {
    list(json, found, |json, found: &UiGateway| {
        let service = &found.service;
        let addresses: Vec<String> = match (service.ingress, service.hosts.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => vec![format!(
                "{}.ingress.{}.{}.:{}",
                service.service,
                about.datacenter,
                about.domain.trim_end_matches('.'),
                service.port
            )],
            (true, false) => service.hosts.iter().map(|host| format!("{host}:{}", service.port)).collect(),
        };
        json.open(b'{');
        Summary::of(&found.instances).write(json, &service.service, &addresses, false);
        json.close(b'}');
    });
}

/// Who speaks to a service, and to whom it speaks, as the proxies are registered.
pub(super) fn ui_topology(json: &mut Json, about: &About, found: &UiTopology) {
    let side = |json: &mut Json, key: &'static str, services: &[UiNeighbour]| {
        json.key(key);
        list(json, services, |json, service| {
            json.open(b'{');
            Summary::of(&service.instances).write(json, &service.name, &[], true);
            json.key("Datacenter");
            json.string(&about.datacenter);
            json.key("Source");
            json.string("proxy-registration");
            json.key("Intention");
            decision(json, &service.decision);
            json.close(b'}');
        });
    };
    json.open(b'{');
    json.key("Protocol");
    json.string(&found.protocol);
    json.key("TransparentProxy");
    json.flag(false);
    side(json, "Upstreams", &found.upstreams);
    side(json, "Downstreams", &found.downstreams);
    json.key("FilteredByACLs");
    json.flag(false);
    json.close(b'}');
}

fn decision(json: &mut Json, decision: &Decision) {
    json.open(b'{');
    for (key, flag) in [
        // As long as there are no access rules.
        ("DefaultAllow", true),
        ("Allowed", decision.allowed),
        ("HasPermissions", decision.by_permissions),
    ] {
        json.key(key);
        json.flag(flag);
    }
    json.key("ExternalSource");
    json.string(&decision.external_source);
    json.key("HasExact");
    json.flag(decision.exact);
    json.close(b'}');
}

/// How many nodes, instances and checks there are in each state.
pub(super) fn ui_overview(json: &mut Json, nodes: &[UiNode], instances: &[Arc<Instance>]) {
    let worst =
        |checks: &[Arc<Check>]| checks.iter().map(|check| check.status).max().unwrap_or(Health::Passing);
    let mut node_states = [0; 3];
    let mut checks: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for found in nodes {
        let own: Vec<Arc<Check>> =
            found.checks.iter().filter(|check| check.service_id.is_empty()).cloned().collect();
        node_states[slot(worst(&own))] += 1;
        for check in &found.checks {
            checks.entry(&check.name).or_default()[slot(check.status)] += 1;
        }
    }
    let mut services: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for instance in instances {
        services.entry(&instance.service.service).or_default()[slot(instance.health())] += 1;
    }
    let line = |json: &mut Json, (name, states): (&str, &[usize; 3])| {
        json.open(b'{');
        json.key("Name");
        json.string(name);
        for (key, count) in [
            ("Total", states.iter().sum::<usize>()),
            ("Passing", states[0]),
            ("Warning", states[1]),
            ("Critical", states[2]),
        ] {
            json.key(key);
            json.number(count as u64);
        }
        json.close(b'}');
    };
    json.open(b'{');
    json.key("Nodes");
    list(json, [("", &node_states)], line);
    json.key("Services");
    list(json, services.iter().map(|(name, states)| (*name, states)), line);
    json.key("Checks");
    list(json, checks.iter().map(|(name, states)| (*name, states)), line);
    json.close(b'}');
}
