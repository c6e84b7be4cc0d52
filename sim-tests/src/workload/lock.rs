//! Clients that hold locks with a session, as the documentation of sessions tells them to: create it, renew it at half of
//! its TTL, acquire, release; and that sometimes let it run out, or destroy it while they hold the lock.

use std::time::Duration;

use proconsul_io_sim::time::{nanos, sim_now, sim_sleep};
use proconsul_jepsen::history::{Consistency, Op, Outcome, Reply};
use serde::Deserialize;

use super::{Client, PATIENCE};
use crate::http::Lost;

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
            if renew(client, &id).await {
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
                if acquire(client, &key, &id).await == Some(true) {
                    hold(client, &key, &id).await;
                }
            }
            6 => {
                client.read(&key, "consistent", Consistency::Linearizable).await;
            }
            7 => {
                read_session(client, &id).await;
            }
            8 if client.one_in(3) => {
                destroy(client, &id).await;
                session = None;
            }
            9 if client.one_in(3) => {
                // The client is lost in a long pause; its session runs out, its lock is taken over.
                sim_sleep(TTL * 2 + client.rng.duration_below(TTL / 2)).await;
                read_session(client, &id).await;
                release(client, &key, &id).await;
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
        release(client, key, id).await;
    }
}

async fn acquire(client: &mut Client, key: &str, id: &str) -> Option<bool> {
    let value = client.fresh_value();
    let op = Op::Acquire { session: id.to_owned(), value: value.clone() };
    client.write(key, &format!("acquire={id}"), op, value).await
}

async fn release(client: &mut Client, key: &str, id: &str) -> Option<bool> {
    let value = client.fresh_value();
    let op = Op::Release { session: id.to_owned(), value: value.clone() };
    client.write(key, &format!("release={id}"), op, value).await
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

async fn create(client: &mut Client) -> Option<Session> {
    let lock_delay_s = [0, 1, 5][usize::try_from(client.rng.below(3)).expect("below three")];
    let deletes_keys = client.one_in(3);
    let lock_delay = nanos(Duration::from_secs(lock_delay_s));
    let op = Op::SessionCreate { ttl: Some(nanos(TTL)), lock_delay, deletes_keys };
    let operation = client.invoke("", op);
    let behavior = if deletes_keys { "delete" } else { "release" };
    let body = format!(
        r#"{{"TTL":"{}s","LockDelay":"{lock_delay_s}s","Behavior":"{behavior}","NodeChecks":[],"Checks":[]}}"#,
        TTL.as_secs()
    );
    let asked = sim_now();
    let (outcome, session) = match client.ask("PUT", "/v1/session/create", body, PATIENCE).await {
        Ok(response) if response.status == 200 => {
            let created: Created = serde_json::from_slice(&response.body)
                .unwrap_or_else(|error| panic!("session/create: {error}: {}", response.text()));
            let reply = Reply::Session { id: created.id.clone() };
            (Outcome::Ok(reply), Some(Session { id: created.id, renewed: asked }))
        }
        Ok(response) if response.status < 500 => {
            panic!("session/create was answered {} {}", response.status, response.text())
        }
        Err(Lost::NotSent) => (Outcome::Failed, None),
        Ok(_) | Err(Lost::Unknown) => (Outcome::Unknown, None),
    };
    client.complete(operation, outcome);
    session
}

async fn renew(client: &mut Client, id: &str) -> bool {
    let operation = client.invoke("", Op::SessionRenew { session: id.to_owned() });
    let answer = client.ask("PUT", &format!("/v1/session/renew/{id}"), String::new(), PATIENCE).await;
    let outcome = match answer {
        Ok(response) if response.status == 200 => Outcome::Ok(Reply::Session { id: id.to_owned() }),
        Ok(response) if response.status == 404 => Outcome::Ok(Reply::NoSession),
        Ok(_) | Err(Lost::Unknown) => Outcome::Unknown,
        Err(Lost::NotSent) => Outcome::Failed,
    };
    let renewed = matches!(outcome, Outcome::Ok(Reply::Session { .. }));
    client.complete(operation, outcome);
    renewed
}

async fn destroy(client: &mut Client, id: &str) {
    let operation = client.invoke("", Op::SessionDestroy { session: id.to_owned() });
    let answer = client.ask("PUT", &format!("/v1/session/destroy/{id}"), String::new(), PATIENCE).await;
    let outcome = match answer {
        Ok(response) if response.status == 200 => Outcome::Ok(Reply::Done { index: None }),
        Ok(_) | Err(Lost::Unknown) => Outcome::Unknown,
        Err(Lost::NotSent) => Outcome::Failed,
    };
    client.complete(operation, outcome);
}

async fn read_session(client: &mut Client, id: &str) {
    let consistency = Consistency::Linearizable;
    let operation = client.invoke("", Op::SessionRead { session: id.to_owned(), consistency });
    let target = format!("/v1/session/info/{id}?consistent");
    let outcome = match client.ask("GET", &target, String::new(), PATIENCE).await {
        Ok(response) if response.status == 200 => match response.text().as_str() {
            "[]" | "null" => Outcome::Ok(Reply::NoSession),
            _ => Outcome::Ok(Reply::Session { id: id.to_owned() }),
        },
        Ok(_) | Err(_) => Outcome::Failed,
    };
    client.complete(operation, outcome);
}
