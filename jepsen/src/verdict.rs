//! What a checker says about a history, in words that a person can act on.

use std::fmt;

use serde::Serialize;

use crate::history::{Consistency, Entry, Op, Operation, Outcome, Reply, Through, TxnAction, TxnVerb};

/// The end of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
            Consistency::Stale | Consistency::StaleWithin(_) => " (stale)",
        };
        match self.0 {
            Op::Read { consistency } => write!(f, "read{}", stale(consistency)),
            Op::Watch { index, consistency } => write!(f, "watch above {index}{}", stale(consistency)),
            Op::Write { value } => write!(f, "write {value:?}"),
            Op::Cas { expected, value } => write!(f, "write {value:?} if at {expected}"),
            Op::Delete => write!(f, "delete"),
            Op::DeleteCas { expected } => write!(f, "delete if at {expected}"),
            Op::DeleteTree => write!(f, "delete all below"),
            Op::List { above: None, consistency } => write!(f, "list{}", stale(consistency)),
            Op::List { above: Some(index), consistency } => {
                write!(f, "watch all below above {index}{}", stale(consistency))
            }
            Op::Txn { actions, consistency } => {
                write!(f, "transaction{}", stale(consistency))?;
                list(f, actions, do_one)
            }
            Op::Acquire { session, value } => write!(f, "acquire for {session} with {value:?}"),
            Op::Release { session, value } => write!(f, "release by {session} with {value:?}"),
            Op::FencedWrite { lock, session, fence, value } => {
                write!(f, "write {value:?} as holder {session} of {lock:?} with {fence}")
            }
            Op::SetAdd { element } => write!(f, "add {element:?}"),
            Op::SetRead { consistency } => write!(f, "read set{}", stale(consistency)),
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
            Op::Register { value, through: Through::Agent } => write!(f, "register {value:?} with an agent"),
            Op::Register { value, through: Through::Catalog } => write!(f, "register {value:?}"),
            Op::Deregister { through: Through::Agent } => write!(f, "deregister with an agent"),
            Op::Deregister { through: Through::Catalog } => write!(f, "deregister"),
            Op::Catalog { above: None, consistency } => write!(f, "read catalog{}", stale(consistency)),
            Op::Catalog { above: Some(index), consistency } => {
                write!(f, "watch catalog above {index}{}", stale(consistency))
            }
            Op::Save => write!(f, "save"),
            Op::Restore { snapshot } => write!(f, "restore {snapshot}"),
        }
    }
}

/// So many parts of an operation are shown.
const PARTS_SHOWN: usize = 12;

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    show: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (at, item) in items.iter().take(PARTS_SHOWN).enumerate() {
        write!(f, "{}", if at == 0 { ": " } else { "; " })?;
        show(f, item)?;
    }
    match items.len().saturating_sub(PARTS_SHOWN) {
        0 => Ok(()),
        more => write!(f, "; and {more} more"),
    }
}

fn do_one(f: &mut fmt::Formatter<'_>, TxnAction { key, verb }: &TxnAction) -> fmt::Result {
    match verb {
        TxnVerb::Get => write!(f, "get {key:?}"),
        TxnVerb::GetOrEmpty => write!(f, "get {key:?} if it exists"),
        TxnVerb::CheckIndex { index } => write!(f, "{key:?} is at {index}"),
        TxnVerb::CheckNotExists => write!(f, "{key:?} is absent"),
        TxnVerb::CheckSession { session } => write!(f, "{key:?} is held by {session}"),
        TxnVerb::Set { value } => write!(f, "set {key:?} = {value:?}"),
        TxnVerb::Cas { expected, value } => write!(f, "set {key:?} = {value:?} if at {expected}"),
        TxnVerb::Delete => write!(f, "delete {key:?}"),
        TxnVerb::DeleteCas { expected } => write!(f, "delete {key:?} if at {expected}"),
    }
}

fn told_read(f: &mut fmt::Formatter<'_>, entry: Option<&Entry>, index: u64) -> fmt::Result {
    let Some(Entry { value, modify_index, lock_index, session }) = entry else {
        return write!(f, "absent, index {index}");
    };
    write!(f, "{value:?} at {modify_index}")?;
    if let Some(session) = session {
        write!(f, ", held by {session}")?;
    }
    if *lock_index > 0 {
        write!(f, ", lock index {lock_index}")?;
    }
    if index != *modify_index { write!(f, ", index {index}") } else { Ok(()) }
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
            Outcome::Ok(Reply::Read { entry, index }) => told_read(f, entry.as_ref(), *index),
            Outcome::Ok(Reply::ReadStale { entry, index, last_contact, known_leader }) => {
                told_read(f, entry.as_ref(), *index)?;
                write!(f, ", last contact {last_contact} ns ago")?;
                if *known_leader { Ok(()) } else { write!(f, ", no leader known") }
            }
            Outcome::Ok(Reply::List { entries, index }) => {
                write!(f, "index {index}")?;
                list(f, entries, |f, (key, Entry { value, modify_index, .. })| {
                    write!(f, "{key:?} = {value:?} at {modify_index}")
                })
            }
            Outcome::Ok(Reply::Txn { entries, index }) => {
                match index {
                    Some(index) => write!(f, "done at {index}")?,
                    None => write!(f, "done")?,
                }
                list(f, entries, |f, entry| match entry {
                    Some(Entry { value, modify_index, .. }) => write!(f, "{value:?} at {modify_index}"),
                    None => write!(f, "-"),
                })
            }
            Outcome::Ok(Reply::RolledBack { failed }) => write!(f, "rolled back, because of {failed:?}"),
            Outcome::Ok(Reply::Set { elements }) => {
                write!(f, "{} elements", elements.len())?;
                list(f, elements, |f, element| write!(f, "{element:?}"))
            }
            Outcome::Ok(Reply::Catalog { entries, index }) => {
                write!(f, "index {index}")?;
                list(f, entries, |f, (path, value)| write!(f, "{path:?} = {value:?}"))
            }
            Outcome::Ok(Reply::Snapshot { id, index: None }) => write!(f, "snapshot {id}"),
            Outcome::Ok(Reply::Snapshot { id, index: Some(index) }) => write!(f, "snapshot {id} at {index}"),
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
