//! Clients that add elements to sets, one kept in a single key and changed by check-and-set, one kept as a key for each
//! element, and read them.

use proconsul_jepsen::history::{Consistency, Op, Reply};

use super::Client;
use super::client::{Ask, PATIENCE, entry, keys};

/// The key of the set that is a list.
pub(super) const LIST: &str = "set-list";
/// The prefix of the set that has a key for each element.
pub(super) const KEYS: &str = "set-keys/";
/// Lists grow no longer.
const LIST_BYTES_MAX: usize = 2_000;

pub(super) async fn run(client: &mut Client) {
    for _ in 0..client.operations {
        if client.must_stop() {
            return;
        }
        match client.rng.below(5) {
            0 | 1 => add_to_list(client).await,
            2 | 3 => add_key(client).await,
            _ => {
                let set = if client.one_in(2) { LIST } else { KEYS };
                client.read_set(set).await;
            }
        }
        client.think().await;
    }
}

async fn add_key(client: &mut Client) {
    let element = client.fresh_value();
    let target = format!("/v1/kv/{KEYS}{element}?cas=0");
    let op = Op::SetAdd { element };
    client.record(KEYS, op, Ask::put(&target, "x"), |response| done(&response.text())).await;
}

async fn add_to_list(client: &mut Client) {
    let target = format!("/v1/kv/{LIST}?consistent");
    let Ok(response) = client.ask("GET", &target, String::new(), PATIENCE).await else { return };
    let (before, index) = match response.status {
        200 => {
            let entry = entry(&target, &response);
            (entry.value, entry.modify_index)
        }
        404 => (String::new(), 0),
        _ => return,
    };
    if before.len() > LIST_BYTES_MAX {
        return;
    }
    let element = client.fresh_value();
    let after = if before.is_empty() { element.clone() } else { format!("{before},{element}") };
    let target = format!("/v1/kv/{LIST}?cas={index}");
    let op = Op::SetAdd { element };
    client.record(LIST, op, Ask::put(&target, after), |response| done(&response.text())).await;
}

fn done(answer: &str) -> Option<Reply> {
    match answer {
        "true" => Some(Reply::Done { index: None }),
        "false" => Some(Reply::Refused),
        _ => None,
    }
}

impl Client {
    /// Reads all elements of a set. `false` if there was no answer.
    pub(super) async fn read_set(&mut self, set: &str) -> bool {
        let mode = self.shared.fresh_mode;
        let target =
            if set == LIST { format!("/v1/kv/{LIST}?{mode}") } else { format!("/v1/kv/{KEYS}?keys&{mode}") };
        let op = Op::SetRead { consistency: Consistency::Linearizable };
        let reply = self
            .record(set, op, Ask::get(&target), |response| {
                let elements = match response.status {
                    404 => Vec::new(),
                    200 if set == LIST => {
                        entry(&target, response).value.split(',').map(str::to_owned).collect()
                    }
                    200 => keys(&target, response)
                        .into_iter()
                        .map(|key| key.strip_prefix(KEYS).expect("asked for").to_owned())
                        .collect(),
                    _ => return None,
                };
                Some(Reply::Set { elements })
            })
            .await;
        reply.is_some()
    }
}
