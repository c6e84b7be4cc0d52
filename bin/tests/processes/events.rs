//! An encrypted cluster: events reach everybody, and keys are changed while it works.

use crate::support::cluster::binary;
use crate::support::{Cluster, wait_for};

const FIRST: &str = "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=";
const SECOND: &str = "MDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZHSElKS0xNTk8=";
const STRANGE: &str = "cHFyc3R1dnd4eXp7fH1+f4CBgoOEhYaHiImKi4yNjo8=";

#[test]
fn an_encrypted_cluster_spreads_events_and_changes_its_keys() {
    let mut cluster = Cluster::start(3, 2, &["-encrypt", FIRST]);
    events_reach_everybody(&cluster);
    a_strange_key_opens_nothing(&mut cluster);
    keys_change_while_an_agent_is_away(&mut cluster);
}

fn events_reach_everybody(cluster: &Cluster) {
    let fired = cluster.run(3, &["event", "-name", "deploy", "now"]);
    assert!(fired.starts_with("Event ID: "), "{fired}");
    for at in 0..5 {
        let mut http = cluster.http(at);
        wait_for("the event arrives", || {
            let events = http.try_get("/v1/event/list?name=deploy")?;
            let list = events.as_array().expect("a list");
            assert!(list.len() <= 1, "delivered twice: {events}");
            if events[0]["Payload"] == "bm93" { Ok(()) } else { Err(events.to_string()) }
        });
    }
}

fn a_strange_key_opens_nothing(cluster: &mut Cluster) {
    let arguments = ["-encrypt", STRANGE].map(str::to_owned).to_vec();
    let stranger = cluster.inner.add(&binary(), "client-3", arguments).expect("an address");
    stranger.start().expect("the program runs");
    let mut http = cluster.http(5);
    wait_for("the stranger answers", || {
        http.request("GET", "/v1/agent/self", "").map_err(|error| error.to_string())
    });
    let (status, out, err) = cluster.cli(5, &["join", &cluster.address(0)]);
    assert_eq!(status, Some(1), "{out}{err}");
    for at in 0..5 {
        cluster.sees(at, "client-3", None);
    }
    cluster.agent(5).kill();
}

/// Waits until every agent has exactly these keys, of which the first encrypts.
fn keys(cluster: &Cluster, wanted: &[&str]) {
    wait_for("the keys are installed everywhere", || {
        let (status, out, err) = cluster.cli(0, &["keyring", "-list"]);
        let lan = out.split("LAN").nth(1).unwrap_or_default();
        let all = wanted.iter().all(|key| lan.contains(&format!("{key} [5/5]")));
        let only = lan.matches(" [").count() == wanted.len();
        if status == Some(0) && all && only { Ok(()) } else { Err(format!("{status:?}: {out}{err}")) }
    });
}

fn keys_change_while_an_agent_is_away(cluster: &mut Cluster) {
    keys(cluster, &[FIRST]);
    cluster.agent(4).kill();
    cluster.sees(0, "client-2", Some("failed"));
    cluster.run(0, &["keyring", "-install", SECOND]);
    cluster.run(0, &["keyring", "-use", SECOND]);
    let (status, out, err) = cluster.cli(0, &["keyring", "-remove", SECOND]);
    assert_eq!(status, Some(1), "the key in use stays: {out}{err}");
    // It knows the first key only, and everybody else speaks with the second.
    cluster.start_agent(4);
    cluster.formed();
    cluster.run(0, &["keyring", "-install", SECOND]);
    cluster.run(0, &["keyring", "-use", SECOND]);
    keys(cluster, &[FIRST, SECOND]);
    cluster.run(0, &["keyring", "-remove", FIRST]);
    keys(cluster, &[SECOND]);
    // The keys outlive a restart, whatever the command line says.
    cluster.agent(3).kill();
    cluster.sees(0, "client-1", Some("failed"));
    cluster.start_agent(3);
    cluster.formed();
    cluster.write(3, "sealed", "x");
    assert_eq!(cluster.read(4, "sealed"), "x");
}
