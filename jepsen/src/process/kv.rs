//! Operations on keys as HTTP requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::client::{Answer, Client, RequestError};
use crate::history::{Consistency, Entry, Op, Outcome, Reply};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KvPair {
    lock_index: u64,
    value: Option<String>,
    modify_index: u64,
    session: Option<String>,
}

/// How a read that must be fresh is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// With `?consistent`.
    Consistent,
    /// Without a mode: as fresh as the leader's lease makes it.
    Default,
}

/// Performs a read, write, compare-and-set or delete of a key.
///
/// # Panics
///
/// If the operation is none of those.
pub async fn perform(client: &mut Client, key: &str, op: &Op, reads: Reads) -> Outcome {
    let (method, query, body) = match op {
        Op::Read { consistency: Consistency::Linearizable } => match reads {
            Reads::Consistent => ("GET", "?consistent".to_owned(), ""),
            Reads::Default => ("GET", String::new(), ""),
        },
        Op::Read { consistency: Consistency::Stale } => ("GET", "?stale".to_owned(), ""),
        Op::Read { consistency: Consistency::StaleWithin(bound) } => {
            ("GET", format!("?stale&max_stale={bound}ns"), "")
        }
        Op::Write { value } => ("PUT", String::new(), value.as_str()),
        Op::Cas { expected, value } => ("PUT", format!("?cas={expected}"), value.as_str()),
        Op::Delete => ("DELETE", String::new(), ""),
        _ => panic!("no operation on a key: {op:?}"),
    };
    let answer = client.request(method, &format!("/v1/kv/{key}{query}"), body.as_bytes()).await;
    let outcome = match answer {
        Ok(answer) => understand(op, &answer),
        Err(RequestError::NotSent(_)) => Outcome::Failed,
        Err(RequestError::Lost(_)) => Outcome::Unknown,
    };
    // A read without an answer has no effect, whatever happened to it.
    if !op.mutates_key() && outcome == Outcome::Unknown { Outcome::Failed } else { outcome }
}

fn understand(op: &Op, answer: &Answer) -> Outcome {
    match (answer.status, op) {
        (200 | 404, Op::Read { .. }) => state(answer).map_or(Outcome::Unknown, Outcome::Ok),
        (200, _) => match answer.body.as_ref().trim_ascii() {
            b"true" => Outcome::Ok(Reply::Done { index: None }),
            b"false" => Outcome::Ok(Reply::Refused),
            _ => Outcome::Unknown,
        },
        (400..=499, _) => Outcome::Failed,
        // Whoever says so has passed the request on to nobody.
        (500, _) if answer.body.starts_with(b"No cluster leader") => Outcome::Failed,
        // A server that lost its leadership, or is overloaded, may have passed the write on.
        _ => Outcome::Unknown,
    }
}

/// The state of a key in the answer to a read or a blocking query, if that is what it is.
#[must_use]
pub fn state(answer: &Answer) -> Option<Reply> {
    let index = answer.index?;
    match answer.status {
        200 => {}
        404 => return Some(Reply::Read { entry: None, index }),
        _ => return None,
    }
    let [pair] = serde_json::from_slice::<[KvPair; 1]>(&answer.body).ok()?;
    let value = STANDARD.decode(pair.value.unwrap_or_default()).ok()?;
    let entry = Entry {
        value: String::from_utf8(value).ok()?,
        modify_index: pair.modify_index,
        lock_index: pair.lock_index,
        session: pair.session,
    };
    Some(Reply::Read { entry: Some(entry), index })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, index: Some(9), body: body.to_owned().into() }
    }

    const READ: Op = Op::Read { consistency: Consistency::Linearizable };

    #[test]
    fn an_entry_is_read() {
        let body = r#"[{"LockIndex":1,"Key":"k","Flags":0,"Value":"MToy","CreateIndex":4,"ModifyIndex":7}]"#;
        let entry = Entry { value: "1:2".into(), modify_index: 7, lock_index: 1, session: None };
        assert_eq!(
            understand(&READ, &answer(200, body)),
            Outcome::Ok(Reply::Read { entry: Some(entry), index: 9 })
        );
        assert_eq!(understand(&READ, &answer(404, "")), Outcome::Ok(Reply::Read { entry: None, index: 9 }));
    }

    #[test]
    fn only_a_clear_answer_is_certain() {
        let write = Op::Write { value: "x".into() };
        assert_eq!(understand(&write, &answer(200, "true\n")), Outcome::Ok(Reply::Done { index: None }));
        assert_eq!(understand(&write, &answer(200, "false")), Outcome::Ok(Reply::Refused));
        assert_eq!(understand(&write, &answer(200, "what")), Outcome::Unknown);
        assert_eq!(understand(&write, &answer(500, "No cluster leader")), Outcome::Failed);
        assert_eq!(understand(&write, &answer(500, "rpc error: EOF")), Outcome::Unknown);
        assert_eq!(understand(&write, &answer(400, "Conflicting flags")), Outcome::Failed);
    }
}
