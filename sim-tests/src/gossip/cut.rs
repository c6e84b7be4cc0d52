//! Members that are half cut off must not take healthy ones with them.

use std::collections::BTreeMap;
use std::time::Duration;

use proconsul_core::gossip::{Profile, Status};
use proconsul_core::time::Mono;

use super::links::{Cut, Links};
use super::net::{Id, Net};

/// What was measured.
#[derive(Clone, Debug)]
pub struct Row {
    /// How many members were cut off.
    pub cut_off: usize,
    /// How often a healthy member took a healthy one for failed.
    pub removals: usize,
    /// For how long at most.
    pub longest: Duration,
    /// How many healthy members were affected.
    pub removed: usize,
    /// How long a suspicion lasts at least in such a pool.
    pub suspicion: Duration,
    /// How many of those cut off were taken for failed, at the end, by most healthy members.
    pub found: usize,
}

/// A pool of `members` in which the first `cut_off` are cut off in this way for `length`. Counted until they have been
/// back for a while.
#[must_use]
pub fn run(members: usize, cut_off: usize, cut: Cut, length: Duration, seed: u64) -> Row {
    let mut net = Net::of(seed, members, Links::lan(), |_| ());
    net.run_for(Duration::from_secs(5));
    net.forget_history();
    for id in 0..cut_off {
        let cut = match cut {
            Cut::Half(_) => Cut::Half(seed ^ ((id as u64) << 32)),
            Cut::Inbound | Cut::Outbound | Cut::Cell(_) => cut,
        };
        net.links.cuts.insert(id, cut);
    }
    net.run_for(length);
    let found = (0..cut_off)
        .filter(|id| {
            let believe =
                (cut_off..members).filter(|at| net.status(*at, *id) == Some(Status::Failed)).count();
            2 * believe > members - cut_off
        })
        .count();
    net.links.cuts.clear();
    net.run_for(Duration::from_secs(30));

    let healthy = |id: Id| id >= cut_off;
    let mut since: BTreeMap<(Id, Id), Mono> = BTreeMap::new();
    let (mut removals, mut longest) = (0, Duration::ZERO);
    let mut removed: Vec<Id> = Vec::new();
    for belief in net.beliefs.iter().filter(|belief| healthy(belief.observer) && healthy(belief.subject)) {
        let pair = (belief.observer, belief.subject);
        if belief.status == Some(Status::Failed) {
            since.insert(pair, belief.at);
            removals += 1;
            removed.push(belief.subject);
        } else if let Some(begun) = since.remove(&pair) {
            longest = longest.max(belief.at.since(begun));
        }
    }
    longest = since.values().map(|begun| net.now.since(*begun)).fold(longest, Duration::max);
    removed.sort_unstable();
    removed.dedup();
    let suspicion = Profile::lan().suspicion_min(members);
    Row { cut_off, removals, longest, removed: removed.len(), suspicion, found }
}
