//! A checker that finds nothing proves nothing: every planted defect is found, within 500 seeds.

use proconsul_core::planted::Bug;
use proconsul_sim_tests::{ground, runner};

const SEEDS: u64 = 500;

#[test]
fn every_planted_defect_is_found() {
    let jobs = runner::processors();
    let missed: Vec<&Bug> = Bug::ALL
        .iter()
        .filter(|bug| match ground::find(**bug, ground::Ground::of(**bug), SEEDS, jobs) {
            Some(found) => {
                println!("{bug:?}: {} seeds of {}, {}", found.seeds, found.ground, found.by);
                false
            }
            None => true,
        })
        .collect();
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}
