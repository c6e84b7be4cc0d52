//! A group whose servers all change their addresses, and one that loses most of its servers for good.

use serde_json::json;

use crate::support::{Cluster, wait_for};

#[test]
fn a_group_outlives_its_addresses_and_most_of_its_servers() {
    let mut cluster = Cluster::start(3, 1, &[]);
    cluster.write(3, "motd", "hello");
    let before = cluster.voters(0, 3);
    for at in 0..4 {
        cluster.agent(at).kill();
    }
    cluster.inner.move_servers().expect("addresses");
    for at in 0..4 {
        cluster.start_agent(at);
    }
    cluster.formed();
    for at in 0..4 {
        assert_eq!(cluster.read(at, "motd"), "hello", "through {}", cluster.name(at));
    }
    let addresses: Vec<String> =
        cluster.inner.servers().iter().map(|server| server.rpc().to_string()).collect();
    let mut http = cluster.http(3);
    wait_for("the group knows the new addresses", || {
        let servers = http.try_get("/v1/operator/raft/configuration")?["Servers"].clone();
        let servers = servers.as_array().expect("a list");
        let all = servers.iter().all(|server| addresses.iter().any(|address| server["Address"] == *address));
        if all { Ok(()) } else { Err(format!("{servers:?}")) }
    });
    let after = cluster.voters(0, 3);
    let ids = |voters: &[(String, String)]| voters.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&after), "the servers are who they were");

    // Two servers are lost for good; the third is told that it is alone.
    cluster.write(3, "motd", "still here");
    let id = cluster.http(0).get("/v1/agent/self")["Config"]["NodeID"].clone();
    // It may lag behind the two that make up the majority.
    wait_for("the first server has the write", || {
        match cluster.http(0).ok("GET", "/v1/kv/motd?raw&stale", "").body {
            body if body == "still here" => Ok(()),
            body => Err(format!("{body:?}")),
        }
    });
    for at in 0..3 {
        cluster.agent(at).kill();
    }
    let address = cluster.inner.agents[0].rpc().to_string();
    let peers = json!([{"id": id, "address": address, "non_voter": false}]);
    let file = cluster.agent(0).directory().join("data/raft/peers.json");
    std::fs::write(&file, peers.to_string()).expect("writable");
    cluster.start_agent(0);
    cluster.write(3, "alone", "x");
    assert_eq!(cluster.read(3, "motd"), "still here");
    assert_eq!(cluster.voters(3, 1).len(), 1);
    assert!(!file.exists(), "it is used once");
}
