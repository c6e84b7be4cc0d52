//! After everything is healed: does every server serve, wake its watchers, and hand over locks?
//!
//! Under faults a client can be made to wait for any time, so «within» means nothing there. Here it does.

use std::time::Duration;

use bytes::Bytes;
use proconsul_io_sim::net::HostId;
use proconsul_io_sim::time::sim_sleep;
use proconsul_jepsen::history::{Consistency, Op};

use super::{Client, PATIENCE, Shared, kv, watcher};
use crate::http::{HttpClient, Response};
use crate::plan::{ClientKind, ClientPlan};

/// In a healed cluster a watcher is woken this long after the change at the latest.
const WAKE_LIMIT: Duration = Duration::from_secs(2);

/// A client that is no part of the plan, for one server.
#[must_use]
pub fn prover(server: usize, seed: u64, shared: Shared) -> Client {
    let host = HostId(200 + u32::try_from(server).expect("at most five servers"));
    shared.fabric.add_host(host, None);
    let plan = ClientPlan {
        kind: ClientKind::Kv,
        seed: seed ^ u64::from(host.0),
        operations: 0,
        think_max_ms: 1,
        padding_max: 0,
    };
    Client { server, ..Client::new(host.0, host, &plan, shared) }
}

impl Client {
    /// One write and one read through a given server, tried for as long as it takes. They become part of the history.
    pub async fn prove_service(&mut self, server: usize) {
        loop {
            self.server = server;
            let key = self.key("k", kv::KEYS);
            let value = self.fresh_value();
            if self.write(&key, "", Op::Write { value: value.clone() }, value).await == Some(true) {
                break;
            }
            sim_sleep(Duration::from_millis(100)).await;
        }
        self.read_all(server).await;
    }

    /// Reads every shared key once, through a given server, for as long as it takes.
    pub async fn read_all(&mut self, server: usize) {
        for key in (0..kv::KEYS).map(|number| format!("k{number}")) {
            loop {
                self.server = server;
                if self.read(&key, self.shared.fresh_mode, Consistency::Linearizable).await.is_some() {
                    break;
                }
                sim_sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// «The endpoint blocks until the resource changes» (documentation of blocking queries): a change or a deletion of a
    /// key wakes who waits for the key, and who waits for its prefix.
    pub async fn prove_wakes(&mut self, server: usize) {
        self.server = server;
        let prefix = format!("calm{server}/");
        for round in 0..2 {
            let deletes = round == 1;
            if self.put(&format!("{prefix}key"), "before").await.is_none() {
                return;
            }
            let of_key = self.watch(&format!("{prefix}key")).await;
            let of_prefix = self.watch(&format!("{prefix}?recurse")).await;
            // Longer than any watcher takes to reach the server.
            sim_sleep(Duration::from_millis(500)).await;
            if deletes {
                self.plain("DELETE", &format!("/v1/kv/{prefix}key"), "").await;
            } else {
                self.put(&format!("{prefix}key"), "after").await;
            }
            sim_sleep(WAKE_LIMIT).await;
            for (what, woken) in [("key", of_key), ("prefix", of_prefix)] {
                if !woken.is_finished() {
                    let change = if deletes { "deletion" } else { "change" };
                    let text =
                        format!("server {server} did not wake a watcher of a {what} after its {change}");
                    self.shared.audit.report("watch completeness", text);
                }
                woken.abort();
            }
        }
    }

    /// «If a session is invalidated, its locks are released or deleted; others may acquire them after the lock-delay»
    /// (documentation of sessions).
    pub async fn prove_handover(&mut self, server: usize) {
        self.server = server;
        let key = format!("calm-lock{server}");
        let (Some(first), Some(second)) = (self.session("2s").await, self.session("0s").await) else {
            return;
        };
        let acquire = |id: &str| format!("/v1/kv/{key}?acquire={id}");
        let report =
            |text: String| self.shared.audit.report("lock handover", format!("server {server}: {text}"));
        let mut answers = Vec::new();
        for (method, target, expected) in [
            ("PUT", acquire(&first), "true"),
            ("PUT", acquire(&second), "false"),
            ("PUT", format!("/v1/session/destroy/{first}"), "true"),
            ("PUT", acquire(&second), "false"),
        ] {
            let answer = plain(&mut self.http, self.shared.servers[server], method, &target, "").await;
            let text = answer.map_or_else(|| "no answer".to_owned(), |it| it.text());
            if text != expected {
                report(format!("{method} {target} was answered {text}, not {expected}, after {answers:?}"));
                return;
            }
            answers.push(text);
        }
        sim_sleep(Duration::from_secs(3)).await;
        let answer = plain(&mut self.http, self.shared.servers[server], "PUT", &acquire(&second), "").await;
        let text = answer.map_or_else(|| "no answer".to_owned(), |it| it.text());
        if text != "true" {
            report(format!("a lock whose holder is gone was not given to the next one: {text}"));
        }
    }

    async fn session(&mut self, lock_delay: &str) -> Option<String> {
        let body = format!(r#"{{"LockDelay":"{lock_delay}","NodeChecks":[],"Checks":[]}}"#);
        let response = self.plain("PUT", "/v1/session/create", &body).await?;
        let json: serde_json::Value = serde_json::from_slice(&response.body).ok()?;
        json.get("ID")?.as_str().map(str::to_owned)
    }

    async fn put(&mut self, key: &str, value: &str) -> Option<Response> {
        self.plain("PUT", &format!("/v1/kv/{key}"), value).await
    }

    /// Asks something that is no part of the history; one that fails in calm is a violation.
    async fn plain(&mut self, method: &str, target: &str, body: &str) -> Option<Response> {
        let answer = plain(&mut self.http, self.shared.servers[self.server], method, target, body).await;
        if answer.is_none() {
            let text = format!("{method} {target} at server {} got no good answer in calm", self.server);
            self.shared.audit.report("progress", text);
        }
        answer
    }

    /// Waits for a change, on a connection of its own.
    async fn watch(&mut self, what: &str) -> madsim::task::JoinHandle<()> {
        let host = self.host;
        let (fabric, server) = (self.shared.fabric.clone(), self.shared.servers[self.server]);
        let separator = if what.contains('?') { '&' } else { '?' };
        let now = self.plain("GET", &format!("/v1/kv/{what}"), "").await.map_or(1, |it| it.index);
        let target = format!("/v1/kv/{what}{separator}index={now}&wait=60s");
        madsim::task::spawn(async move {
            let mut http = HttpClient::new(fabric, host);
            // Whatever the answer is: it came.
            let _ = http.ask(server, "GET", &target, Bytes::new(), watcher::WAIT * 20).await;
        })
    }
}

/// An answer below 500, within the patience of a client.
async fn plain(
    http: &mut HttpClient,
    server: HostId,
    method: &str,
    target: &str,
    body: &str,
) -> Option<Response> {
    let answer = http.ask(server, method, target, body.to_owned(), PATIENCE).await.ok()?;
    (answer.status < 500).then_some(answer)
}
