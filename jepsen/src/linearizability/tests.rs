use proptest::prelude::*;

use super::model::{self, Model};
use super::search::{Found, search};
use super::{Budget, check, naive};
use crate::history::testing::{DONE, at};
use crate::history::{Consistency, Entry, History, Op, Operation, Outcome, Reply};
use crate::verdict::Verdict;

fn verdict(operations: Vec<Operation>) -> Verdict {
    check(&operations.into(), Budget::default())
}

#[track_caller]
fn passes(operations: Vec<Operation>) {
    let verdict = verdict(operations);
    assert!(verdict.is_valid(), "{verdict}");
}

#[track_caller]
fn fails(operations: Vec<Operation>) -> crate::verdict::Violation {
    verdict(operations).violation().expect("a violation").clone()
}

#[test]
fn an_empty_history_is_in_order() {
    passes(vec![]);
}

#[test]
fn a_read_beside_a_write_may_see_either_state() {
    passes(vec![at(1, "k", 10, 20).write("a"), at(2, "k", 11, 12).absent(1)]);
    passes(vec![at(1, "k", 10, 20).write("a"), at(2, "k", 11, 12).read("a", 5)]);
}

#[test]
fn a_stale_read_fails() {
    let violation =
        fails(vec![at(1, "k", 1, 2).write("a"), at(1, "k", 3, 4).write("b"), at(2, "k", 5, 6).read("a", 5)]);
    assert_eq!(violation.operations.len(), 3, "{violation}");
}

#[test]
fn a_read_that_was_allowed_to_be_stale_passes() {
    let stale = Entry { value: "a".into(), modify_index: 5, lock_index: 0, session: None };
    passes(vec![
        at(1, "k", 1, 2).write("a"),
        at(1, "k", 3, 4).write("b"),
        at(2, "k", 5, 6).is(
            Op::Read { consistency: Consistency::Stale },
            Outcome::Ok(Reply::Read { entry: Some(stale), index: 5 }),
        ),
    ]);
}

#[test]
fn a_lost_write_fails() {
    fails(vec![at(1, "k", 1, 2).write("a"), at(2, "k", 3, 4).absent(1)]);
}

#[test]
fn a_lost_update_fails() {
    // Two clients read the same version and both replace it.
    fails(vec![
        at(1, "k", 1, 2).write("a"),
        at(1, "k", 3, 4).read("a", 5),
        at(2, "k", 3, 4).read("a", 5),
        at(1, "k", 5, 8).cas(5, "b", DONE),
        at(2, "k", 5, 8).cas(5, "c", DONE),
    ]);
}

#[test]
fn a_value_that_comes_back_fails() {
    fails(vec![
        at(1, "k", 1, 9).write("a"),
        at(2, "k", 1, 9).write("b"),
        at(3, "k", 2, 3).read("a", 5),
        at(3, "k", 4, 5).read("b", 6),
        at(3, "k", 6, 7).read("a", 5),
    ]);
}

#[test]
fn two_readers_may_not_see_two_orders() {
    fails(vec![
        at(1, "k", 1, 9).write("a"),
        at(2, "k", 1, 9).write("b"),
        at(3, "k", 2, 3).read("a", 5),
        at(3, "k", 4, 5).read("b", 6),
        at(4, "k", 2, 3).read("b", 6),
        at(4, "k", 4, 5).read("a", 5),
    ]);
}

#[test]
fn a_phantom_fails() {
    assert!(fails(vec![at(1, "k", 1, 2).read("ghost", 5)]).summary.contains("nobody wrote"));
}

#[test]
fn a_value_of_another_key_is_a_phantom() {
    fails(vec![at(1, "j", 1, 2).write("a"), at(1, "k", 3, 4).read("a", 5)]);
}

#[test]
fn a_refused_compare_and_set_needs_another_state() {
    fails(vec![
        at(1, "k", 1, 2).write("a"),
        at(1, "k", 3, 4).read("a", 5),
        at(1, "k", 5, 6).cas(5, "b", Reply::Refused),
    ]);
    passes(vec![
        at(1, "k", 1, 2).write("a"),
        at(1, "k", 3, 4).read("a", 5),
        at(2, "k", 3, 4).write_unknown("c"),
        at(1, "k", 5, 6).cas(5, "b", Reply::Refused),
    ]);
}

#[test]
fn create_only_writes_need_absence() {
    passes(vec![at(1, "k", 1, 2).cas(0, "a", DONE), at(1, "k", 3, 4).cas(0, "b", Reply::Refused)]);
    fails(vec![at(1, "k", 1, 2).cas(0, "a", DONE), at(1, "k", 3, 4).cas(0, "b", DONE)]);
    passes(vec![
        at(1, "k", 1, 2).cas(0, "a", DONE),
        at(1, "k", 3, 4).done(Op::Delete),
        at(1, "k", 5, 6).cas(0, "b", DONE),
    ]);
}

#[test]
fn an_unknown_write_may_happen_late_or_never_but_once() {
    passes(vec![at(1, "k", 1, 2).write_unknown("a"), at(2, "k", 8, 9).absent(1)]);
    passes(vec![
        at(1, "k", 1, 2).write_unknown("a"),
        at(2, "k", 5, 6).absent(1),
        at(2, "k", 8, 9).read("a", 3),
    ]);
    fails(vec![
        at(1, "k", 1, 2).write_unknown("a"),
        at(2, "k", 3, 4).read("a", 3),
        at(2, "k", 5, 6).write("b"),
        at(2, "k", 7, 8).read("a", 3),
    ]);
}

#[test]
fn a_chain_of_unknown_writes_is_followed() {
    let unknown = |expected, value: &str| {
        at(1, "k", 5, 6).is(Op::Cas { expected, value: value.into() }, Outcome::Unknown)
    };
    let stale_read = |value: &str, index| {
        let entry = Entry { value: value.into(), modify_index: index, lock_index: 0, session: None };
        at(3, "k", 5, 6).is(
            Op::Read { consistency: Consistency::Stale },
            Outcome::Ok(Reply::Read { entry: Some(entry), index }),
        )
    };
    passes(vec![
        unknown(0, "a"),
        stale_read("a", 3),
        unknown(3, "b"),
        stale_read("b", 4),
        unknown(4, "c"),
        at(2, "k", 7, 8).absent(1),
        at(2, "k", 9, 10).read("c", 5),
    ]);
    fails(vec![
        unknown(0, "a"),
        stale_read("a", 3),
        unknown(3, "b"),
        stale_read("b", 4),
        unknown(4, "c"),
        at(2, "k", 7, 8).read("b", 4),
        at(2, "k", 9, 10).read("a", 3),
    ]);
}

#[test]
fn a_violation_is_cut_down_to_its_proof() {
    let mut operations = simulated(7, 2_000, 5, 1, Mischief::StaleRead).operations().to_vec();
    operations.extend(simulated(8, 500, 5, 20, Mischief::None).operations().iter().cloned().map(|mut o| {
        o.key = format!("other/{}", o.key);
        o
    }));
    let violation = fails(operations);
    assert!(violation.operations.len() <= 6, "{violation}");
    assert!(violation.key.starts_with("key/"));
}

#[test]
fn too_hard_is_no_pass() {
    let history = simulated(3, 500, 10, 1, Mischief::None);
    assert!(matches!(check(&history, Budget { nodes_per_key: 20 }), Verdict::Undecided { .. }));
}

#[test]
fn nonsense_is_no_pass() {
    assert!(matches!(
        verdict(vec![at(1, "k", 1, 2).write("a"), at(1, "k", 1, 2).write("a")]),
        Verdict::Undecided { .. }
    ));
}

#[test]
fn a_hundred_thousand_operations_are_judged() {
    let history = simulated(1, 100_000, 20, 100, Mischief::None);
    let started = std::time::Instant::now();
    assert_eq!(check(&history, Budget::default()), Verdict::Valid);
    println!("100,000 operations over 100 keys: {:?}", started.elapsed());
    let history = simulated(2, 100_000, 20, 100, Mischief::StaleRead);
    let started = std::time::Instant::now();
    let verdict = check(&history, Budget::default());
    println!("the same with a violation: {:?}", started.elapsed());
    let violation = verdict.violation().unwrap_or_else(|| panic!("{verdict}"));
    assert!(violation.operations.len() <= 8, "{violation}");
}

#[test]
fn one_busy_key_is_judged() {
    for (operations, clients, mischief) in [(10_000, 20, Mischief::None), (2_000, 8, Mischief::StaleRead)] {
        let started = std::time::Instant::now();
        let history = simulated(4, operations, clients, 1, mischief);
        let verdict = check(&history, Budget::default());
        println!("{operations} operations of {clients} clients on one key: {:?}", started.elapsed());
        assert_eq!(verdict.is_valid(), mischief == Mischief::None, "{verdict}");
        assert_eq!(verdict.violation().is_some(), mischief == Mischief::StaleRead, "{verdict}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mischief {
    None,
    /// One read, three quarters through, returns the version before the one that it should.
    StaleRead,
}

/// A deterministic store with random delays before and after each operation's effect, as clients see it.
fn simulated(seed: u64, operations: usize, clients: u32, keys: u64, mischief: Mischief) -> History {
    struct Register {
        versions: Vec<(Option<String>, u64)>,
        /// Indexes that clients have read.
        read: Vec<u64>,
    }
    let mut random = seed;
    let mut draw = move |bound: u64| {
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    };
    let mut registers: Vec<Register> =
        (0..keys).map(|_| Register { versions: vec![(None, 0)], read: vec![0] }).collect();
    // Effects in order of time: (moment of effect, client). Each client then goes on a little later.
    let mut queue = std::collections::BTreeSet::new();
    for client in 0..clients {
        queue.insert((draw(100), client, 0u64));
    }
    let mut history = Vec::new();
    let mut index = 10;
    let mut mischief = mischief;
    while history.len() < operations {
        let (now, client, invoked) = queue.pop_first().expect("each client is always queued");
        let key = draw(keys) as usize;
        let register = &mut registers[key];
        let (current, current_index) = register.versions.last().expect("a first state").clone();
        let value = format!("{client}:{}", history.len());
        let mut unknown = draw(200) == 0;
        let lost = unknown && draw(2) == 0;
        let (op, reply, change) = match draw(20) {
            0..8 => {
                let mut seen = (current, current_index);
                if mischief == Mischief::StaleRead
                    && history.len() > operations * 3 / 4
                    && register.versions.len() > 100
                {
                    mischief = Mischief::None;
                    unknown = false;
                    let past = &register.versions[..register.versions.len() - 4 * clients as usize];
                    seen = past.iter().rfind(|(value, _)| value.is_some()).expect("a write").clone();
                }
                let entry =
                    seen.0.map(|value| Entry { value, modify_index: seen.1, lock_index: 0, session: None });
                let reply = Reply::Read { entry, index: seen.1.max(1) };
                if !unknown && register.read.last() != Some(&seen.1) {
                    register.read.push(seen.1);
                }
                (Op::Read { consistency: Consistency::Linearizable }, reply, None)
            }
            8..14 => (Op::Write { value: value.clone() }, DONE, Some(Some(value))),
            14..19 => {
                let past = draw(2) as usize;
                let expected = register.read[register.read.len().saturating_sub(1 + past)];
                let op = Op::Cas { expected, value: value.clone() };
                if expected == current_index {
                    (op, DONE, Some(Some(value)))
                } else {
                    (op, Reply::Refused, None)
                }
            }
            _ => (Op::Delete, DONE, Some(None)),
        };
        if let (Some(state), false) = (change, lost) {
            index += 1;
            let state_index = if state.is_some() { index } else { 0 };
            register.versions.push((state, state_index));
        }
        let completed = now + draw(40);
        history.push(Operation {
            client,
            key: format!("key/{key}"),
            op,
            invoked,
            completed: Some(completed),
            outcome: if unknown { Outcome::Unknown } else { Outcome::Ok(reply) },
        });
        let begin = completed + 1 + draw(10);
        queue.insert((begin + draw(60), client, begin));
    }
    History::from(history)
}

/// A small history in which operations were answered at random, most of them plausibly.
fn small_history() -> impl Strategy<Value = Vec<Operation>> {
    let step = (0..6u8, 0..6usize, 0..12u64, 0..10u64, 0..6u8);
    proptest::collection::vec(step, 1..9).prop_map(|steps| {
        let count = steps.len();
        let index_of = |writer: usize| 100 + writer as u64;
        steps
            .iter()
            .enumerate()
            .map(|(number, &(kind, target, invoked, length, outcome))| {
                let own = format!("v{number}");
                // The value of some operation of this history, or absence.
                let target = target % (count + 1);
                let writes = target < count && matches!(steps[target].0, 1 | 2 | 4);
                let (op, answered) = match kind {
                    0 | 5 => {
                        let entry = writes.then(|| Entry {
                            value: format!("v{target}"),
                            modify_index: index_of(target),
                            lock_index: 0,
                            session: None,
                        });
                        let consistency = Consistency::Linearizable;
                        (Op::Read { consistency }, Reply::Read { entry, index: 1 })
                    }
                    1 | 4 => (Op::Write { value: own }, DONE),
                    2 => {
                        let expected = if writes { index_of(target) } else { 0 };
                        let reply = if outcome % 2 == 0 { DONE } else { Reply::Refused };
                        (Op::Cas { expected, value: own }, reply)
                    }
                    _ => (Op::Delete, DONE),
                };
                // One write in three tells its index, so that some indexes stay unseen.
                let reply = match answered {
                    Reply::Done { .. } if outcome == 2 => Reply::Done { index: Some(index_of(number)) },
                    other => other,
                };
                Operation {
                    client: number as u32,
                    key: "k".into(),
                    op,
                    invoked,
                    completed: Some(invoked + length),
                    outcome: if outcome >= 4 { Outcome::Unknown } else { Outcome::Ok(reply) },
                }
            })
            .collect()
    })
}

fn compiled(operations: &[Operation]) -> Option<Model> {
    model::compile(&operations.iter().collect::<Vec<_>>()).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_search_agrees_with_the_definition(operations in small_history()) {
        if let Some(model) = compiled(&operations) {
            let expected = if naive::is_linearizable(&model) { Found::Order } else { Found::NoOrder };
            prop_assert_eq!(search(&model, 1_000_000).0, expected);
        }
    }

    #[test]
    fn a_cut_down_violation_is_one_by_the_definition(operations in small_history()) {
        if let Some(model) = compiled(&operations)
            && !naive::is_linearizable(&model)
        {
            let minimal = super::minimize::minimize(&model);
            prop_assert!(!minimal.steps.is_empty());
            let cut = Model { steps: minimal.steps, index_known: model.index_known };
            prop_assert!(!naive::is_linearizable(&cut));
        }
    }

    #[test]
    fn cutting_down_makes_no_violation(operations in small_history(), at in 0..8usize, size in 1..4usize) {
        if let Some(model) = compiled(&operations)
            && naive::is_linearizable(&model)
        {
            let steps = super::minimize::without(&model.steps, at, size);
            let cut = Model { steps, index_known: model.index_known };
            prop_assert!(naive::is_linearizable(&cut));
        }
    }
}
