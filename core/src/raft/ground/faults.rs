//! Whole groups under faults: safety while they last, progress when they end.

use std::time::Duration;

use super::cluster::{Cluster, MS, Weather, id};
use crate::raft::{Limits, MembershipChange, Timing};

/// Runs one seed: a group of `voters`, with two spare servers if members may change. Returns the number of events and the
/// trace's fingerprint.
pub(crate) fn run(seed: u64, voters: usize, members_change: bool) -> (u64, u64) {
    let mut draw = crate::rng::Rng::from_seed(seed).fork(7);
    let weather = Weather {
        loss: [0, 0, 20, 150][draw.below(4) as usize],
        doubling: [0, 20, 200][draw.below(3) as usize],
        delay: [MS, 5 * MS, 40 * MS, 150 * MS][draw.below(4) as usize],
        write: [MS, 10 * MS, 200 * MS][draw.below(3) as usize],
        drift_ppm: [0, 10_000][draw.below(2) as usize],
        checkpoint_every: [10, 60, 10_000][draw.below(3) as usize],
    };
    let all = if members_change { voters + 2 } else { voters };
    // Short timeouts bring elections close to the end of leases, where it matters.
    let [heartbeat, election, lease] =
        [[75, 1_000, 300], [50, 300, 300], [20, 100, 90]][draw.below(3) as usize];
    let timing = Timing {
        heartbeat: Duration::from_millis(heartbeat),
        election: Duration::from_millis(election),
        lease: Duration::from_millis(lease),
        ..Timing::default()
    };
    // Small messages leave logs in many states of agreement.
    let [append_entries_max, inflight_max] = [[1, 1], [3, 2], [1_024, 8]][draw.below(3) as usize];
    let limits = Limits { append_entries_max, inflight_max, ..Limits::default() };
    let mut cluster = Cluster::new(seed, voters..all, weather, timing, limits);
    let calm_max = [3, 20][draw.below(2) as usize];
    let pace = [2 * MS, 20 * MS, 100 * MS][draw.below(3) as usize];
    let usurps = draw.below(3) == 0;
    let mut payload = 0u64;
    let mut calm = 0;
    for _ in 0..400 {
        cluster.run(Duration::from_nanos(draw.below(pace * 2)));
        for leader in cluster.leaders() {
            // Cut off a leader before anybody has its first entry: logs diverge (paper, figure 8).
            if usurps && !cluster.raft(leader).ready() && draw.below(2) == 0 {
                cluster.split(&[leader]);
            }
            payload += 1;
            cluster.propose(leader, &payload.to_le_bytes());
            if draw.below(4) == 0 {
                cluster.read(leader);
            }
        }
        if calm > 0 {
            calm -= 1;
        } else {
            calm = draw.below(calm_max);
            disturb(&mut cluster, &mut draw, members_change);
        }
    }
    heal(&mut cluster);
    (cluster.events, cluster.trace)
}

fn disturb(cluster: &mut Cluster, draw: &mut crate::rng::Rng, members_change: bool) {
    let all = cluster.servers.len() as u64;
    let some = draw.below(all) as usize;
    let victim = match (draw.below(2), cluster.leader()) {
        (0, Some(leader)) => leader,
        _ => some,
    };
    let is_up = cluster.servers[victim].raft.is_some();
    match draw.below(if members_change { 15 } else { 12 }) {
        0 => cluster.cut.clear(),
        1 => cluster.split(&[victim]),
        2 => {
            let side: Vec<usize> = (0..all as usize).filter(|_| draw.below(2) == 0).collect();
            cluster.split(&side);
        }
        3 => {
            let other = draw.below(all) as usize;
            cluster.cut.insert((victim, other));
        }
        4 | 5 if is_up => {
            cluster.crash(victim);
            let wait = draw.below(2) * draw.below(3_000 * MS);
            cluster.restart_after(victim, wait);
        }
        6 if is_up => {
            let time = draw.below(2_000 * MS);
            cluster.pause(victim, time);
        }
        7 | 8 => {
            // A leader is cut off while another server crashes in the middle of a write and returns at once.
            if let Some(leader) = cluster.leaders().pop() {
                cluster.split(&[leader]);
            }
            if let Some(writing) = cluster.writing() {
                cluster.crash(writing);
                cluster.restart_after(writing, 0);
            }
        }
        9 | 10 => {
            if let Some(leader) = cluster.leader() {
                let _ = cluster.call(leader, |raft, cx| raft.transfer_leadership(cx, None));
            }
        }
        11 => {
            // One server has not heard the leader for long and would stand for election, were it not for the promise
            // of the others; then the others restart, and the leader is cut off.
            if let Some(leader) = cluster.leader() {
                cluster.cut.extend([(leader, some), (some, leader)]);
                let election = cluster.timing.election.as_nanos() as u64;
                cluster.run(Duration::from_nanos(election + draw.below(2 * election)));
                cluster.split(&[leader]);
                for at in (0..all as usize).filter(|at| *at != leader && *at != some) {
                    if cluster.servers[at].raft.is_some() {
                        cluster.crash(at);
                        cluster.restart_after(at, 0);
                    }
                }
            }
        }
        12.. => {
            if let Some(leader) = cluster.leader() {
                let id = id(some);
                let change = match draw.below(6) {
                    0 | 1 => MembershipChange::AddNonVoter { id, address: "new:8300".into() },
                    2 | 3 => MembershipChange::Promote { id },
                    4 => MembershipChange::Demote { id },
                    _ => MembershipChange::Remove { id },
                };
                let _ = cluster.call(leader, |raft, cx| raft.propose_membership(cx, change));
            }
        }
        _ => {}
    }
}

/// The faults end: everybody agrees soon, and new proposals and reads succeed.
pub(crate) fn heal(cluster: &mut Cluster) {
    cluster.cut.clear();
    cluster.weather = Weather { drift_ppm: cluster.weather.drift_ppm, ..Weather::default() };
    for at in 0..cluster.servers.len() {
        cluster.servers[at].pause_ends(cluster.now);
        cluster.restart_after(at, 0);
    }
    cluster.run(Duration::from_secs(1));
    let leader = cluster.wait_for_leader();
    // Whoever leads now may still be deposed once by a server with a later term; then it is over.
    cluster.run(Duration::from_secs(8));
    let leader = if cluster.leader() == Some(leader) { leader } else { cluster.wait_for_leader() };
    let index = cluster.propose(leader, b"after all").expect("a leader in peace takes proposals");
    assert!(cluster.read(leader));
    cluster.run_until(Duration::from_secs(10), "agreement after healing", |cluster| {
        cluster.reads_waiting() == 0
            && (0..cluster.servers.len()).all(|at| {
                !cluster.raft(leader).membership().servers.contains_key(&id(at))
                    || cluster.raft(at).commit_index() >= index
            })
    });
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.leader(), Some(leader), "a leader in peace stays");
    let voters = cluster.raft(leader).membership().voters().count();
    assert!(cluster.has_lease(leader), "a leader in peace has a lease, with {voters} voters");
}
