//! Does a client that watches a key by blocking queries miss anything?
//!
//! A watcher asks again and again with the index of the last answer. It may miss states that were replaced quickly, but
//! never the last one; its index never goes backwards (Consul, «Blocking Queries»); and it does not sleep through a change.
//!
//! A restored snapshot brings states back with the modify indexes that they had. The watcher's own index does not go back
//! for it, and it does not miss what was restored last.

use std::collections::BTreeMap;

use crate::history::{Entry, History, Nanos, Op, Operation, Parts};
use crate::verdict::{Verdict, Violation};

const PROPERTY: &str = "watch";

/// Which promises of watches to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How long after an acknowledged write a blocking query that waits for it may still sleep. `None` where the history
    /// has faults that excuse any delay.
    pub wake_within: Option<Nanos>,
}

/// Checks every watcher of a history: every client and key with at least one watch.
///
/// A workload that wants the last state checked reads each key, linearizably, after the last change has been answered,
/// and lets its watchers run until each had time to be answered once more. A watcher that was stopped earlier ends with
/// an operation that failed before that read.
#[must_use]
pub fn check(history: &History, rules: Rules) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    let end = history.operations().iter().map(|o| o.completed.unwrap_or(o.invoked)).max().unwrap_or(0);
    // The index of a key's own readings: that of a transaction or a prefix is about more than the key.
    let mut readings: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history.operations() {
        if matches!(operation.op, Op::Watch { .. } | Op::Read { .. }) {
            readings.entry(&operation.key).or_default().push(operation);
        }
    }
    let restored = history.may_be_restored();
    let restores = history.operations().iter().filter(|o| matches!(o.op, Op::Restore { .. }) && o.is_done());
    let last_restore = restores.map(Operation::effect_until).max().unwrap_or(0);
    let parts = Parts::new(history);
    let keys = parts.by_key();
    for (key, readings) in readings {
        let mut watchers: BTreeMap<u32, Vec<&Operation>> = BTreeMap::new();
        for operation in readings.iter().copied() {
            watchers.entry(operation.client).or_default().push(operation);
        }
        watchers.retain(|_, operations| operations.iter().any(|o| matches!(o.op, Op::Watch { .. })));
        let changes = Changes::new(&keys[key], &readings, last_restore);
        for (_, mut watcher) in watchers {
            watcher.sort_by_key(|operation| operation.invoked);
            let result = forwards(&watcher, restored)
                .and_then(|()| match rules.wake_within {
                    Some(within) if !restored => changes.wakes(&watcher, within, end),
                    _ => Ok(()),
                })
                .and_then(|()| changes.last_state(&watcher));
            if let Err((summary, proof)) = result {
                return Violation::verdict(PROPERTY, key, summary, proof);
            }
        }
    }
    Verdict::Valid
}

type Broken<'a> = (String, Vec<&'a Operation>);

/// Neither the index nor, where nothing is restored, the state goes backwards.
fn forwards<'a>(watcher: &[&'a Operation], restored: bool) -> Result<(), Broken<'a>> {
    let mut last: Option<(&Operation, u64)> = None;
    let mut newest: Option<(&Operation, u64)> = None;
    for operation in watcher.iter().copied() {
        let Some((entry, index)) = operation.observed() else { continue };
        if index == 0 {
            return Err(("an answer has the index 0".to_owned(), vec![operation]));
        }
        if let Some((before, last)) = last
            && index < last
        {
            return Err((format!("the index went back from {last} to {index}"), vec![before, operation]));
        }
        last = Some((operation, index));
        if let Some(entry) = entry.filter(|_| !restored) {
            if let Some((before, newest)) = newest
                && entry.modify_index < newest
            {
                let why = format!("the state went back from {newest} to {}", entry.modify_index);
                return Err((why, vec![before, operation]));
            }
            newest = Some((operation, entry.modify_index));
        }
    }
    Ok(())
}

/// What is known about the changes of one key.
struct Changes<'a> {
    /// Acknowledged writes of known index: (index, the earliest end of a write of this or a higher index, that write).
    answered: Vec<(u64, Nanos, &'a Operation)>,
    /// The first linearizable read that began after all changes had been answered, if there is one.
    settled: Option<&'a Operation>,
}

impl<'a> Changes<'a> {
    /// `restored`: when the last restore had been answered, zero without any.
    fn new(operations: &[&'a Operation], readings: &[&'a Operation], restored: Nanos) -> Changes<'a> {
        let mut indexes: BTreeMap<&str, u64> = BTreeMap::new();
        for operation in operations {
            if let Some((Some(entry), _)) = operation.observed() {
                indexes.insert(&entry.value, entry.modify_index);
            }
        }
        let mut answered: Vec<(u64, Nanos, &Operation)> = operations
            .iter()
            .filter(|operation| operation.is_done())
            .filter_map(|o| Some((*indexes.get(o.op.value()?)?, o.effect_until(), *o)))
            .collect();
        answered.sort_by_key(|(index, _, _)| *index);
        let mut earliest: Option<(Nanos, &Operation)> = None;
        for (_, end, write) in answered.iter_mut().rev() {
            let (first, by) = *earliest.insert(match earliest {
                Some(earliest) if earliest.0 < *end => earliest,
                _ => (*end, *write),
            });
            (*end, *write) = (first, by);
        }
        let last_change = operations
            .iter()
            .filter(|operation| operation.op.mutates_key() && operation.is_done())
            .map(|operation| operation.effect_until())
            .max()
            .unwrap_or(0)
            .max(restored);
        let settled = readings
            .iter()
            .copied()
            .filter(|o| matches!(o.op, Op::Read { .. }) && o.observed_fresh().is_some())
            .filter(|operation| operation.invoked > last_change)
            .min_by_key(|operation| operation.invoked);
        Changes { answered, settled }
    }

    /// No query sleeps through a change above its index.
    fn wakes(&self, watcher: &[&'a Operation], within: Nanos, end: Nanos) -> Result<(), Broken<'a>> {
        for operation in watcher.iter().copied() {
            let Op::Watch { index, .. } = operation.op else { continue };
            if operation.completed.is_some() && operation.observed().is_none() {
                continue;
            }
            let above = self.answered.partition_point(|(other, _, _)| *other <= index);
            let Some((_, written, write)) = self.answered.get(above) else { continue };
            let latest = (*written).max(operation.invoked).saturating_add(within);
            if operation.completed.unwrap_or(end) > latest {
                let why = format!("a query above {index} slept more than {within} ns through a change");
                return Err((why, vec![write, operation]));
            }
        }
        Ok(())
    }

    /// A watcher that was still there when all had settled has seen how.
    fn last_state(&self, watcher: &[&'a Operation]) -> Result<(), Broken<'a>> {
        let Some(settled) = self.settled else { return Ok(()) };
        let last = watcher.last().expect("a watcher has watched");
        if last.completed.is_some_and(|at| at < settled.invoked) {
            return Ok(());
        }
        let (last_entry, last_index) = settled.observed().expect("a read that settles has an answer");
        let seen = watcher.iter().rev().find(|operation| operation.observed().is_some());
        let Some(seen) = seen else {
            return Err(("a watcher was never answered".to_owned(), vec![settled, last]));
        };
        let (entry, index) = seen.observed().expect("filtered for answers");
        let version = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.modify_index);
        // A change of unknown outcome may have come after all had seemed settled.
        if version(entry) != version(last_entry) && index <= last_index {
            return Err(("a watcher never saw the last state".to_owned(), vec![settled, seen, last]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::at;
    use crate::history::{Consistency, Outcome, Reply};

    fn watch(from: Nanos, to: Nanos, asked: u64, value: &str, index: u64) -> Operation {
        let entry = Entry { value: value.into(), modify_index: index, lock_index: 0, session: None };
        watched(from, to, asked, Some(entry), index)
    }

    fn watched(from: Nanos, to: Nanos, asked: u64, entry: Option<Entry>, index: u64) -> Operation {
        let op = Op::Watch { index: asked, consistency: Consistency::Linearizable };
        at(7, "k", from, to).is(op, read(entry, index))
    }

    fn read(entry: Option<Entry>, index: u64) -> Outcome {
        Outcome::Ok(Reply::Read { entry, index })
    }

    fn asleep(from: Nanos, asked: u64) -> Operation {
        let mut operation = watch(from, from, asked, "", 1);
        operation.completed = None;
        operation.outcome = Outcome::Unknown;
        operation
    }

    fn verdict(operations: Vec<Operation>, wake_within: Option<Nanos>) -> Verdict {
        check(&operations.into(), Rules { wake_within })
    }

    #[track_caller]
    fn passes(operations: Vec<Operation>) {
        let verdict = verdict(operations, Some(5));
        assert!(verdict.is_valid(), "{verdict}");
    }

    #[track_caller]
    fn fails(operations: Vec<Operation>, wake_within: Option<Nanos>, why: &str) {
        let verdict = verdict(operations, wake_within);
        assert!(verdict.violation().is_some_and(|v| v.summary.contains(why)), "{verdict}");
    }

    fn two_writes() -> Vec<Operation> {
        vec![at(1, "k", 10, 12).write("a"), at(1, "k", 20, 22).write("b"), at(2, "k", 50, 51).read("b", 6)]
    }

    #[test]
    fn a_watcher_sees_the_changes() {
        let mut history = two_writes();
        history.extend([watch(1, 13, 1, "a", 5), watch(14, 23, 5, "b", 6), asleep(24, 6)]);
        passes(history);
    }

    #[test]
    fn a_state_that_was_replaced_may_be_missed() {
        let mut history = two_writes();
        history.extend([watch(11, 12, 1, "a", 5), watch(24, 25, 5, "b", 6), asleep(26, 6)]);
        passes(history);
        let mut history = two_writes();
        history.extend([watch(21, 23, 1, "b", 6), asleep(24, 6)]);
        passes(history);
    }

    #[test]
    fn an_index_that_goes_back_fails() {
        let mut history = two_writes();
        history.extend([watch(1, 23, 1, "b", 6), watch(24, 25, 6, "a", 5)]);
        fails(history, None, "index went back from 6 to 5");
    }

    #[test]
    fn a_state_that_goes_back_fails() {
        let old = Entry { value: "a".into(), modify_index: 5, lock_index: 0, session: None };
        let mut history = two_writes();
        history.extend([watch(1, 23, 1, "b", 6), watched(24, 25, 6, Some(old), 9)]);
        fails(history, None, "state went back from 6 to 5");
    }

    #[test]
    fn a_watcher_that_misses_the_last_state_fails() {
        let mut history = two_writes();
        history.extend([watch(1, 13, 1, "a", 5), asleep(14, 5)]);
        fails(history, None, "never saw the last state");
        let mut history = two_writes();
        history.extend([watch(1, 13, 1, "a", 5), watch(14, 60, 5, "a", 5)]);
        fails(history, None, "never saw the last state");
        let mut history = two_writes();
        history.push(asleep(14, 0));
        fails(history, None, "never answered");
    }

    #[test]
    fn a_watcher_that_misses_the_last_delete_fails() {
        let mut history = two_writes();
        history.extend([at(1, "k", 30, 31).done(Op::Delete)]);
        history.retain(|operation| operation.observed().is_none());
        history.push(at(2, "k", 50, 51).absent(7));
        history.push(watch(1, 23, 1, "b", 6));
        let mut seen = history.clone();
        seen.extend([watched(24, 32, 6, None, 7), asleep(33, 7)]);
        passes(seen);
        history.push(asleep(24, 6));
        fails(history, None, "never saw the last state");
    }

    #[test]
    fn a_state_may_go_back_by_a_restore_and_the_index_not() {
        let old = || Some(Entry { value: "a".into(), modify_index: 5, lock_index: 0, session: None });
        let history = || {
            let mut history = two_writes();
            history.extend([
                at(3, "", 55, 60).done(Op::Restore { snapshot: "s".into() }),
                at(2, "k", 70, 71).is(Op::Read { consistency: Consistency::Linearizable }, read(old(), 9)),
                watch(1, 23, 1, "b", 6),
            ]);
            history
        };
        let with = |watched| history().into_iter().chain(watched).collect::<Vec<_>>();
        passes(with(vec![watched(24, 61, 6, old(), 9), asleep(62, 9)]));
        fails(with(vec![watched(24, 61, 6, old(), 5)]), None, "index went back from 6 to 5");
        fails(with(vec![asleep(24, 6)]), None, "never saw the last state");
    }

    #[test]
    fn a_watcher_that_was_stopped_early_has_missed_nothing() {
        let mut history = two_writes();
        let mut stopped = asleep(14, 5);
        stopped.completed = Some(15);
        stopped.outcome = Outcome::Failed;
        history.extend([watch(1, 13, 1, "a", 5), stopped]);
        passes(history);
    }

    #[test]
    fn a_query_that_sleeps_through_a_change_fails() {
        let mut history = two_writes();
        history.extend([watch(1, 13, 1, "a", 5), watch(14, 30, 5, "b", 6), asleep(31, 6)]);
        fails(history.clone(), Some(5), "slept more than 5 ns through a change");
        assert!(verdict(history, None).is_valid());
        let mut history = two_writes();
        history.extend([watch(1, 13, 1, "a", 5), watch(14, 23, 5, "b", 6), watch(30, 52, 5, "b", 6)]);
        fails(history, Some(5), "slept more than");
    }
}
