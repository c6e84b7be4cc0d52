//! What the clients of a trial do, each kind in its file.
//!
//! A client asks one agent over one connection, and rests after each answer. After a request without an answer it takes
//! another client number, because the old one is still asking as far as the history knows.

mod catalog;
mod locks;
mod registers;
mod sets;
mod transactions;
mod watchers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::super::client::{Answer, Client, RequestError};
use super::super::recorder::Recorder;
use crate::history::{Op, OperationId, Outcome};
use crate::workload::Random;

pub(super) use registers::Freshness;

/// The node to which all sessions are bound: one without an agent, so that no fault takes it away.
pub(super) const SESSION_NODE: &str = "jepsen-sessions";

/// How long a client rests after a request that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What all clients of a trial share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) recorder: Arc<Recorder>,
    pub(super) keys: u64,
    pub(super) rest: Duration,
    /// No more changes.
    pub(super) stop: AtomicBool,
    /// All has settled: watchers look once more.
    pub(super) settled: AtomicBool,
    pub(super) numbers: AtomicU32,
}

impl Shared {
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) shared: Arc<Shared>,
    pub(super) http: Client,
    pub(super) number: u32,
    pub(super) random: Random,
    sequence: u64,
}

impl Caller {
    pub(super) fn new(shared: &Arc<Shared>, http: Client, seed: u64) -> Caller {
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        let random = Random::new(seed ^ u64::from(number).wrapping_mul(0xd134_2543_de82_ef95));
        Caller { shared: Arc::clone(shared), http, number, random, sequence: 0 }
    }

    /// A value that nobody else writes.
    fn value(&mut self) -> String {
        self.sequence += 1;
        format!("{}:{}", self.number, self.sequence)
    }

    fn begin(&self, key: &str, op: Op) -> OperationId {
        self.shared.recorder.begin(self.number, key, op)
    }

    fn end(&mut self, id: OperationId, outcome: Outcome) {
        if outcome == Outcome::Unknown {
            self.number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.recorder.end(id, outcome);
    }

    /// Asks, keeps what was asked and answered, and rests.
    async fn ask(
        &mut self,
        key: &str,
        op: Op,
        (method, path, body): (&str, &str, &str),
        understand: impl FnOnce(&Answer) -> Outcome,
    ) -> Outcome {
        let looks_only = op.consistency().is_some();
        let id = self.begin(key, op);
        let outcome = match self.http.request(method, path, body.as_bytes()).await {
            Ok(answer) if answer.status >= 500 => failure(&answer),
            Ok(answer) => understand(&answer),
            Err(RequestError::NotSent(_)) => Outcome::Failed,
            Err(RequestError::Lost(_)) => Outcome::Unknown,
        };
        // Who only looks has no effect, whatever happens to the question.
        let outcome = if looks_only && outcome == Outcome::Unknown { Outcome::Failed } else { outcome };
        self.end(id, outcome.clone());
        self.rest(&outcome).await;
        outcome
    }

    /// Whether all has settled, and those who look on have to look once more.
    fn settled(&self) -> bool {
        self.shared.settled.load(Ordering::Relaxed)
    }

    async fn rest(&self, outcome: &Outcome) {
        let rest = if matches!(outcome, Outcome::Ok(_)) { self.shared.rest } else { AFTER_FAILURE };
        tokio::time::sleep(rest).await;
    }

    /// Looks once at the catalog.
    pub(super) async fn look_at_catalog(&mut self) {
        catalog::look(self).await;
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.random.below(many) == 0
    }
}

/// What an error of the server says about a change.
fn failure(answer: &Answer) -> Outcome {
    // Whoever says so has passed the request on to nobody.
    if answer.body.starts_with(b"No cluster leader") { Outcome::Failed } else { Outcome::Unknown }
}

/// Clients by what they do, until they end.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    changing: Vec<JoinHandle<()>>,
    watching: Vec<JoinHandle<()>>,
}

impl Crowd {
    pub(super) fn registers(&mut self, caller: Caller, freshness: Freshness) {
        self.changing.push(tokio::spawn(registers::run(caller, freshness)));
    }

    pub(super) fn locks(&mut self, caller: Caller) {
        self.changing.push(tokio::spawn(locks::run(caller)));
    }

    pub(super) fn sets(&mut self, caller: Caller) {
        self.changing.push(tokio::spawn(sets::run(caller)));
    }

    pub(super) fn transactions(&mut self, caller: Caller) {
        self.changing.push(tokio::spawn(transactions::run(caller)));
    }

    /// With the name of the node whose agent the client asks.
    pub(super) fn registrations(&mut self, caller: Caller, node: &str) {
        self.watching.push(tokio::spawn(catalog::run(caller, node.to_owned())));
    }

    pub(super) fn watchers(&mut self, caller: Caller, freshness: Freshness) {
        self.watching.push(tokio::spawn(watchers::run(caller, freshness)));
    }

    /// Waits for the end of those that change something.
    pub(super) async fn changed(&mut self) {
        for client in self.changing.drain(..) {
            client.await.expect("no client panics");
        }
    }

    /// Waits for the end of those that look on.
    pub(super) async fn watched(&mut self) {
        for client in self.watching.drain(..) {
            client.await.expect("no client panics");
        }
    }
}
