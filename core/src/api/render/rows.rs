//! The rows of the store in the shapes in which the HTTP API shows them: same fields, same order, same nulls.
//!
//! Source: Consul's documentation of the HTTP API, the sample answers of each endpoint, and what Consul answers.

use std::collections::BTreeMap;

use super::json::Json;
use crate::store::model::{
    Check, CheckDefinition, KvEntry, Node, Service, ServiceAddress, ServiceKind, Session, Weights,
};
use crate::{Text, duration};

/// The proxy part of a service that has none.
const NO_PROXY: &[u8] = br#"{"MeshGateway":{},"Expose":{}}"#;

/// An entry of `/v1/kv`.
pub(crate) fn kv_entry(json: &mut Json, entry: &KvEntry) {
    json.open(b'{');
    json.key("LockIndex");
    json.number(entry.lock_index);
    json.key("Key");
    json.string(&entry.key);
    json.key("Flags");
    json.number(entry.flags);
    json.key("Value");
    json.bytes(&entry.value);
    if let Some(session) = entry.session {
        json.key("Session");
        json.display(session);
    }
    indexes(json, entry.create_index, entry.modify_index);
    json.close(b'}');
}

/// A session.
pub(crate) fn session(json: &mut Json, session: &Session) {
    json.open(b'{');
    json.key("ID");
    json.display(session.id);
    json.key("Name");
    json.string(&session.name);
    json.key("Node");
    json.string(&session.node);
    json.key("LockDelay");
    json.number(u64::try_from(session.lock_delay.as_nanos()).unwrap_or(u64::MAX));
    json.key("Behavior");
    json.string(match session.behavior {
        crate::store::model::SessionBehavior::Release => "release",
        crate::store::model::SessionBehavior::Delete => "delete",
    });
    json.key("TTL");
    json.string(&session.ttl);
    json.key("NodeChecks");
    json.strings(&session.node_checks);
    json.key("ServiceChecks");
    match &session.service_checks {
        None => json.raw(b"null"),
        Some(checks) => {
            json.open(b'[');
            for check in checks {
                json.next();
                json.open(b'{');
                json.key("ID");
                json.string(&check.id);
                json.key("Namespace");
                json.string("");
                json.close(b'}');
            }
            json.close(b']');
        }
    }
    if !session.checks.is_empty() {
        json.key("Checks");
        json.strings(&session.checks);
    }
    indexes(json, session.create_index, session.modify_index);
    json.close(b'}');
}

/// A node of the catalog.
pub(crate) fn node(json: &mut Json, node: &Node) {
    json.open(b'{');
    node_fields(json, node);
    json.key("Meta");
    map_or_null(json, &node.meta);
    indexes(json, node.create_index, node.modify_index);
    json.close(b'}');
}

fn node_fields(json: &mut Json, node: &Node) {
    json.key("ID");
    json.display_or_empty(node.id);
    json.key("Node");
    json.string(&node.name);
    json.key("Address");
    json.string(&node.address);
    json.key("Datacenter");
    json.string(&node.datacenter);
    json.key("TaggedAddresses");
    map_or_null(json, &node.tagged_addresses);
}

/// An instance as part of a node (`/v1/catalog/node`) or of a health answer.
pub(crate) fn service(json: &mut Json, service: &Service) {
    service_or(json, service, b"[]");
}

/// An instance as transactions and prepared queries show it: without tags it has none, not an empty list of them.
pub(crate) fn service_with_nulls(json: &mut Json, service: &Service) {
    service_or(json, service, b"null");
}

fn service_or(json: &mut Json, service: &Service, no_tags: &'static [u8]) {
    json.open(b'{');
    kind_unless_typical(json, service.kind);
    json.key("ID");
    json.string(&service.id);
    json.key("Service");
    json.string(&service.service);
    json.key("Tags");
    tags_or(json, &service.tags, no_tags);
    json.key("Address");
    json.string(&service.address);
    if !service.tagged_addresses.is_empty() {
        json.key("TaggedAddresses");
        service_addresses(json, &service.tagged_addresses);
    }
    json.key("Meta");
    map_or_null(json, &service.meta);
    json.key("Port");
    json.number(service.port.into());
    json.key("Weights");
    weights(json, service.weights);
    json.key("EnableTagOverride");
    json.flag(service.enable_tag_override);
    json.key("Proxy");
    proxy(json, service);
    json.key("Connect");
    connect(json, service);
    indexes(json, service.create_index, service.modify_index);
    json.close(b'}');
}

/// An instance with its node (`/v1/catalog/service`).
pub(crate) fn service_node(json: &mut Json, node: &Node, service: &Service) {
    json.open(b'{');
    node_fields(json, node);
    json.key("NodeMeta");
    map_or_null(json, &node.meta);
    json.key("ServiceKind");
    json.string(service.kind.as_str());
    json.key("ServiceID");
    json.string(&service.id);
    json.key("ServiceName");
    json.string(&service.service);
    json.key("ServiceTags");
    json.strings(&service.tags);
    json.key("ServiceAddress");
    json.string(&service.address);
    if !service.tagged_addresses.is_empty() {
        json.key("ServiceTaggedAddresses");
        service_addresses(json, &service.tagged_addresses);
    }
    json.key("ServiceWeights");
    weights(json, service.weights);
    json.key("ServiceMeta");
    json.map(&service.meta);
    json.key("ServicePort");
    json.number(service.port.into());
    json.key("ServiceEnableTagOverride");
    json.flag(service.enable_tag_override);
    json.key("ServiceProxy");
    proxy(json, service);
    json.key("ServiceConnect");
    connect(json, service);
    indexes(json, service.create_index, service.modify_index);
    json.close(b'}');
}

/// A service of the agent's own; with its hash when it is shown alone.
pub(crate) fn agent_service(json: &mut Json, service: &Service, content_hash: Option<&str>) {
    json.open(b'{');
    kind_unless_typical(json, service.kind);
    json.key("ID");
    json.string(&service.id);
    json.key("Service");
    json.string(&service.service);
    json.key("Tags");
    json.strings(&service.tags);
    json.key("Meta");
    json.map(&service.meta);
    json.key("Port");
    json.number(service.port.into());
    json.key("Address");
    json.string(&service.address);
    if !service.tagged_addresses.is_empty() {
        json.key("TaggedAddresses");
        service_addresses(json, &service.tagged_addresses);
    }
    json.key("Weights");
    weights(json, service.weights);
    json.key("EnableTagOverride");
    json.flag(service.enable_tag_override);
    if let Some(hash) = content_hash {
        json.key("ContentHash");
        json.string(hash);
    }
    if !service.proxy.is_empty() {
        json.key("Proxy");
        json.raw(service.proxy.as_bytes());
    }
    if service.connect_native {
        json.key("Connect");
        connect(json, service);
    }
    json.close(b'}');
}

/// A check, of the catalog or of the agent's own.
pub(crate) fn check(json: &mut Json, check: &Check) {
    check_or(json, check, b"[]");
}

/// A check as transactions and prepared queries show it: without tags it has none, not an empty list of them.
pub(crate) fn check_with_nulls(json: &mut Json, check: &Check) {
    check_or(json, check, b"null");
}

fn tags_or(json: &mut Json, tags: &[Text], none: &'static [u8]) {
    if tags.is_empty() {
        json.raw(none);
    } else {
        json.strings(tags);
    }
}

fn check_or(json: &mut Json, check: &Check, no_tags: &'static [u8]) {
    json.open(b'{');
    json.key("Node");
    json.string(&check.node);
    json.key("CheckID");
    json.string(&check.id);
    json.key("Name");
    json.string(&check.name);
    json.key("Status");
    json.string(check.status.as_str());
    json.key("Notes");
    json.string(&check.notes);
    json.key("Output");
    json.string(&check.output);
    json.key("ServiceID");
    json.string(&check.service_id);
    json.key("ServiceName");
    json.string(&check.service_name);
    json.key("ServiceTags");
    tags_or(json, &check.service_tags, no_tags);
    json.key("Type");
    json.string(&check.kind);
    json.key("Interval");
    json.string(&check.interval);
    json.key("Timeout");
    json.string(&check.timeout);
    json.key("ExposedPort");
    json.number(0);
    json.key("Definition");
    check_definition(json, &check.definition);
    indexes(json, check.create_index, check.modify_index);
    json.close(b'}');
}

fn check_definition(json: &mut Json, definition: &CheckDefinition) {
    json.open(b'{');
    for (key, value) in [
        ("Interval", definition.interval),
        ("Timeout", definition.timeout),
        ("DeregisterCriticalServiceAfter", definition.deregister_critical_service_after),
    ] {
        if let Some(value) = value.filter(|value| !value.is_zero()) {
            json.key(key);
            json.string(&duration::format(value));
        }
    }
    text_unless_empty(json, "HTTP", &definition.http);
    if definition.tls_skip_verify {
        json.key("TLSSkipVerify");
        json.flag(true);
    }
    if !definition.header.is_empty() {
        json.key("Header");
        json.open(b'{');
        for (name, values) in &definition.header {
            json.data_key(name);
            json.strings(values);
        }
        json.close(b'}');
    }
    text_unless_empty(json, "Method", &definition.method);
    text_unless_empty(json, "Body", &definition.body);
    text_unless_empty(json, "TCP", &definition.tcp);
    json.close(b'}');
}

fn text_unless_empty(json: &mut Json, key: &'static str, text: &str) {
    if !text.is_empty() {
        json.key(key);
        json.string(text);
    }
}

/// `CreateIndex` and `ModifyIndex`, which end every row.
pub(crate) fn indexes(json: &mut Json, create: u64, modify: u64) {
    json.key("CreateIndex");
    json.number(create);
    json.key("ModifyIndex");
    json.number(modify);
}

fn map_or_null(json: &mut Json, map: &BTreeMap<Text, Text>) {
    if map.is_empty() {
        json.raw(b"null");
    } else {
        json.map(map);
    }
}

fn service_addresses(json: &mut Json, addresses: &BTreeMap<Text, ServiceAddress>) {
    json.open(b'{');
    for (tag, address) in addresses {
        json.data_key(tag);
        json.open(b'{');
        json.key("Address");
        json.string(&address.address);
        json.key("Port");
        json.number(address.port.into());
        json.close(b'}');
    }
    json.close(b'}');
}

fn weights(json: &mut Json, weights: Weights) {
    json.open(b'{');
    json.key("Passing");
    json.number(weights.passing.into());
    json.key("Warning");
    json.number(weights.warning.into());
    json.close(b'}');
}

fn proxy(json: &mut Json, service: &Service) {
    json.raw(if service.proxy.is_empty() { NO_PROXY } else { service.proxy.as_bytes() });
}

fn connect(json: &mut Json, service: &Service) {
    json.raw(if service.connect_native { br#"{"Native":true}"# } else { b"{}" });
}

fn kind_unless_typical(json: &mut Json, which: ServiceKind) {
    if which != ServiceKind::Typical {
        json.key("Kind");
        json.string(which.as_str());
    }
}
