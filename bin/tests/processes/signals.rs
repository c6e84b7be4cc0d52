//! Stopping.

use std::net::{TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Agent, dns, wait_for};

/// Codes of DNS answers.
const NXDOMAIN: u8 = 3;
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

fn stops_on(signal: Signal, name: &str) {
    let mut agent = Agent::server();
    let mut http = agent.http();
    assert_eq!(http.put("/v1/kv/a", "x"), true);
    let (_, index) = http.get_at("/v1/kv/a");
    let blocked: Vec<_> = (0..4)
        .map(|_| {
            let mut http = agent.http();
            thread::spawn(move || http.request("GET", &format!("/v1/kv/a?index={index}&wait=5m"), ""))
        })
        .collect();
    wait_for("the queries wait", || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("Linux");
        let links = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        let sockets = links.filter(|link| link.to_string_lossy().starts_with("socket:")).count();
        // HTTP, DNS over UDP and TCP, this test's client, and the four.
        if sockets >= 8 { Ok(()) } else { Err(format!("{sockets} sockets")) }
    });
    let asked = Instant::now();
    let status = agent.signal(signal);
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    assert_eq!(status.code(), Some(1), "as Consul does when it cannot leave");
    assert!(agent.log().contains(&format!("Caught signal: {name}")));
    for query in blocked {
        let answer = query.join().expect("no panic");
        assert!(!answer.as_ref().is_ok_and(|answer| answer.status == 404), "{answer:?}");
    }
    let ports = agent.ports();
    drop(UdpSocket::bind(("127.0.0.1", ports.dns)).expect("free again"));
    drop(TcpListener::bind(("127.0.0.1", ports.http)).expect("free again"));
    agent.start();
    assert_eq!(agent.http().ok("GET", "/v1/kv/a?raw", "").body, "x");
}

#[test]
fn an_interrupt_ends_it_at_once_with_queries_open() {
    stops_on(Signal::INT, "interrupt");
}

#[test]
fn a_termination_ends_it_at_once_with_queries_open() {
    stops_on(Signal::TERM, "terminated");
}

#[test]
fn a_client_agent_answers_without_servers_and_leaves_when_it_is_terminated() {
    let mut agent = Agent::new(&["-data-dir", "data"]);
    agent.spawn();
    let mut http = agent.http();
    wait_for("it answers", || match http.request("GET", "/v1/agent/services", "") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}\n{}", agent.log())),
    });
    let status = agent.signal(Signal::TERM);
    assert_eq!(status.code(), Some(0), "it has left");
    assert!(agent.log().contains("The agent has left the cluster"));
}

#[test]
fn a_hang_up_makes_it_read_its_configuration_again_and_what_is_wrong_changes_nothing() {
    let mut agent = Agent::new(&["-dev", "-config-dir", "conf"]);
    agent.start();
    let mut http = agent.http();
    let hang_up = |agent: &Agent, config: &str, said: &str| {
        agent.configure("service.hcl", config);
        agent.send(Signal::HUP);
        wait_for("the agent says what came of it", || {
            let log = agent.log();
            if log.contains(said) { Ok(()) } else { Err(log) }
        });
    };
    hang_up(&agent, "service { name = \"web\" }", "Configuration reload complete");
    let services = http.ok("GET", "/v1/agent/services", "").body;
    assert!(String::from_utf8_lossy(&services).contains("\"web\""), "{services:?}");
    hang_up(&agent, "service { nome = \"db\" }", "the former one goes on: ");
    assert_eq!(http.ok("GET", "/v1/agent/services", "").body, services);
    assert_eq!(http.put("/v1/kv/a", "x"), true);
}

#[test]
fn settings_of_dns_are_reloaded() {
    let mut agent = Agent::new(&["-dev", "-config-dir", "conf"]);
    agent.start();
    let mut http = agent.http();
    let weak = r#"{"Name": "web", "Port": 80, "Check": {"TTL": "10m", "Status": "warning"}}"#;
    http.put("/v1/agent/service/register", weak);
    let code = |name: &str| dns::services(agent.dns(), name).expect("an answer").code;
    wait_for("the service is found", || {
        let found = dns::services(agent.dns(), "web.service.consul")?;
        if found.ports == [80] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    assert_eq!(code("www.example"), REFUSED, "there are no recursors");
    // Nobody listens there.
    let closed = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("it has one");
    agent.configure(
        "dns.json",
        &format!(r#"{{"recursors": ["{closed}"], "dns_config": {{"only_passing": true, "recursor_timeout": "200ms"}}}}"#),
    );
    http.put("/v1/agent/reload", "");
    assert_eq!(code("www.example"), SERVFAIL);
    assert_eq!(code("web.service.consul"), NXDOMAIN, "its check warns");
    agent.configure("dns.json", "{}");
    http.put("/v1/agent/reload", "");
    assert_eq!((code("www.example"), code("web.service.consul")), (REFUSED, 0));
}
