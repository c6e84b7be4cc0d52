//! What the answers to blocking queries mean to somebody who follows a state. Pure: answers in, verdicts out.

use std::time::Duration;

use serde_json::{Value, json};

use super::News;

/// The first pause after an error; each further one in a row is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How answers are made into states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One key: the only element of a list, or null.
    Key,
    /// Keys: a list, or null where there is none.
    Keys,
    /// Instances of a service with their checks.
    Instances,
    /// Health checks.
    Checks,
    /// Nodes.
    Nodes,
    /// Events: those that were not told yet.
    Events,
    /// As the agent says it.
    Plain,
}

/// An answer of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// `X-Consul-Index`.
    pub index: Option<u64>,
    /// `X-Consul-ContentHash`.
    pub hash: Option<String>,
    /// Body.
    pub body: Vec<u8>,
}

/// What comes of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is something new.
    Tell(News),
    /// Nothing that was not known: ask again.
    Again,
    /// An error: ask for the whole state, after a pause.
    Failed {
        /// Why, in words.
        reason: String,
        /// How long.
        pause: Duration,
    },
}

/// What is known of the state.
#[derive(Clone, Debug)]
enum Mark {
    /// Nothing: the next answer comes at once.
    Nothing,
    /// Its index.
    Index(u64),
    /// Its hash.
    Hash(String),
}

/// Follows one state.
#[derive(Clone, Debug)]
pub struct Follower {
    shape: Shape,
    mark: Mark,
    /// The state that was told last.
    told: Option<Value>,
    /// The newest event that was told.
    event: Option<String>,
    /// Errors in a row.
    errors: u32,
}

impl Follower {
    /// Somebody who knows nothing yet.
    #[must_use]
    pub fn new(shape: Shape) -> Follower {
        Follower { shape, mark: Mark::Nothing, told: None, event: None, errors: 0 }
    }

    /// Parameters of the next query.
    #[must_use]
    pub fn mark(&self) -> Vec<(&'static str, String)> {
        match &self.mark {
            Mark::Nothing => Vec::new(),
            Mark::Index(index) => vec![("index", index.to_string()), ("wait", "5m".to_owned())],
            Mark::Hash(hash) => vec![("hash", hash.clone()), ("wait", "5m".to_owned())],
        }
    }

    /// Takes an answer.
    pub fn answered(&mut self, answer: Answer) -> Verdict {
        let missing = answer.status == 404 && matches!(self.shape, Shape::Key | Shape::Keys);
        if answer.status != 200 && !missing {
            let body = String::from_utf8_lossy(&answer.body);
            return self.failed(format!("Unexpected response code: {} ({})", answer.status, body.trim()));
        }
        let state = if missing { Ok(Value::Null) } else { serde_json::from_slice(&answer.body) };
        let state = match state {
            Ok(state) => shaped(self.shape, state),
            Err(error) => return self.failed(format!("the answer is no JSON: {error}")),
        };
        self.errors = 0;
        let known = std::mem::replace(&mut self.mark, Mark::Nothing);
        let index = answer.index.unwrap_or(1).max(1);
        if let Some(hash) = answer.hash {
            self.mark = Mark::Hash(hash);
        } else if let Some(new) = answer.index {
            let went_back = matches!(known, Mark::Index(known) if new < known);
            // Indexes of events have no order. All others begin anew when they go back: the servers' state was replaced.
            if self.shape == Shape::Events || !went_back {
                self.mark = Mark::Index(new.max(1));
            }
        }
        let state = if self.shape == Shape::Events { self.unheard(state) } else { state };
        if self.told.as_ref() == Some(&state) {
            return Verdict::Again;
        }
        let text = state.to_string();
        self.told = Some(state);
        Verdict::Tell(News { index, text })
    }

    /// There was no answer that can be read.
    pub fn failed(&mut self, reason: String) -> Verdict {
        // What happened meanwhile is in the whole state.
        self.mark = Mark::Nothing;
        let pause = PAUSE_MIN.saturating_mul(1 << self.errors.min(6)).min(PAUSE_MAX);
        self.errors += 1;
        Verdict::Failed { reason, pause }
    }

    /// The events after the newest one that was told.
    fn unheard(&mut self, state: Value) -> Value {
        let Value::Array(events) = state else { return state };
        let newest = self.event.as_deref();
        let at = events.iter().position(|event| newest.is_some_and(|newest| event["ID"] == newest));
        let new: Vec<Value> = events.into_iter().skip(at.map_or(0, |at| at + 1)).collect();
        if let Some(id) = new.last().and_then(|event| event["ID"].as_str()) {
            self.event = Some(id.to_owned());
        }
        if new.is_empty() && self.told.is_some() {
            // Nothing new: what was told last stays told.
            return self.told.clone().unwrap_or_default();
        }
        Value::Array(new)
    }
}

/// An answer as Consul's watches show it: members that requests leave out while they are empty are there.
fn shaped(shape: Shape, state: Value) -> Value {
    match shape {
        Shape::Key => match state {
            Value::Array(list) => list.into_iter().next().map_or(Value::Null, key),
            other => other,
        },
        Shape::Keys => each(state, key),
        Shape::Instances => each(state, instance),
        Shape::Checks => each(state, check),
        Shape::Nodes => each(state, node),
        Shape::Events | Shape::Plain => state,
    }
}

fn each(state: Value, change: fn(Value) -> Value) -> Value {
    match state {
        Value::Array(list) => list.into_iter().map(change).collect(),
        other => other,
    }
}

/// Adds members that are missing.
fn with(mut object: Value, defaults: &Value) -> Value {
    if let (Some(object), Some(defaults)) = (object.as_object_mut(), defaults.as_object()) {
        for (name, value) in defaults {
            if !object.contains_key(name) {
                object.insert(name.clone(), value.clone());
            }
        }
    }
    object
}

fn key(entry: Value) -> Value {
    with(entry, &json!({"Session": ""}))
}

fn node(node: Value) -> Value {
    with(node, &json!({"TaggedAddresses": null, "Meta": null}))
}

fn check(mut check: Value) -> Value {
    check["Definition"] = with(
        check["Definition"].take(),
        &json!({"Interval": "0s", "Timeout": "0s", "DeregisterCriticalServiceAfter": "0s", "HTTP": "", "Header": null,
            "Method": "", "Body": "", "TLSSkipVerify": false, "TCP": ""}),
    );
    with(check, &json!({"Type": ""}))
}

fn instance(mut instance: Value) -> Value {
    instance["Node"] = node(instance["Node"].take());
    instance["Service"]["Proxy"] =
        with(instance["Service"]["Proxy"].take(), &json!({"MeshGateway": {}, "Expose": {}}));
    instance["Service"] = with(instance["Service"].take(), &json!({"Meta": null, "Connect": {}}));
    instance["Checks"] = each(instance["Checks"].take(), check);
    instance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(index: u64, body: &str) -> Answer {
        Answer { status: 200, index: Some(index), hash: None, body: body.as_bytes().to_vec() }
    }

    fn told(verdict: Verdict) -> Option<String> {
        match verdict {
            Verdict::Tell(news) => Some(format!("{} {}", news.index, news.text)),
            Verdict::Again => None,
            Verdict::Failed { reason, .. } => panic!("{reason}"),
        }
    }

    #[test]
    fn a_state_is_told_once_and_only_when_it_differs() {
        let mut follower = Follower::new(Shape::Plain);
        assert_eq!(follower.mark(), []);
        assert_eq!(told(follower.answered(answer(5, "[1]"))).as_deref(), Some("5 [1]"));
        assert_eq!(follower.mark()[0], ("index", "5".to_owned()));
        // Something else in the same table has changed.
        assert_eq!(told(follower.answered(answer(7, "[1]"))), None);
        assert_eq!(follower.mark()[0], ("index", "7".to_owned()));
        assert_eq!(told(follower.answered(answer(9, "[1,2]"))).as_deref(), Some("9 [1,2]"));
    }

    #[test]
    fn an_index_that_goes_back_begins_anew() {
        let mut follower = Follower::new(Shape::Plain);
        told(follower.answered(answer(50, "1")));
        assert_eq!(told(follower.answered(answer(3, "2"))).as_deref(), Some("3 2"));
        assert_eq!(follower.mark(), []);
        assert_eq!(told(follower.answered(answer(3, "2"))), None);
        assert_eq!(follower.mark()[0], ("index", "3".to_owned()));
        // Zero would not wait.
        told(follower.answered(answer(0, "2")));
        told(follower.answered(answer(0, "2")));
        assert_eq!(follower.mark()[0], ("index", "1".to_owned()));
    }

    #[test]
    fn after_an_error_the_state_is_read_again_and_told_if_it_differs() {
        let mut follower = Follower::new(Shape::Plain);
        told(follower.answered(answer(5, "1")));
        let seconds: Vec<u64> = (0..8)
            .map(|_| match follower.failed("gone".to_owned()) {
                Verdict::Failed { pause, .. } => pause.as_secs(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(follower.mark(), []);
        assert_eq!(told(follower.answered(answer(9, "1"))), None);
        let refused = Answer { status: 500, body: b"No cluster leader".to_vec(), ..Answer::default() };
        assert_eq!(
            follower.answered(refused),
            Verdict::Failed {
                reason: "Unexpected response code: 500 (No cluster leader)".to_owned(),
                pause: PAUSE_MIN
            }
        );
        assert_eq!(told(follower.answered(answer(9, "2"))).as_deref(), Some("9 2"));
    }

    #[test]
    fn keys_may_be_missing() {
        let missing = Answer { status: 404, index: Some(7), ..Answer::default() };
        let mut follower = Follower::new(Shape::Key);
        assert_eq!(told(follower.answered(missing.clone())).as_deref(), Some("7 null"));
        let there = answer(8, r#"[{"Key":"a"}]"#);
        assert_eq!(told(follower.answered(there)).as_deref(), Some(r#"8 {"Key":"a","Session":""}"#));
        assert_eq!(told(follower.answered(missing.clone())), Some("7 null".to_owned()));
        assert!(matches!(Follower::new(Shape::Plain).answered(missing), Verdict::Failed { .. }));
    }

    #[test]
    fn each_event_is_told_once_whatever_its_index() {
        let mut follower = Follower::new(Shape::Events);
        assert_eq!(told(follower.answered(answer(1, "[]"))).as_deref(), Some("1 []"));
        assert_eq!(follower.mark()[0].1, "1");
        assert_eq!(
            told(follower.answered(answer(90, r#"[{"ID":"a"}]"#))).as_deref(),
            Some(r#"90 [{"ID":"a"}]"#)
        );
        let two = r#"[{"ID":"a"},{"ID":"b"},{"ID":"c"}]"#;
        assert_eq!(
            told(follower.answered(answer(20, two))).as_deref(),
            Some(r#"20 [{"ID":"b"},{"ID":"c"}]"#)
        );
        assert_eq!(follower.mark()[0].1, "20");
        assert_eq!(told(follower.answered(answer(20, two))), None);
        // Those that were told have made room.
        let later = r#"[{"ID":"d"}]"#;
        assert_eq!(told(follower.answered(answer(4, later))).as_deref(), Some(r#"4 [{"ID":"d"}]"#));
    }

    #[test]
    fn what_is_known_by_a_hash_is_asked_by_it() {
        let mut follower = Follower::new(Shape::Plain);
        let answer = Answer { status: 200, index: None, hash: Some("ab".into()), body: b"{}".to_vec() };
        assert_eq!(told(follower.answered(answer)).as_deref(), Some("1 {}"));
        assert_eq!(follower.mark()[0], ("hash", "ab".to_owned()));
    }
}
