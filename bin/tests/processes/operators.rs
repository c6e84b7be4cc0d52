//! What operators do with an agent: certificates, reload, log, archive, doctor.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Agent, BINARY, wait_for};

fn ok(agent: &Agent, arguments: &[&str]) -> String {
    let (status, out, err) = agent.cli(arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {out}{err}");
    out
}

#[test]
fn certificates_of_the_command_serve_https_and_are_replaced_by_a_reload() {
    let mut agent = Agent::new(&["-dev", "-config-dir=conf"]);
    let port = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound").port();
    ok(&agent, &["tls", "ca", "create"]);
    ok(&agent, &["tls", "cert", "create", "-server"]);
    ok(&agent, &["tls", "cert", "create", "-cli"]);
    let configure = |number: u32| {
        let path = |name: &str| agent.dir().join(name).display().to_string();
        let tls = serde_json::json!({
            "ports": {"https": port},
            "tls": {"defaults": {
                "ca_file": path("consul-agent-ca.pem"),
                "cert_file": path(&format!("dc1-server-consul-{number}.pem")),
                "key_file": path(&format!("dc1-server-consul-{number}-key.pem")),
                "verify_incoming": true,
            }},
        });
        agent.configure("tls.json", &tls.to_string());
    };
    configure(0);
    agent.start();
    let address = format!("-http-addr=https://localhost:{port}");
    let shown = ["-client-cert=dc1-cli-consul-0.pem", "-client-key=dc1-cli-consul-0-key.pem"];
    let trusting = ["kv", "put", &address, "-ca-file=consul-agent-ca.pem", shown[0], shown[1], "a", "b"];
    ok(&agent, &trusting);
    ok(&agent, &["tls", "cert", "renew", "-cli", "-existingkey=dc1-cli-consul-0-key.pem"]);
    let renewed =
        trusting.map(|word| if word == shown[0] { "-client-cert=dc1-cli-consul-1.pem" } else { word });
    ok(&agent, &renewed);
    let told = ok(&agent, &["doctor", &address, "-ca-file=consul-agent-ca.pem", shown[0], shown[1]]);
    assert!(told.contains("agrees with 1 of 1 servers"), "{told}");
    let (status, _, err) = agent.cli(&["kv", "get", &address, shown[0], shown[1], "a"]);
    assert!(status == Some(1) && err.contains("x509: certificate signed by unknown authority"), "{err}");
    let (status, _, err) = agent.cli(&["kv", "get", &address, "-ca-file=consul-agent-ca.pem", "a"]);
    assert!(status == Some(1) && err.starts_with("Error querying agent: "), "{err}");

    ok(&agent, &["tls", "cert", "create", "-server", "-additional-dnsname=new.test"]);
    let path = |name: &str| agent.dir().join(name);
    for (from, to) in [("1.pem", "0.pem"), ("1-key.pem", "0-key.pem")] {
        let name = |end: &str| path(&format!("dc1-server-consul-{end}"));
        std::fs::copy(name(from), name(to)).expect("copied");
    }
    let named = [&trusting[..4], &["-tls-server-name=new.test"], &trusting[4..]].concat();
    let (status, _, err) = agent.cli(&named);
    assert!(status == Some(1) && err.contains("x509: certificate is not valid for new.test"), "{err}");
    ok(&agent, &["reload"]);
    ok(&agent, &named);
}

#[test]
fn a_reload_changes_what_may_change_and_a_mistake_changes_nothing() {
    let mut agent = Agent::new(&["-dev", "-config-dir=conf"]);
    agent.configure("meta.json", r#"{"node_meta": {"rack": "1"}}"#);
    agent.start();
    let rack = || {
        let body = agent.http().request("GET", "/v1/agent/self", "").expect("an answer").body;
        let this: serde_json::Value = serde_json::from_slice(body.as_ref()).expect("JSON");
        this["Meta"]["rack"].as_str().map(str::to_owned)
    };
    assert_eq!(rack().as_deref(), Some("1"));
    agent.configure("meta.json", r#"{"node_meta": {"rack": "2"}, "service": {"name": "web"}}"#);
    ok(&agent, &["reload"]);
    assert_eq!(rack().as_deref(), Some("2"));
    wait_for("the catalog has it, too", || {
        let nodes = ok(&agent, &["catalog", "nodes", "-node-meta=rack=2"]);
        if nodes.contains("n1") { Ok(()) } else { Err(nodes) }
    });
    agent.configure(
        "meta.json",
        r#"{"node_meta": {"rack": "3"}, "check": {"name": "x", "http": "http://a"}}"#,
    );
    let (status, _, err) = agent.cli(&["reload"]);
    assert!(status == Some(1) && err.contains("Interval must be > 0"), "{err}");
    assert_eq!(rack().as_deref(), Some("2"));
    assert!(ok(&agent, &["catalog", "services"]).contains("web"));
}

#[test]
fn files_that_change_are_read_again_without_being_asked_for() {
    let mut agent = Agent::new(&["-dev", "-config-dir=conf", "-auto-reload-config"]);
    agent.configure("web.json", r#"{"service": {"name": "web"}}"#);
    agent.start();
    let has = |name: &str| {
        wait_for(&format!("there is {name}"), || {
            let services = agent.http().get("/v1/agent/services");
            services.get(name).map(|_| ()).ok_or_else(|| services.to_string())
        });
    };
    has("web");
    agent.configure("db.json", r#"{"service": {"name": "db"}}"#);
    has("db");
    agent.configure("db.json", r#"{"service": {"nome": "db"}}"#);
    wait_for("the mistake is told", || {
        let log = agent.log();
        if log.contains("the former one goes on: ") { Ok(()) } else { Err(log) }
    });
    has("db");
    agent.configure("db.json", r#"{"service": {"name": "queue"}}"#);
    has("queue");
}

#[test]
fn members_from_outside_of_the_allowed_networks_are_not_taken() {
    let mut closed = Agent::new(&["-dev", "-config-dir=conf"]);
    closed.configure("closed.json", r#"{"serf_lan_allowed_cidrs": ["10.0.0.0/8", "fd00::/8"]}"#);
    closed.start();
    let mut other = Agent::new(&["-dev", "-node=other"]);
    other.spawn();
    let address = |agent: &Agent| format!("127.0.0.1:{}", agent.ports().serf_lan);
    let refused = |asked: &Agent, to: &Agent, why: &str| {
        wait_for("the join is refused", || match asked.cli(&["join", &address(to)]) {
            (Some(1), _, err) if err.contains(&address(to)) && err.contains(why) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    refused(&other, &closed, "");
    refused(&closed, &other, "has address 127.0.0.1, which is not in the allowed networks");
    assert!(!ok(&closed, &["members"]).contains("other"));
}

#[test]
fn the_log_can_be_followed_from_afar_until_somebody_interrupts() {
    let agent = Agent::dev();
    let mut monitor = Command::new(BINARY)
        .args(["monitor", "-log-level=debug", "-log-json"])
        .env("CONSUL_HTTP_ADDR", agent.address().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(monitor.stdout.take().expect("a pipe"));
    // Nothing is logged for the monitor alone: until it listens, something has to happen again and again.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let mut http = agent.http();
    let busy = std::thread::spawn(move || {
        while stopped.recv_timeout(std::time::Duration::from_millis(20)).is_err() {
            if http.request("GET", "/v1/status/leader", "").is_err() {
                break;
            }
        }
    });
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    let _ = stop.send(());
    busy.join().expect("no panic");
    serde_json::from_str::<serde_json::Value>(&line).expect("JSON");
    let pid = Pid::from_raw(i32::try_from(monitor.id()).expect("a number")).expect("a process");
    kill_process(pid, Signal::INT).expect("ours");
    drop(lines);
    assert_eq!(monitor.wait().expect("ours").code(), Some(0));
}

#[test]
fn an_archive_holds_what_was_asked_for() {
    let agent = Agent::dev();
    ok(
        &agent,
        &["debug", "-duration=10s", "-interval=5s", "-capture=agent", "-capture=cluster", "-output=dbg"],
    );
    let listed = Command::new("tar").arg("-tzf").arg(agent.dir().join("dbg.tar.gz")).output().expect("tar");
    let names = String::from_utf8(listed.stdout).expect("text");
    for name in ["dbg/agent.json", "dbg/cluster/members.json", "dbg/index.json"] {
        assert!(names.lines().any(|line| line == name), "{names}");
    }
    assert!(!agent.dir().join("dbg").exists());
    let (status, _, err) = agent.cli(&["debug", "-output=dbg", "-capture=agent"]);
    assert!(status == Some(1) && err.contains("exists already"), "{err}");
}

#[test]
fn a_second_agent_on_a_directory_is_refused_with_the_first_ones_number() {
    let agent = Agent::server();
    let refusal = agent.refusal();
    let text = refusal.text();
    assert!(
        text.contains("in use by another agent") && text.contains(&format!("process {}", agent.pid())),
        "{text}"
    );
}

#[test]
fn the_doctor_names_who_has_a_port_and_is_content_with_a_server() {
    let agent = Agent::server();
    let (status, out, _) = agent.cli(&["doctor", "-config-dir=conf"]);
    assert!(status == Some(1) && out.contains("data_dir cannot be empty"), "{out}");
    let out = ok(&agent, &["doctor"]);
    assert!(out.contains("the leader is 127.0.0.1:") && out.contains("there is a single server"), "{out}");
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("bound").port();
    let config = serde_json::json!({
        "bind_addr": "127.0.0.1", "data_dir": agent.dir().join("other"),
        "ports": {"http": port, "dns": -1, "serf_lan": 1, "server": 2},
    });
    std::fs::write(agent.dir().join("other.json"), config.to_string()).expect("written");
    let (status, out, _) = agent.cli(&["doctor", "-config-file=other.json", "-format=json"]);
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let by = format!("127.0.0.1:{port} (tcp) is taken by");
    let found = |finding: &serde_json::Value| {
        let text = finding["Found"].as_str().unwrap_or_default();
        text.contains(&by) && text.contains(&format!("process {}", std::process::id()))
    };
    assert!(report["Findings"].as_array().expect("a list").iter().any(found), "{out}");
    assert_eq!((status, &report["OK"]), (Some(1), &serde_json::Value::Bool(false)));
}
