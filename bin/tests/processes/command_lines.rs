//! Command lines as operators write them, on loopback addresses of their own and the ports that everybody uses.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{BINARY, Http, wait_for};

/// An agent that is ended with the test.
struct Running(Child);

impl Running {
    fn start(dir: &Path, name: &str, line: &str) -> Running {
        let log = File::create(dir.join(format!("{name}.log"))).expect("writable");
        let err = log.try_clone().expect("open");
        let child = Command::new(BINARY)
            .args(line.split_whitespace())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(err)
            .spawn();
        Running(child.expect("the program runs"))
    }

    fn end(&mut self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("an id");
        kill_process(pid, signal).expect("it was not waited for");
        self.0.wait().expect("ours");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Addresses of this process.
fn address(last: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | (high & 63), low, last)
}

fn cli(dir: &Path, at: Ipv4Addr, line: &str) -> (Option<i32>, String) {
    let output = Command::new(BINARY)
        .args(line.split_whitespace())
        .current_dir(dir)
        .env("CONSUL_HTTP_ADDR", format!("{at}:8500"))
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// Runs a line until it succeeds and prints what is wanted.
fn works(dir: &Path, at: Ipv4Addr, line: &str, wanted: &[&str]) -> String {
    wait_for(line, || {
        let (status, out) = cli(dir, at, line);
        if status == Some(0) && wanted.iter().all(|one| out.contains(one)) {
            Ok(out)
        } else {
            let logs = std::fs::read_dir(dir)
                .expect("ours")
                .flatten()
                .filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
            let logs = logs.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default());
            Err(format!("{status:?}: {out}\n{}", logs.collect::<String>()))
        }
    })
}

#[test]
fn the_lines_of_operators_work_as_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let [a, b, c, d] = [1, 2, 3, 4].map(address);
    let server = |name: &str, at: Ipv4Addr| {
        format!("agent -server -bootstrap-expect 2 -data-dir {name} -bind={at} -client={at} -node={name}")
    };
    let _first = Running::start(dir, "server01", &server("server01", a));
    let mut second = Running::start(dir, "server02", &server("server02", b));
    works(dir, b, &format!("join {a} {b}"), &["Successfully joined cluster by contacting 2 nodes"]);
    works(dir, a, "operator raft list-peers", &["server01", "server02", "leader"]);
    // The same with -rejoin: it comes back by itself.
    second.end(Signal::TERM);
    let again = format!("{} -rejoin", server("server02", b));
    let _second = Running::start(dir, "server02-again", &again);
    let client = format!("agent -data-dir client01 -bind={c} -client={c} -node=client01");
    let _client = Running::start(dir, "client01", &client);
    works(dir, c, &format!("join {a} {b}"), &["contacting 2 nodes"]);
    // A file where a directory is expected.
    let config = format!(r#"{{"client_addr": "{d}", "disable_remote_exec": false, "retry_join": ["{a}"]}}"#);
    std::fs::write(dir.join("consul.json"), config).expect("writable");
    let test = format!("agent -data-dir test -node=test -bind={d} -config-dir=consul.json");
    let _test = Running::start(dir, "test", &test);
    let members = ["server01", "server02", "client01", "test"];
    for at in [a, b, c, d] {
        wait_for("all members are alive", || {
            let (_, out) = cli(dir, at, "members");
            let alive = |name: &&str| {
                out.lines().any(|line| line.starts_with(&format!("{name} ")) && line.contains(" alive "))
            };
            if members.iter().all(alive) { Ok(()) } else { Err(out) }
        });
    }
    let info = works(dir, a, "info", &["agent:", "consul:", "raft:", "serf_lan:", "serf_wan:"]);
    assert!(info.contains("leader_addr"), "{info}");
    works(dir, c, "lock -n 2 prefix id", &["uid="]);
    let ran = works(dir, c, "exec uptime", &["1 / 1 node(s) completed / acknowledged"]);
    assert!(ran.contains("==> test: finished with exit code 0"), "{ran}");
    works(dir, c, "snapshot save x.snap", &["Saved and verified snapshot to index"]);
    works(dir, c, "snapshot inspect x.snap", &["ID", "Index"]);
    let (status, key) = cli(dir, c, "keygen");
    assert_eq!((status, key.trim().len()), (Some(0), 44), "{key}");
    works(dir, c, "event -name deploy", &["Event ID: "]);
    works(
        dir,
        c,
        "rtt server01 server02",
        &["Estimated server01 <-> server02 rtt:", "using LAN coordinates"],
    );
    works(dir, c, "maint -enable", &["Node maintenance is now enabled"]);
    let mut http = Http::new(SocketAddr::from((a, 8500)));
    wait_for("the catalog shows maintenance", || {
        let checks = http.try_get("/v1/health/node/client01")?;
        if checks.to_string().contains("_node_maintenance") { Ok(()) } else { Err(checks.to_string()) }
    });
}

#[test]
fn who_writes_nearly_the_right_thing_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = address(9);
    for (line, status, hint) in [
        ("agent -protocal 2", 1, "did you mean -protocol?"),
        ("kv get -recures a", 1, "did you mean -recurse?"),
        ("membres", 127, "did you mean \"members\"?"),
        ("kv gte a", 1, "did you mean \"kv get\"?"),
    ] {
        let (code, out) = cli(dir.path(), at, line);
        assert_eq!(code, Some(status), "{line}: {out}");
        assert!(out.contains(hint), "{line}: {out}");
    }
}
