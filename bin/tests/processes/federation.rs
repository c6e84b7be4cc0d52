//! Two datacenters, each a server in memory, that an operator joins.

use std::thread;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Agent, dns, wait_for};

#[test]
fn what_belongs_to_another_datacenter_is_reached_from_this_one() {
    let here = Agent::dev();
    let mut there = Agent::new(&["-dev", "-datacenter", "dc2"]);
    there.start();
    refuses_a_stranger(&here);
    let joined = there.cli(&["join", "-wan", &format!("127.0.0.1:{}", here.ports().serf_wan)]);
    assert_eq!(joined.0, Some(0), "{joined:?}");
    let mut http = here.http();
    wait_for("they know each other", || {
        let list = http.try_get("/v1/catalog/datacenters")?;
        if list == json!(["dc1", "dc2"]) { Ok(()) } else { Err(list.to_string()) }
    });
    let (status, members, _) = here.cli(&["members", "-wan"]);
    assert!(status == Some(0) && members.contains("n1.dc1") && members.contains("n1.dc2"), "{members}");
    keys_are_written_and_watched_there(&here, &there);
    services_are_found_there(&here, &there);
    states_are_saved_there(&here);
    a_dead_datacenter_is_told(&here, &mut there);
}

fn refuses_a_stranger(here: &Agent) {
    let answer = here.http().request("GET", "/v1/kv/a?dc=dc2", "").expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (500, &b"No path to datacenter"[..]));
}

fn keys_are_written_and_watched_there(here: &Agent, there: &Agent) {
    let put = here.cli(&["kv", "put", "-datacenter=dc2", "far", "1"]);
    assert_eq!(put.0, Some(0), "{put:?}");
    assert_eq!(there.http().get("/v1/kv/far")[0]["Value"], "MQ==");
    assert_eq!(here.http().request("GET", "/v1/kv/far", "").expect("an answer").status, 404);
    let (_, index) = here.http().get_at("/v1/kv/far?dc=dc2");
    let mut http = here.http();
    let path = format!("/v1/kv/far?dc=dc2&wait=60s&index={index}");
    let blocked = thread::spawn(move || http.get_at(&path));
    there.http().put("/v1/kv/far", "2");
    let (woken, after) = blocked.join().expect("an answer");
    assert!(woken[0]["Value"] == "Mg==" && after > index, "{woken}");
}

fn services_are_found_there(here: &Agent, there: &Agent) {
    there.http().put("/v1/agent/service/register", r#"{"Name":"web","Port":8080}"#);
    let code_and_ports = |name: &str| dns::services(here.dns(), name).map(|found| (found.code, found.ports));
    for name in ["web.service.dc2.consul", "_web._tcp.DC2.consul"] {
        wait_for("DNS has it", || match code_and_ports(name)? {
            (0, ports) if ports == [8080] => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    for name in ["web.service.consul", "web.service.dc3.consul", "none.service.dc2.consul"] {
        assert_eq!(code_and_ports(name), Ok((3, Vec::new())), "{name}");
    }
    let query = json!({"Name": "web", "Service": {"Service": "web", "Failover": {"Datacenters": ["dc2"]}}});
    here.http().ok("POST", "/v1/query", query.to_string());
    let found = here.http().get("/v1/query/web/execute");
    assert_eq!((&found["Datacenter"], &found["Failovers"]), (&json!("dc2"), &json!(1)), "{found}");
    assert_eq!(code_and_ports("web.query.consul"), Ok((0, vec![8080])));
}

fn states_are_saved_there(here: &Agent) {
    here.http().put("/v1/kv/near", "1");
    here.cli(&["kv", "put", "-datacenter=dc2", "kept", "before"]);
    let saved = here.cli(&["snapshot", "save", "-datacenter=dc2", "far.snap"]);
    assert_eq!(saved.0, Some(0), "{saved:?}");
    here.cli(&["kv", "put", "-datacenter=dc2", "kept", "after"]);
    let restored = here.cli(&["snapshot", "restore", "-datacenter=dc2", "far.snap"]);
    assert_eq!(restored.0, Some(0), "{restored:?}");
    assert_eq!(here.cli(&["kv", "get", "-datacenter=dc2", "kept"]).1, "before\n");
    assert_eq!(here.cli(&["kv", "get", "near"]).1, "1\n", "its own state stays");
}

fn a_dead_datacenter_is_told(here: &Agent, there: &mut Agent) {
    let (_, index) = here.http().get_at("/v1/kv/far?dc=dc2");
    let mut http = here.http();
    let path = format!("/v1/kv/far?dc=dc2&wait=600s&index={index}");
    let blocked = thread::spawn(move || http.request("GET", &path, "").expect("an answer").status);
    // Whether it is parked already makes no difference.
    there.signal(Signal::KILL);
    assert_eq!(blocked.join().expect("an answer"), 500);
    assert_eq!(here.http().get("/v1/catalog/datacenters"), json!(["dc1", "dc2"]), "it may come back");
    let found = here.http().get("/v1/query/web/execute");
    assert_eq!((&found["Datacenter"], &found["Nodes"]), (&json!("dc1"), &json!([])), "{found}");
}
