//! A checker that finds nothing proves nothing: each defect must be found within 500 seeds.
//!
//! The switch is one for the thread, and each test has its own. A build without the feature `planted` leaves them out.

use std::panic::catch_unwind;

use crate::planted::{Bug, plant};
use crate::raft::ground;

/// The first seed, counted from one, whose run is stopped by an auditor or an assertion.
fn found_after(bug: Bug) -> Option<u64> {
    plant(Some(bug));
    let found = (0..500).find(|seed| catch_unwind(|| ground::run(*seed)).is_err());
    plant(None);
    found.map(|seed| seed + 1)
}

#[test]
fn defects_of_votes_promises_and_old_entries_are_found() {
    let bugs = [
        Bug::VoteNotPersisted,
        Bug::NoHoldOutAfterRestart,
        Bug::CommitOldTermByCounting,
        Bug::LeaseDuringHandover,
        Bug::ChangeBeforeReady,
    ];
    let found = bugs.map(|bug| (bug, found_after(bug)));
    println!("{found:?}");
    assert!(found.iter().all(|(_, seed)| seed.is_some()), "{found:?}");
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    for seed in 0..96 {
        println!("seed {seed}");
        let _ = ground::run(seed);
    }
}
