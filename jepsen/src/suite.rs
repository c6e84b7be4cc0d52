//! All checks that fit a history, and what they say.

use std::fmt;

use serde::Serialize;

use crate::history::{Consistency, History, Nanos, Op, Operation};
use crate::sessions::Timing;
use crate::verdict::Verdict;
use crate::{
    catalog, fencing, index_order, linearizability, locks, serializability, sessions, sets, stale, views,
    watches,
};

/// Which promises hold in the world that the history comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What clocks may do.
    pub timing: Timing,
    /// Whether lock-delay is promised to hold (see [`locks::Rules`]).
    pub lock_delay: bool,
    /// How long a blocking query may sleep through a change (see [`watches::Rules`]).
    pub wake_within: Option<Nanos>,
    /// Whether stale readings are as fresh as they say (see [`stale::Rules`]).
    pub stale_bounds: bool,
    /// From when on the catalog shows what agents have (see [`catalog::Rules`]).
    pub converged_from: Option<Nanos>,
    /// How much work single keys may take.
    pub linearizability: linearizability::Budget,
    /// How much work keys that belong together may take.
    pub serializability: serializability::Budget,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            timing: Timing::default(),
            lock_delay: true,
            wake_within: None,
            stale_bounds: false,
            converged_from: None,
            linearizability: linearizability::Budget::default(),
            serializability: serializability::Budget::default(),
        }
    }
}

/// What one checker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Short name of the checker.
    pub name: &'static str,
    /// The promise, in a sentence.
    pub promise: &'static str,
    /// How many operations of the history it is about.
    pub operations: usize,
    /// Its verdict.
    pub verdict: Verdict,
}

/// What all checkers say that have something to judge in a history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order in which they should be read: what breaks an early one may be why a later one is broken.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether every promise is known to be kept.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.verdict.is_valid())
    }

    /// The checks that found a violation, or could not decide.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.verdict.is_valid())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            writeln!(f, "{} ({} operations): {}", check.name, check.operations, check.verdict)?;
        }
        Ok(())
    }
}

/// Runs every checker that has something to judge in the history.
///
/// What is restored breaks what single keys and sessions are promised; those are judged by what happened before the first
/// restore; watchers of a key, and the state of all keys, by the whole history.
#[must_use]
pub fn check(history: &History, rules: &Rules) -> Report {
    if let Err(error) = history.validate() {
        let verdict = Verdict::Undecided { why: error.to_string() };
        let operations = history.operations().len();
        let promise = "the history makes sense";
        return Report { checks: vec![Check { name: "history", promise, operations, verdict }] };
    }
    let before;
    let single = if history.may_be_restored() {
        before = before_restores(history);
        &before
    } else {
        history
    };
    let Rules { timing, .. } = *rules;
    let mut report = Report::default();
    let mut run = |name,
                   promise,
                   on: &History,
                   concerns: fn(&Operation) -> bool,
                   check: &dyn Fn(&History) -> Verdict| {
        let operations = on.operations().iter().filter(|operation| concerns(operation)).count();
        if operations > 0 {
            report.checks.push(Check { name, promise, operations, verdict: check(on) });
        }
    };
    run(
        "linearizability",
        "each key is a register with compare-and-set whose operations happen in one order, in real time",
        single,
        on_keys,
        &|history| linearizability::check(history, rules.linearizability),
    );
    run(
        "index order",
        "the modify indexes that clients saw are one order of all changes, in agreement with real time",
        single,
        on_keys,
        &index_order::check,
    );
    run(
        "strict serializability",
        "transactions, readings of prefixes and restored snapshots happen at once, in one order with all else",
        history,
        |o| matches!(o.op, Op::Txn { .. } | Op::List { .. } | Op::DeleteTree | Op::Restore { .. }),
        &|history| serializability::check(history, rules.serializability),
    );
    run(
        "sets",
        "what was added to a set is there, and nothing else",
        single,
        |o| matches!(o.op, Op::SetAdd { .. } | Op::SetRead { .. }),
        &sets::check,
    );
    run(
        "stale readings",
        "a stale reading shows a state that the key really had, no older than it says",
        single,
        |o| o.op.is_on_key() && o.op.consistency().is_some_and(|it| it != Consistency::Linearizable),
        &|history| stale::check(history, stale::Rules { timing, bounded: rules.stale_bounds }),
    );
    run(
        "sessions",
        "a session outlives its TTL, and what has ended stays ended",
        single,
        |o| o.op.session().is_some() || matches!(o.op, Op::SessionCreate { .. }),
        &|history| sessions::check(history, timing),
    );
    run(
        "locks",
        "a lock has one holder, its lock index grows, its lock-delay is waited out",
        single,
        |o| matches!(o.op, Op::Acquire { .. } | Op::Release { .. }),
        &|history| locks::check(history, locks::Rules { timing, lock_delay: rules.lock_delay }),
    );
    run(
        "fencing",
        "no write in the name of a lock's holder follows one of a later holder",
        single,
        |o| matches!(o.op, Op::FencedWrite { .. }),
        &fencing::check,
    );
    run(
        "watches",
        "a watcher of a key misses no last state, and its index never goes backwards",
        history,
        |o| matches!(o.op, Op::Watch { .. }),
        &|history| watches::check(history, watches::Rules { wake_within: rules.wake_within }),
    );
    run(
        "watches of many",
        "a watcher of a prefix or of the catalog sees or covers every change, and its index never goes backwards",
        single,
        |o| matches!(o.op, Op::List { .. } | Op::Catalog { .. }),
        &views::check,
    );
    run(
        "catalog",
        "the catalog shows what was registered, once each, and in the end nothing else",
        single,
        |o| matches!(o.op, Op::Register { .. } | Op::Deregister { .. } | Op::Catalog { .. }),
        &|history| catalog::check(history, catalog::Rules { converged_from: rules.converged_from }),
    );
    report
}

fn on_keys(operation: &Operation) -> bool {
    operation.op.is_on_key() || matches!(operation.op, Op::Txn { .. } | Op::List { .. } | Op::DeleteTree)
}

/// The history as it was when the first restore began.
fn before_restores(history: &History) -> History {
    let restores =
        history.operations().iter().filter(|o| matches!(o.op, Op::Restore { .. }) && o.may_be_done());
    history.until(restores.map(|restore| restore.invoked).min().unwrap_or(Nanos::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::{at, committed, set};
    use crate::history::{Outcome, Reply};

    fn names(report: &Report) -> Vec<&str> {
        report.checks.iter().map(|check| check.name).collect()
    }

    #[test]
    fn only_what_is_there_is_judged() {
        let history: History = vec![at(1, "k", 1, 2).write("a")].into();
        let report = check(&history, &Rules::default());
        assert!(report.passed());
        assert_eq!(names(&report), ["linearizability", "index order"]);
        let history: History = vec![
            at(1, "", 1, 2).is(set(&[("a", "1"), ("b", "1")]), committed(vec![None, None], 5)),
            at(1, "s", 1, 2).done(Op::SetAdd { element: "e".into() }),
        ]
        .into();
        let report = check(&history, &Rules::default());
        assert!(report.passed());
        assert_eq!(names(&report), ["linearizability", "index order", "strict serializability", "sets"]);
    }

    #[test]
    fn what_is_restored_is_no_stale_read() {
        let saved = Outcome::Ok(Reply::Snapshot { id: "s".into(), index: None });
        let history = |last: Operation| -> History {
            vec![
                at(1, "k", 1, 2).write("a"),
                at(2, "", 3, 4).is(Op::Save, saved.clone()),
                at(1, "k", 5, 6).write("b"),
                at(2, "", 7, 8).done(Op::Restore { snapshot: "s".into() }),
                last,
            ]
            .into()
        };
        let report = check(&history(at(1, "k", 9, 10).read("a", 5)), &Rules::default());
        assert!(report.passed(), "{report}");
        let report = check(&history(at(1, "k", 9, 10).read("b", 6)), &Rules::default());
        assert_eq!(report.failed().map(|check| check.name).collect::<Vec<_>>(), ["strict serializability"]);
    }

    #[test]
    fn a_report_can_be_shown_by_a_page() {
        let history: History = vec![at(1, "k", 1, 2).write("a"), at(1, "k", 3, 4).absent(9)].into();
        let report = check(&history, &Rules::default());
        assert!(!report.passed());
        let json = serde_json::to_value(&report).unwrap();
        let first = &json["checks"][0];
        assert_eq!(first["name"], "linearizability");
        assert_eq!(first["verdict"]["violated"]["key"], "k");
        assert_eq!(first["verdict"]["violated"]["operations"].as_array().unwrap().len(), 2);
        assert_eq!(serde_json::to_value(Verdict::Valid).unwrap(), "valid");
    }

    #[test]
    fn nonsense_is_no_pass() {
        let history: History = vec![at(1, "k", 3, 2).write("a")].into();
        assert!(!check(&history, &Rules::default()).passed());
    }
}
