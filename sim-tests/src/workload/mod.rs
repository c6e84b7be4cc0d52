//! Clients: sequential users of the HTTP interface who write down what they asked and what they were told.

pub mod calm;
mod kv;
mod lock;
mod watcher;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proconsul_core::rng::Rng;
use proconsul_io_sim::net::{Fabric, HostId};
use proconsul_io_sim::time::{sim_now, sim_sleep};
use proconsul_jepsen::history::{Consistency, Entry, History, Op, OperationId, Outcome, Reply};
use serde::Deserialize;

use crate::audit::Audit;
use crate::http::{HttpClient, Lost, Response};
use crate::plan::{ClientKind, ClientPlan};

/// The history of a run. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedHistory(Arc<Mutex<History>>);

impl SharedHistory {
    /// What has been written down so far.
    pub fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What all clients of a run have in common.
#[derive(Clone)]
pub struct Shared {
    /// The network.
    pub fabric: Fabric,
    /// Hosts of the servers.
    pub servers: Vec<HostId>,
    /// Where they write.
    pub history: SharedHistory,
    /// Query parameter of reads that must be linearizable: none for default reads, where clocks allow it.
    pub fresh_mode: &'static str,
    /// Where they report what breaks a promise at sight.
    pub audit: Audit,
    /// Set when whoever changes anything has to stop after the present operation.
    pub stop: Arc<AtomicBool>,
    /// Set when watchers have to stop, too.
    pub stop_watching: Arc<AtomicBool>,
}

/// One client.
pub struct Client {
    id: u32,
    host: HostId,
    http: HttpClient,
    rng: Rng,
    shared: Shared,
    /// Which server it talks to, until that one fails it.
    server: usize,
    next_value: u32,
    think_max: Duration,
    operations: u32,
    padding_max: u32,
    /// It stays with its server whatever happens.
    is_loyal: bool,
}

/// A client waits so long for an answer that is not asked to take its time. Longer than servers hold a request that
/// waits for a leader.
const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    /// A client on its own host, which must be on the network.
    #[must_use]
    pub fn new(id: u32, host: HostId, plan: &ClientPlan, shared: Shared) -> Client {
        let mut rng = Rng::from_seed(plan.seed);
        let server = rng.below(shared.servers.len() as u64);
        Client {
            id,
            host,
            http: HttpClient::new(shared.fabric.clone(), host),
            server: usize::try_from(server).expect("below a length"),
            rng,
            shared,
            next_value: 0,
            think_max: Duration::from_millis(plan.think_max_ms),
            operations: plan.operations,
            padding_max: plan.padding_max,
            is_loyal: plan.kind == ClientKind::Reader,
        }
    }

    /// Works until its plan is done or it is told to stop.
    pub async fn run(mut self, kind: ClientKind) -> Client {
        match kind {
            ClientKind::Kv => kv::run(&mut self).await,
            ClientKind::Reader => kv::read_on(&mut self).await,
            ClientKind::Lock => lock::run(&mut self).await,
            ClientKind::Watcher => watcher::follow_key(&mut self).await,
            ClientKind::PrefixWatcher => watcher::follow_prefix(&mut self).await,
        }
        self
    }

    fn must_stop(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn must_stop_watching(&self) -> bool {
        self.shared.stop_watching.load(Ordering::Relaxed)
    }

    async fn think(&mut self) {
        let pause = self.rng.duration_below(self.think_max);
        sim_sleep(pause).await;
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    fn key(&mut self, prefix: &str, of: u64) -> String {
        format!("{prefix}{}", self.rng.below(of))
    }

    /// A value that nobody else in this run ever writes.
    fn fresh_value(&mut self) -> String {
        self.next_value += 1;
        format!("{}:{}", self.id, self.next_value)
    }

    /// What is sent as a value: larger than the disk's sectors, if the plan wants that.
    fn pad(&mut self, value: String) -> String {
        let padding = self.rng.below(u64::from(self.padding_max) + 1);
        let padding = usize::try_from(padding).expect("a small number");
        if value.is_empty() || padding == 0 {
            value
        } else {
            format!("{value}{PADDING}{}", "x".repeat(padding))
        }
    }

    fn invoke(&self, key: &str, op: Op) -> OperationId {
        self.shared.history.lock().invoke(self.id, key, op, sim_now())
    }

    fn complete(&self, id: OperationId, outcome: Outcome) {
        self.shared.history.lock().complete(id, outcome, sim_now());
    }

    async fn ask(
        &mut self,
        method: &str,
        target: &str,
        body: String,
        limit: Duration,
    ) -> Result<Response, Lost> {
        let server = self.shared.servers[self.server];
        let result = self.http.ask(server, method, target, body, limit).await;
        let bad = match &result {
            Ok(response) => response.status >= 500,
            Err(_) => true,
        };
        tracing::debug!(
            client = self.id, server = self.server, method, target,
            answer = ?result.as_ref().map(|it| (it.status, it.text())), "asked"
        );
        if bad && !self.is_loyal && !self.one_in(4) {
            let next = self.rng.below(self.shared.servers.len() as u64);
            self.server = usize::try_from(next).expect("below a length");
        }
        result
    }

    /// A change of a key. `Some(true)` if it was made, `Some(false)` if it was refused, `None` if that is not known.
    async fn write(&mut self, key: &str, query: &str, op: Op, body: String) -> Option<bool> {
        let method = if op == Op::Delete { "DELETE" } else { "PUT" };
        let id = self.invoke(key, op);
        let target = format!("/v1/kv/{key}?{query}");
        let body = self.pad(body);
        let outcome = match self.ask(method, &target, body, PATIENCE).await {
            Ok(response) => match (response.status, response.text().as_str()) {
                (200, "true") => Outcome::Ok(Reply::Done { index: None }),
                (200, "false") => Outcome::Ok(Reply::Refused),
                (500, text) if text.contains("invalid session") => Outcome::Ok(Reply::NoSession),
                (status, _) if status >= 500 => Outcome::Unknown,
                (status, text) => panic!("{method} {target} was answered {status} {text}"),
            },
            Err(Lost::NotSent) => Outcome::Failed,
            Err(Lost::Unknown) => Outcome::Unknown,
        };
        let done = match &outcome {
            Outcome::Ok(Reply::Done { .. }) => Some(true),
            Outcome::Ok(_) => Some(false),
            Outcome::Failed | Outcome::Unknown => None,
        };
        self.complete(id, outcome);
        done
    }

    /// A read of a key, with the index to wait for a change with. `None` if there was no answer.
    async fn read(
        &mut self,
        key: &str,
        mode: &str,
        consistency: Consistency,
    ) -> Option<(Option<Entry>, u64)> {
        let target = format!("/v1/kv/{key}?{mode}");
        self.observe(key, target, Op::Read { consistency }, PATIENCE).await
    }

    /// A read of a key or a wait for its change.
    async fn observe(
        &mut self,
        key: &str,
        target: String,
        op: Op,
        limit: Duration,
    ) -> Option<(Option<Entry>, u64)> {
        let id = self.invoke(key, op);
        let seen = match self.ask("GET", &target, String::new(), limit).await {
            Ok(response) if response.status == 200 => Some((Some(entry(&target, &response)), response.index)),
            Ok(response) if response.status == 404 => Some((None, response.index)),
            Ok(response) if response.status >= 500 => None,
            Ok(response) => panic!("GET {target} was answered {} {}", response.status, response.text()),
            Err(_) => None,
        };
        let outcome = match &seen {
            Some((entry, index)) => Outcome::Ok(Reply::Read { entry: entry.clone(), index: *index }),
            // A read that was not answered has changed nothing.
            None => Outcome::Failed,
        };
        self.complete(id, outcome);
        seen
    }
}

/// Between a value and its padding.
const PADDING: char = '~';

/// A value without its padding, which must be what some client sends.
fn unpadded(value: String) -> String {
    match value.split_once(PADDING) {
        None => value,
        Some((value, padding)) => {
            assert!(
                padding.bytes().all(|byte| byte == b'x'),
                "a value came back altered: {value}{PADDING}{padding}"
            );
            value.to_owned()
        }
    }
}

/// A key as the HTTP interface shows it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KvJson {
    value: Option<String>,
    modify_index: u64,
    lock_index: u64,
    #[serde(default)]
    session: Option<String>,
}

fn entry(target: &str, response: &Response) -> Entry {
    let rows: Vec<KvJson> = serde_json::from_slice(&response.body)
        .unwrap_or_else(|error| panic!("GET {target}: {error}: {}", response.text()));
    let [row] = <[KvJson; 1]>::try_from(rows)
        .unwrap_or_else(|rows| panic!("GET {target} gave {} rows instead of one", rows.len()));
    let value = BASE64_STANDARD.decode(row.value.unwrap_or_default()).expect("values are base64");
    Entry {
        value: unpadded(String::from_utf8(value).expect("workloads write text")),
        modify_index: row.modify_index,
        lock_index: row.lock_index,
        session: row.session,
    }
}
