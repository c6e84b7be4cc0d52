//! The process of a simulated agent, a server or a client agent: the very driver loop, log and node of production, on
//! simulated ports.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use proconsul_core::Text;
use proconsul_core::agent;
use proconsul_core::boundary::{Input, Output};
use proconsul_core::gossip::{self, Pool, tag};
use proconsul_core::node::{About, CheckpointPolicy, Config, FormingPolicy, JoinPolicy, Node, Restored};
use proconsul_core::raft::{Member, Membership, Timing};
use proconsul_core::rng::Rng;
use proconsul_core::store::AutopilotSettings;
use proconsul_core::time::Now;
use proconsul_core::wal;
use proconsul_io_real::bulk;
use proconsul_io_real::driver::{End, Lanes, Observer, drive};
use proconsul_io_real::gate::Gate;
use proconsul_io_real::http;
use proconsul_io_real::log_writer::{OpenError, open_log, write_log};
use proconsul_io_real::ports::{Checkpoints as _, Clock, Loaded};
use proconsul_io_sim::disk::SimDisk;
use proconsul_io_sim::net::HostId;
use proconsul_io_sim::resolver::SimResolver;
use proconsul_io_sim::spawn::SimSpawn;
use proconsul_io_sim::stream::Listener;
use proconsul_io_sim::time::sim_sleep;
use tokio::sync::{mpsc, oneshot};

use crate::audit::{Agent, Audit};
use crate::cluster::{Exit, Surroundings};
use crate::plan::DRIFT_BOUND_PPM;

/// For how long connections are kept after a leave, as in production.
const FAREWELL: Duration = Duration::from_millis(250);

/// The main task of an agent's process. Ends with why it ended.
pub fn main(at: Surroundings) -> Pin<Box<dyn Future<Output = Exit> + Send>> {
    Box::pin(async move {
        match run(at).await {
            Ok(End::Stopped) => Exit::Halted("it stopped".to_owned()),
            Ok(End::Left) => {
                sim_sleep(FAREWELL).await;
                Exit::Left
            }
            Ok(End::Halted(reason)) => Exit::Halted(reason),
            Err(exit) => exit,
        }
    })
}

async fn run(at: Surroundings) -> Result<End, Exit> {
    let rng = Rng::from_seed(at.seed);
    let clock: Arc<dyn Clock> = Arc::new(at.clock.clone());
    let (log, writes) = mpsc::channel(1);
    let (to_core, logged) = mpsc::channel(1);
    let (done_sender, done) = mpsc::unbounded_channel();
    let (bulk, jobs) = mpsc::channel(bulk::JOBS_MAX);
    let mut checkpoints = at.checkpoints.clone();
    let loaded = checkpoints.load().await.map_err(|error| Exit::Halted(error.to_string()))?;
    let restored = if at.server {
        let mut disk = at.disk.clone();
        let restored = recover(&at, &mut disk, loaded, rng.fork(1)).await?;
        drop(madsim::task::spawn(async move { write_log(&mut disk, writes, to_core).await }));
        restored
    } else {
        // As in production: a client agent has no log.
        Restored { local: loaded.local, ..Restored::default() }
    };
    let mut node = Node::new(config(&at), restored, seed(&rng), clock.now())
        .map_err(|error| Exit::Refused(error.to_string()))?;

    let published = Arc::new(ArcSwap::new(node.first_publication(clock.now())));
    at.audit.introduce(at.agent, Arc::clone(&published));
    let (gate, queue) = Gate::new(Arc::clone(&published), Arc::clone(&clock));
    at.doors.open(at.host, gate.clone());
    // Nobody ever asks a simulated agent to stop: it is killed. It is asked to leave over HTTP.
    let (_stop, stopped) = oneshot::channel();
    let (_leave, leave) = mpsc::channel(1);
    // Simulated agents have no programs to run.
    let (orders, _orders) = mpsc::channel(1);
    drop(madsim::task::spawn(bulk::run(checkpoints, jobs, done_sender.clone())));
    drop(madsim::task::spawn(serve(at.fabric.listen(at.host), gate)));
    let lanes = Lanes {
        clock,
        wire: Box::new(at.fabric.wire(at.host, at.life)),
        gossip: Box::new(at.fabric.gossip(at.host, at.life, 8301, None)),
        resolver: Arc::new(SimResolver::default()),
        prober: Arc::new(at.prober.clone()),
        spawn: Arc::new(SimSpawn),
        log,
        logged,
        bulk,
        done,
        done_sender,
        gate: queue,
        published,
        jobs: orders,
        leave,
        stop: stopped,
        observer: Some(Box::new(Witness {
            agent: at.agent,
            server: at.server,
            host: at.host,
            audit: at.audit.clone(),
        })),
    };
    Ok(drive(node, lanes).await)
}

/// What a server's disk and checkpoints give back.
async fn recover(at: &Surroundings, disk: &mut SimDisk, loaded: Loaded, rng: Rng) -> Result<Restored, Exit> {
    let Loaded { meta, store, local } = loaded;
    let opened = open_log(disk, log_options(at), rng).await.map_err(|error| match error {
        OpenError::Disk(error) => Exit::Halted(error.to_string()),
        OpenError::Bad(error) => Exit::Refused(error.to_string()),
    })?;
    if let Some(torn) = &opened.torn {
        tracing::info!(server = at.agent, ?torn, "torn tail cut");
        at.audit.count("torn tails cut", 1);
    }
    let (wal, raft) = opened.with_snapshot(meta).map_err(|error| Exit::Refused(error.to_string()))?;
    Ok(Restored { raft, store, local, wal: Some(wal) })
}

/// Serves every connection that comes, until the process dies.
async fn serve(mut listener: Listener, gate: Gate) {
    loop {
        let (stream, gate) = (listener.accept().await, gate.clone());
        drop(madsim::task::spawn(async move {
            // A client that goes away in the middle is no error of ours.
            let _ = http::serve(TokioIo::new(stream), gate, None).await;
        }));
    }
}

/// Shows every step of a server to the auditors.
struct Witness {
    agent: Agent,
    server: bool,
    host: HostId,
    audit: Audit,
}

impl Observer for Witness {
    fn before(&mut self, now: Now, input: &Input) {
        tracing::trace!(target: "step", host = %self.host, mono = now.mono.0, ?input);
    }

    fn after(&mut self, node: &Node, outputs: &[Output]) {
        tracing::trace!(target: "step", host = %self.host, outputs = outputs.len());
        if self.server {
            let (applied, store) = node.state();
            self.audit.observe(self.agent, node.raft_state(), store, applied.0);
        }
    }
}

fn log_options(at: &Surroundings) -> wal::Options {
    wal::Options {
        segment_bytes_max: at.tuning.segment_bytes,
        frame_bytes_max: at.tuning.frame_bytes,
        zero_step_first: 4 << 10,
        zero_step_max: 16 << 10,
    }
}

fn seed(rng: &Rng) -> [u8; 32] {
    let mut rng = rng.fork(2);
    let mut seed = [0; 32];
    for part in seed.chunks_mut(8) {
        part.copy_from_slice(&rng.next_u64().to_le_bytes());
    }
    seed
}

/// The agent in the datacenter's pool of gossip.
fn lan(at: &Surroundings) -> gossip::Config {
    let address = at.host.address(8301).parse().expect("hosts have addresses");
    let mut tags = vec![
        (tag::ROLE, if at.server { tag::ROLE_SERVER } else { tag::ROLE_CLIENT }.to_owned()),
        (tag::DATACENTER, "dc1".to_owned()),
        (tag::ID, at.id.to_string()),
    ];
    tags.extend(at.server.then(|| (tag::PORT, "8300".to_owned())));
    gossip::Config {
        tags: tags.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        datacenter: "dc1".into(),
        ..gossip::Config::new(at.name.as_str().into(), address)
    }
}

/// Every agent joins every server of the beginning, or everybody where that is one.
fn join(at: &Surroundings) -> BTreeMap<Pool, JoinPolicy> {
    let policy = JoinPolicy {
        addresses: at.join.iter().map(|host| host.as_str().into()).collect(),
        interval: Duration::from_secs(30),
        attempts_max: None,
        default_port: 8301,
    };
    [(Pool::Lan, policy)].into()
}

fn config(at: &Surroundings) -> Config {
    let node: Text = at.name.as_str().into();
    let address: Text = at.host.ip().to_string().into();
    let founders = at
        .founders
        .iter()
        .map(|(id, address)| (*id, Member { address: address.as_str().into(), voter: true }));
    let forming = match at.founders.is_empty() {
        true => FormingPolicy::Wait,
        false => FormingPolicy::Found(Membership { servers: founders.collect() }),
    };
    Config {
        about: About {
            node: node.clone(),
            id: at.id,
            datacenter: "dc1".into(),
            address: address.clone(),
            version: "0.1.0".into(),
            server: at.server,
            domain: "consul".into(),
            kv_max_value_size: 512 << 10,
            txn_max_req_len: 512 << 10,
            formats: at.formats,
            ..About::default()
        },
        timing: Timing { drift_ppm: DRIFT_BOUND_PPM, ..Timing::default() },
        forming,
        recover: None,
        lan: lan(at),
        wan: None,
        join: join(at),
        autopilot: AutopilotSettings {
            server_stabilization_time: Duration::from_millis(at.tuning.stabilization_ms),
            ..AutopilotSettings::default()
        },
        config_entries: Vec::new(),
        keeps_local: true,
        keeps_keys: true,
        agent: agent::Config {
            node,
            id: Some(at.id),
            address,
            datacenter: "dc1".into(),
            persist: true,
            ..agent::Config::default()
        },
        hold_timeout: Duration::from_secs(7),
        checkpoints: CheckpointPolicy {
            entries: at.tuning.snapshot_threshold,
            trailing_entries: usize::try_from(at.tuning.snapshot_threshold / 2).expect("a small number"),
            ..CheckpointPolicy::default()
        },
        tombstone_ttl: Duration::from_millis(at.tuning.tombstone_ttl_ms),
    }
}
