//! How fast a killed member is known to have failed.

use std::time::Duration;

use proconsul_core::gossip::Status;

use super::links::Links;
use super::net::{Life, Net};
use super::spread::first_times;
use super::times::Times;

/// What was measured, one time per seed.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Until the first member knew.
    pub first: Times,
    /// Until all knew.
    pub everywhere: Times,
    /// Runs in which not all knew in time.
    pub incomplete: usize,
}

/// One member of a pool ends, in each of these seeds: [`Life::Killed`] (its host refuses connections) or
/// [`Life::Silent`] (its host is gone).
#[must_use]
pub fn run(members: usize, life: Life, seeds: core::ops::Range<u64>, limit: Duration) -> Row {
    let mut row = Row::default();
    for seed in seeds {
        let mut net = Net::of(seed, members, Links::lan(), |_| ());
        net.run_for(Duration::from_secs(5));
        net.forget_history();
        let killed = net.now;
        net.set_life(0, life);
        net.run_until(limit, Duration::from_millis(100), |net| net.beliefs.len() >= members - 1);
        let times = first_times(&net.beliefs, 0, Status::Failed, killed);
        if times.len() == members - 1 {
            row.first.push(times.percentile(0));
            row.everywhere.push(times.max());
        } else {
            row.incomplete += 1;
        }
    }
    row
}
