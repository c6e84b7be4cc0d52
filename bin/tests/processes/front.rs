//! The rules of the HTTP interface as a whole: `http_config`, limits, several listeners, probes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::process::Signal;

use super::support::{Agent, wait_for};

/// Nothing takes so long; it bounds a failing test.
const ANSWER_MAX: Duration = Duration::from_secs(20);

fn dev(config: &str) -> Agent {
    let mut agent = Agent::new(&["-dev", "-config-dir", "conf"]);
    agent.configure("front.hcl", config);
    agent.start();
    agent
}

fn head(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
}

/// Sends one request on a connection of its own, and returns all that is answered.
fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the agent listens");
    stream.set_read_timeout(Some(ANSWER_MAX)).expect("a socket");
    stream.write_all(head(method, path).as_bytes()).expect("room");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text until it closes");
    answer
}

#[test]
fn what_the_configuration_shuts_is_shut_and_every_answer_has_its_headers() {
    let agent = dev(r#"http_config {
             block_endpoints = ["/v1/agent/self", "/v1/kv/shut"]
             allow_write_http_from = ["192.0.2.0/24"]
             response_headers { Access-Control-Allow-Origin = "*" }
           }"#);
    let ask = |method, path| ask(agent.address(), method, path);
    for (method, path) in [("GET", "/v1/agent/self"), ("OPTIONS", "/v1/kv/shut/a"), ("GET", "/v1/kv/%73hut")]
    {
        let answer = ask(method, path);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nEndpoint is blocked by agent configuration"), "{answer}");
    }
    for (method, path) in [("PUT", "/v1/kv/a"), ("DELETE", "/v1/kv/a"), ("PUT", "/v1/snapshot")] {
        let answer = ask(method, path);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nAccess is restricted"), "{answer}");
    }
    for (method, path) in
        [("GET", "/v1/kv/a"), ("OPTIONS", "/v1/kv/a"), ("POST", "/v1/kv/a"), ("GET", "/none")]
    {
        let answer = ask(method, path);
        assert!(answer.contains("\r\nAccess-Control-Allow-Origin: *\r\n"), "{answer}");
        assert!(answer.contains("\r\nX-Consul-Default-Acl-Policy: allow\r\n"), "{answer}");
    }
}

#[test]
fn one_address_has_so_many_connections_and_no_more() {
    let agent = dev("limits { http_max_conns_per_client = 3 }");
    let held = std::cell::RefCell::new(Vec::new());
    // The connection that waited for the start closes in its own time.
    let refused = wait_for("the limit is reached", || {
        let mut stream = TcpStream::connect(agent.address()).expect("the agent listens");
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Ok(_) => Ok(answer),
            Err(_) => {
                held.borrow_mut().push(stream);
                Err("it is served".to_owned())
            }
        }
    });
    assert!(held.borrow().len() <= 3, "{}", held.borrow().len());
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    held.borrow_mut().clear();
    wait_for("a place is free again", || {
        let answer = ask(agent.address(), "GET", "/v1/status/leader");
        if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(answer) }
    });
}

#[test]
fn requests_beyond_the_rate_are_refused() {
    let agent = dev(r#"limits { request_limits { mode = "enforcing" write_rate = 0.01 } }"#);
    let ask = |method, path| ask(agent.address(), method, path);
    assert!(ask("PUT", "/v1/kv/a").starts_with("HTTP/1.1 200 "));
    let answer = ask("PUT", "/v1/kv/a");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("by the leader, try again later"), "{answer}");
    for path in ["/v1/kv/a", "/v1/catalog/nodes", "/v1/agent/self"] {
        assert!(ask("GET", path).starts_with("HTTP/1.1 200 "), "{path}");
    }
}

#[test]
fn a_unix_socket_serves_beside_tcp_with_mode_and_owner_as_asked_and_goes_with_the_agent() {
    let mut agent = Agent::new(&["-dev", "-config-dir", "conf"]);
    let socket = agent.dir().join("s");
    agent.configure(
        "front.hcl",
        &format!(
            "addresses {{ http = \"127.0.0.1 unix://{}\" }}\nunix_sockets {{ mode = \"0640\" user = \"{}\" }}",
            socket.display(),
            rustix::process::getuid().as_raw()
        ),
    );
    agent.start();
    let mode = std::fs::metadata(&socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    let address = format!("-http-addr=unix://{}", socket.display());
    let (status, out, err) = agent.cli(&["kv", "put", &address, "a", "x"]);
    assert_eq!((status, out.as_str()), (Some(0), "Success! Data written to: a\n"), "{err}");
    assert!(ask(agent.address(), "GET", "/v1/kv/a").starts_with("HTTP/1.1 200 "));
    agent.signal(Signal::TERM);
    assert!(!socket.exists());
}

#[test]
fn probes_say_whether_the_agent_lives_and_whether_it_is_ready() {
    let agent = dev("");
    assert!(ask(agent.address(), "GET", "/livez").ends_with("\r\n\r\nok\n"));
    assert!(ask(agent.address(), "GET", "/readyz").ends_with("\r\n\r\nok\n"));
    // A client agent without a cluster lives, and has nobody to ask.
    let mut alone = Agent::new(&["-data-dir", "data"]);
    alone.spawn();
    wait_for("it lives", || match TcpStream::connect(alone.address()) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    });
    assert!(ask(alone.address(), "GET", "/livez").starts_with("HTTP/1.1 200 "));
    let answer = ask(alone.address(), "GET", "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("not ready: no server is known, join the agents of a cluster\n"), "{answer}");
    alone.kill();
}
