//! A checker that finds nothing proves nothing: every planted defect is found, within a stated number of seeds.

use proconsul_core::planted::Bug;
use proconsul_sim_tests::plan::Plan;
use proconsul_sim_tests::runner;

/// Runs seeds until the defect is found; so many at most.
fn is_found_within(bug: Bug, seeds: u64) {
    const STRIDE: u64 = 8;
    let name = format!("{bug:?}");
    for first in (0..seeds).step_by(STRIDE as usize) {
        let plans = (first..(first + STRIDE).min(seeds))
            .map(|seed| Plan { bug: Some(name.clone()), ..Plan::from_seed(seed) })
            .collect();
        if runner::sweep(plans, |_| {}).iter().any(runner::Report::failed) {
            return;
        }
    }
    panic!("{name} was not found in {seeds} seeds");
}

#[test]
fn defects_of_the_store_are_found() {
    for bug in
        [Bug::LockDelaySkipped, Bug::SessionSurvivesNode, Bug::WatchMissesDelete, Bug::AcquireIgnoresHolder]
    {
        is_found_within(bug, 4);
    }
    is_found_within(Bug::IndexGoesBack, 64);
}
