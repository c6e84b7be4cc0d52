//! A trial: a cluster of real processes, clients of every kind, faults by a plan, and everything that was seen.
//!
//! It has two halves, as a simulated run has: safety under faults, then all is mended and progress is demanded.

mod clients;
mod judge;
mod nemesis;
pub mod plan;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::cluster::{Cluster, Layout};
use super::faults::{Election, elections, identities};
use super::isolation;
use super::network::Network;
use super::recorder::Recorder;
use crate::history::{Consistency, History, Nanos, Op};
use crate::workload::Random;
use clients::{Caller, Crowd, Freshness, SESSION_NODE, Shared};
pub use judge::{Finding, Judgement, findings, judge};
pub use nemesis::Event;
use nemesis::Nemesis;
use plan::Kind;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long those who look on may take to look once more when all has settled.
const LOOK_WITHIN: Duration = Duration::from_secs(130);

/// The size of a disk that can be filled.
const DISK_BYTES: u64 = 192 << 20;

/// Where Debian's libfaketime is, by architecture.
const CLOCK_SHIFTERS: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// How long, how hard, and what happens.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides the workload and the faults.
    pub seed: u64,
    /// How long faults happen.
    pub length: Duration,
    /// Their kinds.
    pub kinds: Vec<Kind>,
    /// Registers of each way to read.
    pub keys: u64,
    /// How long a client rests after an answer.
    pub rest: Duration,
}

/// What happened.
#[derive(Debug)]
pub struct Run {
    /// Everything that the clients did.
    pub history: History,
    /// Everything that was done to the cluster, or that it did by itself.
    pub events: Vec<Event>,
    /// When the faults were over, on the clock of the history.
    pub mended: Nanos,
    /// How long it took from then until all agents were at work again, or why they were not.
    pub recovery: Result<Duration, String>,
    /// Whether all that was to be read at the end was read.
    pub last_reads: Result<(), String>,
    /// From when on the catalog is expected to show what the agents have.
    pub converged_from: Nanos,
    /// Every election that a server's log names.
    pub elections: Vec<Election>,
    /// The names of the agents.
    pub agents: Vec<String>,
    /// The end of every agent's log.
    pub logs: String,
}

impl Run {
    /// A run of which nothing but its history is left.
    #[must_use]
    pub fn of_history(history: History) -> Run {
        let ends = history.operations().iter().filter_map(|operation| operation.completed);
        let end = ends.max().unwrap_or(0);
        Run {
            history,
            events: Vec::new(),
            mended: end,
            recovery: Ok(Duration::ZERO),
            last_reads: Ok(()),
            converged_from: end,
            elections: Vec::new(),
            agents: Vec::new(),
            logs: String::new(),
        }
    }

    /// The longest time without any change of a key that was acknowledged, while faults happened.
    #[must_use]
    pub fn longest_outage(&self) -> Duration {
        let changes = self.history.operations().iter().filter(|o| o.op.mutates_key() && o.reply().is_some());
        let mut times: Vec<Nanos> = changes.filter_map(|operation| operation.completed).collect();
        times.extend([0, self.mended]);
        times.retain(|at| *at <= self.mended);
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        Duration::from_nanos(gaps.max().unwrap_or(0))
    }

    /// The share of the seconds, while faults happened, in which a change of a key was acknowledged.
    #[must_use]
    pub fn seconds_with_changes(&self) -> f64 {
        let second = |at: Nanos| at / 1_000_000_000;
        let changes = self.history.operations().iter().filter(|o| o.op.mutates_key() && o.reply().is_some());
        let seconds: BTreeSet<Nanos> =
            changes.filter_map(|o| o.completed).filter(|at| *at < self.mended).map(second).collect();
        seconds.len() as f64 / (second(self.mended.saturating_sub(1)) + 1) as f64
    }
}

/// The library that shifts the clock of a program, where it is installed.
#[must_use]
pub fn clock_shifter() -> Option<PathBuf> {
    CLOCK_SHIFTERS.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Starts a cluster and runs the trial. What came out still has to be [judged](judge).
///
/// # Errors
///
/// If the cluster does not form before the first fault, or the system refuses to let a fault happen.
pub async fn run(network: Network, layout: &Layout, options: &Options) -> io::Result<Run> {
    let mut cluster = Cluster::prepare_on(network, layout)?;
    // Unmounted before the cluster removes its directories.
    let mut disks = Vec::new();
    if options.kinds.contains(&Kind::Disk) {
        for server in cluster.servers() {
            let data = server.directory().join("data");
            std::fs::create_dir(&data)?;
            disks.push(isolation::Mount::new(&data, DISK_BYTES)?);
        }
    }
    for agent in &mut cluster.agents {
        agent.start()?;
    }
    cluster.formed().await?;
    prepare_sessions(&cluster).await?;
    let mut names = identities(&cluster).await?;
    let recorder = Arc::new(Recorder::default());
    let shared = Arc::new(Shared {
        recorder: Arc::clone(&recorder),
        keys: options.keys,
        rest: options.rest,
        stop: AtomicBool::new(false),
        settled: AtomicBool::new(false),
        numbers: AtomicU32::new(1),
    });
    let mut crowd = crowd(&cluster, &shared, options.seed).await;
    let steps = plan::draw(options.seed, options.length, &options.kinds);
    let mut nemesis = Nemesis::new(&mut cluster, &recorder, &layout.binary, clock_shifter());
    nemesis.run(&steps, options.length).await?;
    let mended = recorder.now();
    let started = Instant::now();
    let recovery =
        nemesis.cluster.formed().await.map(|()| started.elapsed()).map_err(|error| error.to_string());
    nemesis.look()?;
    let events = nemesis.events;
    shared.stop.store(true, Ordering::Relaxed);
    crowd.changed().await;
    let last_reads = match &recovery {
        Ok(_) => last_reads(&cluster, &shared).await,
        Err(_) => Err("the cluster did not recover".to_owned()),
    };
    shared.settled.store(true, Ordering::Relaxed);
    // Who cannot look any more has said so in the history.
    let _ = tokio::time::timeout(LOOK_WITHIN, crowd.watched()).await;
    let converged_from = recorder.now();
    for agent in cluster.agents.iter().filter(|agent| agent.is_running()) {
        Caller::new(&shared, Client::new(agent.http()), options.seed).look_at_catalog().await;
    }
    // One that lost its directory has another identity than before.
    names.extend(identities(&cluster).await.unwrap_or_default());
    Ok(Run {
        history: recorder.take(),
        events,
        mended,
        recovery,
        last_reads,
        converged_from,
        elections: elections(&cluster, &names),
        agents: cluster.agents.iter().map(|agent| agent.name().to_owned()).collect(),
        logs: cluster.logs(),
    })
}

/// Registers the node that sessions are bound to.
async fn prepare_sessions(cluster: &Cluster) -> io::Result<()> {
    let body = json!({ "Node": SESSION_NODE, "Address": "192.0.2.1" }).to_string();
    let mut http = Client::new(cluster.agents[0].http());
    let answer = http.request("PUT", "/v1/catalog/register", body.as_bytes()).await;
    match answer {
        Ok(answer) if answer.status == 200 => Ok(()),
        answer => Err(io::Error::other(format!("the node of the sessions is not registered: {answer:?}"))),
    }
}

/// Starts all clients: at every agent one for each way to read, and some of every other kind here and there.
async fn crowd(cluster: &Cluster, shared: &Arc<Shared>, seed: u64) -> Crowd {
    let mut random = Random::new(seed ^ 0x6372_6f77);
    let mut crowd = Crowd::default();
    let agents = &cluster.agents;
    let caller = |at: usize| {
        Caller::new(shared, Client::with_timeout(agents[at % agents.len()].http(), PATIENCE), seed)
    };
    let mut anywhere = move |agents: usize| usize::try_from(random.below(agents as u64)).expect("few agents");
    for at in 0..agents.len() {
        crowd.registers(caller(at), Freshness::Consistent);
        crowd.registers(caller(at), Freshness::Default);
    }
    for at in 0..4 {
        crowd.locks(caller(anywhere(agents.len()) + at));
    }
    for at in 0..2 {
        crowd.sets(caller(anywhere(agents.len()) + at));
        crowd.watchers(caller(at), Freshness::Consistent);
        crowd.watchers(caller(agents.len() - 1 - at), Freshness::Default);
    }
    let known = Client::new(agents[0].http()).request("PUT", "/v1/txn", b"[]").await;
    if known.is_ok_and(|answer| answer.status != 404) {
        for at in 0..3 {
            crowd.transactions(caller(anywhere(agents.len()) + at));
        }
    }
    // Servers may leave, and take their registrations with them.
    let servers = cluster.servers().len();
    let registrars = if agents.len() > servers { servers..agents.len() } else { 0..servers };
    for at in registrars {
        crowd.registrations(caller(at), agents[at].name());
    }
    crowd
}

/// With nobody else about, every register through every agent: what was acknowledged last must be there too.
async fn last_reads(cluster: &Cluster, shared: &Arc<Shared>) -> Result<(), String> {
    for agent in cluster.agents.iter().filter(|agent| agent.is_running()) {
        let mut http = Client::new(agent.http());
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        for freshness in [Freshness::Consistent, Freshness::Default] {
            for key in 0..shared.keys {
                let key = freshness.key(key);
                let op = Op::Read { consistency: Consistency::Linearizable };
                let outcome = shared.recorder.perform(&mut http, number, &key, op, freshness.reads()).await;
                if !matches!(outcome, crate::history::Outcome::Ok(_)) {
                    return Err(format!("the last read of {key} through {} failed", agent.name()));
                }
            }
        }
    }
    Ok(())
}
