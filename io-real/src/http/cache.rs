//! The agent's cache of answers, between front-end and node: the core keeps the books, here questions are asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::api::{
    AgentCache, CachedRead, Headers, HttpReply, HttpRequest, Onward, Routed, indented, route,
};
use tokio::task::AbortHandle;

use crate::gate::Gate;

/// An agent's cache. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Cache {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answers: AgentCache,
    /// The watches under way, by key; never more than there are answers.
    watches: BTreeMap<Text, AbortHandle>,
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a request asks of the cache, if anything.
    pub(super) fn wanted(gate: &Gate, request: &HttpRequest<'_>) -> Option<Result<CachedRead, HttpReply>> {
        CachedRead::of(&gate.published().about, request).transpose()
    }

    /// Answers a read from what is kept, if that is good enough.
    pub(super) fn kept(&self, gate: &Gate, read: &CachedRead) -> Option<HttpReply> {
        let published = gate.published();
        self.state().answers.kept(read, &published, gate.now().mono)
    }

    /// Keeps an answer, and begins to watch for a newer one if it has to be kept new.
    pub(super) fn settle(&self, gate: &Gate, read: CachedRead, reply: HttpReply) -> HttpReply {
        let now = gate.now().mono;
        let mut state = self.state();
        let settled = state.answers.settle(&read, reply, now);
        for key in settled.dropped {
            if let Some(watch) = state.watches.remove(&key) {
                watch.abort();
            }
        }
        if let Some(index) = settled.watch {
            let key = read.key().clone();
            let watch = tokio::spawn(watch(self.clone(), gate.clone(), read, index)).abort_handle();
            if let Some(former) = state.watches.insert(key, watch) {
                former.abort();
            }
        }
        settled.reply
    }

    fn refreshed(&self, gate: &Gate, read: &CachedRead, reply: HttpReply) -> Onward {
        let mut state = self.state();
        let onward = state.answers.refreshed(read, reply, gate.now().mono);
        if onward == Onward::End {
            state.watches.remove(read.key());
        }
        onward
    }
}

/// Keeps an answer new until nobody wants it any more.
async fn watch(cache: Cache, gate: Gate, read: CachedRead, mut index: u64) {
    loop {
        let (path, query) = read.newer_than(index);
        let reply = ask(&gate, path, &query).await;
        match cache.refreshed(&gate, &read, reply) {
            Onward::Ask(known) => index = known,
            Onward::AskAfter(known, pause) => {
                index = known;
                tokio::time::sleep(pause).await;
            }
            Onward::End => return,
        }
    }
}

async fn ask(gate: &Gate, path: &str, query: &str) -> HttpReply {
    let routed = {
        let published = gate.published();
        let (client, headers, body) = (None::<IpAddr>, Headers::default(), Bytes::new());
        let request = HttpRequest { method: "GET", path, query, client, headers, body };
        route(&published, &request, gate.now())
    };
    match routed {
        Routed::Reply(reply) => reply,
        Routed::Call { request, indent } => {
            let reply = super::ask(gate, request).await;
            if indent { indented(reply) } else { reply }
        }
        other => unreachable!("a read is not answered by {other:?}"),
    }
}
