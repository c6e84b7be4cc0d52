//! What clients see of the cluster: members, events, the Raft group; on servers and on client agents.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::api_test::{World, text};
use super::*;
use crate::gossip::{self, Key, KeysChange, Pool, Status, UserEvent};
use crate::node::{About, Cluster};
use crate::raft::Member;
use crate::store::command::Command;

fn gossip_member(name: &str, address: &str, tags: &[(&str, &str)], status: Status) -> gossip::Member {
    let tags = tags.iter().map(|(key, value)| (Text::from(*key), Text::from(*value))).collect();
    gossip::Member { name: name.into(), address: address.parse().unwrap(), tags: Arc::new(tags), status }
}

/// A server that leads another one, with a client agent that has failed.
fn cluster() -> World {
    let mut world = World::new();
    let mut cluster = Cluster::default();
    let id = [1, 2].map(|id| Uuid(id).to_string());
    for (name, address, tags, status) in [
        ("conf-node", "127.0.0.1:8301", [("role", "consul"), ("id", &id[0])], Status::Alive),
        ("second", "127.0.0.2:8301", [("role", "consul"), ("id", &id[1])], Status::Alive),
        ("client", "127.0.0.3:8301", [("role", "node"), ("dc", "dc1")], Status::Failed),
    ] {
        cluster.lan.insert(name.into(), gossip_member(name, address, &tags, status));
    }
    let wan = gossip_member("conf-node.dc1", "127.0.0.1:8302", &[("dc", "dc1")], Status::Alive);
    cluster.wan.insert(wan.name.clone(), wan);
    world.published.cluster = Arc::new(cluster);
    let membership = Arc::make_mut(&mut world.published.membership);
    membership.servers.insert(Uuid(2), Member { address: "127.0.0.2:8300".into(), voter: false });
    world
}

/// The same, seen by an agent that is no server.
fn client() -> World {
    let mut world = World::new();
    let about = About { server: false, ..(*world.published.about).clone() };
    world.published.about = Arc::new(about);
    world.published.lease = crate::node::Lease::default();
    world.published.membership = Arc::default();
    world.published.cluster = cluster().published.cluster;
    world
}

fn called(world: &World, method: &str, target: &str, body: &str) -> Call {
    match world.route(method, target, body) {
        Routed::Call { request, .. } => request.call,
        Routed::Reply(reply) => panic!("{method} {target} is answered at once: {}", text(&reply)),
        Routed::Save { .. } | Routed::Restore { .. } | Routed::Process { .. } => {
            panic!("{method} {target} is about an archive")
        }
    }
}

fn cluster_call(world: &World, method: &str, target: &str, body: &str) -> ClusterCall {
    match called(world, method, target, body) {
        Call::Cluster(call) => call,
        other => panic!("{method} {target}: {other:?}"),
    }
}

#[test]
fn members_are_shown_by_pool() {
    let world = cluster();
    let members = world.json("/v1/agent/members?segment=_all");
    assert_eq!(
        members[0],
        json!({"Name":"client","Addr":"127.0.0.3","Port":8301,"Tags":{"dc":"dc1","role":"node"},"Status":4,
            "ProtocolMin":1,"ProtocolMax":5,"ProtocolCur":2,"DelegateMin":2,"DelegateMax":5,"DelegateCur":4})
    );
    assert_eq!((&members[1]["Name"], &members[2]["Name"]), (&json!("conf-node"), &json!("second")));
    assert_eq!(world.json("/v1/agent/members?wan=1")[0]["Name"], "conf-node.dc1");
    assert_eq!(world.json("/v1/agent/members?wan")[0]["Name"], world.json("/v1/agent/members")[0]["Name"]);
    let failed = world.json("/v1/agent/members?filter=Status+!=+1");
    assert_eq!((failed.as_array().unwrap().len(), &failed[0]["Name"]), (1, &json!("client")));
    let about = world.json("/v1/agent/self");
    assert_eq!(about["Member"]["Name"], "conf-node");
    assert_eq!(about["Coord"]["Height"], 0.00001);
    for (figure, value) in [("failed", "1"), ("left", "0"), ("members", "3"), ("encrypted", "false")] {
        assert_eq!(about["Stats"]["serf_lan"][figure], value, "{figure}");
    }
    // Those that vote are counted; the other server does not yet.
    assert_eq!(about["Stats"]["raft"]["num_peers"], "0");
}

#[test]
fn members_are_asked_to_come_and_go() {
    let world = cluster();
    let join = |pool| ClusterCall::Join { address: "10.0.0.1:9".into(), pool };
    assert_eq!(cluster_call(&world, "PUT", "/v1/agent/join/10.0.0.1:9", ""), join(Pool::Lan));
    assert_eq!(cluster_call(&world, "PUT", "/v1/agent/join/10.0.0.1:9?wan=1", ""), join(Pool::Wan));
    assert_eq!(cluster_call(&world, "PUT", "/v1/agent/leave", ""), ClusterCall::Leave);
    let force = |prune, pool| ClusterCall::ForceLeave { node: "n".into(), prune, pool };
    assert_eq!(cluster_call(&world, "PUT", "/v1/agent/force-leave/n", ""), force(false, Pool::Lan));
    assert_eq!(cluster_call(&world, "PUT", "/v1/agent/force-leave/n?prune&wan", ""), force(true, Pool::Wan));
}

#[test]
fn an_event_is_validated_before_it_is_fired() {
    let world = cluster();
    let target = "/v1/event/fire/deploy/now?node=conf-.*&service=web&tag=v1";
    let ClusterCall::Fire(event) = cluster_call(&world, "PUT", target, "payload") else {
        panic!("another call")
    };
    assert_eq!((event.name.as_str(), &event.payload[..]), ("deploy/now", &b"payload"[..]));
    assert_eq!(
        (event.node_filter.as_str(), event.service_filter.as_str(), event.tag_filter.as_str()),
        ("conf-.*", "web", "v1")
    );
    let large = "a".repeat(gossip::EVENT_BYTES_MAX);
    let refused = world.reply("PUT", "/v1/event/fire/x", &large);
    assert_eq!(refused.status, 500);
    assert!(
        text(&refused).contains("user event exceeds configured limit of 512 bytes"),
        "{}",
        text(&refused)
    );
}

#[test]
fn a_read_of_events_waits_while_the_client_knows_the_newest() {
    let mut world = cluster();
    assert_eq!(world.json("/v1/event/list"), json!([]));
    let read = |name: &str, index| {
        ClusterCall::Events(EventsRead { name: name.into(), index, wait: Duration::from_secs(1) })
    };
    assert_eq!(cluster_call(&world, "GET", "/v1/event/list?name=a&index=1&wait=1s", ""), read("a", 1));
    let event = UserEvent {
        id: Uuid(5 << 64 | 3),
        name: "a".into(),
        payload: Bytes::new(),
        node_filter: Text::default(),
        service_filter: Text::default(),
        tag_filter: Text::default(),
        ltime: 2,
    };
    Arc::make_mut(&mut world.published.cluster).events = Arc::new(VecDeque::from([event]));
    let reply = world.get("/v1/event/list?name=a&index=1&wait=1s");
    assert_eq!(reply.headers, [("X-Consul-Index".into(), "6".into())]);
    assert_eq!(cluster_call(&world, "GET", "/v1/event/list?index=6&wait=1s", ""), read("", 6));
}

#[test]
fn the_group_is_shown_with_names_and_roles() {
    let world = cluster();
    let configuration = world.json("/v1/operator/raft/configuration?stale");
    assert_eq!(
        configuration["Servers"],
        json!([
            {"ID":Uuid(1).to_string(),"Node":"conf-node","Address":"127.0.0.1:8300","Leader":true,
                "ProtocolVersion":"3","Voter":true},
            {"ID":Uuid(2).to_string(),"Node":"second","Address":"127.0.0.2:8300","Leader":false,
                "ProtocolVersion":"3","Voter":false},
        ])
    );
    assert_eq!(world.json("/v1/status/peers"), json!(["127.0.0.1:8300", "127.0.0.2:8300"]));
}

#[test]
fn a_follower_answers_for_the_group_only_if_it_may_be_stale() {
    let mut world = cluster();
    world.published.lease.is_leader = false;
    world.published.lease.leader = Some(Uuid(2));
    assert_eq!(world.json("/v1/status/leader"), "127.0.0.2:8300");
    assert_eq!(world.json("/v1/operator/raft/configuration?stale")["Servers"][1]["Leader"], true);
    assert_eq!(
        cluster_call(&world, "GET", "/v1/operator/raft/configuration", ""),
        ClusterCall::RaftConfiguration { stale: false }
    );
    assert_eq!(
        cluster_call(&world, "GET", "/v1/operator/autopilot/configuration", ""),
        ClusterCall::AutopilotConfiguration { stale: false }
    );
}

#[test]
fn servers_are_removed_by_one_name_or_the_other() {
    let world = cluster();
    let peer = "/v1/operator/raft/peer";
    assert_eq!(
        cluster_call(&world, "DELETE", &format!("{peer}?id=abc"), ""),
        ClusterCall::RemovePeer { id: Some("abc".into()), address: None }
    );
    assert_eq!(
        cluster_call(&world, "DELETE", &format!("{peer}?address=127.0.0.1:9"), ""),
        ClusterCall::RemovePeer { id: None, address: Some("127.0.0.1:9".into()) }
    );
    let transfer = format!("/v1/operator/raft/transfer-leader?id={}", Uuid(2));
    assert_eq!(
        cluster_call(&world, "POST", &transfer, ""),
        ClusterCall::TransferLeader { id: Some(Uuid(2)) }
    );
}

#[test]
fn autopilots_settings_are_replaced_and_read() {
    let mut world = cluster();
    let target = "/v1/operator/autopilot/configuration";
    assert_eq!(world.json(target)["LastContactThreshold"], "200ms");
    let body = r#"{"CleanupDeadServers":true,"LastContactThreshold":"300ms"}"#;
    let Call::Write(Write::Autopilot { settings, cas: Some(7) }) =
        called(&world, "PUT", &format!("{target}?cas=7"), body)
    else {
        panic!("another call")
    };
    world.published.view.apply(9, &Command::AutopilotSet { settings, cas: None });
    assert_eq!(
        world.json(target),
        json!({"CleanupDeadServers":true,"LastContactThreshold":"300ms","MaxTrailingLogs":0,"MinQuorum":0,
            "ServerStabilizationTime":"0s","RedundancyZoneTag":"","DisableUpgradeMigration":false,
            "UpgradeVersionTag":"","CreateIndex":9,"ModifyIndex":9})
    );
}

#[test]
fn what_is_registered_is_counted() {
    let mut world = cluster();
    for (node, id, service) in [("a", "web1", "web"), ("a", "consul", "consul"), ("b", "web2", "web")] {
        let body =
            json!({"Node":node,"Address":"10.0.0.1","Service":{"ID":id,"Service":service}}).to_string();
        world.put("/v1/catalog/register", &body);
    }
    let proxy = r#"{"Node":"b","Address":"10.0.0.1","Service":{"Kind":"connect-proxy","Service":"web-proxy",
        "Port":1,"Proxy":{"DestinationServiceName":"web"}}}"#;
    world.put("/v1/catalog/register", proxy);
    let usage = world.json("/v1/operator/usage");
    assert_eq!(
        usage["Usage"],
        json!({"dc1":{"Nodes":2,"Services":3,"ServiceInstances":4,"BillableServiceInstances":2,
            "ConnectServiceInstances":{"connect-native":0,"connect-proxy":1,"ingress-gateway":0,"mesh-gateway":0,
                "terminating-gateway":0}}})
    );
    assert_eq!((&usage["Index"], &usage["ConsistencyLevel"]), (&json!(4), &json!("leader")));
}

#[test]
fn keys_are_changed_by_servers() {
    let world = cluster();
    let target = "/v1/operator/keyring";
    let body = r#"{"Key":"MDEyMzQ1Njc4OWFiY2RlZg=="}"#;
    let key = || Key::new(b"0123456789abcdef").unwrap();
    for (method, body, change) in [
        ("GET", "", KeysChange::List),
        ("POST", body, KeysChange::Install(key())),
        ("PUT", body, KeysChange::Use(key())),
        ("DELETE", body, KeysChange::Remove(key())),
    ] {
        let call = cluster_call(&world, method, &format!("{target}?relay-factor=5"), body);
        assert_eq!(call, ClusterCall::Keys { change, local_only: false }, "{method}");
    }
    assert!(body_limit("DELETE", target, &world.published.about).max > 0);
    let client = client().get(target);
    assert_eq!((client.status, text(&client)), (500, "keyring operations must run against a server node"));
}

#[test]
fn what_is_refused_about_the_cluster_is_refused_as_by_consul() {
    let world = cluster();
    let cases = [
        ("PUT", "/v1/event/fire/", "", 400, "Missing name"),
        ("PUT", "/v1/event/fire/x?tag=v1", "", 500, "Cannot provide tag filter without service filter"),
        ("PUT", "/v1/event/fire/x?dc=nowhere", "", 500, "No path to datacenter"),
        ("GET", "/v1/event/list?index=x", "", 400, "Invalid index"),
        ("GET", "/v1/agent/members?wan=1&segment=a", "", 400, "Cannot provide a segment with wan=true"),
        (
            "GET",
            "/v1/agent/members?segment=a",
            "",
            500,
            "Network segments are not supported in this version of Consul",
        ),
        ("GET", "/v1/operator/raft/configuration?dc=nowhere", "", 500, "No path to datacenter"),
        (
            "DELETE",
            "/v1/operator/raft/peer",
            "",
            400,
            "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove",
        ),
        (
            "DELETE",
            "/v1/operator/raft/peer?id=&address=",
            "",
            400,
            "Must specify only one of ?id or ?address",
        ),
        (
            "POST",
            "/v1/operator/raft/transfer-leader?id=x",
            "",
            500,
            "id \"x\" was not found in the Raft configuration",
        ),
        (
            "GET",
            "/v1/operator/keyring?relay-factor=6",
            "",
            400,
            "Invalid relay-factor: Relay factor must be in range: [0, 5]",
        ),
        (
            "POST",
            "/v1/operator/keyring?local-only=true",
            r#"{"Key":""}"#,
            400,
            "Invalid use of local-only: local-only can only be set for list requests",
        ),
        ("POST", "/v1/operator/keyring", "", 400, "Request decode failed: EOF"),
        (
            "POST",
            "/v1/operator/keyring",
            r#"{"Key":"YWFhYQ=="}"#,
            500,
            "2 errors occurred:\n\t* WAN error: key size must be 16, 24 or 32 bytes\n\t* dc1 (LAN) error: key size must \
             be 16, 24 or 32 bytes\n\n",
        ),
        ("PUT", "/v1/operator/autopilot/configuration", "", 400, "Error parsing autopilot config: EOF"),
    ];
    for (method, target, body, status, expected) in cases {
        let reply = world.reply(method, target, body);
        assert_eq!((reply.status, text(&reply)), (status, expected), "{method} {target}");
    }
    for (target, what) in [
        ("/v1/event/fire/x?node=(", "Invalid node filter: "),
        ("/v1/event/fire/x?service=(", "Invalid service filter: "),
        ("/v1/event/fire/x?service=a&tag=(", "Invalid tag filter: "),
        ("/v1/operator/autopilot/configuration?cas=x", "Error parsing cas value: "),
    ] {
        let reply = world.reply("PUT", target, "{}");
        assert!(text(&reply).starts_with(what), "{target}: {}", text(&reply));
    }
    let client = client().reply("PUT", "/v1/agent/join/a?wan=1", "");
    assert_eq!((client.status, text(&client)), (500, "Must be a server to join WAN cluster"));
}

#[test]
fn a_client_agent_answers_nothing_from_the_state_that_it_does_not_have() {
    let world = client();
    for target in [
        "/v1/kv/a",
        "/v1/kv/a?stale",
        "/v1/kv/?keys",
        "/v1/catalog/nodes?stale",
        "/v1/catalog/services",
        "/v1/health/service/web",
        "/v1/health/state/any?stale",
        "/v1/session/list",
        "/v1/status/leader",
        "/v1/status/peers",
        "/v1/operator/raft/configuration?stale",
        "/v1/operator/autopilot/configuration",
        "/v1/operator/autopilot/health",
        "/v1/operator/autopilot/state",
        "/v1/operator/usage?stale",
        "/v1/coordinate/nodes?stale",
        "/v1/coordinate/datacenters",
    ] {
        let call = called(&world, "GET", target, "");
        assert!(Forwarded::try_from(call).is_ok(), "{target} cannot be forwarded");
    }
}

#[test]
fn what_stands_for_the_asked_agent_is_resolved_before_it_is_forwarded() {
    let world = client();
    let Call::Write(Write::SessionCreate(spec)) = called(&world, "PUT", "/v1/session/create", "{}") else {
        panic!("another call")
    };
    assert_eq!(spec.node, "conf-node");
    let Call::Read(read) = called(&world, "GET", "/v1/health/service/web?near=_agent", "") else {
        panic!("another call")
    };
    assert_eq!(read.near, "conf-node");
}

/// A server of `dc1` that knows one of `dc2`.
fn federated() -> World {
    let mut world = World::new();
    let member = gossip_member("a.dc2", "10.0.0.1:8302", &[("dc", "dc2")], Status::Alive);
    Arc::make_mut(&mut world.published.cluster).wan.insert(member.name.clone(), member);
    world
}

#[test]
fn a_request_for_another_datacenter_goes_there_if_it_is_known() {
    let world = federated();
    for (query, expected) in
        [("?dc=dc2", "dc2"), ("?datacenter=dc2&dc=dc1", "dc2"), ("?datacenter=&dc=dc2", "dc2")]
    {
        let Call::Elsewhere(there) = called(&world, "GET", &format!("/v1/kv/a{query}"), "") else {
            panic!("another call")
        };
        assert_eq!(there.datacenter, expected, "{query}");
    }
    for query in ["?dc=dc1", "?datacenter=dc1&dc=dc2", "?dc="] {
        assert_eq!(world.get(&format!("/v1/kv/a{query}")).status, 404, "{query}");
    }
    let unknown = [
        ("GET", "/v1/kv/a?dc=dc3", ""),
        ("GET", "/v1/kv/a?dc=DC2", ""),
        ("GET", "/v1/kv/a?datacenter=dc3&dc=dc1", ""),
        ("GET", "/v1/operator/raft/configuration?dc=dc3", ""),
        ("GET", "/v1/status/leader?dc=dc3", ""),
        ("PUT", "/v1/event/fire/a?dc=dc3", ""),
        ("PUT", "/v1/session/create?dc=dc3", "{}"),
        ("PUT", "/v1/snapshot?dc=dc3", ""),
        ("PUT", "/v1/catalog/register", r#"{"Node":"n","Address":"a","Datacenter":"dc3"}"#),
        ("PUT", "/v1/catalog/deregister", r#"{"Node":"n","Datacenter":"dc3"}"#),
    ];
    for (method, target, body) in unknown {
        let reply = world.reply(method, target, body);
        assert_eq!((reply.status, text(&reply)), (500, "No path to datacenter"), "{method} {target}");
    }
    // Who knows no other datacenters asks those who do.
    let Call::Elsewhere(there) = called(&client(), "GET", "/v1/kv/a?dc=dc3", "") else {
        panic!("another call")
    };
    assert_eq!(there.datacenter, "dc3");
}

#[test]
fn the_catalog_takes_the_datacenter_from_the_body_alone() {
    let world = federated();
    let body = |datacenter: &str| format!(r#"{{"Node":"n","Address":"a","Datacenter":"{datacenter}"}}"#);
    let Call::Elsewhere(there) = called(&world, "PUT", "/v1/catalog/register", &body("dc2")) else {
        panic!("another call")
    };
    let Forwarded::Write(Write::Register(registration)) = there.request else { panic!("another request") };
    assert_eq!((there.datacenter.as_str(), registration.datacenter.as_str()), ("dc2", "dc2"));
    let Call::Write(Write::Register(registration)) =
        called(&world, "PUT", "/v1/catalog/register?dc=dc2", &body(""))
    else {
        panic!("another call")
    };
    assert_eq!(registration.datacenter, "dc1");
}

#[test]
fn what_is_the_same_everywhere_is_asked_of_nobody_else() {
    let world = federated();
    for query in ["", "?dc=dc2", "?dc=dc3"] {
        assert_eq!(world.json(&format!("/v1/catalog/datacenters{query}")), json!(["dc1", "dc2"]));
        assert_eq!(
            world.json(&format!("/v1/coordinate/datacenters{query}")).as_array().map(Vec::len),
            Some(2)
        );
        assert_eq!(world.get(&format!("/v1/event/list{query}")).status, 200);
    }
}

#[test]
fn what_is_put_in_another_datacenter_belongs_to_it() {
    let world = federated();
    let body = r#"[{"Node":{"Verb":"set","Node":{"Node":"n","Address":"10.0.0.1"}}}]"#;
    let Call::Elsewhere(there) = called(&world, "PUT", "/v1/txn?dc=dc2", body) else {
        panic!("another call")
    };
    assert!(format!("{:?}", there.request).contains(r#"datacenter: "dc2""#), "{there:?}");
    let Call::Elsewhere(there) = called(&world, "GET", "/v1/discovery-chain/web?dc=dc2", "") else {
        panic!("another call")
    };
    let Forwarded::Read(read) = there.request else { panic!("another request") };
    assert!(matches!(read.query, Query::DiscoveryChain { datacenter, .. } if datacenter == "dc2"));
}

#[test]
fn a_client_agent_keeps_answering_for_itself() {
    let world = client();
    for target in ["/v1/agent/members", "/v1/agent/services", "/v1/agent/checks", "/v1/event/list"] {
        assert_eq!(world.get(target).status, 200, "{target}");
    }
    let about = world.json("/v1/agent/self");
    assert_eq!(about["Stats"]["consul"], json!({"acl":"disabled","known_servers":"2","server":"false"}));
    assert_eq!((about["Stats"].get("raft"), about["Stats"].get("serf_wan")), (None, None));
}
