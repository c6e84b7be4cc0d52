//! `/v1/agent`: answered by the agent that is asked, never by another one.

use serde_json::Value;

use super::render::json::Json;
use super::render::{content_hash, render_local_service, rows, written};
use super::route::{Context, Handled, Routed};
use super::{Call, ContentType, HttpReply, LocalServiceRead, Shape, filter, params};
use crate::Text;
use crate::agent::{self, CallError, definition};
use crate::ids::Uuid;
use crate::store::model::{Check, Health, Service};

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
        wait: context.params.wait()?,
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

/// The members of the Raft group, this agent first: what is known of the cluster without gossip.
pub(super) fn members(context: &Context<'_>) -> Handled {
    let wan = context.params.has("wan");
    let filter = context.filter(filter::MEMBER)?;
    let about = context.about();
    let mut members = vec![written(|json| own_member(json, context, wan))];
    for (id, server) in &context.published.membership.servers {
        if *id == about.id {
            continue;
        }
        let view = &context.published.view;
        let node = view.node_by_id(*id);
        let (host, port) = split_address(&server.address);
        let other = Member {
            name: node.map_or_else(|| id.to_string().into(), |node| node.name.clone()),
            address: node.map_or_else(|| host.into(), |node| node.address.clone()),
            server_port: port,
            serf_port: serf_port(context, wan),
            id: *id,
            server: true,
            wan,
        };
        members.push(written(|json| member(json, &other, context)));
    }
    let mut json = Json::with_capacity(1_024);
    json.open(b'[');
    for row in members.iter().filter(|row| filter.as_ref().is_none_or(|filter| filter.keeps(row))) {
        json.next();
        json.raw(row);
    }
    json.close(b']');
    Ok(context.json(200, json.into_bytes()).into())
}

/// One member as gossip would show it.
struct Member {
    name: Text,
    address: Text,
    server_port: i64,
    serf_port: i64,
    id: Uuid,
    server: bool,
    wan: bool,
}

fn split_address(address: &str) -> (&str, i64) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    (host.trim_matches(['[', ']']), port.parse().unwrap_or(0))
}

fn port(context: &Context<'_>, name: &str) -> i64 {
    context.about().ports.get(name).copied().unwrap_or(0).max(0).into()
}

fn serf_port(context: &Context<'_>, wan: bool) -> i64 {
    port(context, if wan { "serf_wan" } else { "serf_lan" })
}

fn own_member(json: &mut Json, context: &Context<'_>, wan: bool) {
    let about = context.about();
    let own = Member {
        name: about.node.clone(),
        address: about.address.clone(),
        server_port: port(context, "server"),
        serf_port: serf_port(context, wan),
        id: about.id,
        server: about.server,
        wan,
    };
    member(json, &own, context);
}

fn member(json: &mut Json, member: &Member, context: &Context<'_>) {
    let about = context.about();
    json.open(b'{');
    json.key("Name");
    if member.wan {
        json.string(&format!("{}.{}", member.name, about.datacenter));
    } else {
        json.string(&member.name);
    }
    json.key("Addr");
    json.string(&member.address);
    json.key("Port");
    json.number(u64::try_from(member.serf_port).unwrap_or(0));
    json.key("Tags");
    json.open(b'{');
    let (id, build) = (member.id.to_string(), format!("{}:", about.version));
    let server_port = member.server_port.to_string();
    let server_tags = [("port", server_port.as_str()), ("raft_vsn", "3")];
    let tags = [
        ("acls", "0"),
        ("build", &build),
        ("dc", &about.datacenter),
        ("id", &id),
        ("role", if member.server { "consul" } else { "node" }),
        ("segment", ""),
        ("vsn", "2"),
        ("vsn_max", "3"),
        ("vsn_min", "2"),
    ];
    for (tag, value) in tags.into_iter().chain(server_tags.into_iter().filter(|_| member.server)) {
        json.key(tag);
        json.string(value);
    }
    json.close(b'}');
    // Alive, and the protocol versions of the gossip that Consul speaks.
    let numbers = [
        ("Status", 1),
        ("ProtocolMin", 1),
        ("ProtocolMax", 5),
        ("ProtocolCur", 2),
        ("DelegateMin", 2),
        ("DelegateMax", 5),
        ("DelegateCur", 4),
    ];
    for (key, value) in numbers {
        json.key(key);
        json.number(value);
    }
    json.close(b'}');
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
    json.raw(br#"{"Vec":[0,0,0,0,0,0,0,0],"Error":1.5,"Adjustment":0,"Height":0.00001}"#);
    json.key("Member");
    own_member(&mut json, context, false);
    json.key("Stats");
    stats(&mut json, context);
    json.key("Meta");
    json.map(&about.node_meta);
    json.close(b'}');
    Ok(context.json(200, json.into_bytes()).into())
}

/// Counters as Consul shows them: groups of texts.
fn stats(json: &mut Json, context: &Context<'_>) {
    let published = context.published;
    let about = context.about();
    let lease = &published.lease;
    let leader = lease.leader.and_then(|id| published.membership.servers.get(&id));
    let servers = published.membership.servers.len();
    let text = |number: usize| number.to_string();
    let flag = |flag: bool| flag.to_string();
    let groups: [(&'static str, Vec<(&'static str, String)>); 7] = [
        (
            "agent",
            vec![
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
        (
            "consul",
            vec![
                ("acl", "disabled".into()),
                ("known_datacenters", "1".into()),
                ("leader", flag(lease.is_leader)),
                ("leader_addr", leader.map(|member| member.address.to_string()).unwrap_or_default()),
                ("server", flag(about.server)),
            ],
        ),
        (
            "raft",
            vec![
                ("applied_index", lease.applied.to_string()),
                ("num_peers", text(servers.saturating_sub(1))),
                ("state", if lease.is_leader { "Leader" } else { "Follower" }.into()),
                ("term", lease.term.to_string()),
            ],
        ),
        ("runtime", Vec::new()),
        ("serf_lan", vec![("members", text(servers.max(1)))]),
        ("serf_wan", vec![("members", text(servers))]),
    ];
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
