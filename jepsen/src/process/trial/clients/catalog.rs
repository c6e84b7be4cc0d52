//! Registrations: instances of one service that come, change and go at their agents, and what the catalog shows of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Answer, Caller};
use crate::history::{Consistency, Op, Outcome, Reply, Through};

/// The service.
const SERVICE: &str = "jepsen-web";

/// Instances that each agent may have.
const INSTANCES: u64 = 2;

/// Rest between two operations: agents bring changes to the catalog in their own time.
const REST: Duration = Duration::from_millis(300);

/// Attempts to give an instance its last state.
const LAST_TRIES: u32 = 50;

/// How long agents may take to bring all to the catalog once all has settled. By Consul's documentation of anti-entropy
/// an agent compares everything about once a minute.
const CONVERGES_WITHIN: Duration = Duration::from_secs(100);

/// Changes until it is told to stop. Then gives each instance a last state, and looks until the catalog has it.
pub(super) async fn run(mut caller: Caller, node: String) {
    while !caller.shared.stopped() {
        let instance = instance(&node, caller.random.below(INSTANCES));
        match caller.random.below(10) {
            0..4 => {
                register(&mut caller, &node, &instance).await;
            }
            4 => deregister(&mut caller, &node, &instance).await,
            _ => {
                look(&mut caller).await;
            }
        }
        tokio::time::sleep(REST).await;
    }
    let mut wanted = Vec::new();
    for number in 0..INSTANCES {
        let instance = instance(&node, number);
        for _ in 0..LAST_TRIES {
            if let Some(value) = register(&mut caller, &node, &instance).await {
                wanted.push((path(&node, &instance), value));
                break;
            }
        }
    }
    let started = Instant::now();
    while started.elapsed() < CONVERGES_WITHIN {
        if let Some(rows) = look(&mut caller).await
            && caller.settled()
            && wanted.iter().all(|row| rows.contains(row))
        {
            break;
        }
        tokio::time::sleep(REST).await;
    }
}

fn instance(node: &str, number: u64) -> String {
    format!("web-{node}-{number}")
}

fn path(node: &str, instance: &str) -> String {
    format!("service/{SERVICE}/{node}/{instance}")
}

/// Returns the state if it was taken.
async fn register(caller: &mut Caller, node: &str, instance: &str) -> Option<String> {
    let value = caller.value();
    let op = Op::Register { value: value.clone(), through: Through::Agent };
    let body = json!({ "ID": instance, "Name": SERVICE, "Port": 80, "Tags": [&value] }).to_string();
    let request = ("PUT", "/v1/agent/service/register", &*body);
    let outcome = caller.ask(&path(node, instance), op, request, done).await;
    matches!(outcome, Outcome::Ok(_)).then_some(value)
}

async fn deregister(caller: &mut Caller, node: &str, instance: &str) {
    let op = Op::Deregister { through: Through::Agent };
    let target = format!("/v1/agent/service/deregister/{instance}");
    caller.ask(&path(node, instance), op, ("PUT", &target, ""), done).await;
}

fn done(answer: &Answer) -> Outcome {
    match answer.status {
        200 => Outcome::Ok(Reply::Done { index: None }),
        400..=499 => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}

/// Reads all instances; returns their paths and states.
pub(super) async fn look(caller: &mut Caller) -> Option<Vec<(String, String)>> {
    let op = Op::Catalog { above: None, consistency: Consistency::Linearizable };
    let target = format!("/v1/catalog/service/{SERVICE}?consistent");
    let key = format!("service/{SERVICE}/");
    let outcome = caller
        .ask(&key, op, ("GET", &target, ""), |answer| match rows(answer) {
            Some((entries, index)) => Outcome::Ok(Reply::Catalog { entries, index }),
            None => Outcome::Failed,
        })
        .await;
    match outcome {
        Outcome::Ok(Reply::Catalog { entries, .. }) => Some(entries),
        _ => None,
    }
}

fn rows(answer: &Answer) -> Option<(Vec<(String, String)>, u64)> {
    let rows: Value = serde_json::from_slice(&answer.body).ok()?;
    let entry = |row: &Value| {
        let path = path(row["Node"].as_str()?, row["ServiceID"].as_str()?);
        Some((path, row["ServiceTags"][0].as_str()?.to_owned()))
    };
    let entries = rows.as_array()?.iter().map(entry).collect::<Option<_>>()?;
    Some((entries, answer.index?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_read_with_their_tags() {
        let body = r#"[{"Node":"client-1","ServiceID":"web-client-1-0","ServiceTags":["7:2"]}]"#;
        let answer = Answer { status: 200, index: Some(9), body: body.to_owned().into() };
        let entry = ("service/jepsen-web/client-1/web-client-1-0".to_owned(), "7:2".to_owned());
        assert_eq!(rows(&answer), Some((vec![entry], 9)));
    }
}
