//! Do operations on several keys happen at once, each in one moment between its question and its answer?
//!
//! That is strict serializability (Papadimitriou, «The serializability of concurrent database updates», 1979, with real
//! time): linearizability of all keys that transactions, readings of prefixes and restored snapshots tie together.
//! Such keys form a group, and each group is judged by itself, twice. First by `order`: the modify indexes that clients
//! saw are one order of all changes, and each operation must have a place in it. That is fast, complete where all
//! indexes are known, and names the culprits. Then by `search`, which needs no index and knows what is absent.
//!
//! A restored snapshot ties all keys together: what is there afterwards is what was there in one moment while it was saved.
//! Keys on which a lock was taken change when a session ends, without an operation of a client, and are not judged here.

mod minimize;
mod model;
#[cfg(test)]
mod naive;
mod order;
mod search;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{History, Op, Operation, Outcome, Reply};
use crate::verdict::{Verdict, Violation};

const PROPERTY: &str = "strict serializability";

/// How much work a check may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Search nodes per group of keys.
    pub nodes_per_group: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { nodes_per_group: 5_000_000 }
    }
}

/// Checks every group of keys of a history. The first group with a violation decides; a group that was too hard makes the
/// verdict undecided unless another one is violated.
#[must_use]
pub fn check(history: &History, budget: Budget) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    let mut undecided = None;
    for (keys, operations) in groups(history) {
        match check_group(&keys, &operations, budget) {
            Verdict::Valid => {}
            violated @ Verdict::Violated(_) => return violated,
            verdict @ Verdict::Undecided { .. } => undecided = Some(verdict),
        }
    }
    undecided.unwrap_or(Verdict::Valid)
}

fn check_group(keys: &[&str], operations: &[&Operation], budget: Budget) -> Verdict {
    let name = keys.join(", ");
    let violated = |summary: String, proof: &[usize]| {
        Violation::verdict(PROPERTY, &name, summary, proof.iter().map(|at| operations[*at]))
    };
    let model = match model::compile(keys, operations) {
        Ok(model) => model,
        Err(model::Unfit::Impossible { summary, operations }) => return violated(summary, &operations),
        Err(model::Unfit::NeverSaved { snapshot }) => {
            let why =
                format!("snapshot {snapshot} was restored, but the history does not say how it was saved");
            return Verdict::Undecided { why };
        }
    };
    if let Err((summary, proof)) = order::check(keys, &model) {
        return violated(summary, &proof);
    }
    match search::search(&model, budget.nodes_per_group).0 {
        search::Found::Order => Verdict::Valid,
        search::Found::OutOfBudget => Verdict::Undecided {
            why: format!(
                "{} operations on {name:?} need more than {} search nodes",
                operations.len(),
                budget.nodes_per_group
            ),
        },
        search::Found::NoOrder => {
            let steps = minimize::minimize(&model);
            let summary =
                format!("no order of these operations (of {} in all) explains the answers", operations.len());
            violated(summary, &steps.iter().map(|step| step.source).collect::<Vec<_>>())
        }
    }
}

/// The groups of two keys and more, each with the operations that are about any of them.
fn groups(history: &History) -> Vec<(Vec<&str>, Vec<&Operation>)> {
    let mut locks: BTreeSet<&str> = BTreeSet::new();
    let mut keys: BTreeSet<&str> = BTreeSet::new();
    for operation in history.operations() {
        if matches!(operation.op, Op::Acquire { .. } | Op::Release { .. }) {
            locks.insert(&operation.key);
        }
        if operation.op.is_on_key() {
            keys.insert(&operation.key);
        }
        keys.extend(several(operation));
    }
    keys.retain(|key| !locks.contains(key));
    let keys: Vec<&str> = keys.into_iter().collect();
    let mut union = Union::new(keys.len());
    let place = |key: &str| keys.binary_search(&key).ok();
    let below = |prefix: &str| {
        let start = keys.partition_point(|key| *key < prefix);
        let length = keys[start..].iter().take_while(|key| key.starts_with(prefix)).count();
        start..start + length
    };
    if history.may_be_restored() {
        (1..keys.len()).for_each(|key| union.join(0, key));
    }
    for operation in history.operations() {
        match &operation.op {
            Op::List { .. } | Op::DeleteTree => {
                let below = below(&operation.key);
                below.clone().skip(1).for_each(|key| union.join(below.start, key));
            }
            _ => {
                let mut places = several(operation).filter_map(place);
                if let Some(first) = places.next() {
                    places.for_each(|key| union.join(first, key));
                }
            }
        }
    }

    let mut groups: BTreeMap<usize, (Vec<&str>, Vec<&Operation>)> = BTreeMap::new();
    for (at, key) in keys.iter().enumerate() {
        groups.entry(union.root(at)).or_default().0.push(key);
    }
    let restored = history.may_be_restored();
    groups.retain(|_, (keys, _)| keys.len() > 1 || restored);
    for operation in history.operations() {
        if matches!(operation.outcome, Outcome::Failed) {
            continue;
        }
        let first = match &operation.op {
            Op::Save | Op::Restore { .. } => (!keys.is_empty() && restored).then_some(0),
            Op::List { .. } | Op::DeleteTree => below(&operation.key).next(),
            Op::Txn { .. } => several(operation).find_map(place),
            op if op.is_on_key() => place(&operation.key),
            _ => None,
        };
        if let Some((_, operations)) = first.and_then(|key| groups.get_mut(&union.root(key))) {
            operations.push(operation);
        }
    }
    groups.into_values().collect()
}

/// The keys that an operation on several keys names.
fn several(operation: &Operation) -> impl Iterator<Item = &str> {
    let actions = match &operation.op {
        Op::Txn { actions, .. } => actions.as_slice(),
        _ => &[],
    };
    let entries = match operation.reply() {
        Some(Reply::List { entries, .. }) => entries.as_slice(),
        _ => &[],
    };
    actions.iter().map(|action| action.key.as_str()).chain(entries.iter().map(|(key, _)| key.as_str()))
}

/// Sets that grow together (Galler and Fischer, 1964).
struct Union {
    parent: Vec<usize>,
}

impl Union {
    fn new(count: usize) -> Union {
        Union { parent: (0..count).collect() }
    }

    fn root(&mut self, of: usize) -> usize {
        let mut at = of;
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.parent[one.max(other)] = one.min(other);
    }
}
