//! `exec` between agents as processes.

use crate::support::{Agent, Cluster, wait_for};

const ENABLED: [&str; 2] = ["-hcl", "disable_remote_exec = false"];

fn sorted(out: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn all_agents_run_what_one_is_asked_for_and_nothing_is_left_behind() {
    let cluster = Cluster::start(1, 1, &ENABLED);
    cluster.formed();
    let (server, client) = (cluster.name(0).to_owned(), cluster.name(1).to_owned());
    // Asked of the client agent, which is no server.
    let (status, out, err) = cluster.cli(1, &["exec", "echo on $(expr 40 + 2); exit 0"]);
    assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
    let mut expected = vec!["2 / 2 node(s) completed / acknowledged".to_owned()];
    for node in [&server, &client] {
        expected.push(format!("    {node}: "));
        expected.push(format!("    {node}: on 42"));
        expected.push(format!("==> {node}: finished with exit code 0"));
    }
    expected.sort();
    assert_eq!(sorted(&out), expected);
    // One of them only, and it fails there.
    let (status, out, _) = cluster.cli(1, &["exec", "-node", &format!("^{server}$"), "exit 3"]);
    assert_eq!(status, Some(2), "{out}");
    let finished = format!("==> {server}: finished with exit code 3");
    assert_eq!(sorted(&out), ["1 / 1 node(s) completed / acknowledged", &finished]);
    let (_, out, _) = cluster.cli(0, &["kv", "get", "-keys", "-separator=", "_rexec"]);
    assert_eq!(out, "");
    assert_eq!(cluster.http(0).get("/v1/session/list"), serde_json::json!([]));
    // Agents keep no such event.
    assert_eq!(cluster.http(0).get("/v1/event/list"), serde_json::json!([]));
}

#[test]
fn scripts_long_output_and_signs_of_life_arrive() {
    let mut agent = Agent::new(&[&["-dev"], &ENABLED[..]].concat());
    agent.start();
    agent.configure("script", "echo first; sleep 2; seq 1 4000; echo last");
    let line = format!("{} exec -verbose -wait=1s - < conf/script", crate::support::BINARY);
    let output = std::process::Command::new("sh")
        .args(["-c", &line])
        .current_dir(agent.dir())
        .env("CONSUL_HTTP_ADDR", agent.address().to_string())
        .output()
        .expect("a shell");
    let out = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{out}");
    for line in ["    n1: first", "    n1: last", "==> n1: heartbeat received", "==> n1: acknowledged"] {
        assert!(out.lines().any(|one| one == line), "{line}: {out}");
    }
    // Parts are cut wherever they are full.
    let printed = out.lines().filter(|line| line.starts_with("    n1: ")).count();
    assert!(printed > 4000, "{printed}");
}

#[test]
fn who_asked_is_gone_and_the_command_is_ended() {
    let mut agent = Agent::new(&[&["-dev"], &ENABLED[..]].concat());
    agent.start();
    let mut command = std::process::Command::new(crate::support::BINARY);
    command.args(["exec", "-wait=60s", "echo $$ > pid; while :; do echo x; sleep 0.2; done"]);
    command.current_dir(agent.dir()).env("CONSUL_HTTP_ADDR", agent.address().to_string());
    let mut asking = command.stdout(std::process::Stdio::null()).spawn().expect("the program runs");
    let file = agent.dir().join("pid");
    let pid = wait_for("it runs", || match std::fs::read_to_string(&file) {
        Ok(text) if text.ends_with('\n') => Ok(text.trim().to_owned()),
        other => Err(format!("{other:?}")),
    });
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(asking.id()).expect("an id")).expect("not zero"),
        rustix::process::Signal::INT,
    )
    .expect("it runs");
    assert_eq!(asking.wait().expect("ours").code(), Some(1));
    wait_for("the command ends", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status.is_empty() || status.contains("State:\tZ") { Ok(()) } else { Err(status) }
    });
}
