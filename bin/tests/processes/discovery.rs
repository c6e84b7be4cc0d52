//! Three servers and two client agents: what is registered with one is found through another.

use std::thread;

use serde_json::json;

use crate::support::{Cluster, dns, wait_for};

/// Places of the client agents.
const A: usize = 3;
const B: usize = 4;

#[test]
fn what_one_client_knows_is_found_through_another() {
    let mut cluster = Cluster::start(3, 2, &[]);
    services_are_found(&cluster);
    keys_are_shared(&cluster);
    a_dead_client_is_critical_and_loses_its_session(&mut cluster);
    a_client_without_servers_answers_for_itself(&mut cluster);
}

fn services_are_found(cluster: &Cluster) {
    let (mut a, mut b) = (cluster.http(A), cluster.http(B));
    let web =
        json!({"Name": "web", "Port": 8080, "Tags": ["v1"], "Check": {"CheckID": "alive", "TTL": "10m"}});
    a.put("/v1/agent/service/register", &web.to_string());
    wait_for("B finds the service in the catalog", || {
        let list = b.try_get("/v1/catalog/service/web")?;
        let found = &list[0];
        let wanted = found["Node"] == "client-1"
            && found["Address"] == cluster.address(A)
            && found["ServicePort"] == 8080
            && found["ServiceTags"] == json!(["v1"]);
        if wanted { Ok(()) } else { Err(list.to_string()) }
    });
    assert_eq!(b.get("/v1/health/service/web?passing"), json!([]), "its check has not passed");
    let (_, index) = b.get_at("/v1/health/service/web?passing");
    let blocked = {
        let mut b = cluster.http(B);
        thread::spawn(move || b.get_at(&format!("/v1/health/service/web?passing&index={index}&wait=9s")))
    };
    a.put("/v1/agent/check/pass/alive?note=fine", "");
    let (woken, after) = blocked.join().expect("an answer");
    assert_eq!(woken[0]["Service"]["Port"], 8080, "a blocked query ends with a change elsewhere");
    assert!(after > index);
    for at in [A, B, 0] {
        wait_for("DNS has it", || {
            let found = dns::services(cluster.dns(at), "web.service.consul")?;
            if found.ports == [8080] { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }
    assert_eq!(b.get("/v1/agent/services"), json!({}), "it is not B's");
    a.put("/v1/agent/service/deregister/web", "");
    wait_for("B no longer finds it", || {
        let list = b.try_get("/v1/catalog/service/web")?;
        if list == json!([]) { Ok(()) } else { Err(list.to_string()) }
    });
}

fn keys_are_shared(cluster: &Cluster) {
    let (mut a, mut b) = (cluster.http(A), cluster.http(B));
    assert_eq!(a.put("/v1/kv/motd?flags=7", "hello"), true);
    let (list, index) = b.get_at("/v1/kv/motd");
    assert_eq!((&list[0]["Value"], &list[0]["Flags"]), (&json!("aGVsbG8="), &json!(7)));
    assert_eq!(list[0]["ModifyIndex"], index);
    let blocked = {
        let mut b = cluster.http(B);
        thread::spawn(move || b.get_at(&format!("/v1/kv/motd?index={index}&wait=9s")))
    };
    assert_eq!(b.put("/v1/kv/elsewhere", "x"), true);
    assert_eq!(a.put(&format!("/v1/kv/motd?cas={index}"), "bye"), true);
    let (woken, after) = blocked.join().expect("an answer");
    assert_eq!(woken[0]["Value"], "Ynll");
    assert!(after > index);
    assert_eq!(b.put(&format!("/v1/kv/motd?cas={index}"), "late"), false);
    for at in 0..5 {
        assert_eq!(cluster.read(at, "motd"), "bye", "through {}", cluster.name(at));
    }
}

fn a_dead_client_is_critical_and_loses_its_session(cluster: &mut Cluster) {
    let mut a = cluster.http(A);
    let session = a.put("/v1/session/create", r#"{"Name":"held","LockDelay":"0s"}"#);
    let session = session["ID"].as_str().expect("an id").to_owned();
    assert_eq!(a.put(&format!("/v1/kv/lock?acquire={session}"), "a"), true);
    let mut b = cluster.http(B);
    let (held, _) = b.get_at("/v1/kv/lock");
    assert_eq!(held[0]["Session"], session.as_str());
    cluster.agent(A).kill();
    for at in [0, B] {
        let mut http = cluster.http(at);
        wait_for("its node is critical", || {
            let checks = http.try_get("/v1/health/node/client-1")?;
            let check =
                checks.as_array().expect("a list").iter().find(|check| check["CheckID"] == "serfHealth");
            if check.is_some_and(|check| check["Status"] == "critical") {
                Ok(())
            } else {
                Err(checks.to_string())
            }
        });
        cluster.sees(at, "client-1", Some("failed"));
    }
    wait_for("the lock is free", || {
        let list = b.try_get("/v1/kv/lock")?;
        if list[0].get("Session").is_none() { Ok(()) } else { Err(list.to_string()) }
    });
    assert_eq!(b.get(&format!("/v1/session/info/{session}")), json!([]));
    cluster.start_agent(A);
    cluster.formed();
}

fn a_client_without_servers_answers_for_itself(cluster: &mut Cluster) {
    for server in 0..3 {
        cluster.agent(server).kill();
    }
    let mut b = cluster.http(B);
    assert_eq!(b.get("/v1/agent/self")["Config"]["NodeName"], "client-2");
    b.put("/v1/agent/service/register", r#"{"Name":"late","Port":9}"#);
    assert_eq!(b.get("/v1/agent/services")["late"]["Port"], 9);
    assert!(b.get("/v1/agent/checks").is_object());
    assert!(b.get("/v1/agent/members").as_array().is_some_and(|members| members.len() == 5));
    let refused = b.request("GET", "/v1/catalog/services", "").expect("an answer");
    assert_eq!(refused.status, 500, "{:?}", refused.body);
    for server in 0..3 {
        cluster.start_agent(server);
    }
    cluster.formed();
    let mut a = cluster.http(A);
    wait_for("what was registered meanwhile is in the catalog", || {
        let list = a.try_get("/v1/catalog/service/late")?;
        if list[0]["Node"] == "client-2" { Ok(()) } else { Err(list.to_string()) }
    });
    assert_eq!(cluster.read(A, "motd"), "bye");
}
