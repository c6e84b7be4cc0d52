//! Whole groups in one plain event loop, without a task, a socket or a file: thousands of steps in the time in which a
//! simulated cluster takes one. The core's tests and the simulator's search for defects run it.

#![allow(clippy::unwrap_used, reason = "a run that cannot go on says so by panicking")]
#![cfg_attr(not(test), allow(dead_code, reason = "the stories of the tests use more of it"))]

pub(crate) mod audit;
mod changes;
pub(crate) mod cluster;
mod duel;
pub(crate) mod faults;
pub(crate) mod founding;

/// Runs one seed; each has faults of its own mix, see the modules. Returns a fingerprint of the run.
///
/// # Panics
/// If an auditor or an assertion has something to object.
#[must_use]
pub fn run(seed: u64) -> u64 {
    match seed % 8 {
        0 => faults::run(seed, 3, false).1,
        1 => faults::run(seed, 5, false).1,
        2 => faults::run(seed, 3, true).1,
        3 | 7 => duel::run(seed),
        4 => changes::hasty(seed),
        5 => changes::run(seed),
        _ => founding::run(seed),
    }
}
