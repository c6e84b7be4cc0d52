//! Members come and go all the time, proposed by every server that believes to lead, while the group falls apart and
//! comes together again: two majorities must never be possible at once.

use std::time::Duration;

use super::cluster::{Cluster, MS, Weather, id};
use crate::raft::{Limits, MembershipChange, Timing};
use crate::rng::Rng;

/// Runs one seed. Returns the trace's fingerprint.
pub(crate) fn run(seed: u64) -> u64 {
    let mut draw = Rng::from_seed(seed).fork(9);
    let voters = 2 + draw.below(3) as usize;
    let all = (voters + 1 + draw.below(2) as usize).min(5);
    let weather = Weather {
        delay: [MS, 10 * MS][draw.below(2) as usize],
        write: [MS, 20 * MS][draw.below(2) as usize],
        checkpoint_every: [5, 40, 10_000][draw.below(3) as usize],
        ..Weather::default()
    };
    let timing = Timing {
        heartbeat: Duration::from_millis(20),
        election: Duration::from_millis(100),
        lease: Duration::from_millis(90),
        ..Timing::default()
    };
    let mut cluster = Cluster::new(seed, voters..all, weather, timing, Limits::default());
    let leader = cluster.wait_for_leader();
    for spare in voters..all {
        change(&mut cluster, leader, MembershipChange::AddNonVoter { id: id(spare), address: "s:1".into() });
        cluster.run(Duration::from_millis(300));
    }
    let mut payload = 0u64;
    let pace = [10 * MS, 60 * MS][draw.below(2) as usize];
    for _ in 0..300 {
        cluster.run(Duration::from_nanos(draw.below(2 * pace)));
        for leader in cluster.leaders() {
            payload += 1;
            cluster.propose(leader, &payload.to_le_bytes());
            // Whoever has just been elected is the most dangerous one.
            let hurried = !cluster.raft(leader).ready() || draw.below(4) == 0;
            for _ in 0..if hurried { 1 + draw.below(3) } else { 0 } {
                let id = id(draw.below(all as u64) as usize);
                let wanted = match draw.below(8) {
                    0 => MembershipChange::AddNonVoter { id, address: "s:1".into() },
                    1..=4 => MembershipChange::Promote { id },
                    5 | 6 => MembershipChange::Demote { id },
                    _ => MembershipChange::Remove { id },
                };
                change(&mut cluster, leader, wanted);
            }
        }
        match draw.below(12) {
            0 | 1 => cluster.cut.clear(),
            2 => {
                cluster.cut.clear();
                let side: Vec<usize> = (0..all).filter(|_| draw.below(2) == 0).collect();
                cluster.split(&side);
            }
            3 => {
                if let Some(leader) = cluster.leaders().pop() {
                    cluster.split(&[leader]);
                }
            }
            4 => {
                let victim = draw.below(all as u64) as usize;
                if cluster.servers[victim].raft.is_some() {
                    cluster.crash(victim);
                    let wait = draw.below(200 * MS);
                    cluster.restart_after(victim, wait);
                }
            }
            _ => {}
        }
    }
    super::faults::heal(&mut cluster);
    cluster.trace
}

/// A leader has promoted a fifth voter, as only the two of them know, when the others elect another one, which removes
/// the former leader at once: if it may, before it knows what was committed, each side has a majority of its own group.
pub(crate) fn hasty(seed: u64) -> u64 {
    let mut draw = Rng::from_seed(seed).fork(10);
    let weather = Weather { write: [MS, 10 * MS][draw.below(2) as usize], ..Weather::default() };
    let timing = Timing {
        heartbeat: Duration::from_millis(20),
        election: Duration::from_millis(200),
        lease: Duration::from_millis(100),
        ..Timing::default()
    };
    let mut cluster = Cluster::new(seed, 4..5, weather, timing, Limits::default());
    let (leader, spare) = (cluster.wait_for_leader(), 4);
    change(&mut cluster, leader, MembershipChange::AddNonVoter { id: id(spare), address: "s:1".into() });
    cluster.run(Duration::from_secs(1));
    if cluster.leader() == Some(leader) {
        cluster.split(&[leader, spare]);
        change(&mut cluster, leader, MembershipChange::Promote { id: id(spare) });
        let hurried = |cluster: &Cluster| cluster.leaders().into_iter().find(|at| *at != leader);
        let end = cluster.now + 1_000 * MS;
        while hurried(&cluster).is_none() && cluster.now < end {
            cluster.run(Duration::from_micros(50));
        }
        if let Some(hurried) = hurried(&cluster) {
            let mate = (0..4).find(|at| *at != leader && *at != hurried).unwrap();
            cluster.cut.clear();
            cluster.split(&[hurried, mate]);
            change(&mut cluster, hurried, MembershipChange::Remove { id: id(leader) });
            for _ in 0..20 {
                cluster.run(Duration::from_millis(draw.below(200)));
                for at in cluster.leaders() {
                    cluster.propose(at, b"mine");
                }
            }
        }
    }
    super::faults::heal(&mut cluster);
    cluster.trace
}

fn change(cluster: &mut Cluster, leader: usize, change: MembershipChange) {
    // Most are refused, as they should be.
    let _ = cluster.call(leader, |raft, cx| raft.propose_membership(cx, change));
}
