//! The tour in the README, run as it stands there.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{Agent, BINARY, wait_for};

/// The blocks of shell commands in a chapter of the README.
fn chapter(title: &str) -> Vec<String> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).expect("the README");
    let chapter = readme.split(&format!("## {title}")).nth(1).expect("the chapter");
    let chapter = chapter.split("\n## ").next().expect("its end");
    let bin = Path::new(BINARY).parent().expect("a directory").display().to_string();
    let block = |block: &str| {
        let block = block.split("```").next().expect("the end of the block");
        let block = block.replace("$PWD/target/release", &bin);
        // Not everybody has it.
        let lines = block.lines().filter(|line| exists("dig") || !line.starts_with("dig "));
        lines.collect::<Vec<_>>().join("\n")
    };
    chapter.split("```sh\n").skip(1).map(block).collect()
}

/// The blocks of the first tour, with the default ports replaced.
fn blocks(agent: &Agent) -> Vec<String> {
    let ports = |block: String| {
        block.replace("8500", &agent.ports().http.to_string()).replace("8600", &agent.ports().dns.to_string())
    };
    chapter("A first tour").into_iter().map(ports).collect()
}

fn shell(agent: &Agent, script: &str) -> (bool, String, String) {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .env("CONSUL_HTTP_ADDR", agent.address().to_string())
        .current_dir(agent.dir())
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn exists(program: &str) -> bool {
    Command::new(program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[test]
fn the_tour_works_as_it_is_written() {
    if !exists("curl") || !exists("bash") {
        eprintln!("left out: the tour needs bash and curl");
        return;
    }
    let agent = Agent::dev();
    let tour = blocks(&agent).remove(0);
    let dig = exists("dig");
    let (success, out, err) = shell(&agent, &tour);
    assert!(success, "{out}\n{err}\n{tour}");
    // The second write and the read that waits for it end at the same time, in either order.
    assert_eq!(out.matches("Success! Data written to: motd").count(), 2, "{out}");
    let mut rest = out.as_str();
    let port = agent.ports().http.to_string();
    let srv = format!("1 1 {port} ");
    let marks = [
        "n1",
        "Success! Data written to: motd",
        "\"aGVsbG8=\"",
        "true",
        "\"Z29vZCBieWU=\"",
        "\"Service\": \"web\"",
        "\"passing\"",
        if dig { srv.as_str() } else { "" },
        "true",
        "true",
    ];
    for mark in marks {
        let at = rest.find(mark).unwrap_or_else(|| panic!("{mark:?} does not follow in\n{out}\n{err}"));
        rest = &rest[at + mark.len()..];
    }
}

#[test]
fn the_server_with_a_configuration_directory_works_as_it_is_written() {
    let mut agent = Agent::new(&["-server", "-bootstrap", "-data-dir", "./data", "-config-dir", "./conf"]);
    let block = blocks(&agent).remove(1);
    let (prepare, start) = block.trim().rsplit_once('\n').expect("two lines");
    assert_eq!(start, "proconsul agent -server -bootstrap -data-dir ./data -config-dir ./conf");
    let (success, _, err) = shell(&agent, prepare);
    assert!(success, "{err}");
    agent.start();
    let mut http = agent.http();
    wait_for("the service is there", || {
        let list = http.get("/v1/catalog/service/test");
        if list[0]["ServicePort"] == 9999 { Ok(()) } else { Err(list.to_string()) }
    });
    agent.signal(Signal::INT);
}

#[test]
fn the_cluster_on_one_machine_works_as_it_is_written() {
    if !exists("curl") || !exists("bash") {
        eprintln!("left out: the tour needs bash and curl");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    // A network of its own, so that nobody else has the ports.
    let id = std::process::id();
    let network = format!("127.{}.{}.", 1 + id % 250, 1 + id / 250 % 250);
    let tour = chapter("A cluster on one machine").remove(0).replace("127.0.0.", &network);
    // Whatever happens, no agent is left behind.
    let tour = format!("trap 'kill -9 $(jobs -p) 2>/dev/null || true' EXIT\n{tour}");
    let output = Command::new("timeout")
        .args(["90", "bash", "-euo", "pipefail", "-c", &tour])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let out = String::from_utf8_lossy(&output.stdout);
    let logs = || {
        let files = std::fs::read_dir(dir.path().join("cluster")).into_iter().flatten().flatten();
        let logs = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        logs.collect::<Vec<_>>().join("\n")
    };
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}\n{tour}\n{}", logs());
    let mut rest: &str = &out;
    for mark in [
        "RaftProtocol",
        "leader",
        "server-1",
        "server-3",
        "client-4",
        "client-5",
        "\"Service\":\"web\"",
        "Success! Data written to: survivor",
        "yes",
        "Graceful leave complete",
        "left",
    ] {
        let at = rest
            .find(mark)
            .unwrap_or_else(|| panic!("{mark:?} does not follow in\n{out}\n{err}\n{}", logs()));
        rest = &rest[at + mark.len()..];
    }
}
