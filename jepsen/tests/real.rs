//! Three minutes of a real cluster under kills, pauses and cuts. Needs the program under test beside the harness:
//!
//! ```text
//! cargo build --release -p proconsul -p proconsul-jepsen
//! cargo test --release -p proconsul-jepsen --test real -- --ignored --nocapture
//! ```
//!
//! `PROCONSUL_TEST_CLUSTER_BINARY` names another program with Consul's command line and API.

use std::path::Path;
use std::process::Command;

/// Runs the harness for a minute, with its output, and expects it to find nothing.
fn minute(seed: u64) {
    let harness = Path::new(env!("CARGO_BIN_EXE_proconsul-jepsen"));
    let beside = harness.with_file_name("proconsul");
    let binary = std::env::var_os("PROCONSUL_TEST_CLUSTER_BINARY").map_or(beside, Into::into);
    assert!(binary.exists(), "{} does not exist: build it first", binary.display());
    let reports = tempfile::Builder::new().prefix("proconsul-real-").tempdir().expect("a directory");
    let report = reports.path().join(format!("{seed}.html"));
    let status = Command::new(harness)
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
