//! What the checkers say about a run.

use super::Run;
use super::clients::Freshness;
use crate::history::{History, Nanos, Op, Operation};
use crate::process::faults::two_leaders;
use crate::verdict::{Verdict, Violation};
use crate::{linearizability, locks, suite};

/// The end of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The promise was kept.
    Passed,
    /// It was broken.
    Violated,
    /// The checker cannot tell. Not a pass.
    Undecided,
    /// This run has nothing that could be judged. Not a failure.
    Absent,
}

/// A promise, and whether it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The promise.
    pub name: &'static str,
    /// Whether it was kept.
    pub judgement: Judgement,
    /// How much was judged, or what is wrong.
    pub says: String,
    /// The operations that show it, as few as were found.
    pub violation: Option<Violation>,
}

impl Finding {
    fn new(name: &'static str, judgement: Judgement, says: String) -> Finding {
        Finding { name, judgement, says, violation: None }
    }

    /// Whether it spoils the run.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        matches!(self.judgement, Judgement::Violated | Judgement::Undecided)
    }

    fn of(name: &'static str, history: &History, check: impl FnOnce(&History) -> Verdict) -> Finding {
        let operations = history.operations().len();
        if operations == 0 {
            return Finding::new(name, Judgement::Absent, "no such operations".to_owned());
        }
        Finding::of_verdict(name, operations, check(history))
    }

    fn of_verdict(name: &'static str, operations: usize, verdict: Verdict) -> Finding {
        match verdict {
            Verdict::Valid => Finding::new(name, Judgement::Passed, format!("{operations} operations")),
            Verdict::Violated(violation) => Finding {
                name,
                judgement: Judgement::Violated,
                says: violation.summary.clone(),
                violation: Some(*violation),
            },
            Verdict::Undecided { why } => Finding::new(name, Judgement::Undecided, why),
        }
    }

    fn from_result(name: &'static str, result: Result<String, String>) -> Finding {
        match result {
            Ok(says) => Finding::new(name, Judgement::Passed, says),
            Err(says) => Finding::new(name, Judgement::Violated, says),
        }
    }
}

/// Checks everything about a run.
#[must_use]
pub fn judge(run: &Run) -> Vec<Finding> {
    let mut findings = check(&run.history, Some(run.converged_from));
    let bad: Vec<&str> =
        run.events.iter().filter(|event| event.bad).map(|event| event.what.as_str()).collect();
    let ended =
        if bad.is_empty() { Ok("no process ended by itself".to_owned()) } else { Err(bad.join("; ")) };
    findings.push(Finding::from_result("processes", ended));
    findings.push(match (two_leaders(&run.elections), run.elections.len()) {
        (Some(two), _) => {
            Finding::new("one leader per term", Judgement::Violated, format!("two in one term: {two:?}"))
        }
        (None, 0) => {
            let says = "the program's log does not tell terms".to_owned();
            Finding::new("one leader per term", Judgement::Absent, says)
        }
        (None, many) => Finding::new("one leader per term", Judgement::Passed, format!("{many} sightings")),
    });
    let recovered = match (&run.recovery, &run.last_reads) {
        (Ok(took), Ok(())) => {
            Ok(format!("all agents at work {:.1} s after the last fault", took.as_secs_f64()))
        }
        (Err(why), _) | (_, Err(why)) => Err(why.clone()),
    };
    findings.push(Finding::from_result("recovery", recovered));
    findings
}

/// What all checkers said, one by one.
#[must_use]
pub fn findings(report: suite::Report) -> Vec<Finding> {
    let of = |check: suite::Check| Finding::of_verdict(check.name, check.operations, check.verdict);
    report.checks.into_iter().map(of).collect()
}

/// Checks a history of a trial, in which the catalog shows from a certain time on what the agents have.
#[must_use]
pub fn check(history: &History, converged_from: Option<Nanos>) -> Vec<Finding> {
    let part = |wanted: &dyn Fn(&Operation) -> bool| -> History {
        history.operations().iter().filter(|operation| wanted(operation)).cloned().collect()
    };
    let of = |freshness: Freshness| part(&|operation| operation.key.starts_with(freshness.prefix()));
    let linearizable =
        |history: &History| linearizability::check(history, linearizability::Budget::default());
    let rules = suite::Rules { converged_from, lock_delay: false, ..suite::Rules::default() };
    let locking = part(&|operation| {
        operation.key.starts_with("lock/")
            || operation.op.session().is_some()
            || matches!(operation.op, Op::SessionCreate { .. })
    });
    // Both ways to read promise the same, and each is judged by itself besides.
    let mut findings = vec![
        Finding::of("linearizability, ?consistent", &of(Freshness::Consistent), linearizable),
        Finding::of("linearizability, default", &of(Freshness::Default), linearizable),
    ];
    findings.extend(self::findings(suite::check(history, &rules)));
    // By itself, because a lock whose delay is cut short is still a lock.
    findings
        .push(Finding::of("lock-delay", &locking, |history| locks::check(history, locks::Rules::default())));
    findings
}
