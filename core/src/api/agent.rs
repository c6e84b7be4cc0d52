//! `/v1/agent`: answered by the agent that is asked, never by another one.

use imbl::OrdMap;
use serde_json::Value;

use super::render::json::Json;
use super::render::{content_hash, render_local_service, rows, written};
use super::route::{Context, Handled, Routed};
use super::{Call, ContentType, HttpReply, LocalServiceRead, Shape, filter, membership, params, render};
use crate::Text;
use crate::agent::{self, CallError, definition};
use crate::gossip::{Gauges, Member, Status};
use crate::node::{About, Published};
use crate::store::model::{Check, Health, Service};
use crate::time::Now;

/// The check that maintenance mode of the node adds.
const NODE_MAINTENANCE: &str = "_node_maintenance";
/// What the checks begin with that maintenance mode of services adds.
const SERVICE_MAINTENANCE: &str = "_service_maintenance:";

impl From<CallError> for HttpReply {
    fn from(error: CallError) -> HttpReply {
        HttpReply::text(error.status, error.text)
    }
}

fn call(context: &Context<'_>, call: agent::Call) -> Handled {
    Ok(context.ask(Call::Agent(call)))
}

pub(super) fn service_register(context: &Context<'_>) -> Handled {
    let definition = Box::new(definition::service_from_request(&context.request.body)?);
    let replace_existing_checks = match context.params.get("replace-existing-checks") {
        None => false,
        Some("") => true,
        Some(word) => params::parse_bool(word).ok_or_else(|| {
            HttpReply::text(400, format!("Invalid value for replace-existing-checks: {word:?}"))
        })?,
    };
    call(context, agent::Call::RegisterService { definition, replace_existing_checks })
}

pub(super) fn service_deregister(context: &Context<'_>) -> Handled {
    if context.rest.is_empty() {
        return Err(HttpReply::text(500, "ServiceID missing"));
    }
    call(context, agent::Call::DeregisterService { id: context.rest.into() })
}

pub(super) fn service_maintenance(context: &Context<'_>) -> Handled {
    let id = context.name("Missing service ID")?;
    let enable = enable(context)?;
    call(context, agent::Call::ServiceMaintenance { id, enable, reason: reason(context) })
}

pub(super) fn maintenance(context: &Context<'_>) -> Handled {
    let enable = enable(context)?;
    call(context, agent::Call::NodeMaintenance { enable, reason: reason(context) })
}

fn enable(context: &Context<'_>) -> Result<bool, HttpReply> {
    let word =
        context.params.filled("enable").ok_or_else(|| HttpReply::text(400, "Missing value for enable"))?;
    params::parse_bool(word)
        .ok_or_else(|| HttpReply::text(400, format!("Invalid value for enable: {word:?}")))
}

fn reason(context: &Context<'_>) -> Text {
    context.params.get("reason").unwrap_or("").into()
}

pub(super) fn check_register(context: &Context<'_>) -> Handled {
    let definition = Box::new(definition::check_from_request(&context.request.body)?);
    call(context, agent::Call::RegisterCheck { definition })
}

pub(super) fn check_deregister(context: &Context<'_>) -> Handled {
    if context.rest.is_empty() {
        return Err(HttpReply::text(500, "CheckID missing"));
    }
    call(context, agent::Call::DeregisterCheck { id: context.rest.into() })
}

pub(super) fn check_pass(context: &Context<'_>) -> Handled {
    update_ttl(context, Health::Passing)
}

pub(super) fn check_warn(context: &Context<'_>) -> Handled {
    update_ttl(context, Health::Warning)
}

pub(super) fn check_fail(context: &Context<'_>) -> Handled {
    update_ttl(context, Health::Critical)
}

fn update_ttl(context: &Context<'_>, status: Health) -> Handled {
    let output = context.params.get("note").unwrap_or("").into();
    call(context, agent::Call::UpdateTtl { id: context.rest.into(), status, output })
}

pub(super) fn check_update(context: &Context<'_>) -> Handled {
    let failed = |why: String| HttpReply::text(400, format!("Request decode failed: {why}"));
    let body: &[u8] = &context.request.body;
    let fields = match serde_json::from_slice(if body.is_empty() { b"null" } else { body }) {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Null) if !body.is_empty() => serde_json::Map::new(),
        Ok(Value::Null) => return Err(failed("EOF".into())),
        Ok(_) => return Err(failed("expected an object".into())),
        Err(error) if error.is_eof() => return Err(failed("unexpected EOF".into())),
        Err(error) => return Err(failed(error.to_string())),
    };
    let (mut status, mut output) = (Text::default(), Text::default());
    for (key, value) in fields {
        let target = match key.to_ascii_lowercase().as_str() {
            "status" => &mut status,
            "output" => &mut output,
            "checkid" => continue,
            _ => return Err(failed(format!("json: unknown field {key:?}"))),
        };
        match value {
            Value::String(text) => *target = text.into(),
            Value::Null => {}
            _ => return Err(failed(format!("{key}: expected a string"))),
        }
    }
    let status = Health::parse(&status)
        .ok_or_else(|| HttpReply::text(400, format!("Invalid check status: '{status}'")))?;
    call(context, agent::Call::UpdateTtl { id: context.rest.into(), status, output })
}

pub(super) fn services(context: &Context<'_>) -> Handled {
    let filter = context.filter(filter::SERVICE)?;
    let mut json = Json::with_capacity(1_024);
    json.open(b'{');
    for (id, service) in &context.published.agent.services {
        let row = written(|json| rows::agent_service(json, service, None));
        if filter.as_ref().is_none_or(|filter| filter.keeps(&row)) {
            json.data_key(id);
            json.raw(&row);
        }
    }
    json.close(b'}');
    Ok(context.json(200, json.into_bytes()).into())
}

pub(super) fn checks(context: &Context<'_>) -> Handled {
    let filter = context.filter(filter::CHECK)?;
    let mut json = Json::with_capacity(1_024);
    json.open(b'{');
    for (id, check) in &context.published.agent.checks {
        let row = written(|json| rows::check(json, check));
        if filter.as_ref().is_none_or(|filter| filter.keeps(&row)) {
            json.data_key(id);
            json.raw(&row);
        }
    }
    json.close(b'}');
    Ok(context.json(200, json.into_bytes()).into())
}

/// One service, waiting for a change if the client knows what it is now.
pub(super) fn service(context: &Context<'_>) -> Handled {
    let read = LocalServiceRead {
        id: context.rest.into(),
        hash: context.params.get("hash").unwrap_or("").into(),
        wait: context.params.wait(context.about().front.waits)?,
        shape: Shape { pretty: context.params.pretty(context.about()), ..Shape::default() },
    };
    let agent = &context.published.agent;
    let unchanged = agent.services.get(&read.id).is_some_and(|service| content_hash(service) == read.hash);
    if unchanged {
        return Ok(context.ask(Call::LocalService(read)));
    }
    Ok(render_local_service(agent, &read).into())
}

pub(super) fn health_by_id(context: &Context<'_>) -> Handled {
    if context.rest.is_empty() {
        return Err(HttpReply::text(400, "Missing serviceID"));
    }
    let agent = &context.published.agent;
    let Some(service) = agent.services.get(context.rest) else {
        let reason = format!("ServiceId {} not found", context.rest);
        if wants_text(context) {
            return Ok(with_reason(plain(404, &reason), &reason));
        }
        let body = br#"{"AggregatedStatus":"critical","Service":null,"Checks":null}"#;
        return Ok(with_reason(context.json(404, body.to_vec()), &reason));
    };
    let checks = checks_of(context, service);
    let state = aggregate(&checks);
    if wants_text(context) {
        return Ok(with_reason(plain(state.status(), state.as_str()), state.as_str()));
    }
    let mut json = Json::with_capacity(1_024);
    local_health(&mut json, service, &checks, state);
    Ok(with_reason(context.json(state.status(), json.into_bytes()), state.as_str()))
}

pub(super) fn health_by_name(context: &Context<'_>) -> Handled {
    if context.rest.is_empty() {
        return Err(HttpReply::text(400, "Missing service Name"));
    }
    let mut json = Json::with_capacity(1_024);
    let mut worst = None;
    json.open(b'[');
    for service in context.published.agent.services.values() {
        if service.service != context.rest {
            continue;
        }
        let checks = checks_of(context, service);
        let state = aggregate(&checks);
        worst = worst.max(Some(state));
        json.next();
        local_health(&mut json, service, &checks, state);
    }
    json.close(b']');
    let Some(worst) = worst else {
        let reason = format!("ServiceName {} Not Found", context.rest);
        let reply = if wants_text(context) { plain(404, &reason) } else { context.json(404, b"[]".to_vec()) };
        return Ok(with_reason(reply, &reason));
    };
    let reply = if wants_text(context) {
        plain(worst.status(), worst.as_str())
    } else {
        context.json(worst.status(), json.into_bytes())
    };
    Ok(with_reason(reply, worst.as_str()))
}

fn wants_text(context: &Context<'_>) -> bool {
    context.params.get("format") == Some("text") || context.request.headers.accept.starts_with("text/plain")
}

fn plain(status: u16, text: &str) -> HttpReply {
    HttpReply { content_type: ContentType::Raw, ..HttpReply::text(status, text.to_owned()) }
}

fn with_reason(mut reply: HttpReply, reason: &str) -> Routed {
    reply.headers.push((Text::new_static("X-Consul-Reason"), reason.into()));
    reply.into()
}

fn local_health(json: &mut Json, service: &Service, checks: &[&Check], state: Aggregated) {
    json.open(b'{');
    json.key("AggregatedStatus");
    json.string(state.as_str());
    json.key("Service");
    rows::agent_service(json, service, None);
    json.key("Checks");
    json.open(b'[');
    for check in checks {
        json.next();
        rows::check(json, check);
    }
    json.close(b']');
    json.close(b'}');
}

/// The node's own checks and those of one service.
fn checks_of<'a>(context: &Context<'a>, service: &Service) -> Vec<&'a Check> {
    context
        .published
        .agent
        .checks
        .values()
        .map(|check| &**check)
        .filter(|check| check.service_id.is_empty() || check.service_id == service.id)
        .collect()
}

/// The state of several checks together, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Aggregated {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

impl Aggregated {
    fn as_str(self) -> &'static str {
        match self {
            Aggregated::Passing => "passing",
            Aggregated::Warning => "warning",
            Aggregated::Critical => "critical",
            Aggregated::Maintenance => "maintenance",
        }
    }

    fn status(self) -> u16 {
        match self {
            Aggregated::Passing => 200,
            Aggregated::Warning => 429,
            Aggregated::Critical | Aggregated::Maintenance => 503,
        }
    }
}

fn aggregate(checks: &[&Check]) -> Aggregated {
    let of = |check: &&Check| {
        if check.id == NODE_MAINTENANCE || check.id.starts_with(SERVICE_MAINTENANCE) {
            return Aggregated::Maintenance;
        }
        match check.status {
            Health::Passing => Aggregated::Passing,
            Health::Warning => Aggregated::Warning,
            Health::Critical => Aggregated::Critical,
        }
    };
    checks.iter().map(of).max().unwrap_or(Aggregated::Passing)
}

pub(super) fn version(context: &Context<'_>) -> Handled {
    let mut json = Json::with_capacity(128);
    json.open(b'{');
    for (key, value) in [
        ("SHA", ""),
        ("BuildDate", "1970-01-01T00:00:00Z"),
        ("HumanVersion", &context.about().version),
        ("FIPS", ""),
    ] {
        json.key(key);
        json.string(value);
    }
    json.close(b'}');
    Ok(context.json(200, json.into_bytes()).into())
}

pub(super) fn about_self(context: &Context<'_>) -> Handled {
    let about = context.about();
    let mut json = Json::with_capacity(4_096);
    json.open(b'{');
    json.key("Config");
    json.open(b'{');
    let id = about.id.to_string();
    for (key, value) in [
        ("Datacenter", &*about.datacenter),
        ("PrimaryDatacenter", &about.datacenter),
        ("NodeName", &about.node),
        ("NodeID", &id),
        ("Revision", ""),
    ] {
        json.key(key);
        json.string(value);
    }
    json.key("Server");
    json.flag(about.server);
    json.key("Version");
    json.string(&about.version);
    json.key("BuildDate");
    json.string("1970-01-01T00:00:00Z");
    json.close(b'}');
    json.key("DebugConfig");
    json.raw(if about.config_json.is_empty() { b"{}" } else { about.config_json.as_bytes() });
    json.key("Coord");
    render::coordinate(&mut json, &context.published.cluster.coordinate);
    json.key("Member");
    membership::write_own(&mut json, context.published);
    json.key("Stats");
    stats(&mut json, context.published, context.now);
    json.key("Meta");
    json.map(&about.node_meta);
    // Proxies are not configured from here, whatever their version.
    json.key("xDS");
    json.raw(br#"{"SupportedProxies":{"envoy":[]}}"#);
    json.close(b'}');
    Ok(context.json(200, json.into_bytes()).into())
}

/// Counters as Consul shows them: groups of texts.
fn stats(json: &mut Json, published: &Published, now: Now) {
    let about = &published.about;
    let text = |number: usize| number.to_string();
    let checks = || published.agent.checks.values();
    let of_kind = |kind: &str| text(checks().filter(|check| check.kind == kind).count());
    let figures = &published.lease.figures;
    let mut groups: Vec<(&'static str, Vec<(&'static str, String)>)> = vec![
        (
            "agent",
            vec![
                ("check_monitors", of_kind("script")),
                ("check_ttls", of_kind("ttl")),
                ("checks", text(published.agent.checks.len())),
                ("services", text(published.agent.services.len())),
            ],
        ),
        (
            "build",
            vec![
                ("prerelease", String::new()),
                ("revision", String::new()),
                ("version", about.version.to_string()),
            ],
        ),
    ];
    if about.server {
        groups.extend(server_stats(published, now));
    } else {
        let known = ("known_servers", text(membership::known_servers(published)));
        groups.push(("consul", vec![("acl", "disabled".into()), known, ("server", "false".into())]));
    }
    if let Some(alarm) = &published.alarm {
        groups.push(("alarm", vec![("disk", alarm.to_string())]));
    }
    groups.push(("runtime", runtime(about)));
    groups.push(("serf_lan", pool_stats(&published.cluster.lan, &figures.lan)));
    if about.server {
        groups.push(("serf_wan", pool_stats(&published.cluster.wan, &figures.wan)));
    }
    json.open(b'{');
    for (group, entries) in groups {
        json.key(group);
        json.open(b'{');
        for (key, value) in entries {
            json.key(key);
            json.string(&value);
        }
        json.close(b'}');
    }
    json.close(b'}');
}

fn server_stats(published: &Published, now: Now) -> [(&'static str, Vec<(&'static str, String)>); 2] {
    let lease = &published.lease;
    let servers = &published.membership.servers;
    let leader = lease.leader.and_then(|id| servers.get(&id));
    let state = match (lease.is_leader, servers.get(&published.about.id)) {
        (true, _) => "Leader",
        (false, Some(server)) if !server.voter => "Nonvoter",
        (false, _) => "Follower",
    };
    let figures = &lease.figures;
    let members: Vec<String> = servers
        .iter()
        .map(|(id, member)| {
            let suffrage = if member.voter { "Voter" } else { "Nonvoter" };
            format!("{{Suffrage:{suffrage} ID:{id} Address:{}}}", member.address)
        })
        .collect();
    // Others that vote; none for one that does not belong to the group yet.
    let own = published.about.id;
    let others = servers.iter().filter(|(id, member)| member.voter && **id != own).count();
    let others = if servers.contains_key(&own) { others } else { 0 };
    let contact = match (lease.is_leader, lease.as_of) {
        (true, _) => "0".to_owned(),
        (false, None) => "never".to_owned(),
        (false, Some(as_of)) => crate::duration::format(now.mono.since(as_of)),
    };
    [
        (
            "consul",
            vec![
                ("acl", "disabled".into()),
                ("bootstrap", published.about.bootstrap.to_string()),
                ("known_datacenters", membership::known_datacenters(published).to_string()),
                ("leader", lease.is_leader.to_string()),
                ("leader_addr", leader.map(|member| member.address.to_string()).unwrap_or_default()),
                ("server", "true".into()),
            ],
        ),
        (
            "raft",
            vec![
                ("applied_index", lease.applied.to_string()),
                ("commit_index", figures.commit.to_string()),
                ("fsm_pending", figures.commit.0.saturating_sub(lease.applied.0).to_string()),
                ("last_contact", contact),
                ("last_log_index", figures.last.0.to_string()),
                ("last_log_term", figures.last.1.to_string()),
                ("last_snapshot_index", figures.checkpoint.0.to_string()),
                ("last_snapshot_term", figures.checkpoint.1.to_string()),
                ("latest_configuration", format!("[{}]", members.join(" "))),
                ("latest_configuration_index", lease.membership_index.to_string()),
                ("num_peers", others.to_string()),
                ("protocol_version", "3".into()),
                ("protocol_version_max", "3".into()),
                ("protocol_version_min", "0".into()),
                ("snapshot_version_max", "1".into()),
                ("snapshot_version_min", "0".into()),
                ("state", state.into()),
                ("term", lease.term.to_string()),
            ],
        ),
    ]
}

fn pool_stats(members: &OrdMap<Text, Member>, figures: &Gauges) -> Vec<(&'static str, String)> {
    let count = |status| members.values().filter(|member| member.status == status).count().to_string();
    vec![
        // A coordinate that makes no sense is not taken over in the first place.
        ("coordinate_resets", "0".into()),
        ("encrypted", figures.encrypted.to_string()),
        ("event_queue", figures.event_queue.to_string()),
        ("event_time", figures.event_time.to_string()),
        ("failed", count(Status::Failed)),
        ("health_score", figures.health_score.to_string()),
        ("intent_queue", figures.member_queue.to_string()),
        ("left", count(Status::Left)),
        ("member_time", figures.member_time.to_string()),
        ("members", members.len().to_string()),
        ("query_queue", "0".into()),
        ("query_time", figures.query_time.to_string()),
    ]
}

/// The program and its machine. There are no goroutines: threads are counted under that name.
fn runtime(about: &About) -> Vec<(&'static str, String)> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    vec![
        ("arch", arch.into()),
        ("cpu_count", about.processors.to_string()),
        ("goroutines", about.threads.to_string()),
        ("max_procs", about.processors.to_string()),
        ("os", std::env::consts::OS.into()),
        ("version", format!("rust, proconsul {}", about.version)),
    ]
}
