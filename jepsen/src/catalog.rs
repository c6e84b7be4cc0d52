//! Does the catalog show what was registered, once each, and in the end nothing else?
//!
//! What is registered in the catalog itself is there when that is acknowledged. What is registered with an agent gets
//! there in the agent's own time (Consul, «Anti-Entropy»): of that it is asked that it arrives once all is quiet, and
//! that nobody ever sees a state which nobody had begun to register.

use std::collections::BTreeMap;

use crate::history::{Consistency, History, Nanos, Op, Operation, Reply, Through};
use crate::verdict::{Verdict, Violation};

const PROPERTY: &str = "catalog";

/// Which promises of the catalog to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Readings that begin at this time or later must show what agents have: faults have ended, all registrations are
    /// done, and every agent has had time to bring its own to the catalog. `None` where there is no such time.
    pub converged_from: Option<Nanos>,
}

/// Checks every reading of the catalog.
#[must_use]
pub fn check(history: &History, rules: Rules) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    let mut things: BTreeMap<&str, Thing<'_>> = BTreeMap::new();
    let mut reads = Vec::new();
    for operation in history.operations() {
        match (&operation.op, operation.reply()) {
            (Op::Register { through, .. } | Op::Deregister { through }, _) if operation.may_be_done() => {
                let thing = things.entry(&operation.key).or_default();
                thing.changes.push(operation);
                thing.by_agent |= *through == Through::Agent;
            }
            (Op::Catalog { consistency, .. }, Some(Reply::Catalog { entries, .. })) => {
                reads.push(Read { operation, entries, fresh: *consistency == Consistency::Linearizable });
            }
            _ => {}
        }
    }
    let mut settled: BTreeMap<&str, (Option<&str>, &Operation)> = BTreeMap::new();
    for read in &reads {
        if let Err((key, summary, proof)) = read.check(&things, rules, &mut settled) {
            return Violation::verdict(PROPERTY, &key, summary, proof);
        }
    }
    Verdict::Valid
}

type Broken<'a> = (String, String, Vec<&'a Operation>);

/// Something that can be registered.
#[derive(Default)]
struct Thing<'a> {
    /// What was done to it, or may have been.
    changes: Vec<&'a Operation>,
    by_agent: bool,
}

/// The state that a change leads to.
fn state(change: &Operation) -> Option<&str> {
    match &change.op {
        Op::Register { value, .. } => Some(value),
        _ => None,
    }
}

impl<'a> Thing<'a> {
    /// Whether the thing can have been in a state at some time between `from` and `to`, going by what the catalog itself
    /// was asked and has acknowledged.
    fn may_be(&self, wanted: Option<&str>, from: Nanos, to: Nanos) -> bool {
        let replaced = |since: Nanos| {
            self.changes.iter().any(|o| o.is_done() && since < o.invoked && o.effect_until() < from)
        };
        let by_change = |change: &&Operation| {
            state(change) == wanted && change.invoked <= to && !replaced(change.effect_until())
        };
        let at_first =
            wanted.is_none() && !self.changes.iter().any(|o| o.is_done() && o.effect_until() < from);
        at_first || self.changes.iter().any(by_change)
    }

    /// The latest change that replaced others before a moment, to show what was expected.
    fn latest(&self, before: Nanos) -> Option<&'a Operation> {
        self.changes.iter().copied().filter(|o| o.effect_until() < before).max_by_key(|o| o.invoked)
    }
}

struct Read<'a> {
    operation: &'a Operation,
    entries: &'a [(String, String)],
    fresh: bool,
}

impl<'a> Read<'a> {
    fn check(
        &self,
        things: &BTreeMap<&'a str, Thing<'a>>,
        rules: Rules,
        settled: &mut BTreeMap<&'a str, (Option<&'a str>, &'a Operation)>,
    ) -> Result<(), Broken<'a>> {
        let Read { operation, entries, fresh } = *self;
        let mut shown: BTreeMap<&str, &str> = BTreeMap::new();
        for (path, value) in entries {
            if shown.insert(path, value).is_some() {
                return Err((path.clone(), "it is shown twice".to_owned(), vec![operation]));
            }
            let begun = |change: &&&Operation| {
                state(change) == Some(value) && Some(change.invoked) <= operation.completed
            };
            if things.get(path.as_str()).and_then(|thing| thing.changes.iter().find(begun)).is_none() {
                let why = format!("{value:?} is shown, which nobody had begun to register");
                return Err((path.clone(), why, vec![operation]));
            }
        }
        if !fresh {
            return Ok(());
        }
        let converged = rules.converged_from.is_some_and(|from| operation.invoked >= from);
        let prefix = operation.key.as_str();
        for (path, thing) in things.range(prefix..).take_while(|(path, _)| path.starts_with(prefix)) {
            let value = shown.get(path).copied();
            if (converged || !thing.by_agent)
                && !thing.may_be(value, operation.invoked, operation.effect_until())
            {
                let why = match value {
                    Some(value) => format!("{value:?} is shown, which had been replaced"),
                    None => "it is missing, though it is registered".to_owned(),
                };
                let proof = thing.latest(operation.invoked).into_iter().chain([operation]).collect();
                return Err(((*path).to_owned(), why, proof));
            }
            if converged {
                let (before, by) = *settled.entry(path).or_insert((value, operation));
                if before != value {
                    let why =
                        format!("it is {} and then {}, though nothing happened", Shown(before), Shown(value));
                    return Err(((*path).to_owned(), why, vec![by, operation]));
                }
            }
        }
        Ok(())
    }
}

struct Shown<'a>(Option<&'a str>);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value:?}"),
            None => write!(f, "absent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;
    use crate::history::testing::at;

    const PATH: &str = "service/web/n1/web-1";

    fn register(from: Nanos, to: Nanos, value: &str, through: Through) -> Operation {
        at(1, PATH, from, to).done(Op::Register { value: value.into(), through })
    }

    fn deregister(from: Nanos, to: Nanos, through: Through) -> Operation {
        at(1, PATH, from, to).done(Op::Deregister { through })
    }

    fn read(from: Nanos, to: Nanos, entries: &[(&str, &str)]) -> Operation {
        let entries = entries.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect();
        let op = Op::Catalog { above: None, consistency: Consistency::Linearizable };
        at(2, "service/web/", from, to).is(op, Outcome::Ok(Reply::Catalog { entries, index: 9 }))
    }

    fn verdict(operations: Vec<Operation>, converged_from: Option<Nanos>) -> Verdict {
        check(&operations.into(), Rules { converged_from })
    }

    #[track_caller]
    fn passes(operations: Vec<Operation>, converged_from: Option<Nanos>) {
        let verdict = verdict(operations, converged_from);
        assert!(verdict.is_valid(), "{verdict}");
    }

    #[track_caller]
    fn fails(operations: Vec<Operation>, converged_from: Option<Nanos>, why: &str) {
        let verdict = verdict(operations, converged_from);
        assert!(verdict.violation().is_some_and(|v| v.summary.contains(why)), "{verdict}");
    }

    #[test]
    fn what_the_catalog_was_told_is_there_at_once() {
        let told =
            |read| vec![register(1, 2, "v1", Through::Catalog), register(3, 4, "v2", Through::Catalog), read];
        passes(told(read(5, 6, &[(PATH, "v2")])), None);
        passes(told(read(3, 6, &[(PATH, "v1")])), None);
        fails(told(read(5, 6, &[(PATH, "v1")])), None, "had been replaced");
        fails(told(read(5, 6, &[])), None, "it is missing");
    }

    #[test]
    fn what_an_agent_was_told_arrives_in_the_end() {
        let told =
            |read| vec![register(1, 2, "v1", Through::Agent), register(3, 4, "v2", Through::Agent), read];
        passes(told(read(5, 6, &[])), None);
        passes(told(read(5, 6, &[])), Some(10));
        passes(told(read(10, 11, &[(PATH, "v2")])), Some(10));
        fails(told(read(10, 11, &[(PATH, "v1")])), Some(10), "had been replaced");
        fails(told(read(10, 11, &[])), Some(10), "it is missing");
    }

    #[test]
    fn a_ghost_fails() {
        fails(vec![read(5, 6, &[("service/web/n9/x", "v1")])], None, "nobody had begun to register");
        let gone = vec![
            register(1, 2, "v1", Through::Agent),
            deregister(3, 4, Through::Agent),
            read(10, 11, &[(PATH, "v1")]),
        ];
        passes(gone.clone(), None);
        fails(gone, Some(10), "had been replaced");
    }

    #[test]
    fn a_duplicate_fails() {
        let history = vec![register(1, 2, "v1", Through::Agent), read(5, 6, &[(PATH, "v1"), (PATH, "v1")])];
        fails(history, None, "shown twice");
    }

    #[test]
    fn a_change_of_unknown_outcome_may_have_happened_but_only_one_way() {
        let unknown = Operation { outcome: Outcome::Unknown, ..register(3, 4, "v2", Through::Agent) };
        let told = |reads: &[&str]| {
            let mut history = vec![register(1, 2, "v1", Through::Agent), unknown.clone()];
            history.extend(reads.iter().zip(10..).map(|(value, at)| read(at, at, &[(PATH, value)])));
            history
        };
        passes(told(&["v1", "v1"]), Some(10));
        passes(told(&["v2", "v2"]), Some(10));
        fails(told(&["v2", "v1"]), Some(10), "though nothing happened");
    }
}
