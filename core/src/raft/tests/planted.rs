//! A checker that finds nothing proves nothing: each defect must be found within a stated number of seeds.
//!
//! The switch is one for the thread, and each test has its own. A build without the feature `planted` leaves them out.

use std::panic::catch_unwind;

use super::{faults, scenarios};
use crate::planted::{Bug, plant};

/// Returns the first seed, counted from one, whose run is stopped by an auditor or an assertion.
fn found_after(bug: Bug, seeds: u64) -> Option<u64> {
    plant(Some(bug));
    let run = |seed: u64| {
        let (voters, members_change) = [(3, false), (5, false), (3, true)][seed as usize % 3];
        let story = || scenarios::restart_in_a_lease();
        catch_unwind(move || faults::run(seed, voters, members_change)).is_err()
            || seed == 0 && catch_unwind(story).is_err()
    };
    let found = (0..seeds).find(|seed| run(*seed));
    plant(None);
    found.map(|seed| seed + 1)
}

fn is_found_within(bug: Bug, seeds: u64) {
    match found_after(bug, seeds) {
        Some(seed) => println!("{bug:?}: found in seed {seed}"),
        None => panic!("{bug:?}: not found within {seeds} seeds"),
    }
}

#[test]
fn a_vote_that_is_not_persisted_is_found() {
    is_found_within(Bug::VoteNotPersisted, 3_000);
}

#[test]
fn a_commit_of_an_older_term_by_counting_is_found() {
    is_found_within(Bug::CommitOldTermByCounting, 3_000);
}

#[test]
fn a_lease_that_ignores_drift_is_found() {
    is_found_within(Bug::LeaseIgnoresDrift, 3_000);
}

#[test]
fn a_read_index_without_a_quorum_is_found() {
    is_found_within(Bug::ReadIndexWithoutQuorum, 3_000);
}

#[test]
fn a_second_vote_in_a_term_is_found() {
    is_found_within(Bug::VoteTwiceInTerm, 3_000);
}

#[test]
fn an_acknowledgement_before_durability_is_found() {
    is_found_within(Bug::AckBeforeDurable, 3_000);
}

#[test]
fn entries_without_log_match_are_found() {
    is_found_within(Bug::AcceptWithoutLogMatch, 3_000);
}

#[test]
fn a_promise_forgotten_in_a_restart_is_found() {
    is_found_within(Bug::NoHoldOutAfterRestart, 3_000);
}
