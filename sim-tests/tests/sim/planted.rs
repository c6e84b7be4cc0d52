//! A checker that finds nothing proves nothing: every planted defect is found, within 500 seeds.

use proconsul_core::planted::Bug;
use proconsul_sim_tests::ground::{self, Ground};
use proconsul_sim_tests::runner;

const SEEDS: u64 = 500;

#[test]
fn planted_defects_are_found() {
    let mut missed = Vec::new();
    runner::in_parallel(
        Bug::ALL,
        runner::processors(),
        |bug| ground::find(*bug, Ground::of(*bug), SEEDS, 1),
        |at, found| match found {
            Some(found) => {
                println!("{:?}: {} seeds of {}, {}", Bug::ALL[at], found.seeds, found.ground, found.by);
                assert!(found.seeds <= SEEDS);
            }
            None => missed.push(Bug::ALL[at]),
        },
    );
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}
