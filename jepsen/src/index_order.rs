//! Do the modify indexes that clients saw put all changes of a key into one order that agrees with real time?
//!
//! The second opinion on linearizability, by another road: instead of searching for an order it takes the one that the
//! store claims. Every change of a key has a place in the log, its modify index, and everything a client sees or does has
//! a place relative to those. What came later in real time may not have an earlier place. That is n log n for any number
//! of clients and names the culprits directly, but it is only a necessary condition: the place of a delete, and of a write
//! that nobody read, is not known.

use std::collections::BTreeMap;

use crate::history::{History, Nanos, Op, Operation, Parts, Reply};
use crate::verdict::{Verdict, Violation};

const PROPERTY: &str = "index order";

/// Checks every key of a history.
#[must_use]
pub fn check(history: &History) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    let parts = Parts::new(history);
    for (key, operations) in parts.by_key() {
        if let Err((summary, proof)) = check_key(&operations) {
            return Violation::verdict(PROPERTY, key, summary, proof);
        }
    }
    Verdict::Valid
}

type Broken<'a> = (String, Vec<&'a Operation>);

fn check_key<'a>(operations: &[&'a Operation]) -> Result<(), Broken<'a>> {
    // When a session ends, its locks change their index or vanish, and no client did it.
    if operations.iter().any(|o| matches!(o.op, Op::Acquire { .. } | Op::Release { .. })) {
        return real_time(operations, &BTreeMap::new());
    }
    let indexes = versions(operations)?;
    compare_and_sets(operations, &indexes)?;
    real_time(operations, &indexes)?;
    absences(operations)
}

/// The index of every value that is known to have one.
fn versions<'a>(operations: &[&'a Operation]) -> Result<BTreeMap<&'a str, u64>, Broken<'a>> {
    let writers: BTreeMap<&str, &Operation> =
        operations.iter().filter_map(|operation| Some((operation.op.value()?, *operation))).collect();
    let mut told: BTreeMap<&str, (u64, &Operation)> = BTreeMap::new();
    let mut values: BTreeMap<u64, (&str, &Operation)> = BTreeMap::new();
    for operation in operations {
        let (value, index) = match (operation.observed(), operation.reply(), operation.op.value()) {
            (Some((Some(entry), answer_index)), _, _) => {
                if entry.modify_index == 0 || answer_index < entry.modify_index {
                    let why = format!("index {answer_index} of the answer is below that of the entry");
                    return Err((why, vec![operation]));
                }
                let Some(writer) = writers.get(entry.value.as_str()) else {
                    return Err((format!("{:?} was never written", entry.value), vec![operation]));
                };
                if !writer.may_be_done() || operation.completed < Some(writer.invoked) {
                    let why = format!("{:?} was read, though it was not written", entry.value);
                    return Err((why, vec![writer, operation]));
                }
                (entry.value.as_str(), entry.modify_index)
            }
            (None, Some(Reply::Done { index: Some(index) }), Some(value)) => (value, *index),
            _ => continue,
        };
        let (known, by) = *told.entry(value).or_insert((index, operation));
        if known != index {
            return Err((format!("{value:?} has the indexes {known} and {index}"), vec![by, operation]));
        }
        let (other, by) = *values.entry(index).or_insert((value, operation));
        if other != value {
            return Err((
                format!("{other:?} and {value:?} have the same index {index}"),
                vec![by, operation],
            ));
        }
    }
    Ok(told.into_iter().map(|(value, (index, _))| (value, index)).collect())
}

/// A successful compare-and-set is the next change after the version that it expected.
fn compare_and_sets<'a>(
    operations: &[&'a Operation],
    indexes: &BTreeMap<&'a str, u64>,
) -> Result<(), Broken<'a>> {
    let mut replaced: BTreeMap<u64, &Operation> = BTreeMap::new();
    let mut by_index: BTreeMap<u64, &Operation> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.may_be_done()) {
        if let Some(index) = operation.op.value().and_then(|value| indexes.get(value)) {
            by_index.insert(*index, operation);
        }
    }
    for operation in operations {
        let Op::Cas { expected, value } = &operation.op else { continue };
        if !operation.is_done() || *expected == 0 {
            continue;
        }
        if let Some(other) = replaced.insert(*expected, operation) {
            return Err((format!("two writes replaced the version at {expected}"), vec![other, operation]));
        }
        if let Some(&index) = indexes.get(value.as_str()) {
            if index <= *expected {
                let why = format!("a write at {index} replaced the later version at {expected}");
                return Err((why, vec![operation]));
            }
            if let Some((between, other)) = by_index.range(expected + 1..index).next() {
                let why = format!("the write at {between} came between {expected} and {index}, and was lost");
                return Err((why, vec![other, operation]));
            }
        }
    }
    Ok(())
}

/// The place of an operation in the order: the index that it made or saw.
fn place(operation: &Operation, indexes: &BTreeMap<&str, u64>) -> Option<u64> {
    match (operation.observed_fresh(), operation.op.value()) {
        (Some(entry), _) => entry.map(|entry| entry.modify_index),
        (None, Some(value)) if operation.may_be_done() => indexes.get(value).copied(),
        _ => None,
    }
}

/// What begins after something else has ended has a later place, or the same if it only looks.
fn real_time<'a>(operations: &[&'a Operation], indexes: &BTreeMap<&'a str, u64>) -> Result<(), Broken<'a>> {
    let mut by_end: Vec<(Nanos, u64, &Operation)> = operations
        .iter()
        .filter_map(|operation| Some((operation.effect_until(), place(operation, indexes)?, *operation)))
        .collect();
    let mut by_begin = by_end.clone();
    by_end.sort_by_key(|(end, place, _)| (*end, *place));
    by_begin.sort_by_key(|(_, place, operation)| (operation.invoked, *place));
    let mut ended = by_end.into_iter().peekable();
    let mut latest: Option<(u64, &Operation)> = None;
    for (_, place, operation) in by_begin {
        while let Some((_, other_place, other)) = ended.next_if(|(end, _, _)| *end < operation.invoked) {
            if latest.is_none_or(|(latest, _)| latest <= other_place) {
                latest = Some((other_place, other));
            }
        }
        if let Some((before, other)) = latest {
            let looks = operation.op.value().is_none();
            if place < before || (place == before && !looks) {
                let what = if looks { "a read saw" } else { "a write went to" };
                let why = format!("{what} index {place}, although {before} had been reached before it began");
                return Err((why, vec![other, operation]));
            }
        }
    }
    Ok(())
}

/// What existed is absent only after a delete that can have come later.
fn absences<'a>(operations: &[&'a Operation]) -> Result<(), Broken<'a>> {
    let mut deletes: Vec<&Operation> =
        operations.iter().copied().filter(|o| o.op.deletes_key() && o.may_be_done()).collect();
    deletes.sort_by_key(|delete| delete.invoked);
    // For each moment: until when the deletes that began by then can have happened.
    let mut until = 0;
    let deletes: BTreeMap<Nanos, Nanos> = deletes
        .into_iter()
        .map(|delete| {
            until = until.max(delete.effect_until());
            (delete.invoked, until)
        })
        .collect();

    let exists = |operation: &Operation| {
        matches!(operation.observed_fresh(), Some(Some(_)))
            || (operation.op.value().is_some() && operation.is_done())
    };
    let mut existences: Vec<&Operation> = operations.iter().copied().filter(|o| exists(o)).collect();
    existences.sort_by_key(|operation| operation.effect_until());
    let mut absences: Vec<&Operation> =
        operations.iter().copied().filter(|o| o.observed_fresh() == Some(None)).collect();
    absences.sort_by_key(|operation| operation.invoked);

    let mut existences = existences.into_iter().peekable();
    let mut last: Option<&Operation> = None;
    for absence in absences {
        while let Some(existence) = existences.next_if(|o| o.effect_until() < absence.invoked) {
            if last.is_none_or(|last| last.invoked < existence.invoked) {
                last = Some(existence);
            }
        }
        let Some(existence) = last else { continue };
        let deleted = deletes.range(..=absence.effect_until()).next_back();
        if deleted.is_none_or(|(_, until)| *until < existence.invoked) {
            let why = "a key was absent that had existed and was not deleted in between".to_owned();
            return Err((why, vec![existence, absence]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;
    use crate::history::testing::{DONE, at};

    #[track_caller]
    fn passes(operations: Vec<Operation>) {
        let verdict = check(&operations.into());
        assert!(verdict.is_valid(), "{verdict}");
    }

    #[track_caller]
    fn fails(operations: Vec<Operation>, why: &str) {
        let verdict = check(&operations.into());
        let violation = verdict.violation().unwrap_or_else(|| panic!("{verdict}"));
        assert!(violation.summary.contains(why), "{verdict}");
    }

    #[test]
    fn concurrent_writes_go_either_way() {
        passes(vec![
            at(1, "k", 1, 9).write("a"),
            at(2, "k", 1, 9).write("b"),
            at(3, "k", 2, 3).read("b", 5),
            at(3, "k", 4, 5).read("a", 6),
            at(3, "k", 6, 7).read("a", 6),
        ]);
    }

    #[test]
    fn a_stale_read_fails() {
        fails(
            vec![
                at(1, "k", 1, 2).write_at("a", 5),
                at(1, "k", 3, 4).write_at("b", 6),
                at(2, "k", 5, 6).read("a", 5),
            ],
            "a read saw index 5, although 6",
        );
    }

    #[test]
    fn reads_that_go_back_fail() {
        fails(
            vec![
                at(1, "k", 1, 2).write("a"),
                at(1, "k", 3, 9).write("b"),
                at(2, "k", 4, 5).read("b", 6),
                at(3, "k", 6, 7).read("a", 5),
            ],
            "a read saw index 5, although 6",
        );
    }

    #[test]
    fn writes_in_the_wrong_order_fail() {
        fails(
            vec![
                at(1, "k", 1, 2).write("a"),
                at(2, "k", 3, 4).write("b"),
                at(3, "k", 1, 9).read("b", 5),
                at(4, "k", 1, 9).read("a", 6),
            ],
            "a write went to index 5, although 6",
        );
    }

    #[test]
    fn a_lost_update_fails() {
        let read = || at(1, "k", 3, 4).read("a", 5);
        fails(
            vec![
                at(1, "k", 1, 2).write("a"),
                read(),
                at(1, "k", 5, 8).cas(5, "b", DONE),
                at(2, "k", 5, 8).cas(5, "c", DONE),
            ],
            "two writes replaced the version at 5",
        );
        fails(
            vec![
                at(1, "k", 1, 2).write("a"),
                read(),
                at(2, "k", 5, 6).write_at("between", 6),
                at(1, "k", 5, 8).cas(5, "b", DONE),
                at(1, "k", 9, 10).read("b", 7),
            ],
            "came between 5 and 7",
        );
    }

    #[test]
    fn a_phantom_fails() {
        fails(vec![at(1, "k", 1, 2).read("ghost", 5)], "never written");
        let failed = at(1, "k", 0, 1).is(Op::Write { value: "x".into() }, Outcome::Failed);
        fails(vec![failed, at(1, "k", 1, 2).read("x", 4)], "though it was not written");
        fails(vec![at(1, "k", 5, 6).write("x"), at(1, "k", 1, 2).read("x", 4)], "though it was not written");
    }

    #[test]
    fn a_value_with_two_indexes_fails() {
        fails(
            vec![at(1, "k", 1, 2).write("a"), at(1, "k", 3, 4).read("a", 5), at(1, "k", 5, 6).read("a", 6)],
            "has the indexes 5 and 6",
        );
    }

    #[test]
    fn a_lost_write_fails_unless_it_was_deleted() {
        fails(vec![at(1, "k", 1, 2).write("a"), at(1, "k", 3, 4).absent(9)], "was absent that had existed");
        passes(vec![
            at(1, "k", 1, 2).write("a"),
            at(2, "k", 1, 2).done(Op::Delete),
            at(1, "k", 3, 4).absent(9),
        ]);
        passes(vec![
            at(2, "k", 0, 1).is(Op::Delete, Outcome::Unknown),
            at(1, "k", 2, 3).write("a"),
            at(1, "k", 4, 5).absent(9),
        ]);
        fails(
            vec![
                at(2, "k", 0, 1).done(Op::Delete),
                at(1, "k", 2, 3).write_unknown("a"),
                at(1, "k", 4, 5).read("a", 7),
                at(1, "k", 6, 7).absent(9),
            ],
            "was absent that had existed",
        );
    }

    #[test]
    fn an_index_below_its_entry_fails() {
        let mut read = at(1, "k", 3, 4).read("a", 5);
        if let Outcome::Ok(Reply::Read { index, .. }) = &mut read.outcome {
            *index = 4;
        }
        fails(vec![at(1, "k", 1, 2).write("a"), read], "below that of the entry");
    }

    #[test]
    fn a_lock_may_be_freed_without_a_write() {
        let acquire = Op::Acquire { session: "s".into(), value: "x".into() };
        passes(vec![
            at(1, "l", 1, 2).done(acquire.clone()),
            at(1, "l", 3, 4).read("x", 5),
            at(1, "l", 5, 6).read("x", 6),
        ]);
        fails(
            vec![
                at(1, "l", 1, 2).done(acquire),
                at(1, "l", 3, 4).read("x", 6),
                at(1, "l", 5, 6).read("x", 5),
            ],
            "a read saw index 5, although 6",
        );
    }

    #[test]
    fn a_million_operations_take_seconds() {
        let operations = (0..500_000u64).flat_map(|n| {
            let value = n.to_string();
            [at(1, "k", 4 * n, 4 * n + 1).write(&value), at(2, "k", 4 * n + 2, 4 * n + 3).read(&value, n + 1)]
        });
        assert_eq!(check(&operations.collect()), Verdict::Valid);
    }
}
