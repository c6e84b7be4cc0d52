//! Starts that must not succeed, and one that must: status 1, one line, what is wrong and what to do about it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::Agent;

/// A server that has written some entries, and is gone.
fn written() -> Agent {
    let mut agent = Agent::server();
    let mut http = agent.http();
    for key in 0..20 {
        assert_eq!(http.put(&format!("/v1/kv/key/{key}"), &"v".repeat(100)), true);
    }
    // The last frame spans several sectors of the disk.
    assert_eq!(http.put("/v1/kv/last", &"z".repeat(3000)), true);
    agent.kill();
    agent
}

/// The only segment of its log, and where that ends.
fn segment(agent: &Agent) -> (PathBuf, usize) {
    let list = fs::read_dir(agent.dir().join("data/raft/log")).expect("the log");
    let mut files: Vec<PathBuf> = list.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let file = files.remove(0);
    let bytes = fs::read(&file).expect("readable");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    (file, end)
}

fn overwrite(file: &PathBuf, offset: usize, bytes: &[u8]) {
    let file = File::options().write(true).open(file).expect("writable");
    file.write_all_at(bytes, offset as u64).expect("written");
}

fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let agent = Agent::new_server();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, agent.ports().http)).expect("free");
    let address = taken.local_addr().expect("bound").to_string();
    says(agent.refusal().line(), &["cannot listen on", &address, "in use", "set another address or port"]);
    drop(taken);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, agent.ports().dns)).expect("free");
    let address = taken.local_addr().expect("bound").to_string();
    says(agent.refusal().line(), &["cannot listen for DNS on", &address, "in use"]);
}

#[test]
fn an_unusable_data_directory_is_named() {
    let agent = Agent::new(&["-server", "-bootstrap", "-data-dir", "file/data"]);
    fs::write(agent.dir().join("file"), "").expect("writable");
    says(agent.refusal().line(), &["data directory cannot be used", "file/data", "Not a directory"]);
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    let agent = Agent::new_server();
    agent.configure("a.json", r#"{"datacentre":"dc1"}"#);
    says(agent.refusal().text(), &["a.json", "datacentre", "datacenter"]);
    agent.configure("a.json", r#"{"ports":{"http":"x"}}"#);
    says(agent.refusal().text(), &["a.json", "ports.http", "whole number"]);
    agent.configure("a.json", "{");
    says(agent.refusal().text(), &["a.json"]);
}

#[test]
fn a_second_agent_on_the_directory_is_told_who_has_it() {
    let first = Agent::server();
    let data = first.dir().join("data");
    let second = Agent::new(&["-server", "-bootstrap", "-data-dir", data.to_str().expect("text")]);
    let pid = format!("(process {})", first.pid());
    says(second.refusal().line(), &["in use by another agent", &pid, "stop that agent"]);
    assert_eq!(first.http().put("/v1/kv/unharmed", "x"), true);
}

#[test]
fn damage_in_the_middle_of_the_log_is_refused_with_file_and_offset() {
    let agent = written();
    let (file, end) = segment(&agent);
    let name = file.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
    let pristine = fs::read(&file).expect("readable");
    for offset in [110, end / 2] {
        overwrite(&file, offset, &[!pristine[offset]]);
        says(
            agent.refusal().line(),
            &["log is damaged", &name, "offset ", "run `proconsul operator raft repair -data-dir "],
        );
        overwrite(&file, offset, &[pristine[offset]]);
    }
    let mut agent = agent;
    agent.start();
    assert_eq!(
        agent.http().get("/v1/kv/key/?keys").as_array().map(Vec::len),
        Some(20),
        "nothing was changed"
    );
}

#[test]
fn a_damaged_log_is_put_aside_by_the_command_that_the_refusal_names() {
    let mut agent = written();
    let (file, _) = segment(&agent);
    let pristine = fs::read(&file).expect("readable");
    overwrite(&file, 110, &[!pristine[110]]);
    let refusal = agent.refusal();
    let line = refusal.line();
    let command = line.split('`').nth(1).expect("a command between backquotes");
    let arguments: Vec<&str> = command.split(' ').skip(1).collect();
    assert_eq!(arguments[..4], ["operator", "raft", "repair", "-data-dir"], "{line}");
    let (status, out, err) = agent.cli(&arguments);
    assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
    says(&out, &["raft.damaged-1", "joins its cluster as a new server", "remove-peer -id="]);
    let data = agent.dir().join("data");
    let kept = data.join("raft.damaged-1/log").join(file.file_name().expect("a file"));
    assert_eq!(fs::metadata(kept).expect("kept").len(), pristine.len() as u64);
    let former = fs::read_to_string(data.join("raft.damaged-1/node-id")).expect("kept");

    agent.start();
    let new = agent.http().get("/v1/agent/self")["Config"]["NodeID"].clone();
    assert_ne!(new, former, "it forgot what it promised");
    let (status, out, err) = agent.cli(&arguments);
    assert_eq!((status, out.as_str()), (Some(1), ""), "it runs");
    says(&err, &["in use by another agent"]);
    assert_eq!(agent.http().put("/v1/kv/unharmed", "x"), true);
    for (arguments, reason) in [
        (&["operator", "raft", "repair"][..], "-data-dir is required"),
        (&["operator", "raft", "repair", "-data-dir", "nowhere"], "nowhere is no directory"),
    ] {
        let (status, _, err) = agent.cli(arguments);
        assert_eq!(status, Some(1));
        says(&err, &[reason]);
    }
    assert!(!agent.dir().join("nowhere").exists());
}

/// The files of a directory and of those below it that have anything in them.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn damage_of_what_the_agent_keeps_is_refused_with_the_remedy() {
    let mut agent = Agent::server();
    let service = r#"{"Name":"web","Port":80,"Tags":["first"]}"#;
    agent.http().ok("PUT", "/v1/agent/service/register", service);
    agent.kill();
    let state = agent.dir().join("data/raft/state");
    let (file, at) = files(&state)
        .into_iter()
        .find_map(|file| {
            let bytes = fs::read(&file).expect("readable");
            bytes.windows(5).position(|window| window == b"first").map(|at| (file, at))
        })
        .expect("the registration is in one of them");
    overwrite(&file, at + 1, b"o");
    says(
        agent.refusal().line(),
        &["the state that was kept cannot be used", "run `proconsul operator raft repair -data-dir "],
    );
    overwrite(&file, at + 1, b"i");
    agent.start();
    assert_eq!(agent.http().get("/v1/agent/services")["web"]["Tags"][0], "first", "nothing was changed");
}

#[test]
fn a_torn_tail_is_cut_and_reported() {
    let mut agent = written();
    let (file, end) = segment(&agent);
    // The last whole sector of the last frame never reached the disk.
    let sector = (end - 512) / 512 * 512;
    overwrite(&file, sector, &[0; 512]);
    agent.start();
    says(&agent.log(), &["a crash cut short", "wal-", "offset="]);
    let mut http = agent.http();
    assert_eq!(http.request("GET", "/v1/kv/last", "").expect("an answer").status, 404);
    assert_eq!(http.get("/v1/kv/key/?keys").as_array().map(Vec::len), Some(20));
    assert_eq!(http.put("/v1/kv/last", "again"), true);
    agent.restart();
    assert_eq!(agent.http().ok("GET", "/v1/kv/last?raw", "").body, "again");
}

#[test]
fn a_log_that_ends_early_is_cut_and_reported() {
    let mut agent = written();
    let (file, end) = segment(&agent);
    let log = File::options().write(true).open(&file).expect("writable");
    log.set_len(end as u64 - 1500).expect("shorter");
    agent.start();
    says(&agent.log(), &["a crash cut short", "wal-"]);
    assert_eq!(agent.http().get("/v1/kv/key/?keys").as_array().map(Vec::len), Some(20));
}

#[test]
fn data_of_a_newer_version_is_refused() {
    let agent = written();
    let (file, _) = segment(&agent);
    // The segment's header: format version at 12, checksum at 8 over all of its 64 bytes but itself.
    let mut header = fs::read(&file).expect("readable")[..64].to_vec();
    header[12] = 9;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &header[12..]);
    header[8..12].copy_from_slice(&checksum.to_le_bytes());
    overwrite(&file, 0, &header);
    says(agent.refusal().line(), &["wal-", "newer version", "start the newer version again"]);
}

#[test]
fn wrong_ways_to_form_a_cluster_are_refused_with_the_reason() {
    for (arguments, reason) in [
        (&["-bootstrap"][..], "'bootstrap = true' requires 'server = true'"),
        (&["-bootstrap-expect=3"], "'bootstrap_expect > 0' requires 'server = true'"),
        (&["-server", "-bootstrap", "-bootstrap-expect=3"], "mutually exclusive"),
        (&["-dev", "-bootstrap-expect=3"], "not allowed in dev mode"),
        (&["-server", "-bootstrap-expect=-1"], "bootstrap_expect cannot be -1"),
        (&["-server", "-encrypt=short"], "encrypt"),
    ] {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-data-dir", "data"]).collect();
        let agent = Agent::new(&arguments);
        let refusal = agent.refusal();
        assert!(refusal.text().contains(reason), "{arguments:?}: {refusal:?}");
    }
}
