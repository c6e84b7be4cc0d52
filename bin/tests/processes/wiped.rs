//! Servers that lost their disk, or a part of it: one that forgot its vote must not vote.

use std::fs;
use std::path::PathBuf;

use proconsul_jepsen::process::agent::ON_DISK;

use crate::support::{Cluster, wait_for};

fn data(cluster: &mut Cluster, at: usize) -> PathBuf {
    cluster.agent(at).directory().join("data")
}

fn id(cluster: &mut Cluster, at: usize) -> String {
    fs::read_to_string(data(cluster, at).join("node-id")).expect("readable")
}

#[test]
fn a_server_without_its_log_comes_back_as_a_new_one_and_replaces_the_former() {
    let mut cluster = Cluster::start(3, 0, &ON_DISK);
    cluster.formed();
    cluster.voters(0, 3);
    cluster.write(0, "a", "1");
    let wiped = (cluster.leader() + 1) % 3;
    let former = id(&mut cluster, wiped);
    cluster.agent(wiped).kill();
    fs::remove_dir_all(data(&mut cluster, wiped).join("raft")).expect("removed");
    cluster.start_agent(wiped);
    let other = (wiped + 1) % 3;
    cluster.write(other, "b", "2");
    wait_for("it takes the place of the former one", || {
        let voters = cluster.voters(other, 3);
        if voters.iter().any(|(id, _)| *id == former) { Err(format!("{voters:?}")) } else { Ok(()) }
    });
    assert_ne!(id(&mut cluster, wiped), former);
    assert_eq!((cluster.read(wiped, "a").as_str(), cluster.read(wiped, "b").as_str()), ("1", "2"));
    cluster.formed();
}

#[test]
fn a_server_without_its_identity_gets_it_back() {
    let mut cluster = Cluster::start(1, 0, &ON_DISK);
    cluster.write(0, "a", "1");
    let before = id(&mut cluster, 0);
    cluster.agent(0).kill();
    fs::remove_file(data(&mut cluster, 0).join("node-id")).expect("removed");
    cluster.start_agent(0);
    assert_eq!(cluster.read(0, "a"), "1");
    assert_eq!(id(&mut cluster, 0), before);
}
