//! What a checker says about a history, in words that a person can act on.

use std::fmt;

use crate::history::{Consistency, Entry, Op, Operation, Outcome, Reply};

/// The end of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The history keeps the promise.
    Valid,
    /// The history breaks the promise.
    Violated(Box<Violation>),
    /// The checker cannot tell: its budget is used up, or the history is not one that it can judge. Not a pass.
    Undecided {
        /// What stood in the way.
        why: String,
    },
}

impl Verdict {
    /// Whether the history is known to keep the promise.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        *self == Verdict::Valid
    }

    /// The violation, if there is one.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        match self {
            Verdict::Violated(violation) => Some(violation),
            Verdict::Valid | Verdict::Undecided { .. } => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Valid => write!(f, "valid"),
            Verdict::Violated(violation) => write!(f, "VIOLATED: {violation}"),
            Verdict::Undecided { why } => write!(f, "UNDECIDED: {why}"),
        }
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise, as a short name («linearizability», «lock exclusion»).
    pub property: &'static str,
    /// The key, or session, that shows it.
    pub key: String,
    /// One sentence that says what is wrong.
    pub summary: String,
    /// The operations that prove it, as few as were found.
    pub operations: Vec<Operation>,
}

impl Violation {
    /// A verdict with this violation, its operations in order of time.
    pub(crate) fn verdict<'a>(
        property: &'static str,
        key: &str,
        summary: String,
        operations: impl IntoIterator<Item = &'a Operation>,
    ) -> Verdict {
        let mut operations: Vec<Operation> = operations.into_iter().cloned().collect();
        operations.sort_by_key(|operation| (operation.invoked, operation.completed));
        operations.dedup();
        Verdict::Violated(Box::new(Violation { property, key: key.to_owned(), summary, operations }))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {:?}: {}", self.property, self.key, self.summary)?;
        let start = self.operations.iter().map(|operation| operation.invoked).min().unwrap_or(0);
        writeln!(f, "  times in ms from {start} ns")?;
        for operation in &self.operations {
            write!(f, "  client {:<4} {:>12} .. ", operation.client, Millis(operation.invoked - start))?;
            match (operation.completed, &operation.outcome) {
                (Some(at), Outcome::Ok(_) | Outcome::Failed) => write!(f, "{:<12} ", Millis(at - start))?,
                (Some(_), Outcome::Unknown) | (None, _) => write!(f, "{:<12} ", "?")?,
            }
            writeln!(f, "{} -> {}", Asked(&operation.op), Told(&operation.outcome))?;
        }
        Ok(())
    }
}

struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000))
    }
}

struct Asked<'a>(&'a Op);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stale = |consistency: &Consistency| match consistency {
            Consistency::Linearizable => "",
            Consistency::Stale => " (stale)",
        };
        match self.0 {
            Op::Read { consistency } => write!(f, "read{}", stale(consistency)),
            Op::Watch { index, consistency } => write!(f, "watch above {index}{}", stale(consistency)),
            Op::Write { value } => write!(f, "write {value:?}"),
            Op::Cas { expected, value } => write!(f, "write {value:?} if at {expected}"),
            Op::Delete => write!(f, "delete"),
            Op::Acquire { session, value } => write!(f, "acquire for {session} with {value:?}"),
            Op::Release { session, value } => write!(f, "release by {session} with {value:?}"),
            Op::SessionCreate { ttl, lock_delay, .. } => match ttl {
                Some(ttl) => write!(f, "create session, ttl {ttl} ns, lock-delay {lock_delay} ns"),
                None => write!(f, "create session, no ttl, lock-delay {lock_delay} ns"),
            },
            Op::SessionRenew { session } => write!(f, "renew session {session}"),
            Op::SessionDestroy { session } => write!(f, "destroy session {session}"),
            Op::SessionRead { session, consistency } => {
                write!(f, "read session {session}{}", stale(consistency))
            }
            Op::SessionUndermine { session } => write!(f, "take away what session {session} is bound to"),
        }
    }
}

struct Told<'a>(&'a Outcome);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Ok(Reply::Done { index: None }) => write!(f, "done"),
            Outcome::Ok(Reply::Done { index: Some(index) }) => write!(f, "done at {index}"),
            Outcome::Ok(Reply::Refused) => write!(f, "refused"),
            Outcome::Ok(Reply::NoSession) => write!(f, "no such session"),
            Outcome::Ok(Reply::Session { id }) => write!(f, "session {id}"),
            Outcome::Ok(Reply::Read { entry: None, index }) => write!(f, "absent, index {index}"),
            Outcome::Ok(Reply::Read { entry: Some(entry), index }) => {
                let Entry { value, modify_index, lock_index, session } = entry;
                write!(f, "{value:?} at {modify_index}")?;
                if let Some(session) = session {
                    write!(f, ", held by {session}")?;
                }
                if *lock_index > 0 {
                    write!(f, ", lock index {lock_index}")?;
                }
                if index != modify_index { write!(f, ", index {index}") } else { Ok(()) }
            }
            Outcome::Failed => write!(f, "failed"),
            Outcome::Unknown => write!(f, "unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::at;

    #[test]
    fn a_violation_reads_as_a_table_in_order_of_time() {
        let read = at(2, "a", 3_000_000, 4_500_000).absent(9);
        let write = at(1, "a", 1_000_000, 2_000_000).write("x");
        let text =
            Violation::verdict("linearizability", "a", "a lost write".into(), [&read, &write]).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "VIOLATED: linearizability of \"a\": a lost write");
        assert_eq!(lines[2].trim(), "client 1        0.000000 .. 1.000000     write \"x\" -> done");
        assert_eq!(lines[3].trim(), "client 2        2.000000 .. 3.500000     read -> absent, index 9");
    }
}
