//! Clients that follow a list by blocking queries: keys under a prefix, what is not there, services, health, nodes,
//! sessions.
//!
//! «X-Consul-Index … a unique identifier representing the current state of the requested resource» (documentation of
//! blocking queries): it never falls, and two answers to one question with the same index show the same rows, whoever
//! gave them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Client;
use super::watcher::WAIT;

/// What may be followed.
const TARGETS: [&str; 16] = [
    "/v1/kv/k?recurse",
    "/v1/kv/k?keys",
    "/v1/kv/nobody-writes-this",
    "/v1/kv/lock?recurse",
    "/v1/catalog/nodes",
    "/v1/catalog/services",
    "/v1/catalog/service/web0",
    "/v1/catalog/node/server0",
    "/v1/health/service/web0",
    "/v1/health/service/web1?passing",
    "/v1/health/service/consul?passing",
    "/v1/health/checks/web0",
    "/v1/health/node/server0",
    "/v1/health/state/critical",
    "/v1/session/list",
    "/v1/session/node/server0",
];

/// What those who follow lists have seen. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Followed(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The rows of every answer, by question and index.
    answers: BTreeMap<&'static str, BTreeMap<u64, String>>,
    /// What each client asks, and the rows that it saw last.
    last: BTreeMap<u32, (&'static str, String)>,
}

impl Followed {
    pub(super) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Seen {
    /// Takes note of an answer.
    ///
    /// # Errors
    /// It disagrees with an earlier one.
    pub(super) fn answer(&mut self, target: &'static str, index: u64, rows: String) -> Result<(), String> {
        let answers = self.answers.entry(target).or_default();
        let known = answers.entry(index).or_insert_with(|| rows.clone());
        if *known == rows {
            return Ok(());
        }
        Err(format!("two states of {target} have the index {index}: {known} and {rows}"))
    }

    /// Everything that somebody follows.
    pub(super) fn targets(&self) -> Vec<&'static str> {
        let mut targets: Vec<_> = self.last.values().map(|(target, _)| *target).collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    }

    /// Those who have last seen other rows, and which. Indexes may differ: what is not there may have the index of
    /// something else, whose changes need not wake anybody.
    pub(super) fn behind(&self, target: &str, rows: &str) -> Vec<(u32, String)> {
        let followers = self.last.iter().filter(|(_, (followed, _))| *followed == target);
        followers.filter(|(_, (_, seen))| seen != rows).map(|(id, (_, seen))| (*id, seen.clone())).collect()
    }
}

pub(super) async fn run(client: &mut Client) {
    let target = TARGETS[usize::try_from(client.rng.below(TARGETS.len() as u64)).expect("a place in it")];
    follow(client, target).await;
}

/// Follows one list until it is told to stop.
pub(super) async fn follow(client: &mut Client, target: &'static str) {
    let separator = if target.contains('?') { '&' } else { '?' };
    let mode = client.shared.fresh_mode;
    let mut index = 0;
    client.shared.followed.lock().last.insert(client.id, (target, String::new()));
    while !client.must_stop_watching() {
        let question = format!("{target}{separator}{mode}&index={index}&wait={}s", WAIT.as_secs());
        let answer = client.ask("GET", &question, String::new(), WAIT * 2).await;
        let Some(response) = answer.ok().filter(|response| matches!(response.status, 200 | 404)) else {
            client.think().await;
            continue;
        };
        let (audit, followed) = (&client.shared.audit, &client.shared.followed);
        if response.index < index {
            let what = format!("the index of {target} fell from {index} to {}", response.index);
            audit.report("watch index monotonicity", what);
        }
        index = response.index;
        let mut seen = followed.lock();
        seen.last.insert(client.id, (target, response.text()));
        if let Err(what) = seen.answer(target, index, response.text()) {
            audit.report("watch completeness", what);
        }
    }
}
