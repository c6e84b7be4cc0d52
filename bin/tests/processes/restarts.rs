//! What a restart on the same directory keeps.

use serde_json::{Value, json};

use crate::support::{Agent, Http, wait_for};

/// What clients see, without what a restart may change.
const VIEWS: &[&str] = &[
    "/v1/kv/?recurse&consistent",
    "/v1/session/list?consistent",
    "/v1/catalog/service/db?consistent",
    "/v1/catalog/service/web?consistent",
    "/v1/catalog/nodes?consistent",
    "/v1/health/service/web?consistent",
    "/v1/agent/services",
];

fn views(http: &mut Http) -> Vec<(Value, Option<u64>)> {
    let view = |path: &&str| {
        let answer = http.ok("GET", path, "");
        (serde_json::from_slice(&answer.body).expect("JSON"), answer.index)
    };
    VIEWS.iter().map(view).collect()
}

fn assert_kept(agent: &Agent, before: &[(Value, Option<u64>)]) {
    let mut http = agent.http();
    // The TTL check's state is local to the agent and reaches the catalog with the first synchronisation.
    let after = wait_for("the catalog is in step", || {
        let after = views(&mut http);
        if after[5].0 == before[5].0 { Ok(after) } else { Err(after[5].0.to_string()) }
    });
    for ((path, before), after) in VIEWS.iter().zip(before).zip(&after) {
        assert_eq!(before.0, after.0, "{path}");
        assert!(before.1 <= after.1, "the index of {path} went back from {:?} to {:?}", before.1, after.1);
    }
}

fn populate(http: &mut Http) -> String {
    assert_eq!(http.put("/v1/kv/app/motd?flags=42", "hello"), true);
    assert_eq!(http.put("/v1/kv/app/gone", "x"), true);
    assert_eq!(http.request("DELETE", "/v1/kv/app/gone", "").expect("an answer").status, 200);
    let session = http.put("/v1/session/create", r#"{"Name":"kept","LockDelay":"1s"}"#);
    let session = session["ID"].as_str().expect("an id").to_owned();
    for _ in 0..2 {
        assert_eq!(http.put(&format!("/v1/kv/app/leader?acquire={session}"), "me"), true);
        assert_eq!(http.put(&format!("/v1/kv/app/leader?release={session}"), "me"), true);
    }
    assert_eq!(http.put(&format!("/v1/kv/app/leader?acquire={session}"), "me"), true);
    let external = json!({"Node": "ext", "Address": "10.1.1.1", "Service": {"Service": "db", "Port": 5432}});
    assert_eq!(http.put("/v1/catalog/register", &external.to_string()), true);
    let web = json!({"Name": "web", "Port": 80, "Tags": ["a"], "Check": {"CheckID": "alive", "TTL": "10m"}});
    http.put("/v1/agent/service/register", &web.to_string());
    http.put("/v1/agent/check/pass/alive?note=fine", "");
    wait_for("the check passes in the catalog", || {
        let list = http.get("/v1/health/service/web?passing");
        if list[0]["Checks"].to_string().contains("fine") { Ok(()) } else { Err(list.to_string()) }
    });
    session
}

fn node_id(http: &mut Http) -> Value {
    http.get("/v1/agent/self")["Config"]["NodeID"].clone()
}

#[test]
fn a_restart_keeps_everything() {
    let mut agent = Agent::server();
    let mut http = agent.http();
    let session = populate(&mut http);
    let id = node_id(&mut http);
    let before = views(&mut http);
    let lock = &http.get("/v1/kv/app/leader")[0];
    assert_eq!((&lock["Session"], &lock["LockIndex"]), (&json!(session), &json!(3)));

    agent.restart();
    assert_kept(&agent, &before);
    let mut http = agent.http();
    assert_eq!(node_id(&mut http), id);
    assert_eq!(http.get("/v1/agent/checks")["alive"]["Status"], "passing");

    agent.kill();
    agent.start();
    assert_kept(&agent, &before);
    let mut http = agent.http();
    assert_eq!(node_id(&mut http), id);
    assert_eq!(http.put(&format!("/v1/kv/app/leader?release={session}"), "me"), true);
    let (list, index) = http.get_at("/v1/kv/app/leader");
    assert_eq!(list[0]["ModifyIndex"], index);
    assert!(Some(index) > before[0].1, "new changes come after all old ones");
}

#[test]
fn a_deregistered_service_does_not_come_back() {
    let mut agent = Agent::server();
    let mut http = agent.http();
    populate(&mut http);
    http.put("/v1/agent/service/deregister/web", "");
    agent.kill();
    agent.start();
    let mut http = agent.http();
    assert_eq!(http.get("/v1/agent/services"), json!({}));
    wait_for("the catalog is in step", || {
        let list = http.get("/v1/catalog/service/web?consistent");
        if list == json!([]) { Ok(()) } else { Err(list.to_string()) }
    });
}

#[test]
fn restarts_across_checkpoints_and_log_segments_keep_everything() {
    let mut agent = Agent::new_server();
    agent.configure("small.json", r#"{"raft_snapshot_threshold":40,"limits":{"kv_max_value_size":9000000}}"#);
    agent.start();
    let mut http = agent.http();
    populate(&mut http);
    for round in 0..3 {
        for key in 0..60 {
            assert_eq!(http.put(&format!("/v1/kv/many/{key}"), &format!("{round}:{key}")), true);
        }
        // A segment of the log is full at 64 MiB.
        let large = "x".repeat(8_000_000);
        for _ in 0..4 {
            assert_eq!(http.put("/v1/kv/large", &large), true);
        }
        assert_eq!(http.request("DELETE", "/v1/kv/large", "").expect("an answer").status, 200);
        assert_eq!(http.request("DELETE", "/v1/kv/many/7", "").expect("an answer").status, 200);
        let before = views(&mut http);
        if round % 2 == 0 {
            agent.kill();
            agent.start();
        } else {
            agent.restart();
        }
        assert_kept(&agent, &before);
        http = agent.http();
    }
    // A kill may have come before a checkpoint was complete: the next one is made after more entries.
    wait_for("checkpoints free the log", || {
        assert_eq!(http.put("/v1/kv/many/more", "entries"), true);
        let segments: Vec<_> = std::fs::read_dir(agent.dir().join("data/raft/log"))
            .expect("the log")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        let first_is_gone = !segments.iter().any(|name| name.ends_with("00000000000001.log"));
        if first_is_gone && segments.len() <= 3 { Ok(()) } else { Err(format!("{segments:?}")) }
    });
}
