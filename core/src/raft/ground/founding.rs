//! Servers that found a group on their own, each with its view of who is there.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster::{Cluster, MS, Weather, id};
use crate::raft::{BootstrapError, Limits, Member, Membership, Timing};

/// Servers that belong to no group.
pub(crate) fn blank(seed: u64, servers: usize, weather: Weather) -> Cluster {
    Cluster::new(seed, 0..servers, weather, Timing::default(), Limits::default())
}

/// A group of these voters.
pub(crate) fn set(servers: &[usize]) -> Membership {
    let member = |at: &usize| (id(*at), Member { address: format!("s{at}:8300").into(), voter: true });
    Membership { servers: servers.iter().map(member).collect() }
}

/// One server tries to found a group.
pub(crate) fn found(cluster: &mut Cluster, at: usize, servers: &[usize]) -> Result<(), BootstrapError> {
    let membership = set(servers);
    cluster.call(at, |raft, cx| raft.found(cx, membership))
}

/// The memberships of all logs that are not empty.
pub(crate) fn founded(cluster: &Cluster) -> BTreeSet<Vec<u128>> {
    let running = cluster.servers.iter().filter_map(|server| server.raft.as_ref());
    let groups = running.filter(|raft| raft.last_index().0 > 0);
    groups.map(|raft| raft.membership().servers.keys().map(|id| id.0).collect()).collect()
}

/// Random views, crashes and losses: never two groups, and one in the end. Returns the trace's fingerprint.
pub(crate) fn run(seed: u64) -> u64 {
    let weather = Weather { loss: 150, doubling: 50, delay: 30 * MS, ..Weather::default() };
    let mut cluster = blank(seed, 5, weather);
    for _ in 0..40 {
        let at = usize::try_from(cluster.rng.below(5)).unwrap();
        if cluster.servers[at].raft.is_none() {
            continue;
        }
        if cluster.rng.below(5) == 0 {
            cluster.crash(at);
            let wait = cluster.rng.below(200 * MS);
            cluster.restart_after(at, wait);
        } else {
            // Itself and two others that it happens to see.
            let mut seen = vec![at];
            while seen.len() < 3 {
                let other = usize::try_from(cluster.rng.below(5)).unwrap();
                if !seen.contains(&other) {
                    seen.push(other);
                }
            }
            let _ = found(&mut cluster, at, &seen);
        }
        let wait = cluster.rng.below(80);
        cluster.run(Duration::from_millis(wait));
        assert!(founded(&cluster).len() <= 1, "two groups: {:?}", founded(&cluster));
    }
    // All see the same at last, and the one with the lowest identity goes on trying.
    cluster.weather = Weather::default();
    cluster.run(Duration::from_secs(1));
    for at in 1..5 {
        if cluster.servers[at].raft.is_some() {
            cluster.call(at, |raft, cx| raft.stop_founding(cx));
        }
    }
    // It asks less and less often: each attempt is a new term, and may end an election of a group that it belongs to
    // without knowing it yet.
    for attempt in 0..10 {
        if cluster.servers[0].raft.is_some() {
            let _ = found(&mut cluster, 0, &[0, 1, 2]);
        }
        cluster.run(Duration::from_millis(500 << attempt.min(5)));
    }
    assert_eq!(founded(&cluster).len(), 1, "one group in the end");
    assert!(cluster.leader().is_some(), "it has a leader");
    cluster.trace
}
