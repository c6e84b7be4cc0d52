use proptest::prelude::*;

use super::model::{self, Model};
use super::search::{Found, search};
use super::{Budget, check, minimize, naive};
use crate::history::testing::{DONE, at, committed, get, rolled_back, set};
use crate::history::{Consistency, Entry, History, Op, Operation, Outcome, Reply, TxnAction, TxnVerb};
use crate::verdict::{Verdict, Violation};

fn entry(value: &str, modify_index: u64) -> Option<Entry> {
    Some(Entry { value: value.into(), modify_index, lock_index: 0, session: None })
}

fn verdict(operations: Vec<Operation>) -> Verdict {
    check(&operations.into(), Budget::default())
}

#[track_caller]
fn passes(operations: Vec<Operation>) {
    let verdict = verdict(operations);
    assert!(verdict.is_valid(), "{verdict}");
}

#[track_caller]
fn fails(operations: Vec<Operation>, why: &str) -> Violation {
    let verdict = verdict(operations);
    let violation = verdict.violation().unwrap_or_else(|| panic!("{verdict}")).clone();
    assert!(violation.summary.contains(why), "{verdict}");
    violation
}

fn txn(actions: &[(&str, TxnVerb)]) -> Op {
    let action = |(key, verb): &(&str, TxnVerb)| TxnAction { key: (*key).into(), verb: verb.clone() };
    Op::Txn { actions: actions.iter().map(action).collect(), consistency: Consistency::Linearizable }
}

fn cas(expected: u64, value: &str) -> TxnVerb {
    TxnVerb::Cas { expected, value: value.into() }
}

fn check_index(index: u64) -> TxnVerb {
    TxnVerb::CheckIndex { index }
}

/// Two keys written together at 5.
fn both() -> Operation {
    at(1, "", 1, 2).is(set(&[("x", "x1"), ("y", "y1")]), committed(vec![None, None], 5))
}

fn listed(prefix: &str, from: u64, to: u64, entries: &[(&str, &str, u64)], index: u64) -> Operation {
    let entries = entries
        .iter()
        .map(|(key, value, index)| ((*key).to_owned(), entry(value, *index).expect("an entry")))
        .collect();
    let op = Op::List { above: None, consistency: Consistency::Linearizable };
    at(9, prefix, from, to).is(op, Outcome::Ok(Reply::List { entries, index }))
}

#[test]
fn transactions_one_after_the_other_pass() {
    passes(vec![
        both(),
        at(2, "", 3, 4).is(get(&["x", "y"]), committed(vec![entry("x1", 5), entry("y1", 5)], 0)),
        at(1, "", 5, 6).is(txn(&[("x", cas(5, "x2")), ("y", cas(5, "y2"))]), committed(vec![None, None], 7)),
        at(2, "", 7, 8).is(get(&["x", "y"]), committed(vec![entry("x2", 7), entry("y2", 7)], 0)),
        at(2, "x", 9, 10).read("x2", 7),
    ]);
}

#[test]
fn a_fractured_read_fails() {
    let second = || at(1, "", 3, 9).is(set(&[("x", "x2"), ("y", "y2")]), committed(vec![None, None], 7));
    let read = |x, y| at(2, "", 4, 8).is(get(&["x", "y"]), committed(vec![x, y], 0));
    passes(vec![both(), second(), read(entry("x1", 5), entry("y1", 5))]);
    passes(vec![both(), second(), read(entry("x2", 7), entry("y2", 7))]);
    let violation = fails(vec![both(), second(), read(entry("x2", 7), entry("y1", 5))], "as it was before 7");
    assert_eq!(violation.operations.len(), 2, "{violation}");
}

#[test]
fn a_fractured_read_fails_without_any_index() {
    // The one key was deleted, of which nobody is told an index.
    let second = at(1, "", 3, 4)
        .is(txn(&[("x", TxnVerb::Delete), ("y", TxnVerb::Delete)]), committed(vec![None, None], 0));
    let read = at(2, "", 3, 8).is(get(&["x", "y"]), committed(vec![None, entry("y1", 5)], 0));
    fails(vec![both(), second, read], "no order");
}

#[test]
fn a_lost_update_fails() {
    // Two transfers from the same balance, each conditional on the index that both have read.
    let transfer = |client, value: &str, index| {
        at(client, "", 3, 9).is(
            txn(&[("x", cas(5, value)), ("y", TxnVerb::Set { value: value.into() })]),
            committed(vec![None, None], index),
        )
    };
    fails(vec![both(), transfer(1, "a", 7), transfer(2, "b", 8)], "the update at 7 is lost");
    fails(vec![both(), transfer(1, "a", 0), transfer(2, "b", 0)], "no order");
}

#[test]
fn write_skew_fails() {
    // Each reads both and writes the other key: in a serial order the second would see the first.
    let skew = |client, key: &str, index| {
        at(client, "", 3, 9).is(
            txn(&[
                ("x", check_index(5)),
                ("y", check_index(5)),
                (key, TxnVerb::Set { value: format!("{key}2") }),
            ]),
            committed(vec![None, None, None], index),
        )
    };
    fails(vec![both(), skew(1, "x", 7), skew(2, "y", 8)], "is lost");
    fails(vec![both(), skew(1, "x", 0), skew(2, "y", 0)], "no order");
    passes(vec![both(), skew(1, "x", 7)]);
}

#[test]
fn a_read_of_what_was_rolled_back_fails() {
    let aborted = at(1, "", 3, 4).is(txn(&[("x", cas(9, "x2")), ("y", cas(5, "y2"))]), rolled_back(&[0]));
    let dirty = at(2, "", 5, 6).is(get(&["x", "y"]), committed(vec![entry("x1", 5), entry("y2", 7)], 0));
    fails(vec![both(), aborted, dirty], "which nobody had begun to write");
}

#[test]
fn a_half_made_transaction_fails() {
    let half = at(1, "", 3, 4).is(set(&[("x", "x2"), ("y", "y2")]), Outcome::Unknown);
    let read = |y| at(2, "", 5, 6).is(get(&["x", "y"]), committed(vec![entry("x2", 7), y], 0));
    passes(vec![both(), half.clone(), read(entry("y2", 7))]);
    fails(vec![both(), half, read(entry("y1", 5))], "no order");
}

#[test]
fn a_transaction_with_two_indexes_fails() {
    let read = at(2, "", 3, 4).is(get(&["x", "y"]), committed(vec![entry("x1", 5), entry("y1", 6)], 0));
    let write = at(1, "", 1, 2).is(set(&[("x", "x1"), ("y", "y1")]), committed(vec![None, None], 0));
    fails(vec![write, read], "has the indexes");
}

#[test]
fn a_stale_transaction_fails() {
    let second = at(1, "", 3, 4).is(set(&[("x", "x2"), ("y", "y2")]), committed(vec![None, None], 7));
    let read = at(2, "", 5, 6).is(get(&["x", "y"]), committed(vec![entry("x1", 5), entry("y1", 5)], 0));
    let violation = fails(vec![both(), second, read], "although 7 had been reached");
    assert_eq!(violation.operations.len(), 2);
}

#[test]
fn two_readers_may_not_see_two_orders() {
    // Different keys, so that no single key shows it (the «long fork»).
    fails(
        vec![
            at(1, "x", 1, 9).write("x1"),
            at(2, "y", 1, 9).write("y1"),
            at(3, "", 1, 9).is(get(&["x", "y"]), committed(vec![entry("x1", 5), None], 0)),
            at(4, "", 1, 9).is(get(&["x", "y"]), committed(vec![None, entry("y1", 6)], 0)),
        ],
        "no order",
    );
}

#[test]
fn a_roll_back_needs_a_reason() {
    let refused = || at(2, "", 5, 6).is(txn(&[("x", cas(5, "x2")), ("y", cas(5, "y2"))]), rolled_back(&[1]));
    fails(vec![both(), refused()], "no order");
    passes(vec![both(), at(1, "y", 3, 4).write("y3"), refused()]);
    passes(vec![both(), at(1, "y", 3, 4).write_unknown("y3"), refused()]);
}

#[test]
fn a_transaction_sees_its_own_changes() {
    let verbs = [
        ("x", TxnVerb::Set { value: "x2".into() }),
        ("x", TxnVerb::Get),
        ("y", TxnVerb::Delete),
        ("y", TxnVerb::CheckNotExists),
    ];
    let op = txn(&verbs);
    passes(vec![both(), at(1, "", 3, 4).is(op, committed(vec![None, entry("x2", 7), None, None], 7))]);
    let op = txn(&verbs[..2]);
    fails(vec![both(), at(1, "", 3, 4).is(op, committed(vec![None, entry("x1", 5)], 7))], "no order");
}

#[test]
fn a_phantom_in_a_prefix_read_fails() {
    let pair = at(1, "", 1, 2).is(set(&[("p/a", "a1"), ("p/b", "b1")]), committed(vec![None, None], 5));
    passes(vec![pair.clone(), listed("p/", 3, 4, &[("p/a", "a1", 5), ("p/b", "b1", 5)], 5)]);
    fails(vec![pair.clone(), listed("p/", 1, 4, &[("p/a", "a1", 5)], 5)], "no order");
    fails(
        vec![pair, listed("p/", 3, 4, &[("p/a", "a1", 5), ("p/b", "b1", 5), ("p/c", "?", 6)], 6)],
        "begun to write",
    );
}

#[test]
fn a_prefix_is_deleted_at_once() {
    let pair = at(1, "", 1, 2).is(set(&[("p/a", "a1"), ("p/b", "b1")]), committed(vec![None, None], 5));
    let deleted = at(1, "p/", 3, 9).done(Op::DeleteTree);
    passes(vec![pair.clone(), deleted.clone(), listed("p/", 4, 5, &[], 6)]);
    fails(vec![pair, deleted, listed("p/", 4, 5, &[("p/b", "b1", 5)], 6)], "no order");
}

fn saved(from: u64, to: u64) -> Operation {
    at(5, "", from, to).is(Op::Save, Outcome::Ok(Reply::Snapshot { id: "s".into(), index: None }))
}

fn restored(from: u64, to: u64) -> Operation {
    at(5, "", from, to).done(Op::Restore { snapshot: "s".into() })
}

#[test]
fn a_restore_brings_back_what_was_saved() {
    passes(vec![
        at(1, "x", 1, 2).write("x1"),
        saved(3, 4),
        at(1, "x", 5, 6).write("x2"),
        at(1, "y", 5, 6).write("y2"),
        restored(7, 8),
        at(2, "x", 9, 10).read("x1", 5),
        at(2, "y", 9, 10).absent(9),
        at(2, "y", 11, 12).write("y3"),
        at(2, "y", 13, 14).read("y3", 12),
    ]);
}

#[test]
fn a_restore_that_loses_state_fails() {
    fails(
        vec![at(1, "x", 1, 2).write("x1"), saved(3, 4), restored(7, 8), at(2, "x", 9, 10).absent(9)],
        "no order",
    );
}

#[test]
fn a_restore_that_mixes_states_fails() {
    let history = |y: Operation| {
        vec![
            at(1, "x", 1, 2).write("x1"),
            at(1, "y", 1, 2).write("y1"),
            saved(3, 20),
            at(1, "x", 5, 6).write("x2"),
            at(1, "y", 7, 8).write("y2"),
            restored(21, 22),
            at(2, "x", 23, 24).read("x1", 5),
            y,
        ]
    };
    passes(history(at(2, "y", 25, 26).read("y1", 6)));
    // The one key as it was before, the other one as it was after.
    fails(history(at(2, "y", 25, 26).read("y2", 8)), "no order");
}

#[test]
fn a_snapshot_from_nowhere_is_no_pass() {
    let history = vec![at(1, "x", 1, 2).write("x1"), restored(7, 8)];
    assert!(matches!(verdict(history), Verdict::Undecided { .. }));
}

/// A bank: transfers between accounts by conditional transactions, readings of all accounts. With mischief, one reading
/// late in the history mixes two states.
fn bank(seed: u64, operations: usize, groups: u64, mut mischief: bool) -> History {
    const ACCOUNTS: usize = 4;
    let mut random = crate::workload::Random::new(seed);
    let mut draw = |bound: u64| random.below(bound);
    let mut balances = vec![vec![(String::new(), 0u64); ACCOUNTS]; groups as usize];
    let mut before = balances.clone();
    let mut index = 10;
    let mut queue: std::collections::BTreeSet<(u64, u32, u64)> =
        (0..20).map(|client| (draw(100), client, 0)).collect();
    let mut history = Vec::new();
    while history.len() < operations {
        let (now, client, invoked) = queue.pop_first().expect("each client is always queued");
        let group = draw(groups) as usize;
        let key = |account: usize| format!("bank/{group}/{account}");
        let mut unknown = draw(100) == 0;
        let (op, outcome) = if draw(2) == 0 {
            let mut shown = balances[group].clone();
            if mischief && history.len() > operations * 3 / 4 && before[group] != balances[group] {
                mischief = false;
                shown[..ACCOUNTS / 2].clone_from_slice(&before[group][..ACCOUNTS / 2]);
                unknown = false;
            }
            let entries = shown
                .into_iter()
                .map(|(value, index)| if index == 0 { None } else { entry(&value, index) })
                .collect();
            let actions =
                (0..ACCOUNTS).map(|account| TxnAction { key: key(account), verb: TxnVerb::GetOrEmpty });
            let op = Op::Txn { actions: actions.collect(), consistency: Consistency::Linearizable };
            (op, committed(entries, 0))
        } else {
            let number = history.len();
            let stale = draw(5) == 0;
            let source = if stale { &before } else { &balances };
            let verb = |account: usize| cas(source[group][account].1, &number.to_string());
            let actions = (0..ACCOUNTS).map(|account| TxnAction { key: key(account), verb: verb(account) });
            let op = Op::Txn { actions: actions.collect(), consistency: Consistency::Linearizable };
            let failed: Vec<usize> =
                (0..ACCOUNTS).filter(|at| source[group][*at].1 != balances[group][*at].1).collect();
            if failed.is_empty() {
                index += 1;
                before[group] = balances[group].clone();
                balances[group] = vec![(number.to_string(), index); ACCOUNTS];
                (op, committed(vec![None; ACCOUNTS], if draw(2) == 0 { index } else { 0 }))
            } else {
                (op, rolled_back(&failed))
            }
        };
        let completed = now + draw(40);
        let outcome = if unknown { Outcome::Unknown } else { outcome };
        history.push(at(client, "", invoked, completed).is(op, outcome));
        let begin = completed + 1 + draw(10);
        queue.insert((begin + draw(60), client, begin));
    }
    History::from(history)
}

#[test]
fn a_busy_bank_is_judged() {
    let started = std::time::Instant::now();
    assert_eq!(check(&bank(1, 4_000, 5, false), Budget::default()), Verdict::Valid);
    println!("4,000 transactions: {:?}", started.elapsed());
    let verdict = check(&bank(2, 4_000, 5, true), Budget::default());
    let violation = verdict.violation().unwrap_or_else(|| panic!("{verdict}"));
    assert!(violation.operations.len() <= 4, "{violation}");
}

/// A small history of two keys in which operations were answered at random, most of them plausibly.
fn small_history() -> impl Strategy<Value = Vec<Operation>> {
    let step = (0..8u8, (0..7usize, 0..7usize), 0..12u64, 0..10u64, 0..7u8);
    proptest::collection::vec(step, 1..8).prop_map(|steps| {
        let writes = |at: usize, key: usize| {
            steps.get(at).is_some_and(|(kind, ..)| matches!((kind, key), (0 | 1, _) | (2, 0) | (3, 1)))
        };
        let value = |at: usize, key: usize| format!("{key}-{at}");
        let index = |at: usize| 100 + at as u64;
        let seen =
            |at: usize, key: usize| if writes(at, key) { entry(&value(at, key), index(at)) } else { None };
        let version = |at: usize, key: usize| if writes(at, key) { index(at) } else { 0 };
        steps
            .iter()
            .enumerate()
            .map(|(number, &(kind, (x, y), invoked, length, outcome))| {
                let own = |key| value(number, key);
                let told = if outcome == 2 { index(number) } else { 0 };
                let (op, outcome_if_answered) = match kind {
                    0 => (set(&[("x", &own(0)), ("y", &own(1))]), committed(vec![None, None], told)),
                    1 => {
                        let op =
                            txn(&[("x", cas(version(x, 0), &own(0))), ("y", cas(version(y, 1), &own(1)))]);
                        let reply = match outcome {
                            3 => rolled_back(&[0]),
                            4 => rolled_back(&[1]),
                            _ => committed(vec![None, None], told),
                        };
                        (op, reply)
                    }
                    2 => (set(&[("x", &own(0))]), committed(vec![None], told)),
                    3 => (Op::Write { value: own(1) }, Outcome::Ok(DONE)),
                    4 => (
                        txn(&[("x", TxnVerb::Delete), ("y", TxnVerb::Delete)]),
                        committed(vec![None, None], 0),
                    ),
                    5 => (Op::Delete, Outcome::Ok(DONE)),
                    _ => (get(&["x", "y"]), committed(vec![seen(x, 0), seen(y, 1)], 0)),
                };
                let key = if matches!(kind, 3 | 5) { "y" } else { "" };
                let outcome = if outcome >= 5 { Outcome::Unknown } else { outcome_if_answered };
                at(number as u32, key, invoked, invoked + length).is(op, outcome)
            })
            .collect()
    })
}

fn compiled(operations: &[Operation]) -> Option<Model> {
    model::compile(&["x", "y"], &operations.iter().collect::<Vec<_>>()).ok()
}

/// The same with a snapshot that is saved and restored at some time.
fn with_restore(mut operations: Vec<Operation>, from: u64, length: u64, later: u64) -> Vec<Operation> {
    operations.push(saved(from, from + length));
    operations.push(restored(from + length + later, from + 2 * length + later));
    operations
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_search_agrees_with_the_definition(operations in small_history()) {
        if let Some(model) = compiled(&operations) {
            let expected = if naive::is_serializable(&model) { Found::Order } else { Found::NoOrder };
            prop_assert_eq!(search(&model, 1_000_000).0, expected);
        }
    }

    #[test]
    fn the_search_agrees_with_the_definition_around_a_restore(
        operations in small_history(), from in 0..12u64, length in 0..8u64, later in 0..6u64
    ) {
        if let Some(model) = compiled(&with_restore(operations, from, length, later)) {
            let expected = if naive::is_serializable(&model) { Found::Order } else { Found::NoOrder };
            prop_assert_eq!(search(&model, 1_000_000).0, expected);
        }
    }

    #[test]
    fn a_cut_down_violation_is_one_by_the_definition(operations in small_history()) {
        if let Some(model) = compiled(&operations)
            && !naive::is_serializable(&model)
        {
            let cut = Model { steps: minimize::minimize(&model), ..model };
            prop_assert!(!cut.steps.is_empty() && !naive::is_serializable(&cut));
        }
    }

    #[test]
    fn cutting_down_makes_no_violation(operations in small_history(), at in 0..7usize, size in 1..4usize) {
        if let Some(model) = compiled(&operations)
            && naive::is_serializable(&model)
        {
            let cut = Model { steps: minimize::without(&model.steps, at, size), ..model };
            prop_assert!(naive::is_serializable(&cut));
        }
    }
}
