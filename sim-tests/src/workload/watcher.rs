//! Clients that follow a key, or all keys under a prefix.

use std::collections::BTreeMap;
use std::time::Duration;

use proconsul_jepsen::history::{Consistency, Op};

use super::{Client, kv};

/// How long a blocking query may wait.
pub(super) const WAIT: Duration = Duration::from_secs(5);

pub(super) async fn follow_key(client: &mut Client) {
    let key = client.key("k", kv::KEYS);
    let mode = client.shared.fresh_mode;
    let mut index = 0;
    while !client.must_stop_watching() {
        let seen = if index == 0 {
            client.read(&key, mode, Consistency::Linearizable).await
        } else {
            let target = format!("/v1/kv/{key}?{mode}&index={index}&wait={}s", WAIT.as_secs());
            let op = Op::Watch { index, consistency: Consistency::Linearizable };
            client.observe(&key, target, op, WAIT * 2).await
        };
        match seen {
            // As the documentation of blocking queries asks of clients: begin anew when the index falls.
            Some((_, now)) => index = if now < index { 0 } else { now },
            None => client.think().await,
        }
    }
}

/// «X-Consul-Index … a unique identifier representing the current state of the requested resource» (documentation of
/// blocking queries): it never falls, and two answers with the same index show the same rows. Also not when keys under
/// the prefix are deleted.
pub(super) async fn follow_prefix(client: &mut Client) {
    let mode = client.shared.fresh_mode;
    let mut index = 0;
    let mut seen: BTreeMap<u64, String> = BTreeMap::new();
    while !client.must_stop_watching() {
        let target = format!("/v1/kv/k?recurse&{mode}&index={index}&wait={}s", WAIT.as_secs());
        let Ok(response) = client.ask("GET", &target, String::new(), WAIT * 2).await else {
            client.think().await;
            continue;
        };
        if response.status != 200 && response.status != 404 {
            client.think().await;
            continue;
        }
        let audit = &client.shared.audit;
        if response.index < index {
            let what = format!("the index of a prefix fell from {index} to {}", response.index);
            audit.report("watch index monotonicity", what);
        }
        index = response.index;
        let rows = response.text();
        let known = seen.entry(index).or_insert_with(|| rows.clone());
        if *known != rows {
            let what = format!("two states of a prefix have the index {index}: {known} and {rows}");
            audit.report("watch completeness", what);
        }
    }
}
