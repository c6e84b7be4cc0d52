//! «If a session is invalidated, its locks are released or deleted; others may acquire them after the lock-delay»
//! (documentation of sessions), and the four reasons for which one is invalidated: destruction, TTL, a check that is
//! critical, a check that is gone.

use std::time::Duration;

use proconsul_io_sim::time::sim_sleep;
use serde_json::json;

use super::Client;
use crate::workload::session::{Spec, created};

/// A session ends within this time of the end of what it is bound to: its agent has to tell the catalog first.
const END_LIMIT: Duration = Duration::from_secs(5);
/// The shortest TTL that is allowed.
const TTL: Duration = Duration::from_secs(10);
/// A session ends within this time of its last renewal, by clocks that drift as much as clocks do in our worlds.
const TTL_LIMIT: Duration = Duration::from_secs(14);
/// Renewals of a session that is to live on.
const RENEWALS: u32 = 4;

impl Client {
    /// A lock is released by its holder alone; when its session was destroyed it is given to the next one, after its delay.
    pub(super) async fn prove_handover(&mut self) {
        let key = format!("calm-lock{}", self.agent);
        let (Some(first), Some(second)) = (self.new_session("2s").await, self.new_session("0s").await) else {
            return;
        };
        let acquire = |id: &str| format!("/v1/kv/{key}?acquire={id}");
        let mut answers = Vec::new();
        for (target, expected) in [
            (acquire(&first), "true"),
            (acquire(&second), "false"),
            (format!("/v1/kv/{key}?release={second}"), "false"),
            (format!("/v1/session/destroy/{first}"), "true"),
            (acquire(&second), "false"),
        ] {
            let text = self.plain("PUT", &target, "").await.map_or_else(no_answer, |it| it.text());
            if text != expected {
                let what = format!("PUT {target} was answered {text}, not {expected}, after {answers:?}");
                self.violation("lock handover", what);
                return;
            }
            answers.push(text);
        }
        sim_sleep(Duration::from_secs(3)).await;
        let answer = self.plain("PUT", &acquire(&second), "").await;
        let text = answer.map_or_else(no_answer, |it| it.text());
        if text != "true" {
            let what = format!("a lock whose holder is gone was not given to the next one: {text}");
            self.violation("lock handover", what);
        }
    }

    /// A session ends with the check that it is bound to; so does its hold of a lock.
    pub(super) async fn prove_bound_sessions(&mut self) {
        for (action, deletes_keys) in [("fail", false), ("deregister", true)] {
            let check = format!("calm-{action}-{}", self.agent);
            let body = json!({ "Name": check, "CheckID": check, "TTL": "300s", "Status": "passing" });
            if self.demand("PUT", "/v1/agent/check/register", &body.to_string()).await.is_none() {
                return;
            }
            let node = "/v1/health/state/passing?consistent";
            if !self.until("catalog", node, END_LIMIT, |answer| answer.text().contains(&check)).await {
                return;
            }
            let spec =
                Spec { ttl: None, lock_delay: Duration::ZERO, deletes_keys, checks: vec![check.clone()] };
            let Some(id) = self.session_of(&spec).await else { return };
            let key = format!("calm-bound-{action}-{}", self.agent);
            let acquired = self.demand("PUT", &format!("/v1/kv/{key}?acquire={id}"), "x").await;
            if acquired.is_none_or(|answer| answer.text() != "true") {
                self.violation("session end", format!("{key} could not be acquired"));
                return;
            }
            self.demand("PUT", &format!("/v1/agent/check/{action}/{check}"), "").await;
            let session = format!("/v1/session/info/{id}?consistent");
            self.until("session end", &session, END_LIMIT, |answer| answer.text() == "[]").await;
            let key = format!("/v1/kv/{key}?consistent");
            self.until("session end", &key, Duration::ZERO, |answer| match deletes_keys {
                true => answer.status == 404,
                false => answer.status == 200 && !answer.text().contains(&id),
            })
            .await;
            if action == "fail" {
                self.demand("PUT", &format!("/v1/agent/check/deregister/{check}"), "").await;
            }
        }
    }

    /// A session that nobody renews ends in time; one that somebody renews lives on.
    pub(super) async fn prove_ttl(&mut self) {
        let spec =
            Spec { ttl: Some(TTL), lock_delay: Duration::ZERO, deletes_keys: false, checks: Vec::new() };
        let (Some(left), Some(kept)) = (self.create_session(&spec).await, self.create_session(&spec).await)
        else {
            self.violation("session TTL", "a session could not be created".to_owned());
            return;
        };
        for _ in 0..RENEWALS {
            sim_sleep(TTL_LIMIT / RENEWALS).await;
            if self.renew_session(&kept).await != Some(true) {
                self.violation("session TTL", "a session in use could not be renewed".to_owned());
            }
        }
        let info = |id: &str| format!("/v1/session/info/{id}?consistent");
        self.until("session TTL", &info(&left), Duration::ZERO, |answer| answer.text() == "[]").await;
        self.until("session TTL", &info(&kept), Duration::ZERO, |answer| answer.text().contains(&kept)).await;
        self.destroy_session(&kept).await;
    }

    async fn new_session(&mut self, lock_delay: &str) -> Option<String> {
        let body = format!(r#"{{"LockDelay":"{lock_delay}","NodeChecks":[],"Checks":[]}}"#);
        created(&self.demand("PUT", "/v1/session/create", &body).await?)
    }

    async fn session_of(&mut self, spec: &Spec) -> Option<String> {
        created(&self.demand("PUT", "/v1/session/create", &spec.body()).await?)
    }
}

fn no_answer() -> String {
    "no answer".to_owned()
}
