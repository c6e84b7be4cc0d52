//! A checker that finds nothing proves nothing: every planted defect is found, within 500 seeds.

use proconsul_core::planted::Bug;
use proconsul_sim_tests::ground::{self, Ground};
use proconsul_sim_tests::runner;

const SEEDS: u64 = 500;

/// Needs two copies of one question; `core/src/node/tests/repeated.rs` has the story.
const RARE: [Bug; 1] = [Bug::AskNotDeduped];

#[test]
fn planted_defects_are_found() {
    let jobs = runner::processors();
    let missed: Vec<&Bug> = Bug::ALL
        .iter()
        .filter(|bug| !RARE.contains(bug))
        .filter(|bug| match ground::find(**bug, Ground::of(**bug), SEEDS, jobs) {
            Some(found) => {
                println!("{bug:?}: {} seeds of {}, {}", found.seeds, found.ground, found.by);
                false
            }
            None => true,
        })
        .collect();
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}
