//! Sets: elements added to a list in one key by compare-and-set, as clients without transactions do it, and read back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Answer, Caller};
use crate::history::{Consistency, Op, Outcome, Reply};

/// So many sets are added to. A set is given up when it has become long, and the next one begun.
const SETS: u64 = 3;

/// Elements of a set before the next one is begun.
const FULL: usize = 400;

pub(super) async fn run(mut caller: Caller) {
    let mut generation = [0_u32; SETS as usize];
    while !caller.shared.stopped() {
        let set = usize::try_from(caller.random.below(SETS)).expect("there are few sets");
        let key = format!("set/{set}/{}", generation[set]);
        if caller.one_in(3) {
            let op = Op::SetRead { consistency: Consistency::Linearizable };
            let path = format!("/v1/kv/{key}?consistent");
            caller
                .ask(&key, op, ("GET", &path, ""), |answer| match state(answer) {
                    Some((elements, _)) => Outcome::Ok(Reply::Set { elements }),
                    None => Outcome::Failed,
                })
                .await;
        } else if add(&mut caller, &key).await > FULL {
            generation[set] += 1;
        }
    }
}

/// Adds an element: reads the list, and writes a longer one if nobody was faster. Returns the length.
async fn add(caller: &mut Caller, key: &str) -> usize {
    let element = caller.value();
    let id = caller.begin(key, Op::SetAdd { element: element.clone() });
    let mut outcome = Outcome::Failed;
    let mut length = 0;
    for _ in 0..4 {
        let read = caller.http.request("GET", &format!("/v1/kv/{key}"), b"").await;
        let Some((mut elements, index)) = read.ok().and_then(|answer| state(&answer)) else { break };
        length = elements.len();
        elements.push(element.clone());
        let path = format!("/v1/kv/{key}?cas={index}");
        let answer = caller.http.request("PUT", &path, elements.join(" ").as_bytes()).await;
        outcome = match answer {
            Ok(answer) if answer.status == 200 && answer.body.trim_ascii() == b"true" => {
                Outcome::Ok(Reply::Done { index: None })
            }
            // Somebody was faster: nothing was changed.
            Ok(answer) if answer.status == 200 => {
                outcome = Outcome::Failed;
                continue;
            }
            Ok(answer) => super::failure(&answer),
            Err(super::RequestError::NotSent(_)) => Outcome::Failed,
            Err(super::RequestError::Lost(_)) => Outcome::Unknown,
        };
        break;
    }
    caller.end(id, outcome.clone());
    caller.rest(&outcome).await;
    length
}

/// The elements in a key, and the index for a compare-and-set.
fn state(answer: &Answer) -> Option<(Vec<String>, u64)> {
    match answer.status {
        404 if answer.body.is_empty() => Some((Vec::new(), 0)),
        200 => {
            let rows: Value = serde_json::from_slice(&answer.body).ok()?;
            let value = STANDARD.decode(rows[0]["Value"].as_str()?).ok()?;
            let text = String::from_utf8(value).ok()?;
            Some((text.split_whitespace().map(str::to_owned).collect(), rows[0]["ModifyIndex"].as_u64()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read() {
        let answer = |status, body: &str| Answer { status, index: Some(1), body: body.to_owned().into() };
        let row = r#"[{"Key":"k","Value":"MToxIDI6MQ==","ModifyIndex":7}]"#;
        assert_eq!(state(&answer(200, row)), Some((vec!["1:1".to_owned(), "2:1".to_owned()], 7)));
        assert_eq!(state(&answer(404, "")), Some((vec![], 0)));
        assert_eq!(state(&answer(500, "No cluster leader")), None);
    }
}
