//! Clients that lead sessions from birth to death: with and without TTL, bound to nothing, to the health of their node or
//! to a check of their own, ended in every way there is.

use std::time::Duration;

use proconsul_io_sim::time::sim_sleep;
use proconsul_jepsen::history::Consistency;
use serde_json::json;

use super::Client;
use super::client::PATIENCE;
use super::session::Spec;

/// So many locks are contended for.
const LOCKS: u64 = 2;
/// The shortest that is allowed.
const TTL: Duration = Duration::from_secs(10);
/// A check must reach the catalog before a session can be bound to it.
const BINDING_TRIES: u32 = 6;
/// About so many operations are a life.
const OPERATIONS_PER_LIFE: u32 = 8;

/// What a session depends upon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Binding {
    Nothing,
    /// That its node can be reached.
    Node,
    /// A check of its own.
    Check,
}

pub(super) async fn run(client: &mut Client) {
    for number in 0..client.operations.div_ceil(OPERATIONS_PER_LIFE) {
        if client.must_stop() {
            return;
        }
        client.change_agent();
        live(client, number).await;
        client.think().await;
    }
}

async fn live(client: &mut Client, number: u32) {
    let binding = match client.rng.below(4) {
        0 => Binding::Nothing,
        1 => Binding::Node,
        _ => Binding::Check,
    };
    let check = format!("session-check-{}-{number}", client.id);
    if binding == Binding::Check && !register_check(client, &check).await {
        return;
    }
    let lock_delay_s = [0, 1, 3][usize::try_from(client.rng.below(3)).expect("below three")];
    let spec = Spec {
        // What is bound to nothing and is lost must end some time.
        ttl: (binding == Binding::Nothing || client.one_in(2)).then_some(TTL),
        lock_delay: Duration::from_secs(lock_delay_s),
        deletes_keys: client.one_in(2),
        checks: match binding {
            Binding::Nothing => Vec::new(),
            Binding::Node => vec!["serfHealth".to_owned()],
            Binding::Check => vec![check.clone()],
        },
    };
    let mut session = client.create_session(&spec).await;
    for _ in 1..BINDING_TRIES {
        if session.is_some() || client.must_stop() {
            break;
        }
        sim_sleep(Duration::from_millis(300)).await;
        session = client.create_session(&spec).await;
    }
    if let Some(id) = session {
        let lock = client.key("bound-lock", LOCKS);
        use_session(client, &id, &lock).await;
        end_session(client, &id, binding, &check).await;
        client.think().await;
        client.read_session(&id).await;
        client.read(&lock, "consistent", Consistency::Linearizable).await;
        if client.one_in(2) {
            client.acquire(&lock, &id).await;
        }
    }
    if binding == Binding::Check {
        let target = format!("/v1/agent/check/deregister/{check}");
        let _ = client.ask("PUT", &target, String::new(), PATIENCE).await;
    }
}

async fn register_check(client: &mut Client, check: &str) -> bool {
    let body = json!({ "Name": check, "CheckID": check, "TTL": "300s", "Status": "passing" }).to_string();
    let answer = client.ask("PUT", "/v1/agent/check/register", body, PATIENCE).await;
    answer.is_ok_and(|response| response.status == 200)
}

async fn use_session(client: &mut Client, id: &str, lock: &str) {
    for _ in 0..client.rng.below(4) {
        if client.must_stop() {
            return;
        }
        match client.rng.below(4) {
            0 | 1 => drop(client.acquire(lock, id).await),
            2 => drop(client.read_session(id).await),
            _ => drop(client.renew_session(id).await),
        }
        client.think().await;
    }
}

async fn end_session(client: &mut Client, id: &str, binding: Binding, check: &str) {
    match client.rng.below(4) {
        0 => client.destroy_session(id).await,
        // It runs out, or lives on without its client.
        1 if client.one_in(2) => sim_sleep(TTL + client.rng.duration_below(TTL / 2)).await,
        choice if binding == Binding::Check => {
            let action = if choice == 2 { "deregister" } else { "fail" };
            let target = format!("/v1/agent/check/{action}/{check}");
            let _ = client.ask("PUT", &target, String::new(), PATIENCE).await;
        }
        _ => client.destroy_session(id).await,
    }
}
