//! Three minutes of a real cluster under kills, pauses and cuts. Needs the program under test beside the harness:
//!
//! ```text
//! cargo build --release -p proconsul -p proconsul-jepsen
//! cargo test --release -p proconsul-jepsen --test real -- --ignored --nocapture
//! ```
//!
//! `PROCONSUL_TEST_CLUSTER_BINARY` names another program with Consul's command line and API.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program under test.
fn program() -> PathBuf {
    let beside = harness().with_file_name("proconsul");
    let binary = std::env::var_os("PROCONSUL_TEST_CLUSTER_BINARY").map_or(beside, Into::into);
    assert!(binary.exists(), "{} does not exist: build it first", binary.display());
    binary
}

fn harness() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_proconsul-jepsen"))
}

/// Runs the harness for a minute, with its output, and expects it to find nothing.
fn minute(seed: u64) {
    let binary = program();
    let reports = tempfile::Builder::new().prefix("proconsul-real-").tempdir().expect("a directory");
    let report = reports.path().join(format!("{seed}.html"));
    let status = Command::new(harness())
        .args(["run", "--seconds", "60", "--faults", "kill,pause,cut,one-way"])
        .args(["--seed", &seed.to_string()])
        .arg("--binary")
        .arg(&binary)
        .arg("--report")
        .arg(&report)
        .status()
        .expect("the harness runs");
    if !status.success() {
        let kept = reports.keep();
        panic!("seed {seed}: {status}; report and history are in {}", kept.display());
    }
}

#[test]
#[ignore = "takes four minutes and a program that was built before"]
fn three_minutes_of_faults_break_no_promise() {
    for seed in [1, 2, 3] {
        minute(seed);
    }
}

/// A harness that finds nothing proves nothing: this program forgets everything whenever it starts.
#[test]
#[ignore = "takes two minutes and a program that was built before"]
fn a_program_that_forgets_what_it_acknowledged_is_caught() {
    let directory = tempfile::Builder::new().prefix("proconsul-real-").tempdir().expect("a directory");
    let forgetful = directory.path().join("forgetful");
    let script = format!("#!/bin/sh\nrm -rf data\nexec '{}' \"$@\"\n", program().display());
    fs::write(&forgetful, script).expect("a writable directory");
    fs::set_permissions(&forgetful, fs::Permissions::from_mode(0o755)).expect("our file");
    let report = directory.path().join("report.html");
    let status = Command::new(harness())
        .args(["run", "--seconds", "25", "--faults", "kill-all", "--seed", "1", "--binary"])
        .arg(&forgetful)
        .arg("--report")
        .arg(&report)
        .status()
        .expect("the harness runs");
    assert_eq!(status.code(), Some(1), "a broken promise");
    let page = fs::read_to_string(&report).expect("a page");
    let (_, anomaly) = page.split_once("First anomaly").expect("there is one");
    let (anomaly, _) = anomaly.split_once("<h2>").expect("it is not the last section");
    assert!((2..10).contains(&anomaly.matches("<rect").count()), "not minimized: {anomaly}");
    assert!(report.with_extension("jsonl").exists(), "the history is kept");
}
