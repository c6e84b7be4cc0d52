//! What concurrent clients asked and what they were told.
//!
//! A history is a list of [`Operation`]s. It is kept as JSON lines, one operation per line, so that a failing run can
//! be saved, mailed, cut by hand and checked again.
//!
//! Times are nanoseconds on one clock that all clients share; only their order and distances matter.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

mod op;
mod parts;
#[cfg(test)]
pub(crate) mod testing;

pub use op::{Consistency, Entry, Op, Reply, Through, TxnAction, TxnVerb};
pub use parts::Parts;

/// Nanoseconds on the clock of the recorder.
pub type Nanos = u64;

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There was an answer.
    Ok(Reply),
    /// The operation certainly had no effect and never will.
    Failed,
    /// The operation may have had its effect, may get it later, or never.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked. A client asks one thing at a time.
    pub client: u32,
    /// The key, or empty where the operation has none.
    pub key: String,
    /// What was asked.
    pub op: Op,
    /// When the client began to ask.
    pub invoked: Nanos,
    /// When the client knew the outcome, or gave up; `None` if the history ended before.
    pub completed: Option<Nanos>,
    /// What the client knows.
    pub outcome: Outcome,
}

impl Operation {
    /// The latest moment at which the operation can have taken effect: its completion if it was answered, no bound
    /// otherwise.
    #[must_use]
    pub fn effect_until(&self) -> Nanos {
        match (&self.outcome, self.completed) {
            (Outcome::Ok(_), Some(at)) => at,
            (Outcome::Ok(_), None) | (Outcome::Failed | Outcome::Unknown, _) => Nanos::MAX,
        }
    }

    /// The reply, if there was one.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        match &self.outcome {
            Outcome::Ok(reply) => Some(reply),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }

    /// Whether the operation made its change, as the client was told.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Ok(Reply::Done { .. } | Reply::Txn { .. }))
    }

    /// Whether the operation made its change, or may have.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        self.is_done() || self.outcome == Outcome::Unknown
    }

    /// The keys and values that the operation writes.
    pub fn writes(&self) -> impl Iterator<Item = (&str, &str)> {
        let actions: &[TxnAction] = match &self.op {
            Op::Txn { actions, .. } => actions,
            _ => &[],
        };
        let own = self.op.value().map(|value| (self.key.as_str(), value));
        own.into_iter().chain(actions.iter().filter_map(|it| Some((it.key.as_str(), it.verb.value()?))))
    }

    /// The state that a read or a watch returned, with its index.
    #[must_use]
    pub fn observed(&self) -> Option<(Option<&Entry>, u64)> {
        match self.reply() {
            Some(Reply::Read { entry, index } | Reply::ReadStale { entry, index, .. }) => {
                Some((entry.as_ref(), *index))
            }
            _ => None,
        }
    }

    /// The state that a linearizable read or watch returned.
    #[must_use]
    pub fn observed_fresh(&self) -> Option<Option<&Entry>> {
        match self.op {
            Op::Read { consistency: Consistency::Linearizable }
            | Op::Watch { consistency: Consistency::Linearizable, .. } => {
                self.observed().map(|(entry, _)| entry)
            }
            _ => None,
        }
    }
}

/// The operations of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
}

/// The place of an operation in its history, from [`History::invoke`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(usize);

/// Why a history cannot be read or makes no sense.
#[derive(Debug)]
pub enum HistoryError {
    /// Reading or writing failed.
    Io(io::Error),
    /// A line is no operation.
    Line {
        /// Line number, from 1.
        line: usize,
        /// What the parser says.
        error: serde_json::Error,
    },
    /// An operation contradicts itself or another one.
    Nonsense(String),
}

impl std::fmt::Display for HistoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HistoryError::Io(error) => write!(f, "history: {error}"),
            HistoryError::Line { line, error } => write!(f, "history, line {line}: {error}"),
            HistoryError::Nonsense(why) => write!(f, "history: {why}"),
        }
    }
}

impl std::error::Error for HistoryError {}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new() -> History {
        History::default()
    }

    /// Whether the store's state may have been replaced by a saved one.
    #[must_use]
    pub fn may_be_restored(&self) -> bool {
        self.operations.iter().any(|o| matches!(o.op, Op::Restore { .. }) && o.may_be_done())
    }

    /// The history as it was at a moment: what had not been answered by then was still open.
    #[must_use]
    pub fn until(&self, end: Nanos) -> History {
        let begun = self.operations.iter().filter(|operation| operation.invoked < end);
        begun
            .map(|operation| match operation.completed {
                Some(at) if at < end => operation.clone(),
                _ => Operation { completed: None, outcome: Outcome::Unknown, ..operation.clone() },
            })
            .collect()
    }

    /// All operations, in the order of recording.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Records that a client begins an operation. Its outcome is unknown until [`History::complete`].
    pub fn invoke(&mut self, client: u32, key: impl Into<String>, op: Op, now: Nanos) -> OperationId {
        self.operations.push(Operation {
            client,
            key: key.into(),
            op,
            invoked: now,
            completed: None,
            outcome: Outcome::Unknown,
        });
        OperationId(self.operations.len() - 1)
    }

    /// Records the outcome of an operation.
    ///
    /// # Panics
    ///
    /// If the operation already has an outcome, or ends before it began.
    pub fn complete(&mut self, id: OperationId, outcome: Outcome, now: Nanos) {
        let operation = &mut self.operations[id.0];
        assert!(operation.completed.is_none(), "an operation has one outcome: {operation:?}");
        assert!(operation.invoked <= now, "an operation ends after its invocation: {operation:?}, now {now}");
        operation.completed = Some(now);
        operation.outcome = outcome;
    }

    /// Writes one JSON line per operation.
    ///
    /// # Errors
    ///
    /// [`HistoryError::Io`] if writing fails.
    pub fn save(&self, mut to: impl Write) -> Result<(), HistoryError> {
        for operation in &self.operations {
            let line =
                serde_json::to_string(operation).expect("an operation has no map keys that JSON lacks");
            writeln!(to, "{line}").map_err(HistoryError::Io)?;
        }
        to.flush().map_err(HistoryError::Io)
    }

    /// Reads what [`History::save`] wrote. Empty lines are skipped.
    ///
    /// # Errors
    ///
    /// If reading fails, a line is no operation, or the history makes no sense.
    pub fn load(from: impl BufRead) -> Result<History, HistoryError> {
        let mut operations = Vec::new();
        for (number, line) in from.lines().enumerate() {
            let line = line.map_err(HistoryError::Io)?;
            if !line.trim().is_empty() {
                operations.push(
                    serde_json::from_str(&line)
                        .map_err(|error| HistoryError::Line { line: number + 1, error })?,
                );
            }
        }
        let history = History { operations };
        history.validate()?;
        Ok(history)
    }

    /// Checks what every checker relies upon: no operation ends before it began, an answered one has ended, and no two
    /// operations of one key write the same value, no element is added twice, and results belong to their questions.
    ///
    /// # Errors
    ///
    /// [`HistoryError::Nonsense`] naming the operation.
    pub fn validate(&self) -> Result<(), HistoryError> {
        let nonsense =
            |why: &str, operation: &Operation| Err(HistoryError::Nonsense(format!("{why}: {operation:?}")));
        let mut written = BTreeSet::new();
        let mut added = BTreeSet::new();
        let mut saved = BTreeSet::new();
        for operation in &self.operations {
            if operation.completed.is_some_and(|at| at < operation.invoked) {
                return nonsense("an operation ends before it begins", operation);
            }
            if operation.completed.is_none() && operation.reply().is_some() {
                return nonsense("an answered operation has no time of completion", operation);
            }
            if operation.writes().any(|write| !written.insert(write)) {
                return nonsense("a value is written twice to one key", operation);
            }
            match (&operation.op, operation.reply()) {
                (Op::SetAdd { element }, _) if !added.insert((&operation.key, element)) => {
                    return nonsense("an element is added twice to one set", operation);
                }
                (Op::Txn { actions, .. }, Some(Reply::Txn { entries, .. }))
                    if entries.len() != actions.len() =>
                {
                    return nonsense("a transaction has not one result per action", operation);
                }
                (Op::Txn { actions, .. }, Some(Reply::RolledBack { failed }))
                    if failed.iter().any(|at| *at >= actions.len()) =>
                {
                    return nonsense("an action failed that was not asked for", operation);
                }
                (Op::Save, Some(Reply::Snapshot { id, .. })) if !saved.insert(id) => {
                    return nonsense("two snapshots have one name", operation);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl From<Vec<Operation>> for History {
    fn from(operations: Vec<Operation>) -> History {
        History { operations }
    }
}

impl FromIterator<Operation> for History {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> History {
        History { operations: operations.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{DONE, at, committed, get, rolled_back, set};
    use super::*;

    #[test]
    fn a_history_survives_being_saved_and_loaded() {
        let mut history: History = vec![
            at(1, "a", 1, 2).write_at("1:1", 7),
            at(2, "a", 1, 3).read("1:1", 7),
            at(2, "a", 4, 5).absent(9),
            at(3, "a", 4, 5).cas(7, "3:1", Reply::Refused),
            at(1, "l", 4, 5).done(Op::Acquire { session: "s".into(), value: "x".into() }),
        ]
        .into();
        let open =
            history.invoke(9, "", Op::SessionCreate { ttl: Some(10), lock_delay: 0, deletes_keys: false }, 6);
        history.complete(open, Outcome::Ok(Reply::Session { id: "s".into() }), 8);
        history.invoke(9, "a", Op::Delete, 9);
        let mut bytes = Vec::new();
        history.save(&mut bytes).unwrap();
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 7);
        assert_eq!(History::load(bytes.as_slice()).unwrap(), history);
    }

    #[test]
    fn every_kind_of_operation_survives_being_saved_and_loaded() {
        let entry = || Entry { value: "v".into(), modify_index: 5, lock_index: 1, session: Some("s".into()) };
        let consistency = Consistency::StaleWithin(7);
        let stale = Reply::ReadStale { entry: Some(entry()), index: 5, last_contact: 9, known_leader: false };
        let list = Reply::List { entries: vec![("k/1".into(), entry())], index: 6 };
        let catalog = Reply::Catalog { entries: vec![("node/n1".into(), "up".into())], index: 6 };
        let fenced = Op::FencedWrite { lock: "l".into(), session: "s".into(), fence: 3, value: "f".into() };
        let elements = vec!["e".to_owned()];
        let register = Op::Register { value: "up".into(), through: Through::Catalog };
        let history: History = vec![
            at(1, "", 1, 2).is(set(&[("a", "x"), ("b", "x")]), committed(vec![None, None], 5)),
            at(1, "", 1, 2).is(get(&["a", "b"]), committed(vec![Some(entry()), None], 0)),
            at(1, "", 1, 2).is(set(&[("a", "y")]), rolled_back(&[0])),
            at(1, "k", 1, 2).is(Op::Read { consistency }, Outcome::Ok(stale)),
            at(1, "k/", 1, 2).is(Op::List { above: Some(3), consistency }, Outcome::Ok(list)),
            at(1, "k", 1, 2).done(Op::DeleteCas { expected: 5 }),
            at(1, "k/", 1, 2).done(Op::DeleteTree),
            at(1, "r", 1, 2).done(fenced),
            at(1, "s", 1, 2).done(Op::SetAdd { element: "e".into() }),
            at(1, "s", 1, 2).is(Op::SetRead { consistency }, Outcome::Ok(Reply::Set { elements })),
            at(1, "node/n1", 1, 2).done(register),
            at(1, "node/n1", 1, 2).done(Op::Deregister { through: Through::Agent }),
            at(1, "node/", 1, 2).is(Op::Catalog { above: None, consistency }, Outcome::Ok(catalog)),
            at(1, "", 1, 2).is(Op::Save, Outcome::Ok(Reply::Snapshot { id: "1".into(), index: Some(4) })),
            at(1, "", 1, 2).done(Op::Restore { snapshot: "1".into() }),
        ]
        .into();
        let mut bytes = Vec::new();
        history.save(&mut bytes).unwrap();
        assert_eq!(History::load(bytes.as_slice()).unwrap(), history);
    }

    #[test]
    fn a_history_of_earlier_versions_can_be_read() {
        let old = r#"{"client":1,"key":"k","op":{"read":{"consistency":"stale"}},"invoked":1,"completed":2,"outcome":{"ok":{"read":{"entry":{"value":"a","modify_index":5},"index":5}}}}
{"client":1,"key":"","op":{"session_create":{"ttl":null,"lock_delay":0}},"invoked":1,"completed":null,"outcome":"unknown"}
{"client":1,"key":"k","op":"delete","invoked":1,"completed":2,"outcome":{"ok":{"done":{}}}}
"#;
        assert_eq!(History::load(old.as_bytes()).unwrap().operations().len(), 3);
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = History::load("\n{\"client\":1}\n".as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("history, line 2: missing field"), "{error}");
    }

    #[test]
    fn a_value_written_twice_makes_no_sense() {
        let history: History = vec![at(1, "a", 1, 2).write("x"), at(1, "a", 3, 4).cas(1, "x", DONE)].into();
        assert!(history.validate().unwrap_err().to_string().contains("written twice"));
    }

    #[test]
    fn an_operation_that_ends_before_it_begins_makes_no_sense() {
        let history: History = vec![at(1, "a", 3, 2).write("x")].into();
        assert!(history.validate().unwrap_err().to_string().contains("ends before it begins"));
    }

    #[test]
    fn only_an_answer_bounds_the_effect() {
        assert_eq!(at(1, "a", 3, 9).write("x").effect_until(), 9);
        assert_eq!(at(1, "a", 3, 9).write_unknown("x").effect_until(), Nanos::MAX);
    }
}
