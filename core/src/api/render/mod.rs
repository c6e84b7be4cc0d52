//! Replies: rows and responses as JSON with the statuses and headers that clients of Consul expect.

mod intention;
pub(crate) mod json;
mod mesh;
mod prepared;
mod record;
pub(crate) mod rows;
pub(crate) mod timestamp;
pub(crate) mod transaction;

use std::hash::Hasher as _;
use std::sync::Arc;

use bytes::Bytes;
use fnv::FnvHasher;
use json::Json;

pub(crate) use json::indent;
pub use record::render_record;

use super::filter::{self, Filter, FilterError};
use super::{ContentType, HttpReply, LocalServiceRead, QueryMeta, Read, Write};
use crate::Text;
use crate::agent::{AgentView, CallError};
use crate::coordinate::Coordinate;
use crate::dns::kept::pack;
use crate::ids::Uuid;
use crate::node::About;
use crate::store::command::Response;
use crate::store::model::{Service, Session};
use crate::store::query::Query;
use crate::store::{Found, Instance, InstanceList, Rendering, Rows, Unresolved};

/// The reply to a read of the replicated state.
#[must_use]
pub fn render_rows(about: &About, read: &Read, found: &Found, meta: QueryMeta) -> HttpReply {
    if let Rows::Transaction(outcome) = &found.rows {
        let mut reply = transaction::read(outcome, &meta, read.shape.pretty);
        reply.meta = Some(QueryMeta { index: 0, ..meta });
        return reply;
    }
    if let Some(refusal) = no_such_query(read, found) {
        return refusal;
    }
    if let Rows::Chain(Err(why)) = &found.rows {
        return HttpReply::text(500, why.clone());
    }
    let mut reply = if is_missing(read, found) {
        missing(&read.query)
    } else if let (true, Rows::Kv(Some(entry))) = (read.shape.raw, &found.rows) {
        raw_value(entry.value.clone())
    } else if let (true, Some(packed)) = (read.shape.raw, pack(&found.rows)) {
        raw_value(packed)
    } else if read.filter.is_empty() {
        HttpReply::json(200, body(about, read, &found.rows, &meta))
    } else {
        match filtered(read, &found.rows) {
            Ok(rows) => HttpReply::json(200, body(about, read, &rows, &meta)),
            Err(error) => return error.into(),
        }
    };
    if goes_on_elsewhere(read, found) {
        reply.status = 404;
    }
    reply.meta = Some(meta);
    if is_catalog(&read.query) {
        let name = Text::new_static("X-Consul-Effective-Consistency");
        reply.headers.push((name, Text::new_static(prepared::mode(read.consistency))));
    }
    reply
}

/// The reply when there is no prepared query as it is asked for. It has no index.
fn no_such_query(read: &Read, found: &Found) -> Option<HttpReply> {
    let why = match &found.rows {
        Rows::Explained(Err(why)) | Rows::Executed(Err(why)) => why,
        Rows::Prepared(_) if !found.exists && matches!(read.query, Query::PreparedQuery(_)) => {
            &Unresolved::Unknown
        }
        _ => return None,
    };
    Some(HttpReply::text(if *why == Unresolved::Unknown { 404 } else { 500 }, why.to_string()))
}

/// Keys and prefixes without rows are not found; lists of anything else are empty.
fn is_missing(read: &Read, found: &Found) -> bool {
    match &read.query {
        Query::Kv(_) | Query::KvTree(_) => !found.exists,
        Query::KvKeys { prefix, .. } => !found.exists && !prefix.is_empty(),
        Query::NodeCoordinates(_)
        | Query::ConfigEntry { .. }
        | Query::UiNodes(Some(_))
        | Query::Intention(_)
        | Query::ExactIntention { .. } => !found.exists,
        _ => false,
    }
}

/// Whether another datacenter has to go on looking.
fn goes_on_elsewhere(read: &Read, found: &Found) -> bool {
    let is_empty = matches!(&found.rows, Rows::Executed(Ok(done)) if done.instances.is_empty());
    is_empty && matches!(read.query, Query::ExecuteLent(_))
}

/// Whether instances are shown with their nodes and checks.
fn shows_health(query: &Query) -> bool {
    matches!(query, Query::ServiceHealth { .. } | Query::IngressHealth { .. })
}

/// The reply to a read of something that is not there.
fn missing(query: &Query) -> HttpReply {
    match query {
        Query::ConfigEntry { kind, name } => HttpReply::text(
            404,
            format!("Config entry not found for {:?} / {:?}", kind.as_str(), name.as_str()),
        ),
        Query::Intention(_) | Query::ExactIntention { .. } => HttpReply::text(404, "Intention not found"),
        _ => HttpReply::empty(404),
    }
}

fn is_catalog(query: &Query) -> bool {
    match query {
        Query::Kv(_)
        | Query::KvTree(_)
        | Query::KvKeys { .. }
        | Query::Session(_)
        | Query::NodeSessions(_)
        | Query::Sessions
        | Query::Coordinates
        | Query::NodeCoordinates(_)
        | Query::Transaction(_)
        | Query::ConfigEntry { .. }
        | Query::ConfigEntries(_)
        | Query::Intentions
        | Query::Intention(_)
        | Query::ExactIntention { .. }
        | Query::MatchIntentions { .. }
        | Query::CheckIntention { .. }
        | Query::AuthorizeConnect { .. }
        | Query::UiGatewayIntentions(_)
        | Query::UiNodes(_)
        | Query::UiServices
        | Query::UiOverview
        | Query::UiGateway(_)
        | Query::UiTopology(_)
        | Query::State => false,
        Query::Nodes { .. }
        | Query::Services { .. }
        | Query::ServiceNodes(_)
        | Query::Node(_)
        | Query::NodeChecks(_)
        | Query::ServiceChecks { .. }
        | Query::ServiceHealth { .. }
        | Query::DiscoveryChain { .. }
        | Query::GatewayServices(_)
        | Query::IngressHealth { .. }
        | Query::ChecksInState { .. }
        | Query::PreparedQueries
        | Query::PreparedQuery(_)
        | Query::Explain(_)
        | Query::Execute(_)
        | Query::ExecuteLent(_) => true,
    }
}

/// A bare value. The two headers keep browsers from running what somebody stored.
fn raw_value(value: Bytes) -> HttpReply {
    HttpReply {
        status: 200,
        content_type: ContentType::Raw,
        meta: None,
        headers: vec![
            (Text::new_static("X-Content-Type-Options"), Text::new_static("nosniff")),
            (Text::new_static("Content-Security-Policy"), Text::new_static("sandbox")),
        ],
        body: value,
    }
}

/// Those rows that the filter keeps.
fn filtered(read: &Read, rows: &Rows) -> Result<Rows, FilterError> {
    let Some(fields) = filter::of_query(&read.query) else { return Ok(rows.clone()) };
    let filter = Filter::parse(&read.filter, fields)?;
    Ok(match rows {
        Rows::Kv(_)
        | Rows::KvTree(_)
        | Rows::KvKeys(_)
        | Rows::Sessions(_)
        | Rows::Services(_)
        | Rows::Chain(_)
        | Rows::GatewayServices(_)
        | Rows::UiGateway(_)
        | Rows::UiOverview(..)
        | Rows::UiTopology(_)
        | Rows::Transaction(_)
        | Rows::Prepared(_)
        | Rows::MatchIntentions(_)
        | Rows::CheckIntention(_)
        | Rows::Explained(_)
        | Rows::Executed(_) => rows.clone(),
        Rows::Intentions(rows) => Rows::Intentions(
            rows.iter()
                .filter(|row| filter.keeps(&written(|json| intention::write(json, row))))
                .cloned()
                .collect(),
        ),
        Rows::UiNodes(nodes) => Rows::UiNodes(
            nodes
                .iter()
                .filter(|node| filter.keeps(&written(|json| mesh::ui_node(json, node))))
                .cloned()
                .collect(),
        ),
        Rows::UiServices(instances) => {
            Rows::UiServices(kept(instances, |instance| filter.keeps(entry(instance, true))))
        }
        Rows::ConfigEntries(entries) => {
            Rows::ConfigEntries(kept(entries, |entry| filter.keeps(&written(|json| entry.write(json)))))
        }
        Rows::Coordinates(located) => Rows::Coordinates(kept(located, |row| {
            filter.keeps(&written(|json| node_coordinate(json, &row.node, &row.coordinate)))
        })),
        Rows::Nodes(nodes) => {
            Rows::Nodes(kept(nodes, |node| filter.keeps(&written(|json| rows::node(json, node)))))
        }
        Rows::Instances(list) => {
            let health = shows_health(&read.query);
            let items = kept(&list.items, |instance| filter.keeps(entry(instance, health)));
            Rows::Instances(InstanceList::new(list.index, items).into())
        }
        Rows::Node(found) => Rows::Node(found.as_ref().map(|(node, services)| {
            let services =
                kept(services, |service| filter.keeps(&written(|json| rows::service(json, service))));
            (Arc::clone(node), services)
        })),
        Rows::Checks(checks) => {
            Rows::Checks(kept(checks, |check| filter.keeps(&written(|json| rows::check(json, check)))))
        }
    })
}

fn kept<T>(rows: &[Arc<T>], keeps: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
    rows.iter().filter(|row| keeps(row)).cloned().collect()
}

/// The JSON of one row.
pub(crate) fn written(write: impl FnOnce(&mut Json)) -> Vec<u8> {
    let mut json = Json::with_capacity(512);
    write(&mut json);
    json.into_bytes()
}

fn body(about: &About, read: &Read, rows: &Rows, meta: &QueryMeta) -> Bytes {
    if let Rows::Instances(list) = rows {
        let health = shows_health(&read.query);
        return instances(list, Rendering { health, pretty: read.shape.pretty });
    }
    let compact = compact(about, read, rows, meta);
    if read.shape.pretty { indent(&compact).into() } else { compact.into() }
}

fn compact(about: &About, read: &Read, found: &Rows, meta: &QueryMeta) -> Vec<u8> {
    let mut json;
    match found {
        Rows::Kv(entry) => {
            let room = entry.iter().map(|entry| entry.value.len() / 3 * 4 + entry.key.len() + 200).sum();
            json = Json::with_capacity(room);
            list(&mut json, entry, |json, entry| rows::kv_entry(json, entry));
        }
        Rows::KvTree(entries) => {
            let room =
                entries.iter().map(|entry| entry.value.len() / 3 * 4 + entry.key.len() + 180).sum::<usize>();
            json = Json::with_capacity(room);
            list(&mut json, entries, |json, entry| rows::kv_entry(json, entry));
        }
        Rows::KvKeys(keys) => {
            json = Json::with_capacity(keys.iter().map(|key| key.len() + 3).sum::<usize>() + 2);
            json.strings(keys);
        }
        Rows::Sessions(sessions) => {
            json = Json::with_capacity(sessions.len() * 300 + 2);
            list(&mut json, sessions, |json, session| rows::session(json, session));
        }
        Rows::Nodes(nodes) => {
            json = Json::with_capacity(nodes.len() * 400 + 2);
            list(&mut json, nodes, |json, node| rows::node(json, node));
        }
        Rows::Services(names) => {
            json = Json::with_capacity(names.len() * 64 + 2);
            json.open(b'{');
            for (name, tags) in names {
                json.data_key(name);
                json.strings(tags);
            }
            json.close(b'}');
        }
        Rows::Instances(instances) => {
            json = Json::with_capacity(instances.items.len() * 800 + 2);
            let health = shows_health(&read.query);
            list(&mut json, &instances.items, |json, instance| json.raw(entry(instance, health)));
        }
        Rows::Node(found) => {
            json = Json::with_capacity(1_000);
            let found = found.as_ref().map(|(node, services)| (&**node, services.as_slice()));
            node_with_services(&mut json, found, read.shape.list);
        }
        Rows::Checks(checks) => {
            json = Json::with_capacity(checks.len() * 350 + 2);
            list(&mut json, checks, |json, check| rows::check(json, check));
        }
        Rows::Coordinates(located) => {
            json = Json::with_capacity(located.len() * 250 + 2);
            list(&mut json, located, |json, row| node_coordinate(json, &row.node, &row.coordinate));
        }
        Rows::Chain(chain) => {
            json = Json::with_capacity(1_000);
            json.open(b'{');
            json.key("Chain");
            if let Ok(chain) = chain {
                chain.write(&mut json);
            }
            json.close(b'}');
        }
        Rows::GatewayServices(services) => {
            json = Json::with_capacity(services.len() * 200 + 2);
            mesh::gateway_services(&mut json, services);
        }
        Rows::UiNodes(nodes) => {
            json = Json::with_capacity(nodes.len() * 2_000 + 2);
            match (&read.query, nodes.as_slice()) {
                (Query::UiNodes(Some(_)), [node]) => mesh::ui_node(&mut json, node),
                _ => list(&mut json, nodes, mesh::ui_node),
            }
        }
        Rows::UiServices(instances) => {
            json = Json::with_capacity(1_000);
            mesh::ui_services(&mut json, instances);
        }
        Rows::UiOverview(nodes, instances) => {
            json = Json::with_capacity(1_000);
            mesh::ui_overview(&mut json, nodes, instances);
        }
        Rows::UiGateway(services) => {
            json = Json::with_capacity(services.len() * 200 + 2);
            mesh::ui_gateway(&mut json, about, services);
        }
        Rows::UiTopology(topology) => {
            json = Json::with_capacity(500);
            mesh::ui_topology(&mut json, about, topology);
        }
        Rows::ConfigEntries(entries) => {
            json =
                Json::with_capacity(entries.iter().map(|entry| entry.fields.len() + 100).sum::<usize>() + 2);
            match (&read.query, entries.as_slice()) {
                (Query::ConfigEntry { .. }, [entry]) => entry.write(&mut json),
                _ => list(&mut json, entries, |json, entry| entry.write(json)),
            }
        }
        Rows::Intentions(rows) => {
            json = Json::with_capacity(rows.len() * 400 + 2);
            match (&read.query, rows.as_slice()) {
                (Query::Intention(_) | Query::ExactIntention { .. }, [one]) => {
                    intention::write(&mut json, one);
                }
                _ => list(&mut json, rows, intention::write),
            }
        }
        Rows::MatchIntentions(found) => {
            json = Json::with_capacity(1_000);
            json.open(b'{');
            for (label, rows) in found {
                json.data_key(label);
                if rows.is_empty() {
                    json.raw(b"null");
                } else {
                    list(&mut json, rows, intention::write);
                }
            }
            json.close(b'}');
        }
        Rows::CheckIntention(decision) => {
            json = Json::with_capacity(20);
            match read.query {
                Query::AuthorizeConnect { .. } => intention::authorized(&mut json, decision),
                _ => intention::checked(&mut json, decision),
            }
        }
        Rows::Prepared(queries) => {
            json = Json::with_capacity(queries.len() * 500 + 2);
            list(&mut json, queries, |json, query| prepared::query(json, query));
        }
        Rows::Explained(Ok(query)) => {
            json = Json::with_capacity(600);
            prepared::explained(&mut json, query, read, meta);
        }
        Rows::Executed(Ok(done)) => {
            json = Json::with_capacity(done.instances.len() * 800 + 200);
            prepared::executed(&mut json, done, about, read, meta);
        }
        Rows::Explained(Err(_)) | Rows::Executed(Err(_)) => unreachable!("rendered as an error"),
        Rows::Transaction(_) => unreachable!("rendered with what the answer's headers tell"),
    }
    json.into_bytes()
}

fn list<T>(json: &mut Json, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Json, T)) {
    json.open(b'[');
    for item in items {
        json.next();
        write(json, item);
    }
    json.close(b']');
}

fn node_with_services<S: AsRef<Service>>(
    json: &mut Json,
    found: Option<(&crate::store::model::Node, &[S])>,
    as_list: bool,
) {
    let Some((node, services)) = found else {
        json.raw(if as_list { br#"{"Node":null,"Services":null}"# } else { b"null" });
        return;
    };
    json.open(b'{');
    json.key("Node");
    rows::node(json, node);
    json.key("Services");
    if as_list {
        list(json, services, |json, service| rows::service(json, service.as_ref()));
    } else {
        json.open(b'{');
        for service in services {
            json.data_key(&service.as_ref().id);
            rows::service(json, service.as_ref());
        }
        json.close(b'}');
    }
    json.close(b'}');
}

/// The body of a list of instances; rendered once for all who ask until something in it changes.
fn instances(instances: &InstanceList, rendering: Rendering) -> Bytes {
    let render = || {
        let entries: Vec<&Bytes> =
            instances.items.iter().map(|instance| entry(instance, rendering.health)).collect();
        let mut json = Json::with_capacity(entries.iter().map(|entry| entry.len() + 1).sum::<usize>() + 2);
        list(&mut json, entries, |json, entry| json.raw(entry));
        let compact = json.into_bytes();
        if rendering.pretty { indent(&compact).into() } else { compact.into() }
    };
    instances.rendered.get(rendering.list(), render).clone()
}

/// One instance; rendered once for all lists that it is in.
fn entry(instance: &Instance, health: bool) -> &Bytes {
    instance.rendered.get(Rendering { health, pretty: false }.entry(), || {
        let mut json = Json::with_capacity(1_024);
        if health {
            json.open(b'{');
            json.key("Node");
            rows::node(&mut json, &instance.node);
            json.key("Service");
            rows::service(&mut json, &instance.service);
            json.key("Checks");
            list(&mut json, &instance.checks, |json, check| rows::check(json, check));
            json.close(b'}');
        } else {
            rows::service_node(&mut json, &instance.node, &instance.service);
        }
        json.into_bytes().into()
    })
}

/// The reply to a write, from what applying it answered.
#[must_use]
pub fn render_response(write: &Write, response: &Response) -> HttpReply {
    match response {
        // Whether there was anything to delete is not told.
        Response::Held(_) if matches!(write, Write::ConfigDelete { cas: None, .. }) => {
            HttpReply::json(200, &b"{}"[..])
        }
        Response::Done if matches!(write, Write::Prepared(_)) => HttpReply::empty(200),
        Response::Done => HttpReply::json(200, &b"true"[..]),
        Response::Held(held) => HttpReply::json(200, if *held { &b"true"[..] } else { b"false" }),
        Response::RestoreBegun(id) => HttpReply::text(200, id.to_string()),
        Response::Transaction(outcome) => transaction::written(outcome),
        Response::SessionCreated(id) | Response::PreparedQueryCreated(id) | Response::IntentionSaved(id) => {
            HttpReply::json(200, format!("{{\"ID\":\"{id}\"}}"))
        }
        Response::Refused(refusal) => {
            debug_assert!(!matches!(write, Write::SessionRenew(_)), "a renewal is no command");
            HttpReply::text(500, refusal.to_string())
        }
    }
}

/// The reply to the renewal of a session; `None`: there is no such session.
#[must_use]
pub fn render_renewed(id: Uuid, session: Option<&Session>) -> HttpReply {
    match session {
        None => HttpReply::text(404, format!("Session id '{id}' not found")),
        Some(session) => {
            let mut json = Json::with_capacity(300);
            list(&mut json, [session], rows::session);
            HttpReply::json(200, json.into_bytes())
        }
    }
}

/// The reply to a change of the agent's own state.
#[must_use]
pub fn render_agent_call(result: &Result<(), CallError>) -> HttpReply {
    match result {
        Ok(()) => HttpReply::empty(200),
        Err(error) => HttpReply::text(error.status, error.text.clone()),
    }
}

/// The reply to a read of one local service.
#[must_use]
pub fn render_local_service(agent: &AgentView, read: &LocalServiceRead) -> HttpReply {
    let Some(service) = agent.services.get(&read.id) else {
        return HttpReply::text(404, format!("unknown service ID: {}", read.id));
    };
    let hash = content_hash(service);
    let mut json = Json::with_capacity(512);
    rows::agent_service(&mut json, service, Some(&hash));
    let compact = json.into_bytes();
    let mut reply = HttpReply::json(200, if read.shape.pretty { indent(&compact) } else { compact });
    reply.headers.push((Text::new_static("X-Consul-ContentHash"), hash));
    reply
}

/// What clients compare to learn whether a local service has changed: opaque, equal for equal services.
#[must_use]
pub fn content_hash(service: &Service) -> Text {
    let mut json = Json::with_capacity(512);
    rows::agent_service(&mut json, service, None);
    let mut hasher = FnvHasher::default();
    hasher.write(&json.into_bytes());
    format!("{:016x}", hasher.finish()).into()
}

/// Several errors as one text, as clients of Consul know it.
pub(crate) fn errors(errors: &[String]) -> String {
    let noun = if errors.len() == 1 { "1 error".to_owned() } else { format!("{} errors", errors.len()) };
    let list: Vec<String> = errors.iter().map(|error| format!("* {error}")).collect();
    format!("{noun} occurred:\n\t{}\n\n", list.join("\n\t"))
}

/// Where a node is, as `/v1/coordinate` shows it.
pub(crate) fn node_coordinate(json: &mut Json, node: &str, at: &Coordinate) {
    json.open(b'{');
    json.key("Node");
    json.string(node);
    json.key("Segment");
    json.string("");
    json.key("Coord");
    coordinate(json, at);
    json.close(b'}');
}

/// A network coordinate.
pub(crate) fn coordinate(json: &mut Json, coordinate: &Coordinate) {
    json.open(b'{');
    json.key("Vec");
    json.open(b'[');
    for component in coordinate.vec {
        json.next();
        json.float(component);
    }
    json.close(b']');
    for (key, value) in
        [("Error", coordinate.error), ("Adjustment", coordinate.adjustment), ("Height", coordinate.height)]
    {
        json.key(key);
        json.float(value);
    }
    json.close(b'}');
}

/// Indents the JSON of a reply.
#[must_use]
pub fn indented(mut reply: HttpReply) -> HttpReply {
    if reply.content_type == ContentType::Json {
        reply.body = indent(&reply.body).into();
    }
    reply
}
