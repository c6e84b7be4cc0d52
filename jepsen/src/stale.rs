//! Is a stale reading a state that the key really had, and no staler than the answer says?
//!
//! «Results can be arbitrarily stale», but they are results; and the headers `X-Consul-LastContact` and
//! `X-Consul-KnownLeader` «can be used to gauge the staleness» (Consul, «Consistency Modes»). A reading whose server had
//! heard of the leader some time ago shows what was current at some moment from then on: it is a linearizable
//! reading that may take effect that much earlier. So it is judged as one.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Consistency, History, Nanos, Op, Operation, Parts, Reply};
use crate::sessions::Timing;
use crate::verdict::{Verdict, Violation};
use crate::{index_order, linearizability};

const PROPERTY: &str = "stale reading";

/// `X-Consul-LastContact` is told in milliseconds.
const ROUNDING: Nanos = 1_000_000;

/// Which promises of stale reads to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What clocks may do.
    pub timing: Timing,
    /// Whether the told time since the last contact bounds the age of what is shown. A server that hears of the leader,
    /// but is slow to take what it hears, does not keep that: only for histories without such faults.
    pub bounded: bool,
}

/// Checks every stale reading of a history whose other operations are linearizable.
#[must_use]
pub fn check(history: &History, rules: Rules) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    for verdict in [real_states(history), within_limits(history)] {
        if !verdict.is_valid() {
            return verdict;
        }
    }
    if rules.bounded { ages(history, rules.timing) } else { Verdict::Valid }
}

fn is_stale(operation: &Operation) -> bool {
    operation.op.consistency().is_some_and(|consistency| consistency != Consistency::Linearizable)
}

/// A stale reading shows a value that somebody had begun to write, with the index that all others saw it with.
fn real_states(history: &History) -> Verdict {
    let parts = Parts::new(history);
    for (key, operations) in parts.by_key() {
        // When a session ends, its locks get another modify index with the same value, and no client did it.
        let is_lock = operations.iter().any(|o| matches!(o.op, Op::Acquire { .. } | Op::Release { .. }));
        let writes: BTreeMap<&str, &Operation> =
            operations.iter().filter_map(|operation| Some((operation.op.value()?, *operation))).collect();
        let mut indexes: BTreeMap<&str, (u64, &Operation)> = BTreeMap::new();
        for operation in &operations {
            let Some((Some(entry), _)) = operation.observed() else { continue };
            let value = entry.value.as_str();
            if is_stale(operation) {
                match writes.get(value) {
                    None => {
                        return Violation::verdict(
                            PROPERTY,
                            key,
                            format!("{value:?} was never written"),
                            [*operation],
                        );
                    }
                    Some(write) if !write.may_be_done() || operation.completed < Some(write.invoked) => {
                        let why = format!("{value:?} was read, though it was not written");
                        return Violation::verdict(PROPERTY, key, why, [*write, *operation]);
                    }
                    Some(_) => {}
                }
            }
            let (index, by) = *indexes.entry(value).or_insert((entry.modify_index, operation));
            if index != entry.modify_index && !is_lock {
                let why = format!("{value:?} was seen with the indexes {index} and {}", entry.modify_index);
                return Violation::verdict(PROPERTY, key, why, [by, *operation]);
            }
        }
    }
    Verdict::Valid
}

/// A server that has not heard of the leader for longer than was asked for does not answer by itself.
fn within_limits(history: &History) -> Verdict {
    for operation in history.operations() {
        if let (Some(Consistency::StaleWithin(limit)), Some(Reply::ReadStale { last_contact, .. })) =
            (operation.op.consistency(), operation.reply())
            && *last_contact > limit.saturating_add(ROUNDING)
        {
            let why = format!("the answer is of {last_contact} ns ago, {limit} ns were asked for");
            return Violation::verdict(PROPERTY, &operation.key, why, [operation]);
        }
    }
    Verdict::Valid
}

/// How old the answer may be at most, if it says so.
fn age(operation: &Operation, timing: Timing) -> Option<Nanos> {
    let told = match (operation.op.consistency()?, operation.reply()?) {
        (Consistency::Linearizable, _) => return None,
        (_, Reply::ReadStale { last_contact, .. }) => *last_contact,
        (Consistency::StaleWithin(limit), Reply::Read { .. }) => limit,
        _ => return None,
    };
    // The server's clock may be slow: more time has passed than it says.
    let longer = u128::from(told) * (1_000_000 + u128::from(timing.drift_ppm)) / 1_000_000;
    Some(u64::try_from(longer).unwrap_or(u64::MAX).saturating_add(timing.slack).saturating_add(ROUNDING))
}

fn ages(history: &History, timing: Timing) -> Verdict {
    let judged: BTreeSet<&str> = history
        .operations()
        .iter()
        .filter(|operation| age(operation, timing).is_some())
        .map(|operation| operation.key.as_str())
        .collect();
    let parts = Parts::new(history);
    let widened: History = parts
        .by_key()
        .into_iter()
        .filter(|(key, _)| judged.contains(key))
        .flat_map(|(_, operations)| operations)
        .map(|operation| match (age(operation, timing), operation.observed()) {
            (Some(age), Some((entry, index))) => Operation {
                op: Op::Read { consistency: Consistency::Linearizable },
                invoked: operation.invoked.saturating_sub(age),
                outcome: crate::history::Outcome::Ok(Reply::Read { entry: entry.cloned(), index }),
                ..operation.clone()
            },
            _ => operation.clone(),
        })
        .collect();
    let verdict = match index_order::check(&widened) {
        Verdict::Valid => linearizability::check(&widened, linearizability::Budget::default()),
        other => other,
    };
    match verdict {
        Verdict::Violated(violation) => Verdict::Violated(Box::new(Violation {
            property: PROPERTY,
            summary: format!(
                "staler than the answer says (it counts from when the server last heard of the leader): {}",
                violation.summary
            ),
            ..*violation
        })),
        verdict @ (Verdict::Valid | Verdict::Undecided { .. }) => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::at;
    use crate::history::{Entry, Outcome};

    const MS: Nanos = 1_000_000;

    fn stale(from: Nanos, to: Nanos, value: Option<(&str, u64)>, last_contact: Nanos) -> Operation {
        let entry = value.map(|(value, modify_index)| Entry {
            value: value.into(),
            modify_index,
            lock_index: 0,
            session: None,
        });
        let reply =
            Reply::ReadStale { entry, index: 90, last_contact: last_contact * MS, known_leader: true };
        at(2, "k", from * MS, to * MS).is(Op::Read { consistency: Consistency::Stale }, Outcome::Ok(reply))
    }

    fn write(from: Nanos, to: Nanos, value: &str, index: u64) -> Operation {
        at(1, "k", from * MS, to * MS).write_at(value, index)
    }

    fn verdict(operations: Vec<Operation>, bounded: bool) -> Verdict {
        check(&operations.into(), Rules { bounded, ..Rules::default() })
    }

    #[track_caller]
    fn passes(operations: Vec<Operation>) {
        let verdict = verdict(operations, true);
        assert!(verdict.is_valid(), "{verdict}");
    }

    #[track_caller]
    fn fails(operations: Vec<Operation>, why: &str) {
        let verdict = verdict(operations, true);
        assert!(verdict.violation().is_some_and(|v| v.summary.contains(why)), "{verdict}");
    }

    #[test]
    fn a_reading_may_be_as_old_as_it_says() {
        let writes = || vec![write(10, 20, "a", 5), write(30, 40, "b", 6)];
        let and = |read| writes().into_iter().chain([read]).collect::<Vec<_>>();
        passes(and(stale(100, 101, Some(("b", 6)), 0)));
        passes(and(stale(100, 101, Some(("a", 5)), 60)));
        passes(and(stale(100, 101, None, 85)));
        fails(and(stale(100, 101, Some(("a", 5)), 50)), "staler than the answer says");
        fails(and(stale(100, 101, None, 70)), "staler than the answer says");
        assert!(verdict(and(stale(100, 101, Some(("a", 5)), 50)), false).is_valid());
    }

    #[test]
    fn a_deleted_value_is_stale_as_well() {
        let history = |contact| {
            let delete = at(1, "k", 30 * MS, 40 * MS).done(Op::Delete);
            vec![write(10, 20, "a", 5), delete, stale(100, 101, Some(("a", 5)), contact)]
        };
        passes(history(60));
        fails(history(50), "staler than the answer says");
    }

    #[test]
    fn a_state_that_never_was_fails() {
        fails(vec![stale(1, 2, Some(("ghost", 5)), 0)], "never written");
        fails(vec![write(10, 20, "a", 5), stale(1, 2, Some(("a", 5)), 0)], "was not written");
        fails(
            vec![write(10, 20, "a", 5), stale(21, 22, Some(("a", 5)), 0), stale(21, 22, Some(("a", 6)), 0)],
            "seen with the indexes 5 and 6",
        );
    }

    #[test]
    fn an_answer_beyond_the_limit_fails() {
        let read = |contact| Operation {
            op: Op::Read { consistency: Consistency::StaleWithin(50 * MS) },
            ..stale(100, 101, None, contact)
        };
        passes(vec![read(50)]);
        fails(vec![read(60)], "50000000 ns were asked for");
    }
}
