//! Slow members must not make healthy ones look dead: the experiment of the Lifeguard paper (Dadgar, Phillips, Currey
//! 2017, section V).
//!
//! A tenth of the members is anomalous for some time, well for some time, and so on; all of them together. What is
//! counted are failures of members that were well all the time. A member that was well is killed in between, without a
//! trace: that must be found as fast as ever.

use std::time::Duration;

use proconsul_core::gossip::Status;

use super::links::Links;
use super::net::{Id, Life, Net};
use super::spread::first_times;
use super::times::Times;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Size of the pool.
    pub members: usize,
    /// How many of them are slowed.
    pub slowed: usize,
    /// What happens to them: [`Life::Blocked`] as in the paper, or [`Life::Stopped`].
    pub anomaly: Life,
    /// For how long it lasts.
    pub lasts: Duration,
    /// For how long they are well then.
    pub pause: Duration,
    /// For how long this goes on.
    pub length: Duration,
    /// Whether Lifeguard is on.
    pub lifeguard: bool,
    /// Seed.
    pub seed: u64,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Failures of healthy members that any member came to believe in.
    pub false_positives: usize,
    /// Those among them that healthy members came to believe in.
    pub at_healthy: usize,
    /// When the killed member was first believed to have failed by a healthy one, from its death on.
    pub detected: Times,
    /// When the last healthy one believed it; absent from the runs in which some never did.
    pub everywhere: Times,
    /// Runs in which some healthy member did not learn of the death within the time of the run.
    pub incomplete: usize,
}

impl Row {
    /// Adds another run's figures.
    pub fn add(&mut self, other: Row) {
        self.false_positives += other.false_positives;
        self.at_healthy += other.at_healthy;
        self.incomplete += other.incomplete;
        self.detected.extend([other.detected.max()].into_iter().filter(|time| !time.is_zero()));
        self.everywhere.extend([other.everywhere.max()].into_iter().filter(|time| !time.is_zero()));
    }
}

/// Runs it once.
#[must_use]
pub fn run(plan: &Plan) -> Row {
    let lifeguard = plan.lifeguard;
    let mut net = Net::of(plan.seed, plan.members, Links::lan(), |config| config.lifeguard = lifeguard);
    net.run_for(Duration::from_secs(5));
    net.forget_history();

    let victim: Id = plan.members - 1;
    let (begun, end) = (net.now, net.now + plan.length);
    let mut kill = Some(begun + plan.length / 2);
    let killed = begun + plan.length / 2;
    let mut anomalous = false;
    while net.now < end {
        anomalous = !anomalous;
        let (life, span) = if anomalous { (plan.anomaly, plan.lasts) } else { (Life::Up, plan.pause) };
        for id in 0..plan.slowed {
            net.set_life(id, life);
        }
        let until = (net.now + span).min(end);
        if let Some(at) = kill.take_if(|at| *at <= until) {
            net.run_to(at.max(net.now));
            net.set_life(victim, Life::Silent);
        }
        net.run_to(until);
    }
    // What they have to say when they are well again counts as well.
    for id in 0..plan.slowed {
        net.set_life(id, Life::Up);
    }
    net.run_for(Duration::from_secs(10));

    let healthy = |id: Id| id >= plan.slowed;
    let wrong = |subject: Id| healthy(subject) && subject != victim;
    let failures = || net.beliefs.iter().filter(|belief| belief.status == Some(Status::Failed));
    let mut at_healthy = net.beliefs.clone();
    at_healthy.retain(|belief| healthy(belief.observer) && belief.at >= killed);
    let times = first_times(&at_healthy, victim, Status::Failed, killed);
    let complete = times.len() == plan.members - plan.slowed - 1;
    Row {
        false_positives: failures().filter(|belief| wrong(belief.subject)).count(),
        at_healthy: failures().filter(|belief| wrong(belief.subject) && healthy(belief.observer)).count(),
        detected: [times.percentile(1)].into_iter().filter(|_| !times.is_empty()).collect(),
        everywhere: [times.max()].into_iter().filter(|_| complete).collect(),
        incomplete: usize::from(!complete),
    }
}
