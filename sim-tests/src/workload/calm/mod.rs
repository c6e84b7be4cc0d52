//! After everything is healed: does every agent serve, wake its watchers, hand over locks, end sessions, tell the catalog
//! what it runs, and spread events?
//!
//! Under faults a client can be made to wait for any time, so «within» means nothing there. Here it does.

mod catalog;
mod events;
mod followers;
mod sessions;
mod wakes;

use std::time::Duration;

use proconsul_io_sim::net::HostId;
use proconsul_io_sim::time::{sim_now, sim_sleep};
use proconsul_jepsen::history::{Consistency, Op};
use serde_json::Value;

use super::client::{Client, PATIENCE};
use super::{Shared, fence, kv, set, txn, watcher};
use crate::http::{HttpClient, Response};
use crate::plan::{ClientKind, ClientPlan};

/// In a healed cluster a watcher is woken this long after the change at the latest.
const WAKE_LIMIT: Duration = Duration::from_secs(2);
/// Longer than two waits of a watcher.
const WATCHERS_SETTLE: Duration = Duration::from_secs(11);
/// Provers have the hosts from here on.
const FIRST_HOST: u32 = 200;

/// A client that is no part of the plan, for one agent.
#[must_use]
pub fn prover(agent: usize, seed: u64, shared: Shared) -> Client {
    let host = HostId(FIRST_HOST + u32::try_from(agent).expect("a handful of agents"));
    shared.fabric.add_host(host, None);
    let plan = ClientPlan {
        kind: ClientKind::Kv,
        seed: seed ^ u64::from(host.0),
        operations: 0,
        think_max_ms: 1,
        padding_max: 0,
    };
    let mut client = Client::new(host.0, host, &plan, shared);
    client.agent = agent;
    client.is_loyal = true;
    client
}

/// Has every prover demand of its agent what is promised in calm. All servers must have the same state.
pub async fn keep_promises(provers: Vec<Client>, shared: &Shared) {
    let mut provers = provers;
    for prover in &mut provers {
        prover.read_all().await;
    }
    let last_read = sim_now();
    // Through agents that differ from seed to seed, so that each of them is asked sometimes.
    let agents = provers.len();
    let chosen = provers[0].rng.below(agents as u64);
    provers[usize::try_from(chosen).expect("below a length")].read_what_stays().await;
    let mut of_sessions = prover(agents, 1, shared.clone());
    of_sessions.agent = 0;
    let ttl = madsim::task::spawn(async move { of_sessions.prove_ttl().await });
    let tasks: Vec<_> = provers
        .into_iter()
        .map(|mut prover| {
            madsim::task::spawn(async move {
                prover.prove_wakes().await;
                prover.prove_handover().await;
                prover.prove_bound_sessions().await;
                prover
            })
        })
        .collect();
    let mut provers = Vec::new();
    for task in tasks {
        let Ok(prover) = task.await else { return };
        provers.push(prover);
    }
    drop(ttl.await);
    catalog::prove(&mut provers, shared).await;
    events::prove(&mut provers, shared).await;
    followers::prove(&mut provers[0], shared).await;
    // Until every watcher has been answered once more.
    sim_sleep(WATCHERS_SETTLE.saturating_sub(Duration::from_nanos(sim_now() - last_read))).await;
}

impl Client {
    /// One write and one read through its agent, tried for as long as it takes. They become part of the history.
    pub async fn prove_service(&mut self) {
        loop {
            let key = self.key("k", kv::KEYS);
            let value = self.fresh_value();
            if self.write(&key, "", Op::Write { value: value.clone() }, value).await == Some(true) {
                break;
            }
            sim_sleep(Duration::from_millis(100)).await;
        }
        self.read_all().await;
    }

    /// Reads every shared key once, through its agent, for as long as it takes.
    pub async fn read_all(&mut self) {
        for key in (0..kv::KEYS).map(|number| format!("k{number}")) {
            while self.read(&key, self.shared.fresh_mode, Consistency::Linearizable).await.is_none() {
                sim_sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Reads once more what workloads have changed and must not have lost.
    async fn read_what_stays(&mut self) {
        self.read_set(set::LIST).await;
        self.read_set(set::KEYS).await;
        txn::read_all(self).await;
        self.read(fence::FENCED, self.shared.fresh_mode, Consistency::Linearizable).await;
    }

    fn violation(&self, auditor: &str, what: String) {
        self.shared.audit.report(auditor, format!("agent {}: {what}", self.agent));
    }

    async fn put(&mut self, key: &str, value: &str) -> Option<Response> {
        self.demand("PUT", &format!("/v1/kv/{key}"), value).await
    }

    /// Asks something that is no part of the history. `None` if there is no answer below 500 within a client's patience.
    async fn plain(&mut self, method: &str, target: &str, body: &str) -> Option<Response> {
        let host = self.shared.agents[self.agent];
        let answer = self.http.ask(host, method, target, body.to_owned(), PATIENCE).await.ok()?;
        tracing::debug!(
            client = self.id,
            agent = self.agent,
            method,
            target,
            status = answer.status,
            answer = answer.text(),
            "asked"
        );
        (answer.status < 500).then_some(answer)
    }

    /// Asks something that is no part of the history; it is a violation if that fails in calm.
    async fn demand(&mut self, method: &str, target: &str, body: &str) -> Option<Response> {
        let answer = self.plain(method, target, body).await;
        if answer.is_none() {
            self.violation("progress", format!("{method} {target} got no good answer in calm"));
        }
        answer
    }

    /// The JSON of an answer to a question that must be answered.
    async fn json(&mut self, target: &str) -> Option<Value> {
        let answer = self.demand("GET", target, "").await?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// Waits until a question is answered as it should be; reports the last answer if that takes too long. `false` if so.
    async fn until(
        &mut self,
        auditor: &str,
        target: &str,
        limit: Duration,
        is_good: impl Fn(&Response) -> bool,
    ) -> bool {
        let begun = sim_now();
        loop {
            let answer = self.plain("GET", target, "").await;
            if answer.as_ref().is_some_and(&is_good) {
                return true;
            }
            if Duration::from_nanos(sim_now() - begun) > limit {
                let last = answer.map_or_else(|| "nothing".to_owned(), |answer| answer.text());
                self.violation(auditor, format!("{target} was not as it should be within {limit:?}: {last}"));
                return false;
            }
            sim_sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits for a change, on a connection of its own.
    async fn watch(&mut self, what: &str) -> madsim::task::JoinHandle<()> {
        let host = self.host;
        let (fabric, agent) = (self.shared.fabric.clone(), self.shared.agents[self.agent]);
        let separator = if what.contains('?') { '&' } else { '?' };
        let now = self.demand("GET", what, "").await.map_or(1, |it| it.index);
        let target = format!("{what}{separator}index={now}&wait=60s");
        madsim::task::spawn(async move {
            let mut http = HttpClient::new(fabric, host);
            // Whatever the answer is: it came.
            let _ = http.ask(agent, "GET", &target, Vec::new(), watcher::WAIT * 20).await;
        })
    }
}
