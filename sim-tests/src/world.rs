//! A run: a cluster and its clients, in two phases. Under faults nothing that was promised may be broken; after
//! everything is healed, everybody must get on within a bounded time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proconsul_core::rng::Rng;
use proconsul_io_sim::net::{Fabric, HostId};
use proconsul_io_sim::time::{sim_now, sim_sleep};
use proconsul_io_sim::trace::Trace;

use crate::audit::{Audit, check_history, check_names, stale_slack};
use crate::cluster::{Cluster, Main};
use crate::nemesis;
use crate::plan::{ClientKind, Plan};
use crate::runner::Violation;
use crate::workload::{Client, Shared, SharedHistory, calm};
use crate::{server, settling};

/// After healing, each agent must serve a write and a read within this time.
///
/// Generous against the sum of what may have to pass: connections given up, an election with split votes, the hold-out
/// of a restarted voter, a snapshot, all with clocks that drift.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

/// After healing, everything must be in order within this time, see [`settling`]: members that were lost sight of are tried
/// every 30 seconds and the catalog is compared with gossip every 60 seconds, removing what is unknown at the second
/// look.
const SETTLING_LIMIT: Duration = Duration::from_secs(200);

/// What a run found.
pub struct Outcome {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// What happened, counted.
    pub counts: BTreeMap<String, u64>,
    /// How much time passed in the simulation.
    pub simulated: Duration,
}

/// Executes a plan with the real server.
pub async fn run(plan: &Plan, trace: &Trace) -> Outcome {
    run_with(plan, trace, server::main).await
}

/// Executes a plan with any server.
pub async fn run_with(plan: &Plan, trace: &Trace, main: Main) -> Outcome {
    let rng = Rng::from_seed(plan.seed);
    let fabric = Fabric::new(rng.fork(0x6e65_7400), plan.net.quality, plan.net.datagrams, trace.clone());
    let audit = Audit::default();
    let cluster = Cluster::new(plan, fabric.clone(), audit.clone(), main);
    let shared = Shared {
        fabric: fabric.clone(),
        agents: cluster.hosts(),
        history: SharedHistory::default(),
        fresh_mode: if plan.trusts_clocks() { "" } else { "consistent" },
        nodes_go: plan.has_nodes_go(),
        restores: plan.clients.iter().any(|client| client.kind == ClientKind::Restorer),
        audit: audit.clone(),
        registered: cluster.registered(),
        followed: Default::default(),
        doors: cluster.doors(),
        named: Default::default(),
        stale_slack: stale_slack(plan),
        stop: Arc::new(AtomicBool::new(false)),
        stop_watching: Arc::new(AtomicBool::new(false)),
    };
    for agent in 0..cluster.len() {
        cluster.start(agent);
    }
    let hosts: Vec<_> = (0..).map(|at| HostId(100 + at)).take(plan.clients.len()).collect();
    nemesis::unleash(plan, &cluster, &fabric, &audit, &hosts);
    let (mut changers, mut watchers) = (Vec::new(), Vec::new());
    for (host, client) in hosts.iter().zip(&plan.clients) {
        fabric.add_host(*host, None);
        let kind = client.kind;
        let task = madsim::task::spawn(Client::new(host.0, *host, client, shared.clone()).run(kind));
        if kind.only_watches() { watchers.push(task) } else { changers.push(task) }
    }

    sim_sleep(Duration::from_millis(plan.safety_ms)).await;
    tracing::info!("healing");
    shared.stop.store(true, Ordering::Relaxed);
    cluster.heal();
    // Every operation has a limit of its own, so this ends.
    for client in changers {
        drop(client.await);
    }
    if !audit.has_failed() {
        calm(plan, &cluster, &shared, &audit).await;
    }
    shared.stop_watching.store(true, Ordering::Relaxed);
    for watcher in watchers {
        drop(watcher.await);
    }
    let simulated = Duration::from_nanos(sim_now());
    cluster.end();
    fabric.end();
    tracing::info!("checking");
    let history = shared.history.lock();
    check_history(&history, plan, &audit);
    check_names(&shared.named, plan, &audit);
    let (violations, counts) = audit.findings();
    Outcome { violations, counts, simulated }
}

/// Demands that every agent serves, that all come to the same state, and that they then keep the promises which no fault
/// excuses.
async fn calm(plan: &Plan, cluster: &Cluster, shared: &Shared, audit: &Audit) {
    let healed = sim_now();
    let left = |limit: Duration| limit.saturating_sub(Duration::from_nanos(sim_now() - healed));
    // Servers may have joined since the beginning.
    let shared = Shared { agents: cluster.hosts(), ..shared.clone() };
    let mut provers: Vec<_> =
        (0..shared.agents.len()).map(|agent| calm::prover(agent, plan.seed, shared.clone())).collect();
    for (agent, prover) in provers.iter_mut().enumerate() {
        if madsim::time::timeout(left(PROGRESS_LIMIT), prover.prove_service()).await.is_err() {
            let what = format!("agent {agent} did not serve within {PROGRESS_LIMIT:?} of healing");
            audit.report("progress", what);
            return;
        }
    }
    let mut disorder = None;
    let settled = async {
        loop {
            disorder = settling::disorder(cluster, audit);
            if disorder.is_none() {
                return;
            }
            sim_sleep(Duration::from_millis(100)).await;
        }
    };
    if madsim::time::timeout(left(SETTLING_LIMIT), settled).await.is_err() {
        let what = disorder.unwrap_or_default();
        audit.report("progress", format!("not in order within {SETTLING_LIMIT:?} of healing: {what}"));
        return;
    }
    audit.count("seconds until order", (sim_now() - healed) / 1_000_000_000);
    calm::keep_promises(provers, &shared).await;
}
