//! Archives of the state: one that was saved under load is exactly the state at its index, and a damaged one changes
//! nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Agent, Cluster, Http, wait_for};

const WRITERS: u64 = 4;
/// Each writer has so many keys, which it sets and deletes over and over.
const SLOTS: u64 = 40;
/// Writes between two archives.
const APART: u64 = 150;

/// A write that was acknowledged.
struct Write {
    index: u64,
    writer: u64,
    number: u64,
}

/// What a key holds: value, flags, and the index of its last change.
type Keys = BTreeMap<String, (String, u64, u64)>;

struct Archive {
    index: u64,
    bytes: Vec<u8>,
}

fn key(writer: u64, slot: u64) -> String {
    format!("load/{writer}/{:02}", slot % SLOTS)
}

/// The slot that a write sets, and the one that it deletes, which may be the same.
fn slots(number: u64) -> (u64, u64) {
    (number % SLOTS, number * 7 % SLOTS)
}

/// Changes several rows at once, in two tables, and returns the index of that.
fn write(http: &mut Http, writer: u64, number: u64) -> u64 {
    let (set, delete) = slots(number);
    let node = format!("load-{writer}");
    let operations = json!([
        {"KV": {"Verb": "set", "Key": key(writer, set), "Value": STANDARD.encode(number.to_string()), "Flags": number}},
        {"KV": {"Verb": "delete", "Key": key(writer, delete)}},
        {"Node": {"Verb": "set", "Node": {"Node": node, "Address": "10.0.0.1", "Meta": {"n": number.to_string()}}}},
    ]);
    let done = http.put("/v1/txn", &operations.to_string());
    done["Results"][0]["KV"]["ModifyIndex"].as_u64().unwrap_or_else(|| panic!("{done}"))
}

/// What there is after all writes up to an index.
fn expected(writes: &[Write], index: u64) -> (Keys, BTreeMap<u64, u64>) {
    let (mut keys, mut nodes) = (Keys::new(), BTreeMap::new());
    for write in writes.iter().filter(|write| write.index <= index) {
        let (set, delete) = slots(write.number);
        let value = STANDARD.encode(write.number.to_string());
        keys.insert(key(write.writer, set), (value, write.number, write.index));
        keys.remove(&key(write.writer, delete));
        nodes.insert(write.writer, write.number);
    }
    (keys, nodes)
}

fn keys_of(list: &Value) -> Keys {
    let key = |pair: &Value| {
        let text = |name: &str| pair[name].as_str().expect("a text").to_owned();
        let number = |name: &str| pair[name].as_u64().expect("a number");
        (text("Key"), (text("Value"), number("Flags"), number("ModifyIndex")))
    };
    list.as_array().expect("a list").iter().map(key).collect()
}

fn nodes_of(list: &Value) -> BTreeMap<u64, u64> {
    let nodes = list.as_array().expect("a list").iter();
    let node = |node: &Value| {
        let writer = node["Node"].as_str()?.strip_prefix("load-")?.parse().ok()?;
        Some((writer, node["Meta"]["n"].as_str()?.parse().ok()?))
    };
    nodes.filter_map(node).collect()
}

/// Writes through all agents, and meanwhile saves archives through each in turn.
fn archives_under_load(cluster: &Cluster, agents: usize) -> (Vec<Write>, Vec<Archive>) {
    let (written, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (written, over) = (&written, &over);
                let mut http = cluster.http(writer as usize % agents);
                scope.spawn(move || {
                    let mut writes = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let number = writes.len() as u64 + 1;
                        let index = write(&mut http, writer, number);
                        writes.push(Write { index, writer, number });
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    writes
                })
            })
            .collect();
        let mut archives = Vec::new();
        for round in 0..agents {
            wait_for("the writers get on", || {
                let written = written.load(Ordering::Relaxed);
                if written >= (round as u64 + 1) * APART { Ok(()) } else { Err(format!("{written} writes")) }
            });
            let answer = cluster.http(round).ok("GET", "/v1/snapshot", "");
            archives.push(Archive { index: answer.index.expect("an index"), bytes: answer.body.to_vec() });
        }
        over.store(true, Ordering::Relaxed);
        let writes = writers.into_iter().flat_map(|writer| writer.join().expect("a writer"));
        let mut writes: Vec<Write> = writes.collect();
        writes.sort_by_key(|write| write.index);
        (writes, archives)
    })
}

#[test]
fn an_archive_that_was_saved_under_load_is_exactly_the_state_at_its_index() {
    let cluster = Cluster::start(3, 1, &[]);
    let mut http = cluster.http(0);
    // So that saving takes a while.
    for block in 0..10 {
        let set = |at: u64| json!({"KV": {"Verb": "set", "Key": format!("ballast/{block}/{at}"), "Value": "A".repeat(2_000)}});
        http.put("/v1/txn", &(0..100).map(set).collect::<Value>().to_string());
    }
    let (writes, archives) = archives_under_load(&cluster, 4);
    drop(cluster);
    let empty = Agent::dev();
    let mut http = empty.http();
    for archive in &archives {
        let after = writes.iter().filter(|write| write.index > archive.index).count();
        println!(
            "an archive of index {}, {} writes in it, {after} later",
            archive.index,
            writes.len() - after
        );
        http.ok("PUT", "/v1/snapshot", &archive.bytes);
        let (keys, nodes) = expected(&writes, archive.index);
        assert_eq!(keys_of(&http.get("/v1/kv/load/?recurse")), keys, "at {}", archive.index);
        assert_eq!(nodes_of(&http.get("/v1/catalog/nodes")), nodes, "at {}", archive.index);
        assert_eq!(http.get("/v1/kv/ballast/?keys").as_array().map(Vec::len), Some(1_000));
    }
    into_an_empty_cluster(&writes, &archives[1]);
}

/// Restores through a server that does not lead, and looks at what each server has.
fn into_an_empty_cluster(writes: &[Write], archive: &Archive) {
    let cluster = Cluster::start(3, 0, &[]);
    let follower = (cluster.leader() + 1) % 3;
    cluster.http(follower).ok("PUT", "/v1/snapshot", &archive.bytes);
    let (keys, nodes) = expected(writes, archive.index);
    assert_eq!(keys_of(&cluster.http(follower).get("/v1/kv/load/?recurse")), keys, "at once");
    for server in 0..3 {
        let mut http = cluster.http(server);
        wait_for("every server has it", || {
            let found = keys_of(&http.try_get("/v1/kv/load/?recurse&stale")?);
            if found == keys { Ok(()) } else { Err(format!("{} has {found:?}", cluster.name(server))) }
        });
        assert_eq!(nodes_of(&http.get("/v1/catalog/nodes?stale")), nodes);
    }
}

#[test]
fn a_damaged_archive_changes_nothing() {
    let agent = Agent::server();
    let mut http = agent.http();
    for number in 0..200 {
        http.put(&format!("/v1/kv/kept/{number}"), &format!("before {number}"));
    }
    let archive = http.ok("GET", "/v1/snapshot", "").body.to_vec();
    http.put("/v1/kv/kept/7", "after");
    let views = |http: &mut Http| ["/v1/kv/?recurse", "/v1/catalog/nodes"].map(|path| http.get_at(path));
    let before = views(&mut http);
    let mut damaged =
        vec![Vec::new(), b"no archive".to_vec(), archive.repeat(2)[archive.len() / 2..].to_vec()];
    // The first ten bytes are gzip's own: when it was made, and by which system (RFC 1952, section 2.3).
    for part in 0..32 {
        let at = 10 + (archive.len() - 10) * part / 32;
        let mut flipped = archive.clone();
        flipped[at] ^= 1 << (part % 8);
        damaged.push(flipped);
        damaged.push(archive[..at].to_vec());
    }
    for (number, damaged) in damaged.iter().enumerate() {
        let answer = http.request("PUT", "/v1/snapshot", damaged).expect("an answer");
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status >= 400 && !said.is_empty(), "archive {number}: {} {said}", answer.status);
        assert_eq!(views(&mut http), before, "archive {number}");
    }
    http.ok("PUT", "/v1/snapshot", &archive);
    assert_eq!(http.ok("GET", "/v1/kv/kept/7?raw", "").body.as_ref(), b"before 7", "the whole one does");
}

#[test]
fn a_saved_state_is_told_row_by_row_and_a_damaged_one_not_at_all() {
    let agent = Agent::dev();
    agent.http().ok("PUT", "/v1/kv/a%20key?flags=7", [0xff, 0, b'x']);
    agent.http().put("/v1/agent/service/register", r#"{"Name": "web", "Port": 80}"#);
    wait_for("the service is in the catalog", || {
        let services = agent.http().get("/v1/catalog/services");
        services.get("web").map(|_| ()).ok_or_else(|| services.to_string())
    });
    let file = agent.dir().join("state.snap");
    let file = file.to_str().expect("a path of ours");
    let (status, _, err) = agent.cli(&["snapshot", "save", file]);
    assert_eq!(status, Some(0), "{err}");
    let (status, told, err) = agent.cli(&["snapshot", "decode", file]);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["Type"], "SnapshotHeader");
    let of = |kind: &str| lines.iter().filter(|line| line["Type"] == kind).collect::<Vec<_>>();
    let [key] = of("KV")[..] else { panic!("{told}") };
    assert_eq!(
        (&key["Data"]["Key"], &key["Data"]["Value"]),
        (&json!("a key"), &json!(STANDARD.encode([0xff, 0, b'x'])))
    );
    let web = of("Service").into_iter().find(|line| line["Data"]["Service"]["Service"] == "web");
    assert_eq!(web.expect("the service")["Data"]["Service"]["Port"], 80);
    assert!(!of("Node").is_empty() && !of("Check").is_empty() && !of("Index").is_empty(), "{told}");
    let from_stdin = |archive: &[u8]| {
        std::fs::write(agent.dir().join("in.snap"), archive).expect("writable");
        let mut command = std::process::Command::new(crate::support::BINARY);
        let input = std::fs::File::open(agent.dir().join("in.snap")).expect("just written");
        command.args(["snapshot", "decode", "-"]).stdin(input).output().expect("it runs")
    };
    let mut archive = std::fs::read(file).expect("saved");
    assert_eq!(String::from_utf8_lossy(&from_stdin(&archive).stdout), told);
    let middle = archive.len() / 2;
    archive[middle] ^= 0xff;
    let refused = from_stdin(&archive);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    let err = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(err.starts_with("Error verifying snapshot: "), "{err}");
}
