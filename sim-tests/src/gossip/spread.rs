//! How fast a join and a leave become known to everybody.

use std::collections::BTreeMap;
use std::time::Duration;

use proconsul_core::gossip::{Profile, Status};
use proconsul_core::time::Mono;

use super::links::Links;
use super::net::{self, Belief, Id, Net};
use super::times::Times;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Row {
    /// Size of the pool.
    pub members: usize,
    /// When the newcomer knew everybody, from the moment of its join.
    pub newcomer: Option<Duration>,
    /// When members knew the newcomer, from the same moment; one time for each that came to know it in time.
    pub join: Times,
    /// When members knew of the leave; likewise.
    pub leave: Times,
    /// What the analysis allows.
    pub bound: Duration,
    /// Steps of the loop.
    pub steps: u64,
}

/// How long news may take to reach all of `members`, save with a probability of about `1 / members`.
///
/// SWIM (Das, Gupta, Motivala 2002), section 4.1, treats dissemination as an epidemic: as long as few know the news, each
/// round multiplies those who know by up to `k + 1`, where `k` is the number of members each of them tells per round:
/// `log_{k+1} n` rounds. When almost everybody knows, one who does not is missed by all packets of a round with
/// probability `e^-k`; after `2 ln(n) / k` further rounds somebody is still missed with probability at most
/// `n * e^(-2 ln n) = 1 / n`. No member stops before that: each sends the news `4 * ceil(log10(n + 1))` times, which is
/// more than `ln n` in all, the least that SWIM asks for. A round takes the gossip interval and one crossing of the
/// network. To this comes the exchange of state that a join begins with: four crossings.
#[must_use]
pub fn bound(profile: &Profile, members: usize, links: &Links) -> Duration {
    let n = members as f64;
    let k = profile.gossip_nodes as f64;
    let rounds = (n.ln() / (k + 1.0).ln()).ceil() + (2.0 * n.ln() / k).ceil();
    (profile.gossip_interval + links.delay_max) * rounds as u32 + links.delay_max * 4
}

/// A pool of `members`: one more joins; then one leaves.
#[must_use]
pub fn run(members: usize, seed: u64) -> Row {
    let links = Links::lan();
    let bound = bound(&Profile::lan(), members, &links);
    let mut net = Net::of(seed, members, links, |_| ());
    net.run_for(Duration::from_secs(2));

    net.forget_history();
    let begun = net.now;
    let newcomer = net.add(net::config(members));
    net.act(newcomer, |gossip, cx| gossip.join(cx, vec![net::address(0)], 1));
    let knows_all = |net: &Net| net.hosts[newcomer].gossip.stats().alive == members + 1;
    let knew = net.run_until(bound, Duration::from_millis(1), knows_all);
    net.run_to(begun + bound * 2);
    let join = first_times(&net.beliefs, newcomer, Status::Alive, begun);

    net.forget_history();
    let (begun, leaver) = (net.now, members / 2);
    net.act(leaver, |gossip, cx| gossip.leave(cx));
    net.run_for(bound * 2);
    let leave = first_times(&net.beliefs, leaver, Status::Left, begun);
    Row { members, newcomer: knew, join, leave, bound, steps: net.steps }
}

/// When each other member first believed this of the subject, from `begun` on.
#[must_use]
pub fn first_times(beliefs: &[Belief], subject: Id, status: Status, begun: Mono) -> Times {
    let mut first: BTreeMap<Id, Mono> = BTreeMap::new();
    for belief in beliefs {
        if belief.subject == subject && belief.observer != subject && belief.status == Some(status) {
            first.entry(belief.observer).or_insert(belief.at);
        }
    }
    first.values().map(|at| at.since(begun)).collect()
}
