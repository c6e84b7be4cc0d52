//! Whoever does to a world what its plan says.

use std::time::Duration;

use proconsul_io_sim::net::{Death, Fabric, HostId};
use proconsul_io_sim::time::sim_sleep;

use crate::audit::{Agent, Audit};
use crate::cluster::Cluster;
use crate::http::HttpClient;
use crate::plan::{Fault, Plan, Target, Way};

/// Where operators sit.
const OPERATOR: HostId = HostId(90);
/// How long an operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that a fault may be done to.
#[derive(Clone)]
struct Nemesis {
    plan: Plan,
    cluster: Cluster,
    fabric: Fabric,
    audit: Audit,
    /// Hosts of the workload's clients.
    clients: Vec<HostId>,
}

/// Executes all faults of a plan, each at its time and until it ends by itself.
pub fn unleash(plan: &Plan, cluster: &Cluster, fabric: &Fabric, audit: &Audit, clients: &[HostId]) {
    fabric.add_host(OPERATOR, None);
    let nemesis = Nemesis {
        plan: plan.clone(),
        cluster: cluster.clone(),
        fabric: fabric.clone(),
        audit: audit.clone(),
        clients: clients.to_vec(),
    };
    for timed in &plan.faults {
        let (timed, nemesis) = (timed.clone(), nemesis.clone());
        drop(madsim::task::spawn(async move {
            sim_sleep(Duration::from_millis(timed.at_ms)).await;
            tracing::info!(seed = nemesis.plan.seed, fault = ?timed.fault, "fault");
            // A fault for an agent that this world does not have is none.
            let _ = nemesis.execute(timed.fault).await;
        }));
    }
}

impl Nemesis {
    /// `None` if there is nobody to do it to.
    async fn execute(&self, fault: Fault) -> Option<()> {
        let cluster = &self.cluster;
        match fault {
            Fault::Partition { group, ms } => {
                let hosts = cluster.hosts();
                let inside = |agent: &Agent| group.iter().any(|it| usize::from(*it) == *agent);
                let (group, others): (Vec<Agent>, Vec<Agent>) = (0..hosts.len()).partition(inside);
                let hosts = |agents: Vec<Agent>| agents.into_iter().map(|it| hosts[it]).collect::<Vec<_>>();
                let (group, others) = (hosts(group), hosts(others));
                let mut pairs = pairs(&group, &others);
                pairs.extend(self::pairs(&others, &group));
                self.cut_for(&pairs, ms).await;
            }
            Fault::Isolate { server, way, ms, agents } => {
                let agent = cluster.find(server)?;
                let others = self.others(agent, agents);
                self.cut_for(&around(cluster.host(agent), &others, way), ms).await;
            }
            Fault::CutPair { server, further, ms } => {
                let first = cluster.find(server)?;
                let second = (first + usize::from(further)) % usize::from(self.plan.servers);
                let (first, second) = (cluster.host(first), cluster.host(second));
                self.cut_for(&around(first, &[second], Way::Both), ms).await;
            }
            Fault::Sever { server, ms } => {
                let agent = cluster.find(server)?;
                let (host, others) = (cluster.host(agent), self.others(agent, false));
                others.iter().for_each(|other| self.fabric.reset_connections(host, *other));
                self.cut_for(&around(host, &others, Way::Both), ms).await;
            }
            Fault::CutClients { server, way, ms } => {
                let host = cluster.host(cluster.find(server)?);
                self.cut_for(&around(host, &self.clients, way), ms).await;
            }
            Fault::Weather { quality, ms } => {
                let hosts = cluster.hosts();
                let pairs = pairs(&hosts, &hosts);
                pairs.iter().for_each(|(from, to)| self.fabric.set_quality(*from, *to, quality));
                sim_sleep(Duration::from_millis(ms)).await;
                pairs.iter().for_each(|(from, to)| self.fabric.reset_quality(*from, *to));
            }
            Fault::SlowLink { server, quality, ms } => {
                let pairs = pairs(&[cluster.host(cluster.find(server)?)], &cluster.hosts());
                pairs.iter().for_each(|(from, to)| self.fabric.set_quality(*from, *to, quality));
                sim_sleep(Duration::from_millis(ms)).await;
                pairs.iter().for_each(|(from, to)| self.fabric.reset_quality(*from, *to));
            }
            Fault::Kill { server, death, down_ms } => {
                let agent = cluster.find(server)?;
                cluster.kill(agent, death);
                self.start_after(agent, down_ms).await;
            }
            Fault::KillAll { death, down_ms } => {
                let servers: Vec<_> = (0..cluster.len()).filter(|it| cluster.is_server(*it)).collect();
                servers.iter().for_each(|server| cluster.kill(*server, death));
                for server in servers {
                    self.start_after(server, down_ms).await;
                }
            }
            Fault::Pause { server, ms } => {
                let agent = cluster.find(server)?;
                cluster.set_paused(agent, true);
                sim_sleep(Duration::from_millis(ms)).await;
                cluster.set_paused(agent, false);
            }
            Fault::Drift { server, ppm } => cluster.clock(cluster.find(server)?).set_drift(ppm),
            Fault::WallJump { server, by_ms } => cluster.clock(cluster.find(server)?).jump_wall(by_ms),
            Fault::SlowDisk { .. }
            | Fault::FailingDisk { .. }
            | Fault::FailingReads { .. }
            | Fault::FullDisk { .. }
            | Fault::Rot { .. }
            | Fault::Wipe { .. } => self.hurt_disk(fault).await?,
            Fault::AddServer
            | Fault::Leave { .. }
            | Fault::RemovePeer { .. }
            | Fault::TransferLeader { .. }
            | Fault::Upgrade { .. } => self.operate(fault).await?,
        }
        Some(())
    }

    async fn hurt_disk(&self, fault: Fault) -> Option<()> {
        let cluster = &self.cluster;
        match fault {
            Fault::SlowDisk { server, sync_max_us, ms } => {
                let (server, slow) = (self.server(server)?, Duration::from_micros(sync_max_us));
                // Another fault of this kind may have begun before.
                let usual = Duration::from_micros(self.plan.disk.sync_max_us);
                cluster.set_disk_faults(server, |_, faults| faults.sync_latency.1 = slow);
                sim_sleep(Duration::from_millis(ms)).await;
                cluster.set_disk_faults(server, |_, faults| faults.sync_latency.1 = usual);
            }
            Fault::FailingDisk { server, per_thousand, ms } => {
                let server = self.server(server)?;
                let set = |rate: u32| {
                    cluster.set_disk_faults(server, |_, faults| {
                        faults.write_errors = rate;
                        faults.sync_errors = rate;
                    });
                };
                set(per_thousand);
                sim_sleep(Duration::from_millis(ms)).await;
                set(0);
            }
            Fault::FailingReads { server, per_thousand, ms } => {
                let server = self.server(server)?;
                cluster.kill(server, Death::Process);
                cluster.set_disk_faults(server, |_, faults| faults.read_errors = per_thousand);
                self.start_after(server, 10).await;
                sim_sleep(Duration::from_millis(ms)).await;
                cluster.set_disk_faults(server, |_, faults| faults.read_errors = 0);
            }
            Fault::FullDisk { server, room, ms } => {
                let server = self.server(server)?;
                self.audit.count("full disks", 1);
                cluster.set_disk_faults(server, |disk, faults| faults.capacity = Some(disk.used() + room));
                sim_sleep(Duration::from_millis(ms)).await;
                cluster.set_disk_faults(server, |_, faults| faults.capacity = None);
            }
            Fault::Rot { server, bits, down_ms } => {
                let server = self.server(server)?;
                if cluster.may_lose(server) {
                    cluster.kill(server, Death::Process);
                    cluster.rot(server, bits);
                    self.start_after(server, down_ms).await;
                }
            }
            Fault::Wipe { server, down_ms } => {
                let server = self.server(server)?;
                if cluster.may_lose(server) {
                    cluster.kill(server, Death::Power);
                    cluster.wipe(server);
                    self.start_after(server, down_ms).await;
                }
            }
            other => unreachable!("{other:?} does nothing to a disk"),
        }
        Some(())
    }

    async fn operate(&self, fault: Fault) -> Option<()> {
        let cluster = &self.cluster;
        match fault {
            Fault::AddServer => drop(cluster.add_server()),
            Fault::Leave { server, away_ms } => {
                let agent = cluster.find(server)?;
                if cluster.expect_leave(agent, Some(Duration::from_millis(away_ms))) {
                    self.ask(agent, "PUT", "/v1/agent/leave", "leaves asked for").await;
                }
            }
            Fault::RemovePeer { server, away_ms } => {
                let server = self.server(server)?;
                if cluster.expect_leave(server, None) {
                    cluster.kill(server, Death::Process);
                    let leader = self.audit.leader().unwrap_or((server + 1) % usize::from(self.plan.servers));
                    let target = format!("/v1/operator/raft/peer?id={}", cluster.identity(server).1);
                    self.ask(leader, "DELETE", &target, "peers removed").await;
                    self.start_after(server, away_ms).await;
                }
            }
            Fault::TransferLeader { to } => {
                let to = to.and_then(|target| self.server(target));
                let query = to.map(|to| format!("?id={}", cluster.identity(to).1)).unwrap_or_default();
                let leader = cluster.find(Target::Leader)?;
                let target = format!("/v1/operator/raft/transfer-leader{query}");
                self.ask(leader, "POST", &target, "leadership transferred").await;
            }
            Fault::Upgrade { pause_ms } => {
                for agent in self.plan.old.iter().map(|agent| usize::from(*agent)) {
                    if agent < cluster.len() {
                        cluster.upgrade(agent);
                        self.start_after(agent, 20).await;
                        sim_sleep(Duration::from_millis(pause_ms)).await;
                    }
                }
            }
            other => unreachable!("{other:?} is nothing that operators do"),
        }
        Some(())
    }

    /// An agent's process is started after a while, or as soon as everything is healed.
    async fn start_after(&self, agent: Agent, ms: u64) {
        sim_sleep(Duration::from_millis(ms)).await;
        self.cluster.start(agent);
    }

    /// A request of an operator. Whether anybody answers is not promised; it is counted if it was done.
    async fn ask(&self, agent: Agent, method: &str, target: &str, what: &str) {
        let mut http = HttpClient::new(self.fabric.clone(), OPERATOR);
        let answer = http.ask(self.cluster.host(agent), method, target, "", PATIENCE).await;
        tracing::info!(agent, target, answer = ?answer.as_ref().map(|it| (it.status, it.text())), "operator");
        if answer.is_ok_and(|answer| answer.status == 200) {
            self.audit.count(what, 1);
        }
    }

    /// The server that a fault is for, if it is one.
    fn server(&self, target: Target) -> Option<Agent> {
        self.cluster.find(target).filter(|agent| self.cluster.is_server(*agent))
    }

    /// Everybody that an agent can be cut off from: all other servers, and client agents, if it is one or if they are
    /// meant.
    fn others(&self, agent: Agent, agents: bool) -> Vec<HostId> {
        let cluster = &self.cluster;
        let with_clients = agents || !cluster.is_server(agent);
        let hosts = if with_clients { cluster.hosts() } else { cluster.server_hosts() };
        hosts.into_iter().filter(|other| *other != cluster.host(agent)).collect()
    }

    async fn cut_for(&self, links: &[(HostId, HostId)], ms: u64) {
        links.iter().for_each(|(from, to)| self.fabric.cut(*from, *to));
        sim_sleep(Duration::from_millis(ms)).await;
        links.iter().for_each(|(from, to)| self.fabric.mend(*from, *to));
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
