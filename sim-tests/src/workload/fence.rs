//! Clients that hold a lock and change something else in its name, in a way that is refused to whoever has lost the lock
//! without knowing it.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proconsul_io_sim::time::sim_sleep;
use proconsul_jepsen::history::{Consistency, Op, Reply};
use serde_json::json;

use super::Client;
use super::client::Ask;
use super::session::Spec;

/// The lock.
const LOCK: &str = "fence";
/// What is changed in its name.
pub(super) const FENCED: &str = "fenced";
/// The shortest that is allowed.
const TTL: Duration = Duration::from_secs(10);
/// Changes in the name of one lock.
const WRITES_MAX: u64 = 4;

pub(super) async fn run(client: &mut Client) {
    let mut session: Option<String> = None;
    for _ in 0..client.operations {
        if client.must_stop() {
            return;
        }
        session = match session {
            None => {
                let spec = Spec {
                    ttl: Some(TTL),
                    lock_delay: Duration::ZERO,
                    deletes_keys: false,
                    checks: Vec::new(),
                };
                client.create_session(&spec).await
            }
            Some(id) => work(client, id).await,
        };
        client.think().await;
    }
}

/// Works with a session; gives it back if it may be used again.
async fn work(client: &mut Client, id: String) -> Option<String> {
    match client.acquire(LOCK, &id).await {
        Some(true) => {}
        Some(false) => {
            client.read(FENCED, client.shared.fresh_mode, Consistency::Linearizable).await;
            return (client.renew_session(&id).await != Some(false)).then_some(id);
        }
        None => return Some(id),
    }
    let (held, _) = client.read(LOCK, "consistent", Consistency::Linearizable).await?;
    let Some(fence) = held.filter(|it| it.session.as_ref() == Some(&id)).map(|it| it.lock_index) else {
        return Some(id);
    };
    for _ in 0..=client.rng.below(WRITES_MAX) {
        // One that was not answered may come later: then the session must not have the lock a second time.
        write(client, &id, fence).await?;
        client.think().await;
    }
    if client.one_in(4) {
        // It is held up; somebody else takes the lock over meanwhile, and it does not know.
        let away = if client.one_in(3) { TTL + TTL / 2 } else { TTL / 4 };
        if !client.one_in(3) {
            client.destroy_session(&id).await;
        }
        sim_sleep(client.rng.duration_below(away)).await;
        let _ = write(client, &id, fence).await;
        return None;
    }
    client.release(LOCK, &id).await;
    Some(id)
}

async fn write(client: &mut Client, session: &str, fence: u64) -> Option<Reply> {
    let value = client.fresh_value();
    let op =
        Op::FencedWrite { lock: LOCK.to_owned(), session: session.to_owned(), fence, value: value.clone() };
    let body = json!([
        { "KV": { "Verb": "check-session", "Key": LOCK, "Session": session } },
        { "KV": { "Verb": "set", "Key": FENCED, "Value": BASE64_STANDARD.encode(value) } },
    ]);
    client
        .record(FENCED, op, Ask::put("/v1/txn", body.to_string()), |response| match response.status {
            200 => Some(Reply::Done { index: None }),
            409 => Some(Reply::Refused),
            _ => None,
        })
        .await
}
