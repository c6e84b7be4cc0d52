//! `lock` as processes: exclusion, and the end of the child when the agent is gone or hangs.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Agent, BINARY, wait_for};

/// TTL of the session of a lock, and what a busy machine may be late.
const DEADLINE: Duration = Duration::from_secs(15 + 3);

/// A `lock` process that is ended with the test.
struct Lock(Child);

impl Lock {
    fn start(agent: &Agent, arguments: &[&str]) -> Lock {
        let mut command = Command::new(BINARY);
        command.arg("lock").args(arguments).current_dir(agent.dir());
        command.env("CONSUL_HTTP_ADDR", agent.address().to_string()).env("SHELL", "/bin/sh");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Lock(command.spawn().expect("the program runs"))
    }

    fn ended(&mut self) -> Option<i32> {
        wait_for("the lock ends", || match self.0.try_wait().expect("ours") {
            Some(status) => Ok(status.code()),
            None => Err("it still runs".to_owned()),
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // It has not been waited for: its id is its own.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn until_written(path: &Path) -> String {
    wait_for("the child writes", || {
        let text = text(path);
        if text.ends_with('\n') { Ok(text) } else { Err(format!("{}: {text:?}", path.display())) }
    })
}

fn runs(process: &str) -> bool {
    let status = text(Path::new(&format!("/proc/{}/status", process.trim())));
    !status.is_empty() && !status.contains("State:\tZ")
}

/// A child that does not want to end, and has started another process that does not, either.
const STUBBORN: &str = "trap '' TERM; (trap '' TERM; echo $(exec sh -c 'echo $PPID') > inner; while :; do sleep 1; done) & \
                        echo $$ > outer; while :; do sleep 1; done";

#[test]
fn the_child_ends_before_a_lock_can_be_lost_to_an_agent_that_hangs() {
    let agent = Agent::dev();
    let mut lock = Lock::start(&agent, &["lk", STUBBORN]);
    let (outer, inner) =
        (until_written(&agent.dir().join("outer")), until_written(&agent.dir().join("inner")));
    assert!(runs(&outer) && runs(&inner), "{outer}{inner}");
    let paused = Instant::now();
    agent.send(Signal::STOP);
    wait_for("the child ends", || {
        if runs(&outer) || runs(&inner) { Err(format!("{outer}{inner}")) } else { Ok(()) }
    });
    let took = paused.elapsed();
    agent.send(Signal::CONT);
    assert!(took < DEADLINE, "the child ran for {took:?} without a renewal");
    assert_eq!(lock.ended(), Some(0));
}

#[test]
fn the_child_ends_when_the_agent_is_gone() {
    let mut agent = Agent::dev();
    let mut lock = Lock::start(&agent, &["-child-exit-code", "lk", "echo $$ > outer; exec sleep 600"]);
    let outer = until_written(&agent.dir().join("outer"));
    let gone = Instant::now();
    agent.kill();
    wait_for("the child ends", || if runs(&outer) { Err(outer.clone()) } else { Ok(()) });
    assert!(gone.elapsed() < DEADLINE, "{:?}", gone.elapsed());
    assert_eq!(lock.ended(), Some(2));
}

#[cfg(target_os = "linux")]
#[test]
fn regression_the_child_ends_with_a_lock_that_is_killed() {
    let agent = Agent::dev();
    let mut lock = Lock::start(&agent, &["lk", "echo $$ > outer; exec sleep 600"]);
    let outer = until_written(&agent.dir().join("outer"));
    assert!(runs(&outer));
    lock.0.kill().expect("it runs");
    wait_for("the child ends", || if runs(&outer) { Err(outer.clone()) } else { Ok(()) });
}

#[test]
fn the_child_is_the_program_that_was_asked_for_and_nothing_else() {
    let agent = Agent::dev();
    // Its arguments as they are, its parent, its group, its environment; no signal is blocked.
    let look = r#"printf '%s\n' "$0" "$@" $PPID $(ps -o pgid= -p $$) "$CONSUL_LOCK_HELD" > seen
                  grep SigBlk /proc/$$/status | cut -f2 >> seen; exit 7"#;
    let lock = Lock::start(
        &agent,
        &["-shell=false", "-child-exit-code", "lk", "sh", "-c", look, "a b", "-n=2", "--", ""],
    );
    let id = lock.0.id().to_string();
    let group = rustix::process::getpgrp().as_raw_nonzero().to_string();
    let mut lock = lock;
    assert_eq!(lock.ended(), Some(2), "the exit status is the child's business");
    let none = "0000000000000000";
    let seen = text(&agent.dir().join("seen"));
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(seen, ["a b", "-n=2", "--", "", &id, &group, "true", none]);
}

#[test]
fn holders_of_a_lock_never_meet_and_those_of_a_semaphore_are_never_too_many() {
    let agent = Agent::dev();
    // A directory can be made once.
    let alone = "mkdir room || echo met >> met; echo in >> entered; sleep 0.02; rmdir room";
    let mut locks: Vec<Lock> = (0..6).map(|_| Lock::start(&agent, &["lk", alone])).collect();
    let three = "if mkdir a; then d=a; elif mkdir b; then d=b; elif mkdir c; then d=c; else echo met >> met; fi; \
                 echo in >> entered; sleep 0.05; rmdir $d";
    locks.extend((0..9).map(|_| Lock::start(&agent, &["-n", "3", "sem", three])));
    for lock in &mut locks {
        assert_eq!(lock.ended(), Some(0));
    }
    assert_eq!(text(&agent.dir().join("met")), "");
    assert_eq!(text(&agent.dir().join("entered")).lines().count(), 6 + 9);
    let (status, keys, _) = agent.cli(&["kv", "get", "-keys", "-separator=", ""]);
    assert_eq!((status, keys.as_str()), (Some(0), ""), "everything was given back");
    assert_eq!(agent.http().get("/v1/session/list"), serde_json::json!([]));
}

#[test]
fn a_lock_that_others_have_is_not_waited_for_longer_than_asked() {
    let agent = Agent::dev();
    let _held = Lock::start(&agent, &["lk", "echo $$ > outer; exec sleep 600"]);
    until_written(&agent.dir().join("outer"));
    let (status, _, err) = agent.cli(&["lock", "-try=200ms", "lk", "echo never"]);
    assert_eq!(
        (status, err.as_str()),
        (Some(1), "Shutdown triggered or timeout during lock acquisition\n"),
        "a held lock"
    );
    let (status, _, err) = agent.cli(&["lock", "-n=2", "lk", "echo never"]);
    assert_eq!(
        (status, err.as_str()),
        (Some(1), "Lock acquisition failed: Existing key does not match semaphore use\n")
    );
}
