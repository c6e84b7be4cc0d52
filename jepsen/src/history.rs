//! What concurrent clients asked and what they were told.
//!
//! A history is a list of [`Operation`]s. It is kept as JSON lines, one operation per line, so that a failing run can
//! be saved, mailed, cut by hand and checked again.
//!
//! Times are nanoseconds on one clock that all clients share; only their order and distances matter.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

/// Nanoseconds on the clock of the recorder.
pub type Nanos = u64;

/// How fresh an answer had been asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The answer must reflect everything that was acknowledged before the question.
    Linearizable,
    /// Any past state will do.
    Stale,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Read a key.
    Read {
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Blocking read of a key: answer once the index is above the given one, or the wait is over.
    Watch {
        /// The index that the client has already seen.
        index: u64,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Write a key, whatever is there. Values are unique within a history.
    Write {
        /// The new value.
        value: String,
    },
    /// Write a key if its modify index is still the expected one; 0 stands for «the key does not exist».
    Cas {
        /// The modify index that the client believes to be current.
        expected: u64,
        /// The new value.
        value: String,
    },
    /// Delete a key, whatever is there.
    Delete,
    /// Take a lock: write the key and make the session its holder, if nobody else is.
    Acquire {
        /// The session that is to hold the lock.
        session: String,
        /// The new value.
        value: String,
    },
    /// Give a lock back: write the key and clear its holder, if the session holds it.
    Release {
        /// The session that holds the lock.
        session: String,
        /// The new value.
        value: String,
    },
    /// Create a session; the operation's key is empty, the reply names the session.
    SessionCreate {
        /// Time to live without renewal; `None` for a session that only ends for other reasons.
        ttl: Option<Nanos>,
        /// How long a lock stays free after the session that held it was invalidated.
        lock_delay: Nanos,
        /// Whether the session's end deletes the keys that it holds, instead of releasing them.
        #[serde(default)]
        deletes_keys: bool,
    },
    /// Renew a session's TTL.
    SessionRenew {
        /// The session.
        session: String,
    },
    /// End a session.
    SessionDestroy {
        /// The session.
        session: String,
    },
    /// Ask whether a session exists.
    SessionRead {
        /// The session.
        session: String,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Anything done to what the session is bound to (its node deregistered, its check critical), whoever did it: from
    /// the invocation on, the session may end at any time.
    SessionUndermine {
        /// The session.
        session: String,
    },
}

impl Op {
    /// The session that the operation is about, if it is about one.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        match self {
            Op::Acquire { session, .. }
            | Op::Release { session, .. }
            | Op::SessionRenew { session }
            | Op::SessionDestroy { session }
            | Op::SessionRead { session, .. }
            | Op::SessionUndermine { session } => Some(session),
            Op::Read { .. }
            | Op::Watch { .. }
            | Op::Write { .. }
            | Op::Cas { .. }
            | Op::Delete
            | Op::SessionCreate { .. } => None,
        }
    }

    /// The value that the operation writes, if it writes one.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        match self {
            Op::Write { value }
            | Op::Cas { value, .. }
            | Op::Acquire { value, .. }
            | Op::Release { value, .. } => Some(value),
            Op::Read { .. }
            | Op::Watch { .. }
            | Op::Delete
            | Op::SessionCreate { .. }
            | Op::SessionRenew { .. }
            | Op::SessionDestroy { .. }
            | Op::SessionRead { .. }
            | Op::SessionUndermine { .. } => None,
        }
    }

    /// Whether the operation may change the key.
    #[must_use]
    pub fn mutates_key(&self) -> bool {
        self.value().is_some() || matches!(self, Op::Delete)
    }
}

/// A key as a reader saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value.
    pub value: String,
    /// Raft index of the change that wrote it.
    pub modify_index: u64,
    /// How often the key had been locked.
    #[serde(default)]
    pub lock_index: u64,
    /// The holder of the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// What the system answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The change was made.
    Done {
        /// Its Raft index, where the interface tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
    },
    /// The condition did not hold (index differs, lock is held or delayed, session is not the holder): nothing changed.
    Refused,
    /// The session does not exist: nothing changed.
    NoSession,
    /// A session was created, or still exists.
    Session {
        /// Its identity.
        id: String,
    },
    /// The state of a key.
    Read {
        /// The entry, `None` if the key does not exist.
        entry: Option<Entry>,
        /// The index to ask the next blocking query with (`X-Consul-Index`).
        index: u64,
    },
}

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
        matches!(self.outcome, Outcome::Ok(Reply::Done { .. }))
    }

    /// Whether the operation made its change, or may have.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        self.is_done() || self.outcome == Outcome::Unknown
    }

    /// The state that a read or a watch returned, with its index.
    #[must_use]
    pub fn observed(&self) -> Option<(Option<&Entry>, u64)> {
        match self.reply() {
            Some(Reply::Read { entry, index }) => Some((entry.as_ref(), *index)),
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
    /// operations of one key write the same value.
    ///
    /// # Errors
    ///
    /// [`HistoryError::Nonsense`] naming the operation.
    pub fn validate(&self) -> Result<(), HistoryError> {
        let nonsense =
            |why: &str, operation: &Operation| Err(HistoryError::Nonsense(format!("{why}: {operation:?}")));
        let mut written = std::collections::BTreeSet::new();
        for operation in &self.operations {
            if operation.completed.is_some_and(|at| at < operation.invoked) {
                return nonsense("an operation ends before it begins", operation);
            }
            if operation.completed.is_none() && operation.reply().is_some() {
                return nonsense("an answered operation has no time of completion", operation);
            }
            if let Some(value) = operation.op.value()
                && !written.insert((operation.key.as_str(), value))
            {
                return nonsense("a value is written twice to one key", operation);
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
pub(crate) mod testing {
    //! A short way to write histories by hand.

    use super::{Consistency, Entry, Nanos, Op, Operation, Outcome, Reply};

    /// Builds one operation: `at(client, "k", 10, 20)` and then what it was.
    pub(crate) struct At(Operation);

    pub(crate) fn at(client: u32, key: &str, invoked: Nanos, completed: Nanos) -> At {
        At(Operation {
            client,
            key: key.into(),
            op: Op::Delete,
            invoked,
            completed: Some(completed),
            outcome: Outcome::Unknown,
        })
    }

    impl At {
        pub(crate) fn is(mut self, op: Op, outcome: Outcome) -> Operation {
            self.0.op = op;
            self.0.outcome = outcome;
            self.0
        }

        pub(crate) fn done(self, op: Op) -> Operation {
            self.is(op, Outcome::Ok(Reply::Done { index: None }))
        }

        pub(crate) fn write(self, value: &str) -> Operation {
            self.done(Op::Write { value: value.into() })
        }

        pub(crate) fn write_at(self, value: &str, index: u64) -> Operation {
            self.is(Op::Write { value: value.into() }, Outcome::Ok(Reply::Done { index: Some(index) }))
        }

        pub(crate) fn write_unknown(self, value: &str) -> Operation {
            self.is(Op::Write { value: value.into() }, Outcome::Unknown)
        }

        pub(crate) fn cas(self, expected: u64, value: &str, reply: Reply) -> Operation {
            self.is(Op::Cas { expected, value: value.into() }, Outcome::Ok(reply))
        }

        pub(crate) fn absent(self, index: u64) -> Operation {
            self.read_entry(None, index)
        }

        pub(crate) fn read(self, value: &str, modify_index: u64) -> Operation {
            let entry = Entry { value: value.into(), modify_index, lock_index: 0, session: None };
            self.read_entry(Some(entry), modify_index)
        }

        pub(crate) fn read_entry(self, entry: Option<Entry>, index: u64) -> Operation {
            self.is(
                Op::Read { consistency: Consistency::Linearizable },
                Outcome::Ok(Reply::Read { entry, index }),
            )
        }
    }

    pub(crate) const DONE: Reply = Reply::Done { index: None };
}

#[cfg(test)]
mod tests {
    use super::testing::{DONE, at};
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
