//! Whoever does to a world what its plan says.

use std::time::Duration;

use proconsul_io_sim::net::{Fabric, HostId};
use proconsul_io_sim::time::sim_sleep;

use crate::cluster::{Cluster, host_of};
use crate::plan::{Fault, Plan, Way};

/// Executes all faults of a plan, each at its time and until it ends by itself.
pub fn unleash(plan: &Plan, cluster: &Cluster, fabric: &Fabric, clients: &[HostId]) {
    for timed in &plan.faults {
        let (timed, cluster, fabric) = (timed.clone(), cluster.clone(), fabric.clone());
        let (clients, seed) = (clients.to_vec(), plan.seed);
        drop(madsim::task::spawn(async move {
            sim_sleep(Duration::from_millis(timed.at_ms)).await;
            tracing::info!(seed, fault = ?timed.fault, "fault");
            execute(timed.fault, &cluster, &fabric, &clients).await;
        }));
    }
}

async fn execute(fault: Fault, cluster: &Cluster, fabric: &Fabric, clients: &[HostId]) {
    let servers = cluster.hosts();
    match fault {
        Fault::Partition { group, ms } => {
            let inside = |host: &HostId| group.iter().any(|it| host_of((*it).into()) == *host);
            let (group, others): (Vec<HostId>, Vec<HostId>) = servers.iter().partition(|host| inside(host));
            let mut pairs = pairs(&group, &others);
            pairs.extend(self::pairs(&others, &group));
            cut_for(fabric, &pairs, ms).await;
        }
        Fault::Isolate { server, way, ms } => {
            let host = host_of(cluster.find(server));
            let others: Vec<_> = servers.into_iter().filter(|other| *other != host).collect();
            cut_for(fabric, &around(host, &others, way), ms).await;
        }
        Fault::CutPair { server, further, ms } => {
            let first = cluster.find(server);
            let second = (first + usize::from(further)) % cluster.len();
            cut_for(fabric, &around(host_of(first), &[host_of(second)], Way::Both), ms).await;
        }
        Fault::Sever { server, ms } => {
            let host = host_of(cluster.find(server));
            let others: Vec<_> = servers.into_iter().filter(|other| *other != host).collect();
            others.iter().for_each(|other| fabric.reset_connections(host, *other));
            cut_for(fabric, &around(host, &others, Way::Both), ms).await;
        }
        Fault::CutClients { server, way, ms } => {
            let host = host_of(cluster.find(server));
            cut_for(fabric, &around(host, clients, way), ms).await;
        }
        Fault::Weather { quality, ms } => {
            let pairs = pairs(&servers, &servers);
            pairs.iter().for_each(|(from, to)| fabric.set_quality(*from, *to, quality));
            sim_sleep(Duration::from_millis(ms)).await;
            pairs.iter().for_each(|(from, to)| fabric.reset_quality(*from, *to));
        }
        Fault::SlowLink { server, quality, ms } => {
            let pairs = pairs(&[host_of(cluster.find(server))], &servers);
            pairs.iter().for_each(|(from, to)| fabric.set_quality(*from, *to, quality));
            sim_sleep(Duration::from_millis(ms)).await;
            pairs.iter().for_each(|(from, to)| fabric.reset_quality(*from, *to));
        }
        Fault::Kill { server, death, down_ms } => {
            let server = cluster.find(server);
            cluster.kill(server, death);
            sim_sleep(Duration::from_millis(down_ms)).await;
            cluster.start(server);
        }
        Fault::KillAll { death, down_ms } => {
            for server in 0..cluster.len() {
                cluster.kill(server, death);
            }
            for server in 0..cluster.len() {
                sim_sleep(Duration::from_millis(down_ms)).await;
                cluster.start(server);
            }
        }
        Fault::Pause { server, ms } => {
            let server = cluster.find(server);
            cluster.set_paused(server, true);
            sim_sleep(Duration::from_millis(ms)).await;
            cluster.set_paused(server, false);
        }
        Fault::Drift { server, ppm } => cluster.clock(cluster.find(server)).set_drift(ppm),
        Fault::WallJump { server, by_ms } => cluster.clock(cluster.find(server)).jump_wall(by_ms),
        Fault::SlowDisk { server, sync_max_us, ms } => {
            let (server, slow) = (cluster.find(server), Duration::from_micros(sync_max_us));
            let mut usual = slow;
            cluster.set_disk_faults(server, |faults| {
                usual = std::mem::replace(&mut faults.sync_latency.1, slow);
            });
            sim_sleep(Duration::from_millis(ms)).await;
            cluster.set_disk_faults(server, |faults| faults.sync_latency.1 = usual);
        }
        Fault::FailingDisk { server, per_thousand, ms } => {
            let server = cluster.find(server);
            let set = |rate: u32| {
                cluster.set_disk_faults(server, |faults| {
                    faults.write_errors = rate;
                    faults.sync_errors = rate;
                });
            };
            set(per_thousand);
            sim_sleep(Duration::from_millis(ms)).await;
            set(0);
        }
    }
}

/// Every ordered pair of different hosts, the first of these and the second of those.
fn pairs(from: &[HostId], to: &[HostId]) -> Vec<(HostId, HostId)> {
    from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b).collect()
}

fn around(host: HostId, others: &[HostId], way: Way) -> Vec<(HostId, HostId)> {
    let mut links = Vec::new();
    if matches!(way, Way::Both | Way::Outbound) {
        links.extend(pairs(&[host], others));
    }
    if matches!(way, Way::Both | Way::Inbound) {
        links.extend(pairs(others, &[host]));
    }
    links
}

async fn cut_for(fabric: &Fabric, links: &[(HostId, HostId)], ms: u64) {
    links.iter().for_each(|(from, to)| fabric.cut(*from, *to));
    sim_sleep(Duration::from_millis(ms)).await;
    links.iter().for_each(|(from, to)| fabric.mend(*from, *to));
}
