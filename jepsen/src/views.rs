//! Does a client that watches a prefix, or a part of the catalog, by blocking queries miss anything?
//!
//! «X-Consul-Index … a unique identifier representing the current state of the requested resource» (Consul, «Blocking
//! Queries»). So a watcher's index never goes backwards, one index stands for one state, an answer shows every change up to
//! its index, and a watcher that is there to the end sees how all ended. What [`crate::watches`] asks of single keys
//! this asks of all that have more than one row.

use std::collections::BTreeMap;

use crate::history::{Consistency, Entry, History, Op, Operation, Parts, Reply};
use crate::verdict::{Verdict, Violation};

const PROPERTY: &str = "watch of many";

/// Checks every watched view of a history: every client and prefix with at least one blocking query.
///
/// As with [`crate::watches`], a workload that wants the last state checked reads each view, linearizably, after the last
/// change has been answered, and lets its watchers run until each had time to be answered once more; a watcher that was
/// stopped earlier ends with an operation that failed before that reading.
#[must_use]
pub fn check(history: &History) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    let mut watchers: BTreeMap<(&str, bool, u32), Vec<&Operation>> = BTreeMap::new();
    let mut last_reads: BTreeMap<(&str, bool), &Operation> = BTreeMap::new();
    for operation in history.operations() {
        let (Op::List { above, .. } | Op::Catalog { above, .. }) = &operation.op else { continue };
        let in_catalog = matches!(operation.op, Op::Catalog { .. });
        watchers.entry((&operation.key, in_catalog, operation.client)).or_default().push(operation);
        if above.is_none() && is_fresh(operation) && View::of(operation).is_some() {
            let last = last_reads.entry((&operation.key, in_catalog)).or_insert(operation);
            if last.invoked < operation.invoked {
                *last = operation;
            }
        }
    }
    let parts = Parts::new(history);
    let written = Written::new(&parts);
    for ((key, in_catalog, _), mut watcher) in watchers {
        watcher.sort_by_key(|operation| operation.invoked);
        let blocks = watcher
            .iter()
            .any(|o| matches!(o.op, Op::List { above: Some(_), .. } | Op::Catalog { above: Some(_), .. }));
        let last = last_reads.get(&(key, in_catalog)).filter(|_| blocks);
        let result = watcher
            .iter()
            .try_for_each(|operation| written.covered(operation))
            .and_then(|()| forwards(&watcher))
            .and_then(|()| last.map_or(Ok(()), |last| last_state(&watcher, last)));
        if let Err((summary, proof)) = result {
            return Violation::verdict(PROPERTY, key, summary, proof);
        }
    }
    Verdict::Valid
}

type Broken<'a> = (String, Vec<&'a Operation>);

fn is_fresh(operation: &Operation) -> bool {
    operation.op.consistency() == Some(Consistency::Linearizable)
}

/// What an answer shows, and its index.
#[derive(PartialEq, Eq)]
struct View<'a> {
    rows: BTreeMap<&'a str, &'a str>,
    index: u64,
}

impl<'a> View<'a> {
    fn of(operation: &'a Operation) -> Option<View<'a>> {
        match operation.reply()? {
            Reply::List { entries, index } => {
                let rows = entries.iter().map(|(key, entry)| (key.as_str(), entry.value.as_str())).collect();
                Some(View { rows, index: *index })
            }
            Reply::Catalog { entries, index } => {
                let rows = entries.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect();
                Some(View { rows, index: *index })
            }
            _ => None,
        }
    }
}

/// The index does not go back, and one index is one state. What may be stale may also come from another server.
fn forwards<'a>(watcher: &[&'a Operation]) -> Result<(), Broken<'a>> {
    let mut last: Option<(&Operation, View<'_>)> = None;
    for operation in watcher.iter().copied().filter(|operation| is_fresh(operation)) {
        let Some(view) = View::of(operation) else { continue };
        if view.index == 0 {
            return Err(("an answer has the index 0".to_owned(), vec![operation]));
        }
        if let Some((before, seen)) = &last {
            if view.index < seen.index {
                let why = format!("the index went back from {} to {}", seen.index, view.index);
                return Err((why, vec![before, operation]));
            }
            if view.index == seen.index && view.rows != seen.rows {
                return Err((format!("two states have the index {}", view.index), vec![before, operation]));
            }
        }
        last = Some((operation, view));
    }
    Ok(())
}

/// A watcher that was still there when all had settled has seen how.
fn last_state<'a>(watcher: &[&'a Operation], settled: &'a Operation) -> Result<(), Broken<'a>> {
    let last = watcher.last().expect("a watcher has watched");
    if last.completed.is_some_and(|at| at < settled.invoked) {
        return Ok(());
    }
    let end = View::of(settled).expect("the last reading has an answer");
    let seen = watcher.iter().rev().find_map(|operation| Some((*operation, View::of(operation)?)));
    match seen {
        None => Err(("a watcher was never answered".to_owned(), vec![settled, last])),
        Some((operation, view)) if view.rows != end.rows && view.index <= end.index => {
            Err(("a watcher never saw the last state".to_owned(), vec![settled, operation, last]))
        }
        Some(_) => Ok(()),
    }
}

/// Changes of keys whose index somebody was told.
struct Written<'a> {
    /// Per key that is never deleted: index and writing.
    keys: BTreeMap<&'a str, BTreeMap<u64, &'a Operation>>,
}

impl<'a> Written<'a> {
    fn new(parts: &'a Parts<'_>) -> Written<'a> {
        let mut keys: BTreeMap<&str, BTreeMap<u64, &Operation>> = BTreeMap::new();
        for (key, operations) in parts.by_key() {
            let vanishes =
                |o: &&Operation| (o.op.deletes_key() && o.may_be_done()) || o.op.session().is_some();
            if operations.iter().any(vanishes) {
                continue;
            }
            let mut indexes: BTreeMap<&str, u64> = BTreeMap::new();
            for operation in &operations {
                match (operation.observed(), operation.reply(), operation.op.value()) {
                    (Some((Some(entry), _)), _, _) => {
                        indexes.insert(&entry.value, entry.modify_index);
                    }
                    (None, Some(Reply::Done { index: Some(index) }), Some(value)) => {
                        indexes.insert(value, *index);
                    }
                    _ => {}
                }
            }
            let writes = operations.iter().filter_map(|o| Some((*indexes.get(o.op.value()?)?, *o)));
            keys.insert(key, writes.collect());
        }
        Written { keys }
    }

    /// An answer shows every change up to its index, or a later one.
    fn covered<'b>(&self, operation: &'b Operation) -> Result<(), Broken<'b>>
    where
        'a: 'b,
    {
        let Some(Reply::List { entries, index }) = operation.reply() else { return Ok(()) };
        let shown: BTreeMap<&str, &Entry> =
            entries.iter().map(|(key, entry)| (key.as_str(), entry)).collect();
        let prefix = operation.key.as_str();
        for (key, writes) in self.keys.range(prefix..).take_while(|(key, _)| key.starts_with(prefix)) {
            if let Some((written, write)) = writes.range(..=*index).next_back()
                && shown.get(key).is_none_or(|entry| entry.modify_index < *written)
            {
                let why =
                    format!("an answer at {index} does not show {key:?} as it was written at {written}");
                return Err((why, vec![write, operation]));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::at;
    use crate::history::{Nanos, Outcome};

    type Row = (&'static str, &'static str, u64);

    fn list(client: u32, from: Nanos, to: Nanos, above: Option<u64>, rows: &[Row], index: u64) -> Operation {
        let entries = rows
            .iter()
            .map(|(key, value, modify_index)| {
                let entry = Entry {
                    value: (*value).into(),
                    modify_index: *modify_index,
                    lock_index: 0,
                    session: None,
                };
                ((*key).to_owned(), entry)
            })
            .collect();
        let op = Op::List { above, consistency: Consistency::Linearizable };
        at(client, "p/", from, to).is(op, Outcome::Ok(Reply::List { entries, index }))
    }

    fn asleep(from: Nanos, above: u64) -> Operation {
        let operation = list(7, from, from, Some(above), &[], 1);
        Operation { completed: None, outcome: Outcome::Unknown, ..operation }
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

    const A: Row = ("p/a", "a", 5);
    const B: Row = ("p/b", "b", 6);

    fn writes() -> Vec<Operation> {
        vec![at(1, "p/a", 1, 2).write("a"), at(1, "p/b", 3, 4).write("b"), list(2, 50, 51, None, &[A, B], 6)]
    }

    fn and(more: impl IntoIterator<Item = Operation>) -> Vec<Operation> {
        writes().into_iter().chain(more).collect()
    }

    #[test]
    fn a_watcher_that_sees_each_change_or_the_last_passes() {
        passes(and([list(7, 1, 2, None, &[A], 5), list(7, 3, 4, Some(5), &[A, B], 6), asleep(5, 6)]));
        passes(and([list(7, 5, 6, Some(1), &[A, B], 6), asleep(7, 6)]));
    }

    #[test]
    fn a_missed_change_fails() {
        fails(and([list(7, 1, 2, None, &[A], 5), asleep(3, 5)]), "never saw the last state");
        fails(and([list(7, 5, 9, Some(5), &[A], 6)]), "an answer at 6 does not show \"p/b\"");
        fails(and([asleep(5, 3)]), "never answered");
    }

    #[test]
    fn an_index_that_goes_back_fails() {
        fails(
            and([list(7, 5, 6, Some(1), &[A, B], 9), list(7, 7, 8, Some(9), &[A, B], 6)]),
            "went back from 9 to 6",
        );
        fails(and([list(7, 5, 6, None, &[], 0)]), "index 0");
    }

    #[test]
    fn an_index_that_stands_for_two_states_fails() {
        let history = vec![
            at(1, "p/a", 1, 2).write("a"),
            at(1, "p/a", 3, 4).done(Op::Delete),
            list(7, 1, 2, None, &[A], 5),
            list(7, 3, 4, Some(4), &[], 5),
        ];
        fails(history, "two states have the index 5");
    }

    #[test]
    fn a_watcher_of_the_catalog_is_judged_alike() {
        let read = |client, from, to, above, rows: &[(&str, &str)], index| {
            let entries = rows.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect();
            let op = Op::Catalog { above, consistency: Consistency::Linearizable };
            at(client, "node/", from, to).is(op, Outcome::Ok(Reply::Catalog { entries, index }))
        };
        let end = || read(2, 50, 51, None, &[("node/n1", "up")], 7);
        passes(vec![read(7, 1, 9, Some(1), &[("node/n1", "up")], 7), end()]);
        let waiting =
            Operation { completed: None, outcome: Outcome::Unknown, ..read(7, 10, 11, Some(3), &[], 1) };
        fails(vec![read(7, 1, 9, Some(1), &[], 3), waiting, end()], "never saw the last state");
        fails(vec![read(7, 1, 9, None, &[], 7), read(7, 10, 11, None, &[], 3)], "went back from 7 to 3");
    }
}
