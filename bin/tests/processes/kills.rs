//! `kill -9` under load.

use std::thread::sleep;
use std::time::Duration;

use proconsul_jepsen::process::kill::{self, Options};
use proconsul_jepsen::process::server::Launch;
use proconsul_jepsen::{index_order, linearizability};

use crate::support::{Agent, BINARY};

fn survives_kills(seed: u64, arguments: &[&str]) {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    let launch = Launch { binary: BINARY.into(), dev: false, arguments };
    let options = Options { seed, clients: 8, keys: 16, rounds: 6, up_for: Duration::from_millis(500) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let run = runtime.block_on(kill::run(launch, &options)).expect("the server comes back every time");
    let verdict = linearizability::check(&run.history, linearizability::Budget::default());
    assert!(verdict.is_valid(), "{verdict}");
    let verdict = index_order::check(&run.history);
    assert!(verdict.is_valid(), "{verdict}");
    assert!(run.history.operations().len() > 100, "the clients did next to nothing");
}

#[test]
fn kills_at_random_moments_lose_no_acknowledged_write() {
    survives_kills(7, &[]);
}

#[test]
fn kills_amid_checkpoints_lose_no_acknowledged_write() {
    // A checkpoint every few writes: most kills meet one that is half done.
    survives_kills(8, &["-hcl", "raft_snapshot_threshold = 5"]);
}

#[test]
fn kills_during_the_first_start_leave_a_directory_that_works() {
    for round in 0..8 {
        let mut agent = Agent::new_server();
        for step in 0..5 {
            agent.spawn();
            // Not a wait for something: the moment of the kill.
            sleep(Duration::from_millis(1 + (round * 5 + step) * 3));
            agent.kill();
        }
        agent.start();
        assert_eq!(agent.http().put("/v1/kv/a", "x"), true);
        agent.kill();
        agent.start();
        assert_eq!(agent.http().ok("GET", "/v1/kv/a?raw", "").body, "x");
    }
}
