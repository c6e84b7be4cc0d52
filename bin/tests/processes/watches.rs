//! Watches of the command line and of an agent's configuration.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{Agent, BINARY, wait_for};

fn until(agent: &Agent, file: &str, wanted: &str) {
    wait_for("the handler was told", || {
        let text = std::fs::read_to_string(agent.dir().join(file)).unwrap_or_default();
        if text.contains(wanted) { Ok(()) } else { Err(format!("{wanted:?} is not in {text:?}")) }
    });
}

#[test]
fn a_handler_of_the_command_is_told_the_last_state() {
    let agent = Agent::dev();
    let mut command = Command::new(BINARY);
    command.args(["watch", "-type=key", "-key=app", "cat >> told; echo \"index $CONSUL_INDEX\" >> told"]);
    command.current_dir(agent.dir()).env("CONSUL_HTTP_ADDR", agent.address().to_string());
    let mut watch = command.stdin(Stdio::null()).spawn().expect("the program runs");
    until(&agent, "told", "null\nindex ");
    let mut http = agent.http();
    // More than the handler can be told of one by one.
    for value in 0..200 {
        http.put("/v1/kv/app", &value.to_string());
    }
    until(&agent, "told", "\"Value\":\"MTk5\"");
    http.request("DELETE", "/v1/kv/app", "").expect("it answers");
    wait_for("the deletion is told", || {
        let text = std::fs::read_to_string(agent.dir().join("told")).expect("a file");
        let states: Vec<&str> = text.lines().filter(|line| !line.starts_with("index")).collect();
        if states.len() > 2 && states.last() == Some(&"null") { Ok(()) } else { Err(text) }
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(watch.id()).expect("an id")).expect("not zero");
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    assert_eq!(watch.wait().expect("ours").code(), Some(0));
    let (status, _, err) = agent.cli(&["watch", "-type=nodes", "exit 3"]);
    assert_eq!((status, err.as_str()), (Some(1), "Error executing handler: exit status 3\n"));
}

/// Takes requests and hands their heads and bodies on.
fn listener() -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let (mut text, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                text.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            text.push_str(&String::from_utf8_lossy(&body));
            let _ = reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            if send.send(text).is_err() {
                return;
            }
        }
    });
    (port, receive)
}

#[test]
fn an_agent_tells_the_handlers_of_its_configuration_and_follows_a_reload() {
    let (port, told) = listener();
    let mut agent = Agent::new(&["-dev", "-config-dir", "conf"]);
    let http = format!(
        r#"{{"type": "key", "key": "b", "handler_type": "http",
            "http_handler_config": {{"path": "http://127.0.0.1:{port}/x", "method": "PUT", "header": {{"X-A": ["c"]}}}}}}"#
    );
    let script = r#"{"type": "service", "service": "web", "args": ["sh", "-c", "cat >> told"]}"#;
    agent.configure("watches.json", &format!(r#"{{"watches": [{script}, {http}]}}"#));
    agent.start();
    let first = told.recv().expect("told at the start");
    assert!(first.starts_with("PUT /x "), "{first}");
    assert!(first.to_lowercase().contains("x-consul-index: "), "{first}");
    assert!(first.ends_with("null\n"), "{first}");
    agent.http().put("/v1/kv/b", "1");
    let second = told.recv().expect("told of the key");
    assert!(second.contains("\"Value\":\"MQ==\"") && second.to_lowercase().contains("x-a: c"), "{second}");
    agent.http().put("/v1/agent/service/register", r#"{"Name": "web", "Port": 80}"#);
    until(&agent, "told", "\"Service\":\"web\"");
    // Others after a reload; what is wrong changes nothing.
    agent.configure("watches.json", r#"{"watches": [{"type": "key", "key": "b"}]}"#);
    let (status, _, err) = agent.cli(&["reload"]);
    assert!(status == Some(1) && err.contains("Must define a watch handler"), "{err}");
    agent.http().put("/v1/kv/b", "2");
    assert!(told.recv().expect("still told").contains("\"Value\":\"Mg==\""));
    agent.configure(
        "watches.json",
        r#"{"watches": [{"type": "key", "key": "b", "handler": "cat >> shell"}]}"#,
    );
    let (status, _, err) = agent.cli(&["reload"]);
    assert_eq!(status, Some(0), "{err}");
    until(&agent, "shell", "\"Value\":\"Mg==\"");
}

#[test]
fn watches_that_make_no_sense_are_refused_at_the_start() {
    let agent = Agent::new(&["-dev", "-config-dir", "conf"]);
    agent.configure("watches.json", r#"{"watches": [{"type": "key", "key": "a"}]}"#);
    assert!(agent.refusal().text().contains("Must define a watch handler"));
}
