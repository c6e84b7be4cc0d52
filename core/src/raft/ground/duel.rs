//! Two servers that never hear each other, and a third one whose vote decides between them: votes, leases and promises
//! matter most when everything hangs on what one server remembers.

use std::time::Duration;

use super::cluster::{Cluster, MS, Weather};
use crate::raft::{Limits, Role, Timing};
use crate::rng::Rng;

/// The one whose vote decides.
const JUDGE: usize = 2;

/// Runs one seed. Returns the trace's fingerprint.
pub(crate) fn run(seed: u64) -> u64 {
    let mut draw = Rng::from_seed(seed).fork(8);
    let weather = Weather {
        delay: [MS, 5 * MS][draw.below(2) as usize],
        write: [10 * MS, 60 * MS, 200 * MS][draw.below(3) as usize],
        drift_ppm: [0, 10_000][draw.below(2) as usize],
        ..Weather::default()
    };
    // Elections come close to the end of leases.
    let [heartbeat, election, lease] = [[50, 300, 300], [20, 100, 90], [20, 200, 50]][draw.below(3) as usize];
    let timing = Timing {
        heartbeat: Duration::from_millis(heartbeat),
        election: Duration::from_millis(election),
        lease: Duration::from_millis(lease),
        ..Timing::default()
    };
    let mut cluster = Cluster::new(seed, 3..3, weather, timing, Limits::default());
    let apart = [(0, JUDGE - 1), (JUDGE - 1, 0)];
    cluster.cut.extend(apart);
    let pace = [5 * MS, 15 * MS][draw.below(2) as usize];
    let eager = 1 + draw.below(4);
    let mut payload = 0u64;
    let mut reunion = 0;
    for _ in 0..400 {
        cluster.run(Duration::from_nanos(draw.below(2 * pace)));
        if cluster.now >= reunion && cluster.cut.len() > apart.len() {
            cluster.cut = apart.into();
        }
        for leader in cluster.leaders() {
            payload += 1;
            cluster.propose(leader, &payload.to_le_bytes());
            if draw.below(4) == 0 {
                cluster.read(leader);
            }
        }
        if cluster.servers[JUDGE].raft.is_none() {
            continue;
        }
        let contender = (0..JUDGE).find(|at| {
            matches!(cluster.raft(*at).role(), Role::Candidate | Role::Leader) && !cluster.raft(*at).ready()
        });
        let is_torn = contender.is_some() && cluster.writing() == Some(JUDGE);
        let waits = (0..JUDGE).find(|at| cluster.patience(*at) < Duration::from_millis(lease / 4));
        let leads = (0..JUDGE).find(|at| cluster.has_lease(*at));
        let cut_off = match (contender, leads) {
            // The judge forgets what it was about to write down.
            (Some(contender), _) if is_torn && draw.below(eager) == 0 => contender,
            // The judge has promised something, and the other contender is about to ask it.
            (_, Some(leader)) if waits.is_some_and(|at| at != leader) && draw.below(eager) == 0 => leader,
            _ if cluster.raft(JUDGE).role() == Role::Leader => {
                let _ = cluster.call(JUDGE, |raft, cx| raft.transfer_leadership(cx, None));
                continue;
            }
            _ => continue,
        };
        cluster.split(&[cut_off]);
        reunion = cluster.now + draw.below(4 * election * MS);
        if draw.below(4) > 0 {
            cluster.crash(JUDGE);
            let wait = draw.below(2) * draw.below(lease * MS);
            cluster.restart_after(JUDGE, wait);
        }
    }
    super::faults::heal(&mut cluster);
    cluster.trace
}
