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
    is_found_within(Bug::IndexGoesBack, 192);
}

#[test]
fn defects_of_the_log_are_found() {
    is_found_within(Bug::SyncSkipped, 8);
    is_found_within(Bug::TruncateForgotten, 32);
    is_found_within(Bug::TornTailKept, 96);
}

/// Three more are so rare in whole clusters that the tests of `core/src/raft` find them, in a plain event loop:
/// `VoteNotPersisted`, `CommitOldTermByCounting`, `NoHoldOutAfterRestart`.
#[test]
fn defects_of_raft_are_found() {
    is_found_within(Bug::VoteTwiceInTerm, 16);
    is_found_within(Bug::AckBeforeDurable, 64);
    is_found_within(Bug::AcceptWithoutLogMatch, 32);
    is_found_within(Bug::ReadIndexWithoutQuorum, 96);
    is_found_within(Bug::LeaseIgnoresDrift, 160);
}
