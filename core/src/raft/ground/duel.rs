//! Three servers and stories in which everything hangs on what one of them remembers, told again and again with other
//! servers in the parts and other times: votes, promises, leases and entries of former terms.

use std::time::Duration;

use super::cluster::{Cluster, MS, Weather, id};
use crate::raft::{Limits, Role, Timing};
use crate::rng::Rng;

/// So many stories are told in a run.
const ROUNDS: usize = 12;

/// Runs one seed. Returns the trace's fingerprint.
pub(crate) fn run(seed: u64) -> u64 {
    let mut draw = Rng::from_seed(seed).fork(8);
    let weather = Weather {
        delay: [MS, 3 * MS][draw.below(2) as usize],
        write: [5 * MS, 60 * MS][draw.below(2) as usize],
        drift_ppm: [0, 10_000][draw.below(2) as usize],
        ..Weather::default()
    };
    // Elections come close to the end of leases.
    let [heartbeat, election, lease] =
        [[50, 300, 300], [20, 150, 120], [20, 300, 100]][draw.below(3) as usize];
    let timing = Timing {
        heartbeat: Duration::from_millis(heartbeat),
        election: Duration::from_millis(election),
        lease: Duration::from_millis(lease),
        ..Timing::default()
    };
    // One entry at a time: a cut may come between any two.
    let limits = Limits { append_entries_max: 1, inflight_max: 1, ..Limits::default() };
    let mut cluster = Cluster::new(seed, 3..3, weather, timing, limits);
    for _ in 0..ROUNDS {
        cluster.cut.clear();
        for at in 0..3 {
            cluster.restart_after(at, 0);
        }
        let peace =
            Duration::from_millis(3 * election) + draw.duration_below(Duration::from_millis(election));
        cluster.run(peace);
        let Some(leader) = cluster.leader() else { continue };
        let other = (leader + 1 + draw.below(2) as usize) % 3;
        let third = 3 - leader - other;
        let mut story = Story { cluster: &mut cluster, leader, other, third };
        match draw.below(4) {
            0 => story.a_vote_is_forgotten(),
            1 => story.a_promise_is_forgotten(),
            2 => story.an_old_entry_comes_back(),
            _ => story.a_successor_is_faster(),
        }
    }
    super::faults::heal(&mut cluster);
    cluster.trace
}

struct Story<'a> {
    cluster: &'a mut Cluster,
    leader: usize,
    other: usize,
    third: usize,
}

impl Story<'_> {
    /// Lets time pass in small steps until something holds; `false` if it does not for two election timeouts.
    fn wait(&mut self, holds: impl Fn(&Cluster) -> bool) -> bool {
        let end = self.cluster.now + 4 * self.cluster.timing.election.as_nanos() as u64;
        while !holds(self.cluster) {
            if self.cluster.now >= end {
                return false;
            }
            self.cluster.run(Duration::from_micros(100));
        }
        true
    }

    fn settle(&mut self) {
        let time = 4 * self.cluster.timing.election;
        self.cluster.run(time);
    }

    fn alone(&mut self, at: usize) {
        self.cluster.cut.clear();
        self.cluster.split(&[at]);
    }

    /// Whoever elected a new leader dies in the middle of a write and comes back, together with the former leader; the
    /// new one is cut off from them. If the vote was not durable, it may be cast again in the same term.
    fn a_vote_is_forgotten(&mut self) {
        let Story { leader, other, third, .. } = *self;
        self.cluster.crash(leader);
        let leads = move |cluster: &Cluster| {
            [other, third].into_iter().find(|at| cluster.raft(*at).role() == Role::Leader)
        };
        if !self.wait(|cluster| leads(cluster).is_some()) {
            return;
        }
        let elected = leads(self.cluster).unwrap();
        let voter = 3 - leader - elected;
        if self.cluster.is_writing(voter) {
            self.cluster.crash(voter);
            self.cluster.restart_after(voter, 0);
        }
        self.alone(elected);
        self.cluster.restart_after(leader, 0);
        self.settle();
    }

    /// A lease rests on one voter, which restarts while another server is about to stand for election.
    fn a_promise_is_forgotten(&mut self) {
        let Story { leader, other, third, .. } = *self;
        self.cluster.cut.extend([(leader, other), (other, leader)]);
        let election = self.cluster.timing.election;
        self.cluster.run(election);
        let soon = self.cluster.timing.lease / 8;
        if !self.wait(|cluster| cluster.patience(other) < soon && cluster.has_lease(leader)) {
            return;
        }
        self.cluster.crash(third);
        self.cluster.restart_after(third, 0);
        self.cluster.split(&[leader]);
        self.settle();
    }

    /// The paper's figure 8: a leader has an entry for itself and is deposed; so has its successor; the former one is
    /// elected again and spreads its old entry, but none of its new term; then the successor comes back.
    fn an_old_entry_comes_back(&mut self) {
        let Story { leader, other, third, .. } = *self;
        self.alone(leader);
        let Some(index) = self.cluster.propose(leader, b"old") else { return };
        let leads = move |cluster: &Cluster| {
            [other, third].into_iter().find(|at| cluster.raft(*at).role() == Role::Leader)
        };
        if !self.wait(|cluster| leads(cluster).is_some()) {
            return;
        }
        let successor = leads(self.cluster).unwrap();
        for at in 0..3 {
            self.cluster.split(&[at]);
        }
        if !self.wait(|cluster| !cluster.is_writing(successor)) {
            return;
        }
        self.alone(successor);
        let spread = |cluster: &Cluster| {
            cluster.raft(leader).role() == Role::Leader && cluster.raft(leader).commit_index() >= index
        };
        if self.wait(spread) {
            self.alone(leader);
            self.settle();
        }
    }

    /// A successor that was named is elected before the leader hears of anything.
    fn a_successor_is_faster(&mut self) {
        let Story { leader, other, .. } = *self;
        if self.cluster.call(leader, |raft, cx| raft.transfer_leadership(cx, Some(id(other)))).is_err() {
            return;
        }
        if self.wait(|cluster| cluster.raft(other).role() == Role::Candidate) {
            self.alone(leader);
            self.settle();
        }
    }
}
