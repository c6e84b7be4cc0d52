//! A node at work in production: its thread, the log's thread, the thread of bulk work.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use proconsul_core::ids::ServerId;
use proconsul_core::node::{self, Node, RemoteJob, Restored};
use proconsul_core::rng::Rng;
use proconsul_core::wal;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::bulk;
use crate::checkpoints::{FjallCheckpoints, reading};
use crate::clock::{RealClock, TokioSpawn};
use crate::driver::{self, End, Lanes};
use crate::files::{DataDir, DataDirError, FileDisk, spawn_log_thread};
use crate::gate::Gate;
use crate::log_writer::{OpenError, open_log};
use crate::ports::{Checkpoints, Clock, GossipPort, Loaded, Prober, Resolver, Wire};

/// So many commands that somebody wants this agent to run wait to be taken.
const JOBS_MAX: usize = 64;

/// Why a node cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log cannot be used, or log and checkpoint do not belong together.
    #[error("{}", naming_directory(.error, .data_dir))]
    Log {
        /// What is wrong with it.
        error: OpenError,
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The checkpoint cannot be used.
    #[error(
        "the state that was kept cannot be used: {error}; start the newer version again if there was one, or run \
         `proconsul operator raft repair -data-dir {}` and start the agent again: it begins as a new one",
        .data_dir.display()
    )]
    Checkpoint {
        /// What is wrong with it.
        error: io::Error,
        /// The data directory.
        data_dir: PathBuf,
    },
    /// What was kept or configured is refused.
    #[error(transparent)]
    Node(#[from] node::BadStart),
    /// The system gives no threads or no random numbers.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A running node.
pub struct Engine {
    /// The way to it.
    pub gate: Gate,
    /// Commands that somebody wants this agent to run; taken once.
    pub jobs: Option<mpsc::Receiver<RemoteJob>>,
    stop: Option<oneshot::Sender<()>>,
    leave: mpsc::Sender<()>,
    node: JoinHandle<End>,
    /// End when the node has ended.
    lanes: Vec<JoinHandle<()>>,
    /// Held, and locked, for as long as anything writes into it.
    _data_dir: Option<DataDir>,
}

/// What a node is started with.
pub struct Parts {
    /// Settings. A client agent, which these may ask for, has no log.
    pub config: node::Config,
    /// Where state is kept; `None` keeps nothing.
    pub data_dir: Option<DataDir>,
    /// Other agents.
    pub wire: Box<dyn Wire>,
    /// Gossip.
    pub gossip: Box<dyn GossipPort>,
    /// Names of hosts.
    pub resolver: Arc<dyn Resolver>,
    /// Health checks.
    pub prober: Arc<dyn Prober>,
    /// Where health checks and look-ups run.
    pub runtime: tokio::runtime::Handle,
}

impl Engine {
    /// Recovers what was kept and starts the threads. On return the node is at work.
    ///
    /// # Errors
    /// What was kept cannot be used; nothing was changed then but for a torn tail that was cut.
    pub fn start(parts: Parts) -> Result<Engine, StartError> {
        let Parts { config, data_dir, wire, gossip, resolver, prober, runtime } = parts;
        let mut seed = [0u8; 32];
        random(&mut seed)?;
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let mut lanes = Vec::new();
        let (log, writes) = mpsc::channel(1);
        let (to_core, logged) = mpsc::channel(1);
        let (done_sender, done) = mpsc::unbounded_channel();
        let (bulk, jobs) = mpsc::channel(bulk::JOBS_MAX);
        let mut restored = Restored::default();
        if let Some(data_dir) = &data_dir {
            let kept = if config.about.server {
                recover(data_dir, config.about.id, Rng::from_bytes(seed).fork(9))?
            } else {
                recover_client(data_dir)?
            };
            restored = kept.restored;
            if let Some(disk) = kept.disk {
                lanes.push(spawn_log_thread(disk, writes, to_core)?);
            }
            let (checkpoints, done) = (kept.checkpoints, done_sender.clone());
            lanes.push(spawn_thread("proconsul-bulk", move || block_on(bulk::run(checkpoints, jobs, done)))?);
        }
        let mut node = Node::new(config, restored, seed, clock.now())?;
        let published = Arc::new(ArcSwap::new(node.first_publication(clock.now())));
        let (gate, queue) = Gate::new(Arc::clone(&published), Arc::clone(&clock));
        let (stop, stopped) = oneshot::channel();
        let (leave, leaving) = mpsc::channel(1);
        let (to_run, jobs) = mpsc::channel(JOBS_MAX);
        let lanes_of_driver = Lanes {
            clock,
            wire,
            gossip,
            resolver,
            prober,
            spawn: Arc::new(TokioSpawn(runtime)),
            log,
            logged,
            bulk,
            done,
            done_sender,
            gate: queue,
            published,
            jobs: to_run,
            leave: leaving,
            stop: stopped,
            observer: None,
        };
        let node = std::thread::Builder::new()
            .name("proconsul-node".into())
            .spawn(move || block_on(driver::drive(node, lanes_of_driver)))?;
        Ok(Engine { gate, jobs: Some(jobs), stop: Some(stop), leave, node, lanes, _data_dir: data_dir })
    }

    /// Asks the node to leave the cluster. It ends when it has: [`Gate::closed`] tells. Asking twice does no harm.
    pub fn leave(&self) {
        // A node that has ended, or was asked already, needs not be asked.
        let _ = self.leave.try_send(());
    }

    /// Asks the node to stop and waits until everything that it handed out is written.
    pub fn stop(mut self) -> End {
        if let Some(stop) = self.stop.take() {
            // A node that has ended needs not be asked.
            let _ = stop.send(());
        }
        let end = self.node.join().unwrap_or_else(|_| End::Halted("the node's thread panicked".to_owned()));
        for lane in self.lanes {
            if lane.join().is_err() {
                return End::Halted("a writer's thread panicked".to_owned());
            }
        }
        end
    }
}

/// What a data directory gave back, and what goes on writing to it.
struct Kept {
    restored: Restored,
    /// A server's log.
    disk: Option<FileDisk>,
    checkpoints: FjallCheckpoints,
}

/// The remedy that the core names, with the directory that is meant.
fn naming_directory(error: &OpenError, data_dir: &Path) -> String {
    error.to_string().replace("-data-dir DIR", &format!("-data-dir {}", data_dir.display()))
}

fn recover(data_dir: &DataDir, id: ServerId, rng: Rng) -> Result<Kept, StartError> {
    // First, for it makes the directories above it durable, which the database leaves to others.
    let mut disk = FileDisk::open(&data_dir.log_path())?;
    let (checkpoints, loaded) = load(data_dir)?;
    let bad = |error| StartError::Log { error, data_dir: data_dir.path().to_owned() };
    let opened = block_on(open_log(&mut disk, wal::Options::default(), rng)).map_err(bad)?;
    disk.claim(data_dir, id);
    if let Some(torn) = &opened.torn {
        tracing::warn!(
            file = torn.file,
            offset = torn.offset,
            bytes = torn.bytes,
            "the log ended in a write that a crash cut short; it was never acknowledged and is gone"
        );
    }
    let Loaded { meta, store, local } = loaded;
    let (wal, raft) = opened.with_snapshot(meta).map_err(|error| bad(error.into()))?;
    Ok(Kept { restored: Restored { raft, store, local, wal: Some(wal) }, disk: Some(disk), checkpoints })
}

/// A client agent keeps nothing but its own state. What is there besides, from a time when it was a server, is left
/// alone.
fn recover_client(data_dir: &DataDir) -> Result<Kept, StartError> {
    // Makes the directory durable, which the database leaves to others.
    FileDisk::open(&data_dir.path().join("raft"))?;
    let (checkpoints, loaded) = load(data_dir)?;
    let restored = Restored { local: loaded.local, ..Restored::default() };
    Ok(Kept { restored, disk: None, checkpoints })
}

fn load(data_dir: &DataDir) -> Result<(FjallCheckpoints, Loaded), StartError> {
    let directory = data_dir.path().join("raft").join("state");
    let place = data_dir.path().display().to_string();
    let load = || {
        let mut checkpoints = FjallCheckpoints::open(&directory)?;
        let loaded = block_on(checkpoints.load())?;
        Ok((checkpoints, loaded))
    };
    let loaded: io::Result<_> = reading(place, in_panic, load);
    loaded.map_err(|error| StartError::Checkpoint { error, data_dir: data_dir.path().to_owned() })
}

/// What an agent says when the database panics over what it finds.
fn in_panic(data_dir: &str, words: &str) -> String {
    let error = io::Error::other(format!("it is damaged: {words}"));
    format!("==> {}", StartError::Checkpoint { error, data_dir: data_dir.into() })
}

/// Fills a buffer with random bytes of the operating system.
///
/// # Errors
/// The system has none.
pub fn random(mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        let filled = rustix::rand::getrandom(&mut *buffer, rustix::rand::GetRandomFlags::empty())?;
        buffer = &mut buffer[filled..];
    }
    Ok(())
}

fn spawn_thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

fn block_on<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a timer needs nothing that a system could refuse")
        .block_on(task)
}
