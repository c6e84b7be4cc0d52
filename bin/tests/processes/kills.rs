//! `kill -9` under load.

use std::time::Duration;

use proconsul_jepsen::process::kill::{self, Options};
use proconsul_jepsen::process::server::Launch;
use proconsul_jepsen::{index_order, linearizability};

use crate::support::BINARY;

#[test]
fn kills_at_random_moments_lose_no_acknowledged_write() {
    let launch = Launch { binary: BINARY.into(), dev: false, arguments: Vec::new() };
    let options = Options { seed: 7, clients: 8, keys: 16, rounds: 6, up_for: Duration::from_millis(500) };
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
