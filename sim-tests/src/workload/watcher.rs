//! Clients that follow a key.

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
