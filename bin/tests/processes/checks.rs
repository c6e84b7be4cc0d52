//! Checks: of a service from a configuration file, and programs.

use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use proconsul_jepsen::process::ports::free_port;

use crate::support::{Agent, dns, wait_for};

const HEALTH: &str = "/v1/health/service/test?passing";

fn instances(agent: &Agent, wanted: usize) {
    let mut http = agent.http();
    wait_for(&format!("{wanted} passing instances"), || {
        let list = http.get(HEALTH);
        let found = list.as_array().expect("a list").len();
        if found == wanted { Ok(()) } else { Err(http.get("/v1/health/checks/test").to_string()) }
    });
}

#[test]
fn a_tcp_check_from_a_file_follows_its_listener() {
    let port = free_port().expect("a free port");
    let mut agent = Agent::new_server();
    agent.configure(
        "test.json",
        &format!(
            r#"{{"service":{{"name":"test","port":{port},"check":{{"tcp":"127.0.0.1:{port}","interval":"1s"}}}}}}"#
        ),
    );
    agent.start();
    let mut http = agent.http();
    let name = "test.service.consul";
    // The catalog learns of an output that changed, and nothing else, only some minutes later, as in Consul.
    wait_for("the first probe fails", || {
        let check = &http.get("/v1/agent/checks")["service:test"];
        let output = check["Output"].as_str().unwrap_or_default();
        if check["Status"] == "critical" && !output.is_empty() { Ok(()) } else { Err(check.to_string()) }
    });
    instances(&agent, 0);
    let absent = dns::services(agent.dns(), name).expect("an answer");
    assert_eq!((absent.code, absent.ports), (3, vec![]));

    let (list, index) = http.get_at(HEALTH);
    assert_eq!(list, serde_json::json!([]));
    let blocked = {
        let mut http = agent.http();
        thread::spawn(move || http.get_at(&format!("{HEALTH}&index={index}&wait=9s")))
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("still free");
    let (woken, after) = blocked.join().expect("an answer");
    assert_eq!(woken[0]["Service"]["Port"], port, "the blocked query ends with the change");
    assert!(after > index);
    wait_for("DNS knows it", || {
        let found = dns::services(agent.dns(), name)?;
        if found.ports == [port] && found.code == 0 { Ok(()) } else { Err(format!("{found:?}")) }
    });

    let (_, index) = http.get_at(HEALTH);
    let blocked = {
        let mut http = agent.http();
        thread::spawn(move || http.get_at(&format!("{HEALTH}&index={index}&wait=9s")))
    };
    drop(listener);
    let (woken, _) = blocked.join().expect("an answer");
    assert_eq!(woken, serde_json::json!([]), "the blocked query ends with the change");
    wait_for("DNS forgets it", || {
        let found = dns::services(agent.dns(), name)?;
        if found.ports.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

#[test]
fn programs_are_run_where_the_operator_allows_it() {
    let script = r#"{"Name":"disk","Args":["/bin/sh","-c","echo nearly full; exit 1"],"Interval":"1s"}"#;
    let mut agent = Agent::new(&["-dev", "-enable-local-script-checks", "-config-dir", "conf"]);
    agent.configure(
        "local.json",
        r#"{"check":{"name":"local","args":["/bin/sh","-c","echo fine"],"interval":"1s"}}"#,
    );
    agent.start();
    let mut http = agent.http();
    let refused = http.request("PUT", "/v1/agent/check/register", script).expect("an answer");
    assert_eq!(refused.status, 500);
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(text.starts_with("Scripts are disabled on this agent from remote calls"), "{text}");
    let is = |agent: &Agent, id: &str, status: &str, output: &str| {
        let mut http = agent.http();
        wait_for(&format!("{id} is {status}"), || {
            let check = &http.get("/v1/agent/checks")[id];
            let as_wanted = check["Status"] == status && check["Output"] == output;
            if as_wanted { Ok(()) } else { Err(check.to_string()) }
        });
    };
    is(&agent, "local", "passing", "fine\n");

    let mut agent = Agent::new(&["-dev", "-enable-script-checks"]);
    agent.start();
    agent.http().put("/v1/agent/check/register", script);
    is(&agent, "disk", "warning", "nearly full\n");
}
