//! Watchers: each follows one register by blocking queries, through all faults and until all has settled.

use std::time::Duration;

use super::{AFTER_FAILURE, Caller, Freshness};
use crate::history::{Consistency, Op, Outcome, Reply};
use crate::process::kv;

/// How long a blocking query waits.
const WAIT: Duration = Duration::from_secs(3);

/// Attempts to look once more when all has settled.
const LAST_LOOKS: u32 = 20;

pub(super) async fn run(mut caller: Caller, freshness: Freshness) {
    let key = freshness.key(caller.random.below(caller.shared.keys));
    let mode = match freshness {
        Freshness::Consistent => "&consistent",
        Freshness::Default => "",
    };
    let mut index = 0;
    let mut last_looks = 0;
    while last_looks < LAST_LOOKS {
        // What begins after this sees what has settled.
        let last = caller.settled();
        let seen = look(&mut caller, &key, mode, index).await;
        // As the documentation of blocking queries asks of clients: begin anew when the index falls.
        match seen {
            Some(now) => index = if now < index { 0 } else { now },
            None => tokio::time::sleep(AFTER_FAILURE).await,
        }
        if last {
            last_looks = if seen.is_some() { LAST_LOOKS } else { last_looks + 1 };
        }
    }
}

async fn look(caller: &mut Caller, key: &str, mode: &str, index: u64) -> Option<u64> {
    let consistency = Consistency::Linearizable;
    let (op, path) = if index == 0 {
        (Op::Read { consistency }, format!("/v1/kv/{key}?{}", mode.trim_start_matches('&')))
    } else {
        let wait = WAIT.as_secs();
        (Op::Watch { index, consistency }, format!("/v1/kv/{key}?index={index}&wait={wait}s{mode}"))
    };
    let id = caller.begin(key, op);
    let outcome = match caller.http.request("GET", &path, b"").await {
        Ok(answer) => kv::state(&answer).map_or(Outcome::Failed, Outcome::Ok),
        // It has no effect, whatever happened to it.
        Err(_) => Outcome::Failed,
    };
    caller.end(id, outcome.clone());
    match outcome {
        Outcome::Ok(Reply::Read { index, .. }) => Some(index),
        _ => None,
    }
}
