//! Replies about prepared queries (`/v1/query`).

use std::collections::BTreeMap;

use super::json::Json;
use super::rows;
use crate::Text;
use crate::api::{Consistency, QueryMeta, Read};
use crate::node::About;
use crate::store::{Executed, Instance, PreparedQuery};

/// A query as it is kept.
pub(crate) fn query(json: &mut Json, query: &PreparedQuery) {
    json.open(b'{');
    json.key("ID");
    json.display(query.id);
    json.key("Name");
    json.string(&query.name);
    json.key("Session");
    json.display_or_empty(query.session);
    json.key("Token");
    json.string(&query.token);
    json.key("Template");
    json.open(b'{');
    json.key("Type");
    json.string(if query.is_template() { "name_prefix_match" } else { "" });
    json.key("Regexp");
    json.string(&query.template.regexp);
    json.key("RemoveEmptyTags");
    json.flag(query.template.remove_empty_tags);
    json.close(b'}');
    json.key("Service");
    service(json, query);
    json.key("DNS");
    dns(json, &query.dns_ttl);
    rows::indexes(json, query.create_index, query.modify_index);
    json.close(b'}');
}

fn service(json: &mut Json, query: &PreparedQuery) {
    let service = &query.service;
    json.open(b'{');
    json.key("Service");
    json.string(&service.service);
    json.key("Failover");
    json.open(b'{');
    json.key("NearestN");
    json.number(service.failover.nearest_n);
    json.key("Datacenters");
    texts(json, service.failover.datacenters.as_ref());
    if let Some(targets) = &service.failover.targets {
        json.key("Targets");
        super::list(json, targets, |json, datacenter| {
            json.open(b'{');
            json.key("Peer");
            json.string("");
            json.key("Datacenter");
            json.string(datacenter);
            json.close(b'}');
        });
    }
    json.close(b'}');
    json.key("OnlyPassing");
    json.flag(service.only_passing);
    json.key("IgnoreCheckIDs");
    texts(json, service.ignore_check_ids.as_ref());
    json.key("Near");
    json.string(&service.near);
    json.key("Tags");
    texts(json, service.tags.as_ref());
    for (key, map) in [("NodeMeta", &service.node_meta), ("ServiceMeta", &service.service_meta)] {
        json.key(key);
        pairs(json, map.as_ref());
    }
    json.key("Connect");
    json.flag(service.connect);
    json.close(b'}');
}

fn texts(json: &mut Json, list: Option<&Vec<Text>>) {
    match list {
        Some(list) => json.strings(list),
        None => json.raw(b"null"),
    }
}

fn pairs(json: &mut Json, map: Option<&BTreeMap<Text, Text>>) {
    match map {
        Some(map) => json.map(map),
        None => json.raw(b"null"),
    }
}

fn dns(json: &mut Json, ttl: &str) {
    json.open(b'{');
    json.key("TTL");
    json.string(ttl);
    json.close(b'}');
}

/// The query that a name stands for.
pub(crate) fn explained(json: &mut Json, found: &PreparedQuery, read: &Read, meta: &QueryMeta) {
    json.open(b'{');
    json.key("Query");
    query(json, found);
    self::meta(json, meta, mode(read.consistency));
    json.close(b'}');
}

/// What a query found.
pub(crate) fn executed(json: &mut Json, done: &Executed, about: &About, read: &Read, meta: &QueryMeta) {
    json.open(b'{');
    json.key("Service");
    json.string(&done.service);
    json.key("Nodes");
    super::list(json, &done.instances, |json, found| instance(json, found));
    json.key("DNS");
    dns(json, &done.dns_ttl);
    json.key("Datacenter");
    json.string(&about.datacenter);
    json.key("Failovers");
    json.number(done.failovers);
    self::meta(json, meta, mode(read.consistency));
    json.close(b'}');
}

fn instance(json: &mut Json, instance: &Instance) {
    json.open(b'{');
    json.key("Node");
    rows::node(json, &instance.node);
    json.key("Service");
    rows::service_with_nulls(json, &instance.service);
    json.key("Checks");
    if instance.checks.is_empty() {
        json.raw(b"null");
    } else {
        super::list(json, &instance.checks, |json, check| rows::check_with_nulls(json, check));
    }
    json.close(b'}');
}

/// What other reads tell in headers.
pub(super) fn meta(json: &mut Json, meta: &QueryMeta, mode: &str) {
    json.key("Index");
    json.number(0);
    json.key("LastContact");
    json.number(meta.last_contact_ms.saturating_mul(1_000_000));
    json.key("KnownLeader");
    json.flag(meta.known_leader);
    json.key("ConsistencyLevel");
    json.string(mode);
}

/// How a consistency mode is called in answers.
pub(crate) fn mode(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Default => "leader",
        Consistency::Consistent => "consistent",
        Consistency::Stale => "stale",
    }
}
