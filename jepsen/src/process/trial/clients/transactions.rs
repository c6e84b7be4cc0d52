//! Transactions: several keys are read, checked and written together, or not at all.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Answer, Caller};
use crate::history::{Consistency, Entry, Op, Outcome, Reply, TxnAction, TxnVerb};

/// Keys that transactions share.
const KEYS: u64 = 8;

pub(super) async fn run(mut caller: Caller) {
    // Per key: the modify index that was seen last; 0 if the key did not exist.
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    while !caller.shared.stopped() {
        let actions = draw(&mut caller, &seen);
        let op = Op::Txn { actions: actions.clone(), consistency: Consistency::Linearizable };
        // Transactions that only look ask for the mode that needs no clock.
        let looks_only = op.consistency().is_some();
        let path = if looks_only { "/v1/txn?consistent" } else { "/v1/txn" };
        let body = Value::from_iter(actions.iter().map(ask)).to_string();
        let outcome = caller.ask("", op, ("PUT", path, &body), |answer| understand(&actions, answer)).await;
        if let Outcome::Ok(Reply::Txn { entries, .. }) = &outcome {
            for (action, entry) in actions.iter().zip(entries) {
                if let Some(entry) = entry {
                    seen.insert(action.key.clone(), entry.modify_index);
                }
                if action.verb == TxnVerb::Delete {
                    seen.insert(action.key.clone(), 0);
                }
            }
        }
    }
}

/// Of ten transactions, three read two keys, four move along two keys that were seen before, and most others write
/// blindly. A read of a key that does not exist rolls back: the verb that allows for that is not known to all versions.
fn draw(caller: &mut Caller, seen: &BTreeMap<String, u64>) -> Vec<TxnAction> {
    let first = caller.random.below(KEYS);
    let second = (first + 1 + caller.random.below(KEYS - 1)) % KEYS;
    let keys = [first, second].map(|number| format!("txn/{number}"));
    let kind = caller.random.below(10);
    let mut actions = Vec::new();
    for key in keys {
        let verb = match (kind, seen.get(&key)) {
            (0..3, _) => TxnVerb::Get,
            (3..7, Some(&expected)) => TxnVerb::Cas { expected, value: caller.value() },
            (9, Some(_)) if caller.one_in(4) => TxnVerb::Delete,
            _ => TxnVerb::Set { value: caller.value() },
        };
        let writes = verb.value().is_some();
        actions.push(TxnAction { key: key.clone(), verb });
        // Who has written a key looks at once what became of it.
        if writes {
            actions.push(TxnAction { key, verb: TxnVerb::Get });
        }
    }
    actions
}

fn ask(action: &TxnAction) -> Value {
    let encode = |value: &str| STANDARD.encode(value);
    let key = &action.key;
    let operation = match &action.verb {
        TxnVerb::Get => json!({"Verb": "get", "Key": key}),
        TxnVerb::GetOrEmpty => json!({"Verb": "get-or-empty", "Key": key}),
        TxnVerb::CheckIndex { index } => json!({"Verb": "check-index", "Key": key, "Index": index}),
        TxnVerb::CheckNotExists => json!({"Verb": "check-not-exists", "Key": key}),
        TxnVerb::CheckSession { session } => json!({"Verb": "check-session", "Key": key, "Session": session}),
        TxnVerb::Set { value } => json!({"Verb": "set", "Key": key, "Value": encode(value)}),
        TxnVerb::Cas { expected, value } => {
            json!({"Verb": "cas", "Key": key, "Index": expected, "Value": encode(value)})
        }
        TxnVerb::Delete => json!({"Verb": "delete", "Key": key}),
        TxnVerb::DeleteCas { expected } => json!({"Verb": "delete-cas", "Key": key, "Index": expected}),
    };
    json!({ "KV": operation })
}

fn understand(actions: &[TxnAction], answer: &Answer) -> Outcome {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    match (answer.status, body) {
        (200, Some(body)) => match results(actions, &body) {
            Some(entries) => Outcome::Ok(Reply::Txn { entries, index: None }),
            None => Outcome::Unknown,
        },
        (409, Some(body)) => {
            let errors = body["Errors"].as_array().map_or(&[][..], Vec::as_slice);
            let places = errors.iter().filter_map(|error| error["OpIndex"].as_u64());
            let failed = places.filter_map(|place| usize::try_from(place).ok()).collect();
            Outcome::Ok(Reply::RolledBack { failed })
        }
        (400..=499, _) => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}

/// What each action read. Results come in the order of the actions, with none for deletes, and without values for
/// writes.
fn results(actions: &[TxnAction], body: &Value) -> Option<Vec<Option<Entry>>> {
    let mut results = body["Results"].as_array().map_or(&[][..], Vec::as_slice).iter();
    let mut entries = Vec::new();
    for action in actions {
        entries.push(match action.verb {
            TxnVerb::Delete | TxnVerb::DeleteCas { .. } | TxnVerb::CheckNotExists => None,
            TxnVerb::Get | TxnVerb::GetOrEmpty => {
                let row = &results.next()?["KV"];
                if row["Key"].as_str()? != action.key {
                    return None;
                }
                // A key that does not exist has no index.
                if row["CreateIndex"].as_u64()? == 0 { None } else { Some(entry(row)?) }
            }
            TxnVerb::CheckIndex { .. }
            | TxnVerb::CheckSession { .. }
            | TxnVerb::Set { .. }
            | TxnVerb::Cas { .. } => {
                results.next()?;
                None
            }
        });
    }
    Some(entries)
}

fn entry(row: &Value) -> Option<Entry> {
    let value = STANDARD.decode(row["Value"].as_str().unwrap_or_default()).ok()?;
    Some(Entry {
        value: String::from_utf8(value).ok()?,
        modify_index: row["ModifyIndex"].as_u64()?,
        lock_index: row["LockIndex"].as_u64().unwrap_or(0),
        session: row["Session"].as_str().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, index: None, body: body.to_owned().into() }
    }

    #[test]
    fn results_are_matched_with_their_actions() {
        let action = |key: &str, verb| TxnAction { key: key.to_owned(), verb };
        let actions = [
            action("a", TxnVerb::Set { value: "1:1".into() }),
            action("b", TxnVerb::Delete),
            action("b", TxnVerb::GetOrEmpty),
            action("a", TxnVerb::GetOrEmpty),
        ];
        let body = r#"{"Results":[
            {"KV":{"LockIndex":0,"Key":"a","Flags":0,"Value":null,"CreateIndex":5,"ModifyIndex":5}},
            {"KV":{"LockIndex":0,"Key":"b","Flags":0,"Value":null,"CreateIndex":0,"ModifyIndex":0}},
            {"KV":{"LockIndex":0,"Key":"a","Flags":0,"Value":"MTox","CreateIndex":5,"ModifyIndex":5}}],
            "Errors":null}"#;
        let read = Entry { value: "1:1".into(), modify_index: 5, lock_index: 0, session: None };
        assert_eq!(
            understand(&actions, &answer(200, body)),
            Outcome::Ok(Reply::Txn { entries: vec![None, None, None, Some(read)], index: None })
        );
        let body = r#"{"Results":null,"Errors":[{"OpIndex":2,"What":"stale"}]}"#;
        assert_eq!(
            understand(&actions, &answer(409, body)),
            Outcome::Ok(Reply::RolledBack { failed: vec![2] })
        );
        assert_eq!(understand(&actions, &answer(200, "{}")), Outcome::Unknown);
    }
}
