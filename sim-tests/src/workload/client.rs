//! One client: its choices, its connection, and how it writes down what it asks and what it is told.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use proconsul_core::rng::Rng;
use proconsul_io_sim::net::HostId;
use proconsul_io_sim::time::{sim_now, sim_sleep};
use proconsul_jepsen::history::{Consistency, Entry, Op, OperationId, Outcome, Reply};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{
    Shared, event, fence, follower, kv, lifetime, lock, names, registrar, restorer, set, txn, watcher,
};
use crate::http::{HttpClient, Lost, Response};
use crate::plan::{ClientKind, ClientPlan};

/// One client.
pub struct Client {
    pub(super) id: u32,
    pub(super) host: HostId,
    pub(super) http: HttpClient,
    pub(super) rng: Rng,
    pub(super) shared: Shared,
    /// Which agent it talks to, until that one fails it.
    pub(super) agent: usize,
    next_value: u32,
    think_max: Duration,
    pub(super) operations: u32,
    padding_max: u32,
    /// It stays with its agent whatever happens.
    pub(super) is_loyal: bool,
}

/// A question.
pub(super) struct Ask<'a> {
    pub(super) method: &'static str,
    pub(super) target: &'a str,
    pub(super) body: String,
    /// How long to wait for the answer.
    pub(super) limit: Duration,
}

impl<'a> Ask<'a> {
    pub(super) fn get(target: &'a str) -> Ask<'a> {
        Ask { method: "GET", target, body: String::new(), limit: PATIENCE }
    }

    pub(super) fn put(target: &'a str, body: impl Into<String>) -> Ask<'a> {
        Ask { method: "PUT", target, body: body.into(), limit: PATIENCE }
    }
}

/// A client waits so long for an answer that is not asked to take its time. Longer than servers hold a request that
/// waits for a leader.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    /// A client on its own host, which must be on the network.
    #[must_use]
    pub fn new(id: u32, host: HostId, plan: &ClientPlan, shared: Shared) -> Client {
        let mut rng = Rng::from_seed(plan.seed);
        let agent = rng.below(shared.agents.len() as u64);
        Client {
            id,
            host,
            http: HttpClient::new(shared.fabric.clone(), host),
            agent: usize::try_from(agent).expect("below a length"),
            rng,
            shared,
            next_value: 0,
            think_max: Duration::from_millis(plan.think_max_ms),
            operations: plan.operations,
            padding_max: plan.padding_max,
            is_loyal: matches!(plan.kind, ClientKind::Reader | ClientKind::Lifetime | ClientKind::Registrar),
        }
    }

    /// Works until its plan is done or it is told to stop.
    pub async fn run(mut self, kind: ClientKind) -> Client {
        match kind {
            ClientKind::Kv => kv::run(&mut self).await,
            ClientKind::Reader => kv::read_on(&mut self).await,
            ClientKind::Lock => lock::run(&mut self).await,
            ClientKind::Watcher => watcher::follow_key(&mut self).await,
            ClientKind::PrefixWatcher => follower::follow(&mut self, "/v1/kv/k?recurse").await,
            ClientKind::Follower => follower::run(&mut self).await,
            ClientKind::Lifetime => lifetime::run(&mut self).await,
            ClientKind::Registrar => registrar::run(&mut self).await,
            ClientKind::Event => event::run(&mut self).await,
            ClientKind::Transfer => txn::run(&mut self).await,
            ClientKind::Set => set::run(&mut self).await,
            ClientKind::Fence => fence::run(&mut self).await,
            ClientKind::Restorer => restorer::run(&mut self).await,
            ClientKind::Names => names::run(&mut self).await,
        }
        self
    }

    pub(super) fn must_stop(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    pub(super) fn must_stop_watching(&self) -> bool {
        self.shared.stop_watching.load(Ordering::Relaxed)
    }

    pub(super) async fn think(&mut self) {
        let pause = self.rng.duration_below(self.think_max);
        sim_sleep(pause).await;
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    pub(super) fn key(&mut self, prefix: &str, of: u64) -> String {
        format!("{prefix}{}", self.rng.below(of))
    }

    /// A value that nobody else in this run ever writes.
    pub(super) fn fresh_value(&mut self) -> String {
        self.next_value += 1;
        format!("{}:{}", self.id, self.next_value)
    }

    /// What is sent as a value: larger than the disk's sectors, if the plan wants that.
    pub(super) fn pad(&mut self, value: String) -> String {
        let padding = self.rng.below(u64::from(self.padding_max) + 1);
        let padding = usize::try_from(padding).expect("a small number");
        if value.is_empty() || padding == 0 {
            value
        } else {
            format!("{value}{PADDING}{}", "x".repeat(padding))
        }
    }

    pub(super) fn invoke(&self, key: &str, op: Op) -> OperationId {
        self.shared.history.lock().invoke(self.id, key, op, sim_now())
    }

    pub(super) fn complete(&self, id: OperationId, outcome: Outcome) {
        self.shared.history.lock().complete(id, outcome, sim_now());
    }

    pub(super) async fn ask(
        &mut self,
        method: &str,
        target: &str,
        body: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<Response, Lost> {
        let host = self.shared.agents[self.agent];
        let result = self.http.ask(host, method, target, body, limit).await;
        let bad = match &result {
            Ok(response) => response.status >= 500,
            Err(_) => true,
        };
        tracing::debug!(
            client = self.id, agent = self.agent, method, target,
            answer = ?result.as_ref().map(|it| (it.status, shown(it))), "asked"
        );
        if bad && !self.is_loyal && !self.one_in(4) {
            self.change_agent();
        }
        result
    }

    /// Goes to another agent, or to the same one again.
    pub(super) fn change_agent(&mut self) {
        let next = self.rng.below(self.shared.agents.len() as u64);
        self.agent = usize::try_from(next).expect("below a length");
    }

    /// Asks for something and writes down how that ended. `understand` reads an answer below 500, and those above of
    /// which it knows that nothing was done; any other one leaves open what a change has done.
    pub(super) async fn record(
        &mut self,
        key: &str,
        op: Op,
        ask: Ask<'_>,
        understand: impl FnOnce(&Response) -> Option<Reply>,
    ) -> Option<Reply> {
        let looks = op.consistency().is_some();
        let id = self.invoke(key, op);
        let Ask { method, target, body, limit } = ask;
        // A question that was not answered has changed nothing.
        let lost = if looks { Outcome::Failed } else { Outcome::Unknown };
        let outcome = match self.ask(method, target, body, limit).await {
            Ok(response) => match understand(&response) {
                Some(reply) => Outcome::Ok(reply),
                None if response.status >= 500 => lost,
                None => panic!("{method} {target} was answered {} {}", response.status, response.text()),
            },
            Err(Lost::NotSent) => Outcome::Failed,
            Err(Lost::Unknown) => lost,
        };
        let reply = match &outcome {
            Outcome::Ok(reply) => Some(reply.clone()),
            Outcome::Failed | Outcome::Unknown => None,
        };
        self.complete(id, outcome);
        reply
    }

    /// A change of a key. `Some(true)` if it was made, `Some(false)` if it was refused, `None` if that is not known.
    pub(super) async fn write(&mut self, key: &str, query: &str, op: Op, body: String) -> Option<bool> {
        let deletes = matches!(op, Op::Delete | Op::DeleteCas { .. });
        let method = if deletes { "DELETE" } else { "PUT" };
        let target = format!("/v1/kv/{key}?{query}");
        let ask = Ask { method, target: &target, body: self.pad(body), limit: PATIENCE };
        let reply = self
            .record(key, op, ask, |response| match (response.status, response.text().as_str()) {
                (200, "true") => Some(Reply::Done { index: None }),
                (200, "false") => Some(Reply::Refused),
                (500, text) if text.contains("invalid session") => Some(Reply::NoSession),
                _ => None,
            })
            .await?;
        Some(matches!(reply, Reply::Done { .. }))
    }

    /// A read of a key, with the index to wait for a change with. `None` if there was no answer.
    pub(super) async fn read(
        &mut self,
        key: &str,
        mode: &str,
        consistency: Consistency,
    ) -> Option<(Option<Entry>, u64)> {
        let target = format!("/v1/kv/{key}?{mode}");
        self.observe(key, target, Op::Read { consistency }, PATIENCE).await
    }

    /// A read of a key or a wait for its change.
    pub(super) async fn observe(
        &mut self,
        key: &str,
        target: String,
        op: Op,
        limit: Duration,
    ) -> Option<(Option<Entry>, u64)> {
        let is_fresh = op.consistency() == Some(Consistency::Linearizable);
        let ask = Ask { method: "GET", target: &target, body: String::new(), limit };
        let reply = self
            .record(key, op, ask, |response| {
                let entry = match response.status {
                    200 => Some(entry(&target, response)),
                    404 => None,
                    _ => return None,
                };
                let index = response.index;
                if is_fresh {
                    return Some(Reply::Read { entry, index });
                }
                let last_contact = response.last_contact_ms?.saturating_mul(1_000_000);
                let known_leader = response.known_leader?;
                Some(Reply::ReadStale { entry, index, last_contact, known_leader })
            })
            .await?;
        match reply {
            Reply::Read { entry, index } | Reply::ReadStale { entry, index, .. } => Some((entry, index)),
            other => unreachable!("{other:?} is not made above"),
        }
    }
}

/// An answer for the log.
fn shown(response: &Response) -> String {
    match std::str::from_utf8(&response.body) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => format!("{} bytes", response.body.len()),
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
pub(super) struct KvJson {
    pub(super) key: String,
    value: Option<String>,
    pub(super) modify_index: u64,
    lock_index: u64,
    #[serde(default)]
    session: Option<String>,
}

impl KvJson {
    pub(super) fn into_entry(self) -> Entry {
        let value = BASE64_STANDARD.decode(self.value.unwrap_or_default()).expect("values are base64");
        Entry {
            value: unpadded(String::from_utf8(value).expect("workloads write text")),
            modify_index: self.modify_index,
            lock_index: self.lock_index,
            session: self.session,
        }
    }
}

/// The one key in an answer.
pub(super) fn entry(target: &str, response: &Response) -> Entry {
    let rows: Vec<KvJson> = parsed(target, response);
    let [row] = <[KvJson; 1]>::try_from(rows)
        .unwrap_or_else(|rows| panic!("GET {target} gave {} rows instead of one", rows.len()));
    row.into_entry()
}

/// The names of keys in an answer.
pub(super) fn keys(target: &str, response: &Response) -> Vec<String> {
    parsed(target, response)
}

/// The JSON of an answer that must be what the documentation says.
pub(super) fn parsed<T: DeserializeOwned>(target: &str, response: &Response) -> T {
    serde_json::from_slice(&response.body)
        .unwrap_or_else(|error| panic!("{target}: {error}: {}", response.text()))
}
