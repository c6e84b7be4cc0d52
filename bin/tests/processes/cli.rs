//! Commands against a running agent.

use crate::support::{Agent, wait_for};

#[test]
fn commands_work_against_a_running_agent() {
    let agent = Agent::dev();
    let run = |arguments: &[&str]| {
        let (status, out, err) = agent.cli(arguments);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{arguments:?}: {out}");
        out
    };
    assert_eq!(run(&["kv", "put", "a/b", "hello"]), "Success! Data written to: a/b\n");
    assert_eq!(run(&["kv", "get", "a/b"]), "hello\n");
    assert_eq!(run(&["kv", "get", "-keys", "a/"]), "a/b\n");
    assert_eq!(run(&["kv", "delete", "a/b"]), "Success! Deleted key: a/b\n");
    let (status, _, err) = agent.cli(&["kv", "get", "a/b"]);
    assert_eq!((status, err.as_str()), (Some(1), "Error! No key exists at: a/b\n"));
    let members = run(&["members"]);
    assert!(members.lines().nth(1).is_some_and(|line| line.starts_with("n1 ")), "{members}");
    let nodes = run(&["catalog", "nodes"]);
    assert!(nodes.lines().nth(1).is_some_and(|line| line.starts_with("n1 ")), "{nodes}");
    assert_eq!(run(&["services", "register", "-name=web", "-port=80"]), "Registered service: web\n");
    wait_for("the catalog lists it", || {
        let services = run(&["catalog", "services"]);
        if services == "consul\nweb\n" { Ok(()) } else { Err(services) }
    });
    assert_eq!(run(&["services", "deregister", "-id=web"]), "Deregistered service: web\n");
    wait_for("the catalog forgets it", || {
        let services = run(&["catalog", "services"]);
        if services == "consul\n" { Ok(()) } else { Err(services) }
    });
    assert!(run(&["version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_command_without_an_agent_says_so() {
    let agent = Agent::new(&["-dev"]);
    let (status, _, err) = agent.cli(&["kv", "get", "a"]);
    assert_eq!(status, Some(1));
    assert!(err.contains("connection refused"), "{err}");
}
