//! Is every key a linearizable register?
//!
//! Operations on different keys cannot contradict each other, so that each key is checked alone (Herlihy and Wing,
//! «Linearizability», 1990, theorem 1). A key is a register with read, write, delete and compare-and-set by modify index.
//! Keys on which a lock was taken or given back are no plain registers and are not judged here.

mod minimize;
mod model;
#[cfg(test)]
mod naive;
mod search;
#[cfg(test)]
mod tests;

use crate::history::{History, Op, Operation, Parts};
use crate::verdict::{Verdict, Violation};

const PROPERTY: &str = "linearizability";

/// How much work a check may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Search nodes per key. A node costs about 0.5 µs and 20 bytes in a release build.
    pub nodes_per_key: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { nodes_per_key: 5_000_000 }
    }
}

/// Checks every key of a history. The first key with a violation decides; a key that was too hard makes the verdict
/// undecided unless another one is violated.
#[must_use]
pub fn check(history: &History, budget: Budget) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    let parts = Parts::new(history);
    let mut undecided = None;
    for (key, operations) in parts.by_key() {
        if operations.iter().any(|o| matches!(o.op, Op::Acquire { .. } | Op::Release { .. })) {
            continue;
        }
        match check_key(key, &operations, budget) {
            Verdict::Valid => {}
            violated @ Verdict::Violated(_) => return violated,
            verdict @ Verdict::Undecided { .. } => undecided = Some(verdict),
        }
    }
    undecided.unwrap_or(Verdict::Valid)
}

fn check_key(key: &str, operations: &[&Operation], budget: Budget) -> Verdict {
    let model = match model::compile(operations) {
        Ok(model) => model,
        Err(impossible) => {
            let proof = impossible.operations.iter().map(|at| operations[*at]);
            return Violation::verdict(PROPERTY, key, impossible.summary, proof);
        }
    };
    match search::search(&model, budget.nodes_per_key).0 {
        search::Found::Order => Verdict::Valid,
        search::Found::OutOfBudget => Verdict::Undecided {
            why: format!(
                "key {key:?} with {} operations needs more than {} search nodes; use more keys or fewer clients per key",
                operations.len(),
                budget.nodes_per_key
            ),
        },
        search::Found::NoOrder => {
            let minimal = minimize::minimize(&model);
            let proof = minimal.steps.iter().map(|step| operations[step.source]);
            let summary = format!(
                "no order of these operations (of {} in all) explains the answers; the history is in order until {} ns",
                operations.len(),
                minimal.broken_at
            );
            Violation::verdict(PROPERTY, key, summary, proof)
        }
    }
}
