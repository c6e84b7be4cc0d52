//! Servers that are killed, stopped and restarted under load.

use std::time::Duration;

use proconsul_jepsen::process::faults::{self, Fault, Options};
use proconsul_jepsen::{index_order, linearizability};

use crate::support::cluster::layout;

#[test]
fn no_fault_of_a_server_loses_a_write_or_shows_two_leaders_of_one_term() {
    let options = Options {
        seed: 11,
        keys: 24,
        rest: Duration::from_millis(4),
        calm: Duration::from_millis(400),
        faults: vec![
            Fault::KillLeader,
            Fault::PauseLeader,
            Fault::KillFollower,
            Fault::PauseFollower,
            Fault::RollingRestart,
            Fault::KillAll,
            Fault::PauseLeader,
        ],
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let run = runtime.block_on(faults::run(&layout(3, 1, &[]), &options));
    let run = run.unwrap_or_else(|error| panic!("{error}"));
    let verdict = linearizability::check(&run.history, linearizability::Budget::default());
    assert!(verdict.is_valid(), "{verdict}\n{}", run.cluster.logs());
    let verdict = index_order::check(&run.history);
    assert!(verdict.is_valid(), "{verdict}\n{}", run.cluster.logs());
    assert!(run.history.operations().len() > 200, "the clients did next to nothing");
    // Each of the faults that end a leadership is seen by three servers.
    assert!(run.elections.len() >= 6, "{:?}", run.elections);
    assert_eq!(faults::two_leaders(&run.elections), None);
}
