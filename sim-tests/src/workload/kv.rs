//! Keys that several clients set, get, check-and-set and delete.

use std::collections::BTreeMap;
use std::time::Duration;

use proconsul_io_sim::time::nanos;
use proconsul_jepsen::history::{Consistency, Op};

use super::Client;

/// So many keys are shared.
pub(super) const KEYS: u64 = 4;

pub(super) async fn run(client: &mut Client) {
    // Modify indexes that this client has seen last, for checking against.
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..client.operations {
        if client.must_stop() {
            return;
        }
        let key = client.key("k", KEYS);
        match client.rng.below(20) {
            0..=6 => {
                let mode = if client.one_in(3) { "consistent" } else { client.shared.fresh_mode };
                if let Some((entry, _)) = client.read(&key, mode, Consistency::Linearizable).await {
                    seen.insert(key, entry.map_or(0, |entry| entry.modify_index));
                }
            }
            7 => {
                client.read(&key, "stale", Consistency::Stale).await;
            }
            8 => {
                let bound_ms = [20, 300, 2_000][usize::try_from(client.rng.below(3)).expect("below three")];
                let consistency = Consistency::StaleWithin(nanos(Duration::from_millis(bound_ms)));
                client.read(&key, &format!("max_stale={bound_ms}ms"), consistency).await;
            }
            9..=13 => {
                let value = client.fresh_value();
                client.write(&key, "", Op::Write { value: value.clone() }, value).await;
            }
            14..=17 => {
                let expected = seen.get(&key).copied().unwrap_or(0);
                let value = client.fresh_value();
                let op = Op::Cas { expected, value: value.clone() };
                client.write(&key, &format!("cas={expected}"), op, value).await;
            }
            18 => {
                client.write(&key, "", Op::Delete, String::new()).await;
            }
            _ => match seen.get(&key).copied().filter(|expected| *expected > 0) {
                Some(expected) => {
                    let op = Op::DeleteCas { expected };
                    client.write(&key, &format!("cas={expected}"), op, String::new()).await;
                }
                None => {
                    client.write(&key, "", Op::Delete, String::new()).await;
                }
            },
        }
        client.think().await;
    }
}

/// A reader gives up on an answer after this long: it is to ask often.
const READER_PATIENCE: Duration = Duration::from_millis(800);

/// Reads and nothing else, so that a leader without a majority, and a server that has just been started, have somebody to
/// mislead.
pub(super) async fn read_on(client: &mut Client) {
    for number in 0.. {
        if client.must_stop() {
            return;
        }
        let key = client.key("k", KEYS);
        let (mode, consistency) = match number % 3 {
            0 => ("consistent", Consistency::Linearizable),
            1 => (client.shared.fresh_mode, Consistency::Linearizable),
            _ => ("stale", Consistency::Stale),
        };
        let op = Op::Read { consistency };
        client.observe(&key, format!("/v1/kv/{key}?{mode}"), op, READER_PATIENCE).await;
        client.think().await;
    }
}
