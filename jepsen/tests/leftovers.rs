//! Whatever ends the harness, nothing that it started outlives it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proconsul_jepsen::process::isolation;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The longest wait for anything; only reached when something is broken. The kernel takes its time with namespaces while
/// others end.
const PATIENCE: Duration = Duration::from_secs(120);

/// An agent that does nothing, for ever. Its path in its command line tells it from all other processes.
const AGENT: &str = "#!/bin/sh\nwhile :; do sleep 1; done\n";

struct Harness {
    process: Child,
    directory: TempDir,
}

impl Harness {
    /// Starts a harness, and waits until its agents run. It then waits in vain for them to elect a leader.
    fn start(network: &str) -> Harness {
        let directory =
            tempfile::Builder::new().prefix("proconsul-leftovers-").tempdir().expect("a directory");
        let agent = directory.path().join("agent");
        fs::write(&agent, AGENT).expect("a writable directory");
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("our file");
        let process = Command::new(env!("CARGO_BIN_EXE_proconsul-jepsen"))
            .args(["run", "--network", network, "--seconds", "5", "--binary"])
            .arg(&agent)
            .arg("--report")
            .arg(directory.path().join("report.html"))
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the harness runs");
        let harness = Harness { process, directory };
        harness.until("all agents run", |agents| agents.len() == 5);
        harness
    }

    fn agent(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    fn until(&self, what: &str, wanted: impl Fn(&[u32]) -> bool) {
        let started = Instant::now();
        loop {
            let found = processes_with(&self.agent());
            if wanted(&found) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{what}: {found:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the harness alone by a signal, and expects everything else to end for that.
    fn ends_with_processes(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("ours");
        let status = self.process.wait().expect("ours");
        assert!(!status.success(), "{status}");
        self.until("no process is left", <[u32]>::is_empty);
    }

    /// The same, and the agents' directories are gone too.
    fn ends_with_all(mut self, signal: Signal) {
        self.ends_with_processes(signal);
        let started = Instant::now();
        loop {
            let names = fs::read_dir(self.directory.path()).expect("our directory").filter_map(Result::ok);
            let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let left: Vec<String> = names.filter(|name| name.starts_with("proconsul-agent-")).collect();
            if left.is_empty() {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "directories are left: {left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        // If it has ended, there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Agents that were started from this file. The harness itself, which has the path among its arguments, is none.
fn processes_with(agent: &Path) -> Vec<u32> {
    let agent = agent.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    entries
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|pid| {
            // A process that has ended meanwhile is none of ours.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut arguments = line.split('\0');
            arguments.next() == Some("/bin/sh") && arguments.next() == Some(agent.as_str())
        })
        .collect()
}

/// Whether namespaces are to be had here; says so if not.
fn namespaces() -> bool {
    let probe = isolation::probe();
    if let Err(why) = &probe {
        eprintln!("not tested: no namespaces on this machine: {why}");
    }
    probe.is_ok()
}

#[test]
fn a_terminated_harness_leaves_nothing_on_loopback() {
    Harness::start("loopback").ends_with_all(Signal::TERM);
    Harness::start("loopback").ends_with_all(Signal::INT);
}

#[test]
fn a_killed_harness_leaves_no_process_on_loopback() {
    let tied = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).status();
    if !tied.is_ok_and(|status| status.success()) {
        eprintln!("not tested: no setpriv(1) on this machine");
        return;
    }
    // Nobody is left to remove directories.
    Harness::start("loopback").ends_with_processes(Signal::KILL);
}

#[test]
fn a_terminated_harness_leaves_nothing_in_namespaces() {
    if namespaces() {
        Harness::start("namespaces").ends_with_all(Signal::TERM);
        Harness::start("namespaces").ends_with_all(Signal::INT);
    }
}

#[test]
fn a_killed_harness_leaves_nothing_in_namespaces() {
    if namespaces() {
        Harness::start("namespaces").ends_with_all(Signal::KILL);
    }
}
