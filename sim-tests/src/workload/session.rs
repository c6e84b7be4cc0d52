//! What clients ask about sessions.

use std::time::Duration;

use proconsul_io_sim::time::nanos;
use proconsul_jepsen::history::{Consistency, Op, Outcome, Reply};
use serde::Deserialize;
use serde_json::json;

use super::client::{Ask, Client};
use crate::http::Response;

/// A session that is to be created.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// In whole seconds, ten at least.
    pub(super) ttl: Option<Duration>,
    /// In whole seconds.
    pub(super) lock_delay: Duration,
    pub(super) deletes_keys: bool,
    /// Checks of the node of the agent that is asked; none at all, if there are none.
    pub(super) checks: Vec<String>,
}

impl Spec {
    /// The body of the request.
    pub(super) fn body(&self) -> String {
        let seconds = |duration: Duration| format!("{}s", duration.as_secs());
        let behavior = if self.deletes_keys { "delete" } else { "release" };
        json!({
            "TTL": self.ttl.map_or_else(String::new, seconds),
            "LockDelay": seconds(self.lock_delay),
            "Behavior": behavior,
            "NodeChecks": self.checks,
        })
        .to_string()
    }
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

/// The identifier of a session that was created.
pub(super) fn created(response: &Response) -> Option<String> {
    let read = |body| serde_json::from_slice::<Created>(body).ok().map(|created| created.id);
    if response.status == 200 { read(&response.body) } else { None }
}

impl Client {
    /// Creates a session. What it is bound to may end it at any time, so that is written down at once.
    pub(super) async fn create_session(&mut self, spec: &Spec) -> Option<String> {
        let op = Op::SessionCreate {
            ttl: spec.ttl.map(nanos),
            lock_delay: nanos(spec.lock_delay),
            deletes_keys: spec.deletes_keys,
        };
        let ask = Ask::put("/v1/session/create", spec.body());
        let reply =
            self.record("", op, ask, |response| Some(Reply::Session { id: created(response)? })).await?;
        let Reply::Session { id } = reply else { unreachable!("made above") };
        if !spec.checks.is_empty() || self.shared.nodes_go {
            let undermined = self.invoke("", Op::SessionUndermine { session: id.clone() });
            self.complete(undermined, Outcome::Ok(Reply::Done { index: None }));
        }
        Some(id)
    }

    /// Renews a session. `None` if there was no answer.
    pub(super) async fn renew_session(&mut self, id: &str) -> Option<bool> {
        let target = format!("/v1/session/renew/{id}");
        let op = Op::SessionRenew { session: id.to_owned() };
        let reply = self
            .record("", op, Ask::put(&target, ""), |response| match response.status {
                200 => Some(Reply::Session { id: id.to_owned() }),
                404 => Some(Reply::NoSession),
                _ => None,
            })
            .await?;
        Some(reply != Reply::NoSession)
    }

    /// Ends a session.
    pub(super) async fn destroy_session(&mut self, id: &str) {
        let target = format!("/v1/session/destroy/{id}");
        let op = Op::SessionDestroy { session: id.to_owned() };
        self.record("", op, Ask::put(&target, ""), |response| {
            (response.status == 200).then_some(Reply::Done { index: None })
        })
        .await;
    }

    /// Whether a session exists: asked for by itself, or looked for among all of them. `None` if there was no answer.
    pub(super) async fn read_session(&mut self, id: &str) -> Option<bool> {
        let target = if self.one_in(3) {
            "/v1/session/list?consistent".to_owned()
        } else {
            format!("/v1/session/info/{id}?consistent")
        };
        let op = Op::SessionRead { session: id.to_owned(), consistency: Consistency::Linearizable };
        let reply = self
            .record("", op, Ask::get(&target), |response| {
                let found = || response.text().contains(id);
                match response.status {
                    200 if found() => Some(Reply::Session { id: id.to_owned() }),
                    200 => Some(Reply::NoSession),
                    _ => None,
                }
            })
            .await?;
        Some(reply != Reply::NoSession)
    }

    /// Takes a lock, or renews the value of one that the session has.
    pub(super) async fn acquire(&mut self, key: &str, id: &str) -> Option<bool> {
        let value = self.fresh_value();
        let op = Op::Acquire { session: id.to_owned(), value: value.clone() };
        self.write(key, &format!("acquire={id}"), op, value).await
    }

    /// Gives a lock back.
    pub(super) async fn release(&mut self, key: &str, id: &str) -> Option<bool> {
        let value = self.fresh_value();
        let op = Op::Release { session: id.to_owned(), value: value.clone() };
        self.write(key, &format!("release={id}"), op, value).await
    }
}
