//! The API as a client sees it: requests against a published store, and what is answered.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::agent::AgentView;
use crate::ids::LogIndex;
use crate::node::{About, Lease, Published};
use crate::raft::{Member, Membership};
use crate::store::Store;
use crate::store::command::{Command, Response};
use crate::store::model::{Check, Health, Service};
use crate::testing::frugal;
use crate::testing::fuzz::{cases, hostile_text};
use crate::time::{Mono, Now, Wall};

pub(super) struct World {
    pub(super) published: Published,
    index: u64,
}

impl World {
    pub(super) fn new() -> World {
        let about = About {
            node: "conf-node".into(),
            id: Uuid(1),
            datacenter: "dc1".into(),
            address: "127.0.0.1".into(),
            version: "0.1.0".into(),
            server: true,
            kv_max_value_size: 524_288,
            txn_max_req_len: 524_288,
            ports: [("server".into(), 8300), ("serf_lan".into(), 8301)].into(),
            ..About::default()
        };
        let member = Member { address: "127.0.0.1:8300".into(), voter: true };
        let lease = Lease {
            leader: Some(Uuid(1)),
            is_leader: true,
            applied: LogIndex(1),
            until: Mono::NEVER,
            ..Lease::default()
        };
        let published = Published {
            view: Store::new(),
            lease,
            membership: Arc::new(Membership { servers: [(Uuid(1), member)].into() }),
            agent: Arc::default(),
            cluster: Arc::default(),
            alarm: None,
            about: Arc::new(about),
        };
        World { published, index: 0 }
    }

    pub(super) fn route(&self, method: &str, target: &str, body: &str) -> Routed {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let body = Bytes::from(body.to_owned());
        let request = HttpRequest { method, path, query, client: None, headers: Headers::default(), body };
        route(&self.published, &request, Now { mono: Mono(5), wall: Wall(0) })
    }

    pub(super) fn reply(&self, method: &str, target: &str, body: &str) -> HttpReply {
        match self.route(method, target, body) {
            Routed::Reply(reply) => reply,
            Routed::Call { request, .. } => panic!("{method} {target} enters the node: {request:?}"),
            other => panic!("{method} {target} is answered by {other:?}"),
        }
    }

    pub(super) fn get(&self, target: &str) -> HttpReply {
        self.reply("GET", target, "")
    }

    pub(super) fn json(&self, target: &str) -> Value {
        let reply = self.get(target);
        assert_eq!((reply.status, reply.content_type), (200, ContentType::Json), "{target}");
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Sends a write and applies it, as a node would that is alone.
    pub(super) fn put(&mut self, target: &str, body: &str) -> HttpReply {
        let call = match self.route(if target.contains("DELETE") { "DELETE" } else { "PUT" }, target, body) {
            Routed::Reply(reply) => return reply,
            Routed::Call { request, .. } => request.call,
            other => panic!("{target} is answered by {other:?}"),
        };
        let Call::Write(write) = call else { panic!("{target} is no write") };
        self.index += 1;
        let command = match write.clone() {
            Write::Kv(command) => Command::Kv(command),
            Write::Register(registration) => Command::Register(registration),
            Write::Deregister(deregistration) => Command::Deregister(deregistration),
            Write::Transaction(operations) => Command::Transaction(operations),
            Write::ConfigSet { entry, cas } => Command::ConfigSet { entry, cas },
            Write::ConfigDelete { kind, name, cas } => Command::ConfigDelete { kind, name, cas },
            Write::Intention(command) => Command::Intention(command),
            other => panic!("{other:?} needs a node"),
        };
        let response = self.published.view.apply(self.index, &command).response;
        render_response(&write, &response)
    }
}

pub(super) fn text(reply: &HttpReply) -> &str {
    std::str::from_utf8(&reply.body).unwrap()
}

#[test]
fn a_filter_keeps_the_rows_for_which_it_holds() {
    let mut world = World::new();
    for (node, port, status) in [("a", 80, "passing"), ("b", 81, "critical")] {
        let body = format!(
            r#"{{"Node":"{node}","Address":"10.0.0.1","Service":{{"ID":"web","Service":"web","Port":{port}}},
                "Check":{{"CheckID":"c","Name":"c","Status":"{status}","ServiceID":"web"}}}}"#
        );
        assert_eq!(world.put("/v1/catalog/register", &body).status, 200);
    }
    let cases = [
        ("/v1/catalog/nodes?filter=Node==b", "/0/Node"),
        ("/v1/catalog/service/web?filter=ServicePort==81", "/0/Node"),
        ("/v1/health/service/web?filter=Checks.Status==critical", "/0/Node/Node"),
        ("/v1/health/checks/web?filter=Status!=passing", "/0/Node"),
        ("/v1/health/state/any?filter=Status+matches+%22^c%22", "/0/Node"),
    ];
    for (target, node) in cases {
        let rows = world.json(target);
        assert_eq!(
            (rows.as_array().map(Vec::len), rows.pointer(node)),
            (Some(1), Some(&"b".into())),
            "{target}"
        );
    }
    assert_eq!(world.json("/v1/health/node/b?filter=ServiceName==db"), serde_json::json!([]));
    let node = world.json("/v1/catalog/node/b?filter=Service==db");
    assert_eq!((&node["Node"]["Node"], &node["Services"]), (&"b".into(), &serde_json::json!({})));
    assert_eq!(world.json("/v1/agent/members?filter=Name==none"), serde_json::json!([]));
    assert_eq!(world.json("/v1/health/service/web?filter=").as_array().map(Vec::len), Some(2));
}

#[test]
fn a_filter_that_makes_no_sense_is_refused_and_never_ignored() {
    let world = World::new();
    let refused = |target: &str, status: u16, expected: &str| {
        let reply = world.get(target);
        assert_eq!((reply.status, text(&reply)), (status, expected), "{target}");
    };
    let invalid = "Failed to create boolean expression evaluator: Selector \"Frob\" is not valid";
    for path in ["catalog/nodes", "health/service/web", "agent/services", "agent/checks", "agent/members"] {
        refused(&format!("/v1/{path}?filter=Frob==a"), 500, invalid);
        // A wait does not put it off.
        refused(&format!("/v1/{path}?filter=Frob==a&index=100"), 500, invalid);
    }
    refused(
        "/v1/catalog/services?filter=ServiceName==a",
        400,
        "Invalid filter: /v1/catalog/services cannot be filtered, leave out ?filter=",
    );
}

#[test]
fn a_key_is_written_and_read() {
    let mut world = World::new();
    assert_eq!(world.put("/v1/kv/app/a?flags=42", "one"), HttpReply::json(200, &b"true"[..]));
    let reply = world.get("/v1/kv/app/a");
    assert_eq!(
        text(&reply),
        r#"[{"LockIndex":0,"Key":"app/a","Flags":42,"Value":"b25l","CreateIndex":1,"ModifyIndex":1}]"#
    );
    assert_eq!(reply.meta, Some(QueryMeta { index: 1, known_leader: true, last_contact_ms: 0 }));
    assert_eq!(reply.headers, []);
    assert_eq!(text(&world.get("/v1/kv/app/a?pretty")).lines().nth(2), Some("        \"LockIndex\": 0,"));
    let raw = world.get("/v1/kv/app/a?raw");
    assert_eq!((raw.content_type, text(&raw)), (ContentType::Raw, "one"));
    assert_eq!(world.put("/v1/kv/app/a?cas=7", "two"), HttpReply::json(200, &b"false"[..]));
    assert_eq!(world.json("/v1/kv/app%2Fa?stale")[0]["Key"], "app/a");
}

#[test]
fn a_key_that_is_not_there_is_404_with_an_index() {
    let reply = World::new().get("/v1/kv/app/a");
    assert_eq!((reply.status, reply.content_type, reply.body.len()), (404, ContentType::None, 0));
    assert_eq!(reply.meta.unwrap().index, 1);
}

#[test]
fn keys_are_listed() {
    let mut world = World::new();
    assert_eq!(world.json("/v1/kv/?keys"), json!([]));
    assert_eq!(world.get("/v1/kv/?recurse").status, 404);
    for key in ["web/a/x", "web/b", "zip", "a<b"] {
        world.put(&format!("/v1/kv/{key}"), "1");
    }
    assert_eq!(world.json("/v1/kv/?keys"), json!(["a<b", "web/a/x", "web/b", "zip"]));
    assert_eq!(world.json("/v1/kv/web/?keys&separator=/"), json!(["web/a/", "web/b"]));
    assert_eq!(world.json("/v1/kv/web?recurse&raw")[1]["Value"], "MQ==");
    assert_eq!(world.get("/v1/kv/none?keys").status, 404);
    assert_eq!(text(&world.get("/v1/kv/a?keys")), r#"["a\u003cb"]"#);
}

#[test]
fn an_instance_is_shown_in_every_shape() {
    let mut world = World::new();
    let body = r#"{"Node":"a","Address":"10.0.0.1","NodeMeta":{"rack":"1"},
        "Service":{"ID":"web-a","Service":"web","Tags":["v1"],"Port":80},
        "Checks":[{"CheckID":"node","Name":"node","Status":"passing"},
                  {"CheckID":"web-a","Name":"web","Status":"warning","ServiceID":"web-a","Output":"ok"}]}"#;
    assert_eq!(text(&world.put("/v1/catalog/register", body)), "true");
    let node = json!({"ID":"","Node":"a","Address":"10.0.0.1","Datacenter":"dc1","TaggedAddresses":null,
        "Meta":{"rack":"1"},"CreateIndex":1,"ModifyIndex":1});
    let service = json!({"ID":"web-a","Service":"web","Tags":["v1"],"Address":"","Meta":null,"Port":80,
        "Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"MeshGateway":{},"Expose":{}},
        "Connect":{},"CreateIndex":1,"ModifyIndex":1});
    let check = |id: &str, name: &str, status: &str, output: &str, service: &str| {
        let (name_of, tags) = if service.is_empty() { ("", json!([])) } else { ("web", json!(["v1"])) };
        json!({"Node":"a","CheckID":id,"Name":name,"Status":status,"Notes":"","Output":output,"ServiceID":service,
            "ServiceName":name_of,"ServiceTags":tags,"Type":"","Interval":"","Timeout":"","ExposedPort":0,
            "Definition":{},"CreateIndex":1,"ModifyIndex":1})
    };
    let node_check = check("node", "node", "passing", "", "");
    let service_check = check("web-a", "web", "warning", "ok", "web-a");
    assert_eq!(
        world.json("/v1/health/service/WEB"),
        json!([{"Node":node,"Service":service,"Checks":[node_check, service_check]}])
    );
    assert_eq!(world.json("/v1/health/service/web?passing"), json!([]));
    assert_eq!(world.json("/v1/health/service/web?tag=V1&tag=v2"), json!([]));
    assert_eq!(world.json("/v1/health/checks/web"), json!([service_check]));
    assert_eq!(world.json("/v1/health/node/a"), json!([node_check, service_check]));
    assert_eq!(world.json("/v1/health/state/passing"), json!([node_check]));
    assert_eq!(world.json("/v1/health/state/frob"), json!([]));
    assert_eq!(world.json("/v1/catalog/nodes?node-meta=rack:1"), json!([node]));
    assert_eq!(world.json("/v1/catalog/services"), json!({"web":["v1"]}));
    assert_eq!(world.json("/v1/catalog/node/A"), json!({"Node":node,"Services":{"web-a":service}}));
    assert_eq!(world.json("/v1/catalog/node-services/a"), json!({"Node":node,"Services":[service]}));
    assert_eq!(world.json("/v1/catalog/node/none"), json!(null));
    assert_eq!(world.json("/v1/catalog/node-services/none"), json!({"Node":null,"Services":null}));
    assert_eq!(
        world.json("/v1/catalog/service/web"),
        json!([{"ID":"","Node":"a","Address":"10.0.0.1","Datacenter":"dc1","TaggedAddresses":null,
            "NodeMeta":{"rack":"1"},"ServiceKind":"","ServiceID":"web-a","ServiceName":"web","ServiceTags":["v1"],
            "ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},"ServiceMeta":{},"ServicePort":80,
            "ServiceEnableTagOverride":false,"ServiceProxy":{"MeshGateway":{},"Expose":{}},"ServiceConnect":{},
            "CreateIndex":1,"ModifyIndex":1}])
    );
    let reply = world.get("/v1/catalog/nodes?stale");
    assert_eq!(reply.headers, [("X-Consul-Effective-Consistency".into(), "stale".into())]);
}

#[test]
fn an_unchanged_list_is_rendered_once() {
    let mut world = World::new();
    world.put("/v1/catalog/register", r#"{"Node":"a","Address":"1.1.1.1","Service":{"Service":"web"}}"#);
    let [first, second] = [(), ()].map(|()| world.get("/v1/health/service/web").body);
    assert_eq!(first.as_ptr(), second.as_ptr());
    let pretty = world.get("/v1/health/service/web?pretty").body;
    assert_eq!(
        serde_json::from_slice::<Value>(&pretty).unwrap(),
        serde_json::from_slice::<Value>(&first).unwrap()
    );
    world.put(
        "/v1/catalog/register",
        r#"{"Node":"a","Address":"1.1.1.1","Service":{"Service":"web","Port":1}}"#,
    );
    assert_ne!(world.get("/v1/health/service/web").body, first);
}

#[test]
fn what_is_refused_is_refused_as_by_consul() {
    let world = World::new();
    let cases = [
        ("GET", "/v1/kv/", 400, "Missing key name"),
        ("PUT", "/v1/kv/", 400, "Missing key name"),
        ("DELETE", "/v1/kv/", 400, "Missing key name"),
        ("PUT", "/v1/kv/a?cas=0&acquire=x", 400, "Conflicting flags: acquire=x&cas=0"),
        ("DELETE", "/v1/kv/a?cas=1&recurse", 400, "Conflicting flags: cas=1&recurse="),
        ("PUT", "/v1/kv/a?flags=xyz", 500, "Invalid flags: \"xyz\" is not an unsigned 64-bit integer"),
        ("PUT", "/v1/kv/a?dc=nowhere", 500, "No path to datacenter"),
        ("POST", "/v1/kv/a", 405, "method POST not allowed"),
        (
            "GET",
            "/v1/kv/a?ns=default",
            400,
            "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature",
        ),
        ("GET", "/v1/session/node/", 400, "Missing node name"),
        ("GET", "/v1/session/info/", 400, "Missing session"),
        (
            "GET",
            "/v1/session/info/abc",
            500,
            "failed session lookup: index error: UUID must be 36 characters",
        ),
        ("GET", "/v1/health/service/", 400, "Missing service name"),
        ("GET", "/v1/health/service/web?passing=maybe", 400, "Invalid value for ?passing"),
        ("GET", "/v1/health/state/", 400, "Missing check state"),
        ("GET", "/v1/catalog/node/", 400, "Missing node name"),
        ("GET", "/v1/catalog/services/", 404, "Invalid URL path: not a recognized HTTP API endpoint"),
        (
            "GET",
            "/frob",
            404,
            "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'",
        ),
        ("PUT", "/v1/agent/maintenance", 400, "Missing value for enable"),
        ("PUT", "/v1/agent/maintenance?enable=x", 400, "Invalid value for enable: \"x\""),
        ("PUT", "/v1/agent/service/maintenance/?enable=true", 400, "Missing service ID"),
        ("PUT", "/v1/agent/service/deregister/", 500, "ServiceID missing"),
        ("PUT", "/v1/agent/check/deregister/", 500, "CheckID missing"),
        ("PUT", "/v1/agent/check/update/x", 400, "Request decode failed: EOF"),
        ("GET", "/v1/agent/service/none", 404, "unknown service ID: none"),
        ("GET", "/v1/agent/service/x?hash=1&wait=x", 400, "Invalid wait time"),
        ("GET", "/v1/status/leader?dc=x", 500, "No path to datacenter"),
        ("GET", "/v1/kv/a%zz", 400, "Invalid URL escape \"%zz\""),
        ("GET", "/v1/kv/a%01b", 400, "Invalid URL path: it contains a character that cannot be printed"),
    ];
    for (method, target, status, expected) in cases {
        let reply = world.reply(method, target, "");
        assert_eq!((reply.status, text(&reply)), (status, expected), "{method} {target}");
        assert_eq!(reply.content_type, ContentType::Text, "{method} {target}");
    }
}

#[test]
fn methods_and_paths_are_told() {
    let world = World::new();
    let allow = |reply: &HttpReply| {
        reply.headers.iter().find(|(name, _)| name == "Allow").map(|(_, value)| value.to_string())
    };
    let options = world.reply("OPTIONS", "/v1/kv/a", "");
    assert_eq!((options.status, allow(&options).as_deref()), (200, Some("OPTIONS,GET,PUT,DELETE")));
    assert!(options.body.is_empty());
    let refused = world.reply("DELETE", "/v1/catalog/services", "");
    assert_eq!((refused.status, allow(&refused).as_deref()), (405, Some("OPTIONS,GET")));
    let location = |reply: &HttpReply| {
        assert_eq!((reply.status, reply.content_type), (301, ContentType::Html));
        reply.headers[0].1.to_string()
    };
    assert_eq!(location(&world.get("/v1/kv?keys")), "/v1/kv/?keys");
    assert_eq!(location(&world.get("/v1//kv/a%20b")), "/v1/kv/a%20b");
    assert_eq!(location(&world.get("/v1/kv/a/../b?x=1&y=<")), "/v1/kv/b?x=1&y=<");
}

#[test]
fn the_agent_shows_its_own_services_and_how_they_are() {
    let mut world = World::new();
    let mut agent = AgentView::default();
    for (id, port) in [("web1", 1), ("web2", 2)] {
        let service = Service { id: id.into(), service: "web".into(), port, ..Service::default() };
        agent.services.insert(id.into(), Arc::new(service));
    }
    let check = Check {
        node: "conf-node".into(),
        id: "c2".into(),
        status: Health::Warning,
        service_id: "web2".into(),
        ..Check::default()
    };
    agent.checks.insert("c2".into(), Arc::new(check));
    world.published.agent = Arc::new(agent);

    let web1 = json!({"ID":"web1","Service":"web","Tags":[],"Meta":{},"Port":1,"Address":"",
        "Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false});
    assert_eq!(world.json("/v1/agent/services")["web1"], web1);
    assert_eq!(world.json("/v1/agent/checks")["c2"]["Status"], "warning");
    assert_eq!(
        world.json("/v1/agent/health/service/id/web1"),
        json!({"AggregatedStatus":"passing","Service":web1,"Checks":[]})
    );
    let reply = world.get("/v1/agent/health/service/name/web?format=text");
    assert_eq!((reply.status, reply.content_type, text(&reply)), (429, ContentType::Raw, "warning"));
    let reply = world.get("/v1/agent/health/service/id/none");
    assert_eq!(reply.status, 404);
    assert_eq!(text(&reply), r#"{"AggregatedStatus":"critical","Service":null,"Checks":null}"#);
    assert_eq!(text(&world.get("/v1/agent/health/service/name/none")), "[]");

    let one = world.get("/v1/agent/service/web1");
    let hash = one.headers[0].1.clone();
    assert_eq!(serde_json::from_slice::<Value>(&one.body).unwrap()["ContentHash"], hash.as_str());
    match world.route("GET", &format!("/v1/agent/service/web1?hash={hash}&wait=1s"), "") {
        Routed::Call { request: Request { call: Call::LocalService(read), .. }, .. } => {
            assert_eq!((read.id.as_str(), read.hash), ("web1", hash));
        }
        other => panic!("a known hash waits: {other:?}"),
    }
    assert_eq!(world.get("/v1/agent/service/web1?hash=other&wait=1s").status, 200);
}

#[test]
fn the_agent_tells_about_itself() {
    let world = World::new();
    assert_eq!(world.json("/v1/status/leader"), "127.0.0.1:8300");
    assert_eq!(world.json("/v1/status/peers"), json!(["127.0.0.1:8300"]));
    assert_eq!(world.json("/v1/catalog/datacenters"), json!(["dc1"]));
    let about = world.json("/v1/agent/self");
    assert_eq!(about["Config"]["NodeName"], "conf-node");
    assert_eq!(about["Stats"]["consul"]["leader"], "true");
}

#[test]
fn reads_that_must_wait_or_be_confirmed_enter_the_node() {
    let world = World::new();
    for target in ["/v1/kv/a?index=1", "/v1/kv/a?consistent", "/v1/catalog/nodes?index=1000000&wait=1s"] {
        match world.route("GET", target, "") {
            Routed::Call { request: Request { call: Call::Read(_), .. }, indent: false } => {}
            other => panic!("{target}: {other:?}"),
        }
    }
}

#[test]
fn responses_of_the_store_read_as_consul_writes_them() {
    let write = Write::SessionDestroy(Uuid(1));
    let render = |response: Response| {
        let reply = render_response(&write, &response);
        (reply.status, text(&reply).to_owned())
    };
    assert_eq!(render(Response::Done), (200, "true".into()));
    assert_eq!(
        render(Response::SessionCreated(Uuid(5))),
        (200, "{\"ID\":\"00000000-0000-0000-0000-000000000005\"}".into())
    );
    let refusal = crate::store::command::Refusal::MissingNode;
    assert_eq!(render(Response::Refused(refusal)), (500, "Missing node registration".into()));
    assert_eq!(render_renewed(Uuid(5), None).status, 404);
}

/// Bodies as clients send them.
fn bodies() -> impl Strategy<Value = String> {
    let words = (any::<u32>(), "[a-z]{0,8}").prop_map(|(number, word)| {
        [
            json!({"Node": word, "Address": "10.0.0.1", "Service": {"Service": word, "Port": number, "Tags": [word]}, "SkipNodeUpdate": true}),
            json!({"Name": word, "ID": word, "Port": number % 70_000, "Check": {"TTL": "10s", "Status": "passing"}, "Weights": {"Passing": number}}),
            json!({"Name": word, "TTL": format!("{number}s"), "Behavior": "delete", "LockDelay": number, "NodeChecks": [word]}),
            json!({"Name": word, "HTTP": "http://127.0.0.1", "Interval": "1s", "Header": {"A": [word]}, "Args": [word, word]}),
            json!({"Node": word, "Coord": {"Vec": [0.1, f64::from(number)], "Error": 1.5, "Height": 1e-5}}),
            json!({"CleanupDeadServers": true, "MaxTrailingLogs": number, "LastContactThreshold": "200ms"}),
            json!({"Key": word}),
            json!({"Name": word, "Service": {"Service": format!("${{{word}}}"), "Tags": [word, "!${match(1)}"], "Failover": {"NearestN": number}}, "Template": {"Type": "name_prefix_match", "Regexp": format!("({word}")}}),
        ]
    });
    (words, any::<prop::sample::Index>()).prop_map(|(documents, which)| which.get(&documents).to_string())
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn nothing_that_arrives_makes_the_router_panic(
        method in prop_oneof![Just("GET".to_owned()), Just("PUT".to_owned()), Just("POST".to_owned()), Just("DELETE".to_owned()), "[A-Z]{0,6}"],
        path in prop_oneof![
            "/v1/(kv|session|catalog|health|agent|status|event|operator|query)/[a-z]{0,10}(/.{0,12})?",
            "/v1/(kv|catalog/register|agent/service/register|session/create|agent/check/update/x)(/)?",
            "/v1/(event/(fire/.{0,4}|list)|operator/(keyring|raft/(peer|configuration|transfer-leader)|autopilot/configuration))",
            "/v1/query(/[a-f0-9-]{0,8}(/(execute|explain))?)?",
            "/?.{0,24}",
        ],
        query in "(((index|wait|dc|filter|cas|flags|tag|passing|node-meta|enable|separator|keys|recurse|raw|pretty|stale|max_stale|%zz|.{0,3})(=.{0,8})?&?){0,4})",
        body in prop_oneof![hostile_text(bodies(), 200), r#"\{("(Node|Name|ID|Check|Service|Address|Status|Port)":("x"|1|null|\{\}|\[\]),?){0,3}\}"#],
    ) {
        let world = World::new();
        let target = format!("{path}?{query}");
        match frugal(target.len() + body.len(), || world.route(&method, &target, &body)) {
            Routed::Reply(reply) => prop_assert!((200..600).contains(&reply.status)),
            Routed::Call { .. } | Routed::Save { .. } | Routed::Restore { .. } | Routed::Process { .. } => {}
        }
    }
}

#[test]
fn discovery_settles_for_stale_answers_if_the_configuration_says_so() {
    let mut world = World::new();
    let front = Front { discovery_max_stale: Duration::from_secs(1), ..Front::default() };
    world.published.about = Arc::new(About { front, ..(*world.published.about).clone() });
    let mode = |target| {
        let reply = world.get(target);
        let name = Text::from("X-Consul-Effective-Consistency");
        reply.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.clone())
    };
    assert_eq!(mode("/v1/catalog/nodes"), Some("stale".into()));
    assert_eq!(mode("/v1/health/state/any"), Some("stale".into()));
    assert_eq!(mode("/v1/catalog/nodes?leader"), Some("leader".into()));
}

#[test]
fn a_blocked_path_is_shut_however_it_is_written() {
    let mut world = World::new();
    let front = Front { block_endpoints: vec!["/v1/kv/shut".into()], ..Front::default() };
    world.published.about = Arc::new(About { front, ..(*world.published.about).clone() });
    for target in ["/v1/kv/shut", "/v1/kv/shut/a", "/v1/kv/%73hut", "/v1/%6bv/shut"] {
        let reply = world.get(target);
        assert_eq!((reply.status, text(&reply)), (403, "Endpoint is blocked by agent configuration"));
    }
    assert_eq!(world.get("/v1/kv//shut").status, 301);
    assert_eq!(world.get("/v1/kv/open").status, 404);
}

#[test]
fn the_page_is_at_its_place_and_below_and_the_root_leads_there() {
    let mut world = World::new();
    let is_page = |world: &World, method, target| {
        matches!(world.route(method, target, ""), Routed::Process { wish: Wish::Page, .. })
    };
    assert_eq!(text(&world.get("/")).split(". ").next(), Some("Consul Agent: UI disabled"));
    assert_eq!(world.get("/ui/").status, 404);
    let front = Front { page: Some("/some/where/".into()), ..Front::default() };
    world.published.about = Arc::new(About { front, ..(*world.published.about).clone() });
    for (target, location) in [
        ("/", "/some/where/"),
        ("/some/where", "/some/where/"),
        ("/?dc=dc2", "/some/where/?dc=dc2"),
        ("/some//where/", "/some/where/"),
    ] {
        let reply = world.get(target);
        assert_eq!(reply.status, 301, "{target}");
        assert!(reply.headers.contains(&("Location".into(), location.into())), "{reply:?}");
    }
    for target in ["/some/where/", "/some/where/dc1/services/web?dc=dc1", "/some/where/x/%3Cscript%3E"] {
        assert!(is_page(&world, "GET", target) && is_page(&world, "HEAD", target), "{target}");
    }
    let reply = world.reply("POST", "/some/where/", "");
    assert_eq!((reply.status, text(&reply)), (405, "method POST not allowed"));
    for target in ["/some/wherever", "/ui/", "/v1/kv/some/where/"] {
        assert_eq!(world.get(target).status, 404, "{target}");
    }
}

#[test]
fn intentions_decide_about_connections() {
    let mut world = World::new();
    let identity = "spiffe://x.consul/ns/default/dc/dc1/svc/web";
    let authorize = |world: &World| {
        let body = json!({"Target": "db", "ClientCertURI": identity, "ClientCertSerial": "1"});
        let reply = world.reply("POST", "/v1/agent/connect/authorize", &body.to_string());
        assert_eq!(reply.status, 200, "{}", text(&reply));
        serde_json::from_slice::<Value>(&reply.body).expect("JSON")
    };
    assert_eq!(
        authorize(&world),
        json!({"Authorized": true, "Reason": "ACLs disabled, access is allowed by default"})
    );
    let exact = "/v1/connect/intentions/exact?source=*&destination=default/db";
    assert_eq!(text(&world.put(exact, r#"{"Action": "deny"}"#)), "true");
    assert_eq!(world.json(exact)["DestinationName"], "db");
    assert_eq!(
        authorize(&world),
        json!({
            "Authorized": false,
            "Reason": "Matched intention: DENY default/* => default/db (Precedence: 8)",
        })
    );
    for (body, why) in [
        (json!({}), "Target service must be specified"),
        (json!({"Target": "db"}), "ClientCertURI not a valid Connect identifier"),
        (
            json!({"Target": "db", "ClientCertURI": "spiffe://x"}),
            "ClientCertURI not a valid Service identifier",
        ),
    ] {
        let reply = world.reply("POST", "/v1/agent/connect/authorize", &body.to_string());
        assert_eq!((reply.status, text(&reply)), (400, why));
    }
}
