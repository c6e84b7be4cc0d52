//! `/v1/query` as a client sees it.

use std::net::IpAddr;

use bytes::Bytes;
use serde_json::{Value, json};

use super::api_test::{World, text};
use super::*;
use crate::store::PreparedCommand;
use crate::store::command::Command;
use crate::time::{Mono, Now, Wall};

/// Sends a write and applies it, as a node would that is alone and draws `id`.
fn change(world: &mut World, method: &str, target: &str, body: &str, id: u128) -> HttpReply {
    let call = match world.route(method, target, body) {
        Routed::Reply(reply) => return reply,
        Routed::Call { request, .. } => request.call,
        other => panic!("{target} is answered by {other:?}"),
    };
    let Call::Write(Write::Prepared(mut command)) = call else { panic!("{target}: {call:?}") };
    if let PreparedCommand::Create(query) = &mut command {
        query.id = Uuid(id);
    }
    let index = world.published.view.newest_index() + 1;
    let applied = world.published.view.apply(index, &Command::Prepared(command.clone()));
    render_response(&Write::Prepared(command), &applied.response)
}

fn create(world: &mut World, id: u128, body: &Value) -> HttpReply {
    change(world, "POST", "/v1/query", &body.to_string(), id)
}

fn path(id: u128) -> String {
    format!("/v1/query/{}", Uuid(id))
}

/// An answer in a line.
fn said(reply: &HttpReply) -> String {
    format!("{} {}", reply.status, text(reply))
}

#[test]
fn a_query_is_created_shown_changed_and_removed() {
    let mut world = World::new();
    assert_eq!(text(&world.get("/v1/query")), "[]");
    let body = json!({"name": "q", "Service": {"service": "web", "Tags": ["v1", "!old"], "NodeMeta": {}}});
    let reply = create(&mut world, 5, &body);
    assert_eq!(said(&reply), r#"200 {"ID":"00000000-0000-0000-0000-000000000005"}"#);
    let reply = world.get(&path(5));
    assert_eq!(
        text(&reply),
        concat!(
            r#"[{"ID":"00000000-0000-0000-0000-000000000005","Name":"q","Session":"","Token":"","#,
            r#""Template":{"Type":"","Regexp":"","RemoveEmptyTags":false},"#,
            r#""Service":{"Service":"web","Failover":{"NearestN":0,"Datacenters":null},"OnlyPassing":false,"#,
            r#""IgnoreCheckIDs":null,"Near":"","Tags":["v1","!old"],"NodeMeta":{},"ServiceMeta":null,"#,
            r#""Connect":false},"DNS":{"TTL":""},"CreateIndex":1,"ModifyIndex":1}]"#
        )
    );
    assert_eq!(reply.meta.map(|meta| meta.index), Some(1));
    assert_eq!(world.get("/v1/query").body, reply.body);
    // What was shown may be sent back.
    let mut shown = world.json(&path(5))[0].clone();
    shown["Service"]["Service"] = "db".into();
    let reply = change(&mut world, "PUT", &path(5), &shown.to_string(), 0);
    assert_eq!((said(&reply).as_str(), reply.content_type), ("200 ", ContentType::None));
    assert_eq!(world.json(&path(5))[0]["Service"]["Service"], "db");
    assert_eq!(said(&change(&mut world, "DELETE", &path(5), "", 0)), "200 ");
    let gone = world.get(&path(5));
    assert_eq!((said(&gone).as_str(), gone.meta), ("404 Query not found", None));
    let text = "500 Cannot modify non-existent prepared query: '00000000-0000-0000-0000-000000000005'";
    assert_eq!(said(&change(&mut world, "DELETE", &path(5), "", 0)), text);
    assert_eq!(said(&change(&mut world, "PUT", &path(5), r#"{"Service":{"Service":"web"}}"#, 0)), text);
}

#[test]
fn what_is_refused_is_refused_with_the_texts_of_consul() {
    let mut world = World::new();
    let service = json!({"Service": "web"});
    let invalid = |why: &str| format!("500 Invalid prepared query: {why}");
    let cases = [
        (json!({"Service": service}), invalid("Must be bound to a session")),
        (json!({"Name": "x"}), invalid("Must provide a Service name to query")),
        (
            json!({"ID": "x", "Service": service}),
            "500 ID must be empty when creating a new prepared query".into(),
        ),
        (
            json!({"Name": "x", "Token": "<hidden>", "Service": service}),
            invalid(
                "Bad Token '<hidden>', it looks like a query definition with a redacted token was submitted",
            ),
        ),
        (
            json!({"Name": "x", "Service": {"Service": "w", "Failover": {"NearestN": -1}}}),
            invalid("Bad NearestN '-1', must be >= 0"),
        ),
        (
            json!({"Name": "x", "Service": {"Service": "w", "Failover": {"NearestN": 1, "Targets": [{"Datacenter": "b"}]}}}),
            invalid("Targets cannot be populated with NearestN or Datacenters"),
        ),
        (
            json!({"Name": "x", "Service": {"Service": "w", "Failover": {"Targets": [{"Peer": "b"}]}}}),
            invalid("Cluster peering is not supported: leave out Peer"),
        ),
        (
            json!({"Name": "x", "Service": {"Service": "w", "SamenessGroup": "g"}}),
            invalid("Sameness groups are a Consul Enterprise feature"),
        ),
        (
            json!({"Name": "x", "Service": {"Service": "w", "NodeMeta": {"a b": "c"}}}),
            invalid("Couldn't load metadata pair ('a b', 'c'): Key contains invalid characters"),
        ),
        (
            json!({"Name": "x", "Service": service, "DNS": {"TTL": "soon"}}),
            invalid("Bad DNS TTL 'soon': time: invalid duration \"soon\""),
        ),
        (
            json!({"Name": "x", "Service": service, "DNS": {"TTL": "-1s"}}),
            invalid("DNS TTL '-1000000000', must be >=0"),
        ),
        (
            json!({"Session": "x", "Service": service}),
            "500 invalid session: index error: UUID must be 36 characters".into(),
        ),
        (
            json!({"Session": Uuid(9).to_string(), "Service": service}),
            "500 invalid session \"00000000-0000-0000-0000-000000000009\"".into(),
        ),
        (
            json!({"Name": "x", "Service": service, "Template": {"Type": "frob"}}),
            "500 failed compiling template: Bad Template.Type 'frob'".into(),
        ),
        (
            json!({"Name": "x", "Service": {"Service": "${x}"}, "Template": {"Type": "name_prefix_match"}}),
            "500 failed compiling template: Bad evaluation for '${x}' in Service.Service: 1:3: unknown variable \
             accessed: x"
                .into(),
        ),
        (
            json!({"Frob": 1, "Service": service}),
            "400 Request decode failed: json: unknown field \"Frob\"".into(),
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(said(&create(&mut world, 1, &body)), expected, "{body}");
    }
    let lookup = "failed prepared query lookup: index error: UUID must be 36 characters";
    assert_eq!(said(&world.get("/v1/query/x")), format!("500 {lookup}"));
    let changing = format!("500 Prepared Query lookup failed: {lookup}");
    assert_eq!(said(&world.reply("DELETE", "/v1/query/x", "")), changing);
    assert_eq!(said(&world.reply("PUT", "/v1/query/x", r#"{"Service":{"Service":"web"}}"#)), changing);
    for body in ["", "{", "[]", r#"{"Name":5}"#, r#"{"Service":{"Tags":"a"}}"#] {
        let reply = world.reply("POST", "/v1/query", body);
        assert!(said(&reply).starts_with("400 Request decode failed: "), "{body}");
    }
}

#[test]
fn methods_are_those_of_each_path() {
    let world = World::new();
    for (method, target, status, allow) in [
        ("OPTIONS", "/v1/query", 200, "OPTIONS,GET,POST"),
        ("PUT", "/v1/query", 405, "OPTIONS,GET,POST"),
        ("OPTIONS", "/v1/query/a", 200, "OPTIONS,GET,PUT,DELETE"),
        ("POST", "/v1/query/a", 405, "GET,PUT,DELETE"),
        ("OPTIONS", "/v1/query/a/execute", 200, "OPTIONS,GET"),
        ("PUT", "/v1/query/a/execute", 405, "GET"),
        ("DELETE", "/v1/query/a/b/explain", 405, "GET"),
    ] {
        let reply = world.reply(method, target, "");
        assert_eq!((reply.status, reply.headers), (status, vec![("Allow".into(), allow.into())]), "{target}");
    }
}

fn running() -> World {
    let mut world = World::new();
    for (node, tag) in [("a", "[\"v1\"]"), ("b", "null")] {
        let body = format!(
            r#"{{"Node":"{node}","Address":"10.0.0.1","Service":{{"Service":"web","Port":80,"Tags":{tag}}}}}"#
        );
        assert_eq!(world.put("/v1/catalog/register", &body).status, 200);
    }
    let plain = json!({"Name": "web", "Service": {"Service": "web", "Tags": ["!v1"]}, "DNS": {"TTL": "7s"}});
    assert_eq!(create(&mut world, 1, &plain).status, 200);
    let template = json!({
        "Name": "of-",
        "Service": {"Service": "${name.suffix}"},
        "Template": {"Type": "name_prefix_match"},
    });
    assert_eq!(create(&mut world, 2, &template).status, 200);
    world
}

#[test]
fn a_run_shows_what_was_found_as_consul_shows_it() {
    let world = running();
    let reply = world.get("/v1/query/web/execute");
    assert_eq!(
        text(&reply),
        concat!(
            r#"{"Service":"web","Nodes":[{"Node":{"ID":"","Node":"b","Address":"10.0.0.1","Datacenter":"dc1","#,
            r#""TaggedAddresses":null,"Meta":null,"CreateIndex":2,"ModifyIndex":2},"Service":{"ID":"web","#,
            r#""Service":"web","Tags":null,"Address":"","Meta":null,"Port":80,"Weights":{"Passing":1,"Warning":1},"#,
            r#""EnableTagOverride":false,"Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":2,"#,
            r#""ModifyIndex":2},"Checks":null}],"DNS":{"TTL":"7s"},"Datacenter":"dc1","Failovers":0,"Index":0,"#,
            r#""LastContact":0,"KnownLeader":true,"ConsistencyLevel":"leader"}"#
        )
    );
    assert_eq!(reply.meta.map(|meta| meta.index), Some(1));
    assert_eq!(world.json("/v1/query/of-web/execute")["Nodes"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.json("/v1/query/of-web/execute?limit=1")["Nodes"].as_array().map(Vec::len), Some(1));
    assert_eq!(world.json("/v1/query/of-web/execute?limit=-1")["Nodes"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.json("/v1/query/of-web/execute?connect=true")["Nodes"], json!([]));
    // It never waits.
    assert_eq!(world.json("/v1/query/web/execute?index=99&stale")["ConsistencyLevel"], "stale");
    for (target, expected) in [
        ("/v1/query/none/execute", "404 Query not found"),
        ("/v1/query/web/execute?limit=x", "500 Bad limit: strconv.Atoi: parsing \"x\": invalid syntax"),
        (
            "/v1/query/web/explain?limit=99999999999999999999",
            "500 Bad limit: strconv.Atoi: parsing \"99999999999999999999\": value out of range",
        ),
        (
            "/v1/query/web/execute?connect=x",
            "500 Error parsing 'connect' value: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        ("/v1/query/web/execute?dc=nowhere", "500 No path to datacenter"),
        (
            "/v1/query/00000000-0000-0000-0000-000000000002/execute",
            "500 prepared query templates can only be resolved up by name, not by ID",
        ),
    ] {
        assert_eq!(said(&world.get(target)), expected, "{target}");
    }
}

#[test]
fn an_explanation_shows_the_query_as_it_would_be_run() {
    let world = running();
    let explained = world.json("/v1/query/of-a/b/explain");
    assert_eq!(explained["Query"]["Service"]["Service"], "a/b");
    assert_eq!(explained["Query"]["Name"], "of-");
    assert_eq!(explained["ConsistencyLevel"], "leader");
    assert_eq!(world.json(&path(2))[0]["Service"]["Service"], "${name.suffix}");
    assert_eq!(said(&world.get("/v1/query/none/explain")), "404 Query not found");
}

#[test]
fn the_client_is_where_its_first_proxy_says_or_where_it_is() {
    let world = running();
    let address: IpAddr = "10.0.0.7".parse().unwrap();
    for (client, forwarded_for, expected) in
        [(None, "", ""), (Some(address), "", "10.0.0.7"), (Some(address), "10.0.0.8 , 10.0.0.9", "10.0.0.8")]
    {
        let request = HttpRequest {
            method: "GET",
            path: "/v1/query/web/execute",
            query: "consistent&near=_ip",
            client,
            headers: Headers { forwarded_for, ..Headers::default() },
            body: Bytes::new(),
        };
        match route(&world.published, &request, Now { mono: Mono(5), wall: Wall(0) }) {
            Routed::Call { request: Request { call: Call::Read(read), .. }, .. } => {
                let Query::Execute(run) = read.query else { panic!("a run") };
                assert_eq!((run.near.as_str(), run.client.as_str()), ("_ip", expected));
                assert_eq!((run.agent.as_str(), run.seed), ("conf-node", 5));
            }
            other => panic!("it is to be confirmed: {other:?}"),
        }
    }
}
