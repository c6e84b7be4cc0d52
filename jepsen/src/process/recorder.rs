//! Records what concurrent clients do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::client::Client;
use super::kv::{self, Reads};
use crate::history::{History, Nanos, Op, OperationId, Outcome};
use crate::workload::Registers;

/// Collects the history of concurrent clients.
#[derive(Debug)]
pub struct Recorder {
    history: Mutex<History>,
    started: Instant,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { history: Mutex::new(History::new()), started: Instant::now() }
    }
}

impl Recorder {
    /// The time on the clock of the history.
    ///
    /// # Panics
    ///
    /// After some centuries.
    #[must_use]
    pub fn now(&self) -> Nanos {
        u64::try_from(self.started.elapsed().as_nanos()).expect("no run lasts for centuries")
    }

    /// Performs an operation, and keeps what was asked and answered.
    pub async fn perform(&self, http: &mut Client, client: u32, key: &str, op: Op, reads: Reads) -> Outcome {
        let id = self.begin(client, key, op.clone());
        let outcome = kv::perform(http, key, &op, reads).await;
        self.end(id, outcome.clone());
        outcome
    }

    /// Keeps what a client is about to ask.
    ///
    /// # Panics
    ///
    /// If a client has panicked here.
    pub fn begin(&self, client: u32, key: &str, op: Op) -> OperationId {
        let mut history = self.history.lock().expect("no client panics while it records");
        history.invoke(client, key, op, self.now())
    }

    /// Keeps what a client was told. What began before [`Recorder::take`] cannot end after it.
    ///
    /// # Panics
    ///
    /// If the operation has ended before, or a client has panicked here.
    pub fn end(&self, id: OperationId, outcome: Outcome) {
        let mut history = self.history.lock().expect("no client panics while it records");
        history.complete(id, outcome, self.now());
    }

    /// The history so far; what comes later begins a new one.
    pub fn take(&self) -> History {
        std::mem::take(&mut *self.history.lock().expect("no client panics while it records"))
    }

    /// How long it has been recording.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Clients of registers that go on until they are told to stop.
#[derive(Debug)]
pub struct Load {
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    clients: Vec<(Arc<AtomicU64>, JoinHandle<()>)>,
}

/// What the clients of a [`Load`] do.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What decides the operations.
    pub seed: u64,
    /// Keys that the clients share.
    pub keys: u64,
    /// How long a client rests after an answer.
    pub rest: Duration,
    /// How long it rests when there was none.
    pub rest_after_failure: Duration,
}

impl Load {
    /// Starts one client per address. Their numbers begin with 1.
    #[must_use]
    pub fn start(recorder: &Arc<Recorder>, pace: Pace, clients: &[(SocketAddr, Reads)]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = clients
            .iter()
            .zip(1..)
            .map(|(&(address, reads), number)| {
                let written = Arc::new(AtomicU64::new(0));
                let client = LoadClient {
                    recorder: Arc::clone(recorder),
                    stop: Arc::clone(&stop),
                    written: Arc::clone(&written),
                    pace,
                    number,
                    reads,
                };
                (written, tokio::spawn(client.run(address)))
            })
            .collect();
        Load { recorder: Arc::clone(recorder), stop, clients }
    }

    /// Per client, how many changes were acknowledged.
    #[must_use]
    pub fn written(&self) -> Vec<u64> {
        self.clients.iter().map(|(written, _)| written.load(Ordering::Relaxed)).collect()
    }

    /// Stops the clients and waits for the operations that are under way.
    pub async fn stop(self) -> Arc<Recorder> {
        self.stop.store(true, Ordering::Relaxed);
        for (_, client) in self.clients {
            client.await.expect("no client panics");
        }
        self.recorder
    }
}

struct LoadClient {
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    pace: Pace,
    number: u32,
    reads: Reads,
}

impl LoadClient {
    async fn run(self, address: SocketAddr) {
        let mut http = Client::new(address);
        let mut workload = Registers::new(self.pace.seed, self.number, self.pace.keys);
        while !self.stop.load(Ordering::Relaxed) {
            let (key, op) = workload.next_operation();
            let changes = op.mutates_key();
            let outcome = self.recorder.perform(&mut http, self.number, &key, op, self.reads).await;
            workload.saw(&key, &outcome);
            let rest = if matches!(outcome, Outcome::Ok(_)) {
                self.written.fetch_add(u64::from(changes), Ordering::Relaxed);
                self.pace.rest
            } else {
                self.pace.rest_after_failure
            };
            // Even the shortest sleep takes a millisecond.
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
        }
    }
}
