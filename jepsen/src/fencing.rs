//! Does a write in the name of a lock's holder ever follow one of a later holder?
//!
//! The lock index counts acquisitions, and so serves as a fencing number (Consul, «Sessions», the sequencer): a resource
//! that is written only under the condition that the lock is still held must never see the number fall, however long a
//! holder slept before it wrote.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{History, Nanos, Op, Operation, Parts};
use crate::verdict::{Verdict, Violation};

const PROPERTY: &str = "fencing";

/// Checks every key of a history that was written in the name of a lock's holder.
#[must_use]
pub fn check(history: &History) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    let restarted = restarted(history);
    let mut holders: BTreeMap<(&str, u64), (&str, &Operation)> = BTreeMap::new();
    for operation in history.operations() {
        let Op::FencedWrite { lock, session, fence, .. } = &operation.op else { continue };
        if restarted.contains(lock.as_str()) {
            continue;
        }
        let (other, by) = *holders.entry((lock, *fence)).or_insert((session, operation));
        if other != session {
            let why = format!("{other} and {session} both have the fencing number {fence}");
            return Violation::verdict(PROPERTY, lock, why, [by, operation]);
        }
    }
    let parts = Parts::new(history);
    for (key, operations) in parts.by_key() {
        if let Err((summary, proof)) = never_falls(&operations, &restarted) {
            return Violation::verdict(PROPERTY, key, summary, proof);
        }
    }
    Verdict::Valid
}

/// Locks whose count begins again: by a plain write or a delete, also that of the end of a session.
fn restarted(history: &History) -> BTreeSet<&str> {
    let deleting: BTreeSet<&str> = history
        .operations()
        .iter()
        .filter_map(|operation| match (&operation.op, operation.reply()) {
            (Op::SessionCreate { deletes_keys: true, .. }, Some(crate::history::Reply::Session { id })) => {
                Some(id.as_str())
            }
            _ => None,
        })
        .collect();
    let mut restarted = BTreeSet::new();
    for operation in history.operations() {
        match &operation.op {
            Op::Delete | Op::DeleteCas { .. } | Op::Write { .. } | Op::Cas { .. }
                if operation.may_be_done() =>
            {
                restarted.insert(operation.key.as_str());
            }
            Op::Acquire { session, .. } if deleting.contains(session.as_str()) => {
                restarted.insert(operation.key.as_str());
            }
            Op::Txn { actions, .. } if operation.may_be_done() => {
                let changed = actions.iter().filter(|action| action.verb.mutates());
                restarted.extend(changed.map(|action| action.key.as_str()));
            }
            _ => {}
        }
    }
    restarted
}

type Broken<'a> = (String, Vec<&'a Operation>);

/// The number of what is written or seen later is not lower, neither in real time nor in the order of the indexes.
fn never_falls<'a>(operations: &[&'a Operation], restarted: &BTreeSet<&str>) -> Result<(), Broken<'a>> {
    let mut fences: BTreeMap<&str, (&str, u64, &Operation)> = BTreeMap::new();
    for operation in operations {
        if let Op::FencedWrite { lock, fence, value, .. } = &operation.op
            && !restarted.contains(lock.as_str())
        {
            fences.insert(value, (lock, *fence, operation));
        }
    }
    // Per lock: (from, to, number, operation).
    let mut signs: BTreeMap<&str, Vec<(Nanos, Nanos, u64, &Operation)>> = BTreeMap::new();
    let mut indexes: BTreeMap<(&str, u64), (u64, &Operation, &Operation)> = BTreeMap::new();
    for operation in operations.iter().copied() {
        let written = operation.op.value().filter(|_| operation.is_done());
        let seen = operation.observed_fresh().flatten().map(|entry| entry.value.as_str());
        if let Some((lock, fence, _)) = written.or(seen).and_then(|value| fences.get(value)) {
            let sign = (operation.invoked, operation.effect_until(), *fence, operation);
            signs.entry(lock).or_default().push(sign);
        }
        if let Some((Some(entry), _)) = operation.observed()
            && let Some((lock, fence, write)) = fences.get(entry.value.as_str())
        {
            indexes.insert((lock, entry.modify_index), (*fence, write, operation));
        }
    }
    let mut last: Option<(&str, u64, u64, &Operation, &Operation)> = None;
    for ((lock, index), (fence, write, seen)) in indexes {
        if let Some((same, before, highest, by, seen_by)) = last
            && same == lock
            && fence < highest
        {
            let why = format!(
                "a write with the fencing number {fence} at {index} followed one with {highest} at {before}"
            );
            return Err((why, vec![by, seen_by, write, seen]));
        }
        last = Some((lock, index, fence, write, seen));
    }
    for signs in signs.into_values() {
        let mut by_end = signs.clone();
        by_end.sort_by_key(|(_, to, _, _)| *to);
        let mut by_begin = signs;
        by_begin.sort_by_key(|(from, _, _, _)| *from);
        let mut ended = by_end.into_iter().peekable();
        let mut highest: Option<(u64, &Operation)> = None;
        for (from, _, fence, operation) in by_begin {
            while let Some((_, _, other, by)) = ended.next_if(|(_, to, _, _)| *to < from) {
                if highest.is_none_or(|(highest, _)| highest <= other) {
                    highest = Some((other, by));
                }
            }
            if let Some((before, by)) = highest.filter(|(before, _)| fence < *before) {
                return Err((
                    format!("the fencing number fell from {before} to {fence}"),
                    vec![by, operation],
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::at;
    use crate::history::{Outcome, Reply};

    fn write(from: Nanos, to: Nanos, session: &str, fence: u64, value: &str) -> Operation {
        let op = Op::FencedWrite { lock: "l".into(), session: session.into(), fence, value: value.into() };
        at(1, "r", from, to).done(op)
    }

    #[track_caller]
    fn passes(operations: Vec<Operation>) {
        let verdict = check(&operations.into());
        assert!(verdict.is_valid(), "{verdict}");
    }

    #[track_caller]
    fn fails(operations: Vec<Operation>, why: &str) {
        let verdict = check(&operations.into());
        assert!(verdict.violation().is_some_and(|v| v.summary.contains(why)), "{verdict}");
    }

    #[test]
    fn numbers_that_grow_pass() {
        passes(vec![
            write(1, 2, "s1", 1, "a"),
            write(3, 4, "s1", 1, "b"),
            write(5, 6, "s2", 2, "c"),
            at(2, "r", 7, 8).read("c", 9),
        ]);
    }

    #[test]
    fn a_holder_that_slept_may_not_write() {
        let late = write(5, 6, "s1", 1, "c");
        let refused = Operation { outcome: Outcome::Ok(Reply::Refused), ..late.clone() };
        let before = || vec![write(1, 2, "s1", 1, "a"), write(3, 4, "s2", 2, "b")];
        passes(before().into_iter().chain([refused]).collect());
        fails(before().into_iter().chain([late]).collect(), "fell from 2 to 1");
    }

    #[test]
    fn a_late_write_is_found_by_those_who_read_it() {
        let unknown = Operation { outcome: Outcome::Unknown, ..write(1, 2, "s1", 1, "a") };
        let second = write(3, 4, "s2", 2, "b");
        passes(vec![unknown.clone(), second.clone(), at(2, "r", 5, 6).read("b", 8)]);
        fails(vec![unknown.clone(), second.clone(), at(2, "r", 5, 6).read("a", 9)], "fell from 2 to 1");
        // Both are seen in time, but in the wrong order.
        fails(
            vec![unknown, second, at(2, "r", 1, 9).read("a", 9), at(3, "r", 1, 9).read("b", 8)],
            "followed one with 2 at 8",
        );
    }

    #[test]
    fn a_number_used_twice_fails() {
        fails(vec![write(1, 2, "s1", 1, "a"), write(3, 4, "s2", 1, "b")], "both have the fencing number 1");
        // The lock was deleted in between: its count has begun again.
        passes(vec![write(1, 2, "s1", 1, "a"), at(3, "l", 2, 3).done(Op::Delete), write(3, 4, "s2", 1, "b")]);
    }
}
