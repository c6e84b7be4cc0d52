//! Clients that hold locks with a session, as the documentation of sessions tells them to: create it, renew it at half of
//! its TTL, acquire, release; and that sometimes let it run out, or destroy it while they hold the lock.

use std::time::Duration;

use proconsul_io_sim::time::{nanos, sim_now, sim_sleep};
use proconsul_jepsen::history::Consistency;

use super::{Client, session};

/// So many locks are contended for.
const LOCKS: u64 = 2;
/// The shortest that is allowed.
const TTL: Duration = Duration::from_secs(10);

struct Session {
    id: String,
    renewed: u64,
}

pub(super) async fn run(client: &mut Client) {
    let mut session: Option<Session> = None;
    for _ in 0..client.operations {
        if client.must_stop() {
            return;
        }
        let Some(current) = &mut session else {
            session = create(client).await;
            client.think().await;
            continue;
        };
        if sim_now() - current.renewed > nanos(TTL) / 2 {
            let id = current.id.clone();
            if client.renew_session(&id).await == Some(true) {
                current.renewed = sim_now();
            } else if sim_now() - current.renewed > 3 * nanos(TTL) || client.one_in(2) {
                session = None;
            }
            continue;
        }
        let id = current.id.clone();
        let key = client.key("lock", LOCKS);
        match client.rng.below(12) {
            0..=5 => {
                if client.acquire(&key, &id).await == Some(true) {
                    hold(client, &key, &id).await;
                }
            }
            6 => {
                client.read(&key, "consistent", Consistency::Linearizable).await;
            }
            7 => {
                client.read_session(&id).await;
            }
            8 if client.one_in(3) => {
                client.destroy_session(&id).await;
                session = None;
            }
            9 if client.one_in(3) => {
                // The client is lost in a long pause; its session runs out, its lock is taken over.
                sim_sleep(TTL * 2 + client.rng.duration_below(TTL / 2)).await;
                client.read_session(&id).await;
                client.release(&key, &id).await;
            }
            _ => client.think().await,
        }
        client.think().await;
    }
}

/// Has the lock, looks at it once or twice, gives it back or lets a later round find it held.
async fn hold(client: &mut Client, key: &str, id: &str) {
    client.think().await;
    client.read(key, "consistent", Consistency::Linearizable).await;
    client.think().await;
    if !client.one_in(4) {
        client.release(key, id).await;
    }
}

async fn create(client: &mut Client) -> Option<Session> {
    let lock_delay_s = [0, 1, 5][usize::try_from(client.rng.below(3)).expect("below three")];
    let spec = session::Spec {
        ttl: Some(TTL),
        lock_delay: Duration::from_secs(lock_delay_s),
        deletes_keys: client.one_in(3),
        checks: Vec::new(),
    };
    let asked = sim_now();
    let id = client.create_session(&spec).await?;
    Some(Session { id, renewed: asked })
}
