//! Is a set that only grows ever missing an element, or showing one from nowhere?
//!
//! Readings of a growing set are in one order if and only if they are in the order of their sizes: each contains the one
//! before. Together with real time that decides linearizability without a search. How the set is kept (a key that lists
//! its elements and is replaced by compare-and-set, or one key for each under a prefix) does not matter here.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Consistency, History, Nanos, Op, Operation, Reply};
use crate::verdict::{Verdict, Violation};

const PROPERTY: &str = "set";

/// Checks every set of a history.
#[must_use]
pub fn check(history: &History) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    let mut sets: BTreeMap<&str, Set<'_>> = BTreeMap::new();
    for operation in history.operations() {
        match (&operation.op, operation.reply()) {
            (Op::SetAdd { element }, _) => {
                let set = sets.entry(&operation.key).or_default();
                set.adds.insert(element, operation);
            }
            (Op::SetRead { consistency }, Some(Reply::Set { elements })) => {
                let set = sets.entry(&operation.key).or_default();
                let fresh = *consistency == Consistency::Linearizable;
                set.reads.push(Read { operation, elements, fresh });
            }
            _ => {}
        }
    }
    for (key, set) in sets {
        if let Err((summary, proof)) = set.check() {
            return Violation::verdict(PROPERTY, key, summary, proof);
        }
    }
    Verdict::Valid
}

type Broken<'a> = (String, Vec<&'a Operation>);

struct Read<'a> {
    operation: &'a Operation,
    elements: &'a [String],
    fresh: bool,
}

#[derive(Default)]
struct Set<'a> {
    adds: BTreeMap<&'a str, &'a Operation>,
    reads: Vec<Read<'a>>,
}

impl<'a> Set<'a> {
    fn check(&self) -> Result<(), Broken<'a>> {
        let mut views: Vec<(&'a Operation, BTreeSet<&'a str>)> = Vec::new();
        for read in &self.reads {
            let view = self.view(read)?;
            if read.fresh {
                self.nothing_lost(read.operation, &view)?;
                views.push((read.operation, view));
            }
        }
        views.sort_by_key(|(operation, view)| (view.len(), operation.invoked));
        one_order(&views)?;
        in_real_time(views)
    }

    /// The elements that a reading shows, each once, and each added by somebody.
    fn view(&self, read: &Read<'a>) -> Result<BTreeSet<&'a str>, Broken<'a>> {
        let mut view = BTreeSet::new();
        for element in read.elements {
            match self.adds.get(element.as_str()) {
                None => return Err((format!("{element:?} was never added"), vec![read.operation])),
                Some(add) if !add.may_be_done() || read.operation.completed < Some(add.invoked) => {
                    let why = format!("{element:?} was there, though it had not been added");
                    return Err((why, vec![add, read.operation]));
                }
                Some(_) => {}
            }
            if !view.insert(element.as_str()) {
                return Err((format!("{element:?} was shown twice"), vec![read.operation]));
            }
        }
        Ok(view)
    }

    /// What had been added before the reading began is there, and so is what came before anything that is there.
    fn nothing_lost(&self, read: &'a Operation, view: &BTreeSet<&str>) -> Result<(), Broken<'a>> {
        let latest = view.iter().map(|element| self.adds[element]).max_by_key(|add| add.invoked);
        for (element, add) in self.adds.iter().filter(|(_, add)| add.is_done()) {
            if view.contains(element) {
                continue;
            }
            if add.effect_until() < read.invoked {
                return Err((format!("{element:?} was added, and is lost"), vec![add, read]));
            }
            if let Some(latest) = latest.filter(|latest| add.effect_until() < latest.invoked) {
                let why = format!("{element:?} is missing, though what was added after it is there");
                return Err((why, vec![add, latest, read]));
            }
        }
        Ok(())
    }
}

/// Each reading contains the smaller one before it.
fn one_order<'a>(views: &[(&'a Operation, BTreeSet<&'a str>)]) -> Result<(), Broken<'a>> {
    for pair in views.windows(2) {
        let [(smaller, before), (larger, after)] = pair else { continue };
        if let (Some(one), Some(other)) = (before.difference(after).next(), after.difference(before).next()) {
            let why =
                format!("one reading has {one:?} without {other:?}, another has {other:?} without {one:?}");
            return Err((why, vec![smaller, larger]));
        }
        if let Some(gone) = before.difference(after).next() {
            return Err((
                format!("{gone:?} is in one of two equally large readings only"),
                vec![smaller, larger],
            ));
        }
    }
    Ok(())
}

/// What begins after another reading has ended shows no less. The views are in one order, by size.
fn in_real_time<'a>(views: Vec<(&'a Operation, BTreeSet<&'a str>)>) -> Result<(), Broken<'a>> {
    let mut by_end: Vec<(Nanos, &Operation, &BTreeSet<&str>)> =
        views.iter().map(|(operation, view)| (operation.effect_until(), *operation, view)).collect();
    let mut by_begin = by_end.clone();
    by_end.sort_by_key(|(end, _, _)| *end);
    by_begin.sort_by_key(|(_, operation, _)| operation.invoked);
    let mut ended = by_end.into_iter().peekable();
    let mut largest: Option<(&Operation, &BTreeSet<&str>)> = None;
    for (_, operation, view) in by_begin {
        while let Some((_, other, seen)) = ended.next_if(|(end, _, _)| *end < operation.invoked) {
            if largest.is_none_or(|(_, largest)| largest.len() <= seen.len()) {
                largest = Some((other, seen));
            }
        }
        if let Some((other, seen)) = largest
            && let Some(gone) = seen.difference(view).next()
        {
            return Err((format!("{gone:?} was there, and is lost"), vec![other, operation]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::Outcome;
    use crate::history::testing::at;

    fn add(from: Nanos, to: Nanos, element: &str) -> Operation {
        at(1, "s", from, to).done(Op::SetAdd { element: element.into() })
    }

    fn read(from: Nanos, to: Nanos, elements: &[&str]) -> Operation {
        let elements = elements.iter().map(|element| (*element).to_owned()).collect();
        let op = Op::SetRead { consistency: Consistency::Linearizable };
        at(2, "s", from, to).is(op, Outcome::Ok(Reply::Set { elements }))
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

    fn two() -> Vec<Operation> {
        vec![add(1, 2, "a"), add(3, 4, "b")]
    }

    fn and(mut operations: Vec<Operation>, more: Operation) -> Vec<Operation> {
        operations.push(more);
        operations
    }

    #[test]
    fn a_growing_set_passes() {
        passes(and(and(two(), read(3, 4, &["a"])), read(5, 6, &["b", "a"])));
        passes(and(two(), read(1, 4, &[])));
    }

    #[test]
    fn a_lost_element_fails() {
        fails(and(two(), read(5, 6, &["b"])), "\"a\" was added, and is lost");
        fails(and(and(two(), read(3, 4, &["a", "b"])), read(5, 6, &["a"])), "is lost");
    }

    #[test]
    fn an_element_that_vanishes_again_fails_though_nobody_knows_that_it_was_added() {
        let unknown = Operation { outcome: Outcome::Unknown, ..add(1, 2, "a") };
        passes(vec![unknown.clone(), read(3, 4, &[]), read(5, 6, &["a"])]);
        fails(vec![unknown, read(3, 4, &["a"]), read(5, 6, &[])], "\"a\" was there, and is lost");
    }

    #[test]
    fn an_element_from_nowhere_fails() {
        fails(vec![read(1, 2, &["ghost"])], "never added");
        fails(and(two(), read(1, 2, &["b"])), "had not been added");
        let failed = Operation { outcome: Outcome::Failed, ..add(1, 2, "a") };
        fails(vec![failed, read(3, 4, &["a"])], "had not been added");
        let stale = Op::SetRead { consistency: Consistency::Stale };
        fails(vec![Operation { op: stale, ..read(1, 2, &["ghost"]) }], "never added");
    }

    #[test]
    fn a_stale_reading_may_miss_elements() {
        let stale = Op::SetRead { consistency: Consistency::Stale };
        passes(and(two(), Operation { op: stale, ..read(5, 6, &[]) }));
    }

    #[test]
    fn an_element_shown_twice_fails() {
        fails(and(two(), read(5, 6, &["a", "b", "a"])), "shown twice");
    }

    #[test]
    fn a_later_element_does_not_come_first() {
        fails(and(two(), read(1, 6, &["b"])), "what was added after it");
    }

    #[test]
    fn two_readers_may_not_see_two_orders() {
        let adds = vec![add(1, 9, "a"), add(1, 9, "b")];
        fails(and(and(adds.clone(), read(2, 9, &["a"])), read(2, 9, &["b"])), "another has");
        fails(and(and(adds, read(2, 3, &["a", "b"])), read(4, 5, &["a"])), "is lost");
    }

    /// The definition: some order of all operations explains the readings.
    fn naive(operations: &[Operation], taken: u32, set: &mut Vec<String>) -> bool {
        let left = |at: &usize| taken & (1 << at) == 0;
        let all = 0..operations.len();
        let ends = all.clone().filter(left).map(|at| operations[at].effect_until());
        let Some(first_end) = ends.filter(|end| *end < Nanos::MAX).min() else { return true };
        for at in all.filter(left).filter(|at| operations[*at].invoked <= first_end) {
            let rest = taken | (1 << at);
            match (&operations[at].op, operations[at].reply()) {
                (Op::SetAdd { element }, _) => {
                    set.push(element.clone());
                    let found = naive(operations, rest, set);
                    set.pop();
                    if found {
                        return true;
                    }
                }
                (_, Some(Reply::Set { elements })) => {
                    let (seen, is): (BTreeSet<_>, BTreeSet<_>) =
                        (elements.iter().collect(), set.iter().collect());
                    if seen == is && naive(operations, rest, set) {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    fn small_history() -> impl Strategy<Value = Vec<Operation>> {
        proptest::collection::vec((0..2u8, 0..32u8, 0..12u64, 0..8u64, 0..5u8), 1..8).prop_map(|steps| {
            let name = |at: usize| format!("e{at}");
            let adds: Vec<usize> = (0..steps.len()).filter(|at| steps[*at].0 == 0).collect();
            let operation = |at: usize| {
                let (kind, mask, invoked, length, outcome) = steps[at];
                if kind == 0 {
                    let op = add(invoked, invoked + length, &name(at));
                    return if outcome == 0 { Operation { outcome: Outcome::Unknown, ..op } } else { op };
                }
                let seen = adds.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
                let seen: Vec<String> = seen.map(|(_, add)| name(*add)).collect();
                read(invoked, invoked + length, &seen.iter().map(String::as_str).collect::<Vec<_>>())
            };
            (0..steps.len()).map(operation).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_check_agrees_with_the_definition(operations in small_history()) {
            let expected = naive(&operations, 0, &mut Vec::new());
            prop_assert_eq!(check(&operations.into()).is_valid(), expected);
        }
    }
}
