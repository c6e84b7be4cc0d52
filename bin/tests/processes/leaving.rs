//! Members that leave, and members that are made to.

use serde_json::{Value, json};

use crate::support::{Cluster, wait_for};

#[test]
fn who_leaves_is_forgotten_in_good_order() {
    let mut cluster = Cluster::start(3, 2, &[]);
    a_client_that_leaves_takes_its_node_along(&mut cluster);
    a_dead_client_can_be_forced_out(&mut cluster);
    a_leader_that_leaves_hands_over(&mut cluster);
}

/// Waits until the catalog has a node, or has it no longer.
fn catalog_has(cluster: &Cluster, at: usize, node: &str, wanted: bool) {
    let mut http = cluster.http(at);
    wait_for(&format!("the catalog has {node}: {wanted}"), || {
        let found = http.try_get(&format!("/v1/catalog/node/{node}?consistent"))?;
        if (found != Value::Null) == wanted { Ok(()) } else { Err(found.to_string()) }
    });
}

fn a_client_that_leaves_takes_its_node_along(cluster: &mut Cluster) {
    cluster.http(4).put("/v1/agent/service/register", r#"{"Name":"web","Port":80}"#);
    catalog_has(cluster, 3, "client-2", true);
    assert_eq!(cluster.run(4, &["leave"]), "Graceful leave complete\n");
    cluster.ended(4);
    for at in 0..4 {
        cluster.sees(at, "client-2", Some("left"));
    }
    catalog_has(cluster, 3, "client-2", false);
    assert_eq!(cluster.http(3).get("/v1/catalog/service/web"), json!([]));
}

fn a_dead_client_can_be_forced_out(cluster: &mut Cluster) {
    cluster.agent(3).kill();
    for at in 0..3 {
        cluster.sees(at, "client-1", Some("failed"));
    }
    cluster.run(0, &["force-leave", "client-1"]);
    for at in 0..3 {
        cluster.sees(at, "client-1", Some("left"));
    }
    catalog_has(cluster, 1, "client-1", false);
    cluster.run(2, &["force-leave", "-prune", "client-1"]);
    for at in 0..3 {
        cluster.sees(at, "client-1", None);
    }
    cluster.start_agent(3);
    catalog_has(cluster, 0, "client-1", true);
    for at in 0..3 {
        cluster.sees(at, "client-1", Some("alive"));
    }
}

fn a_leader_that_leaves_hands_over(cluster: &mut Cluster) {
    let before = cluster.voters(3, 3);
    cluster.write(3, "before", "x");
    let leader = cluster.leader();
    let name = cluster.name(leader).to_owned();
    assert_eq!(cluster.run(leader, &["leave"]), "Graceful leave complete\n");
    cluster.write(3, "after", "y");
    cluster.ended(leader);
    cluster.sees(3, &name, Some("left"));
    let rest = cluster.voters(3, 2);
    assert!(rest.iter().all(|voter| before.contains(voter)), "{rest:?} of {before:?}");
    catalog_has(cluster, 3, &name, false);
    let next = cluster.leader();
    assert_ne!(next, leader);
    // Back again, as whom it was: first without a vote, until it has been stable for a while.
    cluster.start_agent(leader);
    cluster.sees(3, &name, Some("alive"));
    catalog_has(cluster, 3, &name, true);
    assert_eq!(cluster.voters(3, 3), before);
    assert_eq!(cluster.read(leader, "before") + &cluster.read(leader, "after"), "xy");
}
