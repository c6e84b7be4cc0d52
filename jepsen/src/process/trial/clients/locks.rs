//! Locks with sessions, as the documentation of sessions has it: create, renew at half of the TTL, acquire, release; and
//! sometimes let a session run out or destroy it while it holds a lock.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Caller, SESSION_NODE};
use crate::history::{Consistency, Entry, Nanos, Op, Outcome, Reply};
use crate::process::kv::{self, Reads};

/// So many locks are contended for. Sessions that delete their locks leave the first one alone, so that its lock index
/// never begins again.
const LOCKS: u64 = 3;

/// The shortest TTL that is allowed.
const TTL: Duration = Duration::from_secs(10);

struct Session {
    id: String,
    deletes_keys: bool,
    renewed: Instant,
}

pub(super) async fn run(mut caller: Caller) {
    let mut session: Option<Session> = None;
    while !caller.shared.stopped() {
        let Some(current) = &mut session else {
            session = create(&mut caller).await;
            continue;
        };
        let id = current.id.clone();
        if current.renewed.elapsed() > TTL / 2 {
            let asked = Instant::now();
            match renew(&mut caller, &id).await {
                Outcome::Ok(Reply::Session { .. }) => current.renewed = asked,
                Outcome::Ok(_) => session = None,
                _ if current.renewed.elapsed() > 3 * TTL => session = None,
                _ => {}
            }
            continue;
        }
        let first = u64::from(current.deletes_keys);
        let key = format!("lock/{}", first + caller.random.below(LOCKS - first));
        match caller.random.below(40) {
            0..20 => hold(&mut caller, &key, &id).await,
            20..26 => release(&mut caller, &key, &id).await,
            26..34 => {
                read(&mut caller, &key).await;
            }
            34..38 => read_session(&mut caller, &id).await,
            38 => {
                destroy(&mut caller, &id).await;
                session = None;
            }
            _ if caller.one_in(3) => {
                // The client is lost for a while; its session runs out, and others take its locks.
                let lost = Instant::now();
                while lost.elapsed() < TTL * 2 && !caller.shared.stopped() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                read_session(&mut caller, &id).await;
                release(&mut caller, &key, &id).await;
                session = None;
            }
            _ => {}
        }
        tokio::time::sleep(caller.shared.rest * 4).await;
    }
}

/// Takes a lock if it is free, looks at it, writes something that only its holder may write, and mostly gives it back.
async fn hold(caller: &mut Caller, key: &str, id: &str) {
    if acquire(caller, key, id).await == Outcome::Ok(Reply::Done { index: None }) {
        let seen = read(caller, key).await;
        if let Some(entry) = seen.filter(|entry| entry.session.as_deref() == Some(id)) {
            write_fenced(caller, key, id, entry.lock_index).await;
        }
        if !caller.one_in(6) {
            release(caller, key, id).await;
        }
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).expect("no duration here lasts for centuries")
}

async fn create(caller: &mut Caller) -> Option<Session> {
    let lock_delay_s = [0, 1, 5][usize::try_from(caller.random.below(3)).expect("below three")];
    let deletes_keys = caller.one_in(3);
    let lock_delay = nanos(Duration::from_secs(lock_delay_s));
    let body = json!({
        "Node": SESSION_NODE,
        "TTL": format!("{}s", TTL.as_secs()),
        "LockDelay": format!("{lock_delay_s}s"),
        "Behavior": if deletes_keys { "delete" } else { "release" },
        "NodeChecks": [],
        "Checks": [],
    });
    let op = Op::SessionCreate { ttl: Some(nanos(TTL)), lock_delay, deletes_keys };
    let renewed = Instant::now();
    let request = ("PUT", "/v1/session/create", &*body.to_string());
    let outcome = caller
        .ask("", op, request, |answer| {
            let id = serde_json::from_slice::<Value>(&answer.body).ok();
            let id = id.and_then(|value| Some(value["ID"].as_str()?.to_owned()));
            match (answer.status, id) {
                (200, Some(id)) => Outcome::Ok(Reply::Session { id }),
                (400..=499, _) => Outcome::Failed,
                _ => Outcome::Unknown,
            }
        })
        .await;
    match outcome {
        Outcome::Ok(Reply::Session { id }) => Some(Session { id, deletes_keys, renewed }),
        _ => None,
    }
}

async fn renew(caller: &mut Caller, id: &str) -> Outcome {
    let op = Op::SessionRenew { session: id.to_owned() };
    let path = format!("/v1/session/renew/{id}");
    caller
        .ask("", op, ("PUT", &path, ""), |answer| match answer.status {
            200 => Outcome::Ok(Reply::Session { id: id.to_owned() }),
            404 => Outcome::Ok(Reply::NoSession),
            _ => Outcome::Unknown,
        })
        .await
}

async fn destroy(caller: &mut Caller, id: &str) {
    let op = Op::SessionDestroy { session: id.to_owned() };
    let path = format!("/v1/session/destroy/{id}");
    caller
        .ask("", op, ("PUT", &path, ""), |answer| match answer.status {
            200 => Outcome::Ok(Reply::Done { index: None }),
            _ => Outcome::Unknown,
        })
        .await;
}

async fn read_session(caller: &mut Caller, id: &str) {
    let op = Op::SessionRead { session: id.to_owned(), consistency: Consistency::Linearizable };
    let path = format!("/v1/session/info/{id}?consistent");
    caller
        .ask("", op, ("GET", &path, ""), |answer| match (answer.status, answer.body.trim_ascii()) {
            (200, b"[]" | b"null") => Outcome::Ok(Reply::NoSession),
            (200, _) => Outcome::Ok(Reply::Session { id: id.to_owned() }),
            _ => Outcome::Failed,
        })
        .await;
}

async fn acquire(caller: &mut Caller, key: &str, id: &str) -> Outcome {
    let value = caller.value();
    let op = Op::Acquire { session: id.to_owned(), value: value.clone() };
    let path = format!("/v1/kv/{key}?acquire={id}");
    caller.ask(key, op, ("PUT", &path, &value), taken).await
}

async fn release(caller: &mut Caller, key: &str, id: &str) {
    let value = caller.value();
    let op = Op::Release { session: id.to_owned(), value: value.clone() };
    let path = format!("/v1/kv/{key}?release={id}");
    caller.ask(key, op, ("PUT", &path, &value), taken).await;
}

fn taken(answer: &super::Answer) -> Outcome {
    match (answer.status, answer.body.trim_ascii()) {
        (200, b"true") => Outcome::Ok(Reply::Done { index: None }),
        (200, b"false") => Outcome::Ok(Reply::Refused),
        (400..=499, _) => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}

async fn read(caller: &mut Caller, key: &str) -> Option<Entry> {
    let op = Op::Read { consistency: Consistency::Linearizable };
    let id = caller.begin(key, op.clone());
    let outcome = kv::perform(&mut caller.http, key, &op, Reads::Consistent).await;
    caller.end(id, outcome.clone());
    match outcome {
        Outcome::Ok(Reply::Read { entry, .. }) => entry,
        _ => None,
    }
}

/// Writes under the condition that the session still has the lock, by a transaction.
async fn write_fenced(caller: &mut Caller, lock: &str, id: &str, fence: u64) {
    let value = caller.value();
    let key = format!("fenced/{lock}");
    let body = json!([
        { "KV": { "Verb": "check-session", "Key": lock, "Session": id } },
        { "KV": { "Verb": "set", "Key": key, "Value": STANDARD.encode(&value) } },
    ]);
    let op = Op::FencedWrite { lock: lock.to_owned(), session: id.to_owned(), fence, value };
    caller
        .ask(&key, op, ("PUT", "/v1/txn", &body.to_string()), |answer| match answer.status {
            200 => Outcome::Ok(Reply::Done { index: None }),
            409 => Outcome::Ok(Reply::Refused),
            400..=499 => Outcome::Failed,
            _ => Outcome::Unknown,
        })
        .await;
}
