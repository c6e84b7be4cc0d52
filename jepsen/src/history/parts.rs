//! Operations on several keys, seen from each key alone.
//!
//! What is promised of all keys together is promised of each. So the checkers of single keys judge a transaction, a
//! reading of a prefix or the deletion of one by its parts: one operation per key, at the same time, by the same client.

use std::collections::{BTreeMap, BTreeSet};

use super::{Consistency, Entry, History, Op, Operation, Outcome, Reply, TxnVerb};

/// A history with the parts of its operations on several keys.
#[derive(Debug)]
pub struct Parts<'a> {
    history: &'a History,
    parts: Vec<Operation>,
}

impl<'a> Parts<'a> {
    /// Takes the operations on several keys apart.
    #[must_use]
    pub fn new(history: &'a History) -> Parts<'a> {
        let mut known: BTreeSet<&str> = BTreeSet::new();
        for operation in history.operations() {
            if operation.op.is_on_key() {
                known.insert(&operation.key);
            }
            match (&operation.op, operation.reply()) {
                (Op::Txn { actions, .. }, _) => {
                    known.extend(actions.iter().map(|action| action.key.as_str()))
                }
                (_, Some(Reply::List { entries, .. })) => {
                    known.extend(entries.iter().map(|(key, _)| key.as_str()))
                }
                _ => {}
            }
        }
        let mut parts = Vec::new();
        for operation in history.operations() {
            match &operation.op {
                Op::Txn { .. } => transaction(operation, &mut parts),
                Op::List { .. } => list(operation, &known, &mut parts),
                Op::DeleteTree => parts.extend(
                    under(&known, &operation.key)
                        .map(|key| part(operation, key, Op::Delete, operation.outcome.clone())),
                ),
                _ => {}
            }
        }
        Parts { history, parts }
    }

    /// The operations on each key, those on a single key first.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<&str, Vec<&Operation>> {
        let single = self.history.operations().iter().filter(|operation| operation.op.is_on_key());
        let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for operation in single.chain(&self.parts) {
            keys.entry(&operation.key).or_default().push(operation);
        }
        keys
    }
}

fn part(whole: &Operation, key: &str, op: Op, outcome: Outcome) -> Operation {
    Operation {
        client: whole.client,
        key: key.to_owned(),
        op,
        invoked: whole.invoked,
        completed: whole.completed,
        outcome,
    }
}

fn under<'a>(known: &'a BTreeSet<&str>, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    known.range(prefix..).copied().take_while(move |key| key.starts_with(prefix))
}

/// A reading of a prefix is one reading of each key below it: those that are not in the answer do not exist.
fn list(operation: &Operation, known: &BTreeSet<&str>, parts: &mut Vec<Operation>) {
    let (Op::List { consistency, .. }, Some(Reply::List { entries, index })) =
        (&operation.op, operation.reply())
    else {
        return;
    };
    let found: BTreeMap<&str, _> = entries.iter().map(|(key, entry)| (key.as_str(), entry)).collect();
    for key in under(known, &operation.key) {
        let entry = found.get(key).copied().cloned();
        // The index belongs to the whole prefix.
        let index = entry.as_ref().map_or(*index, |entry| entry.modify_index);
        let outcome = Outcome::Ok(Reply::Read { entry, index });
        parts.push(part(operation, key, Op::Read { consistency: *consistency }, outcome));
    }
}

/// Of a transaction that was made, each action is one. Of one that may have been made, each change may have been.
/// What an action saw or expected after another one on the same key is not the state between transactions.
fn transaction(operation: &Operation, parts: &mut Vec<Operation>) {
    let Op::Txn { actions, consistency } = &operation.op else { return };
    let (entries, index) = match &operation.outcome {
        Outcome::Ok(Reply::Txn { entries, index }) => (Some(entries), *index),
        Outcome::Unknown => (None, None),
        Outcome::Ok(_) | Outcome::Failed => return,
    };
    let done = || match operation.outcome {
        Outcome::Unknown => Outcome::Unknown,
        Outcome::Ok(_) | Outcome::Failed => Outcome::Ok(Reply::Done { index }),
    };
    let looks = operation.op.consistency().is_some();
    for (at, action) in actions.iter().enumerate() {
        let is_first = !actions[..at].iter().any(|other| other.key == action.key && other.verb.mutates());
        let is_last = !actions[at + 1..].iter().any(|other| other.key == action.key && other.verb.mutates());
        let read = |entry: Option<Entry>| {
            let index = entry.as_ref().map_or(1, |entry| entry.modify_index);
            let consistency = if looks { *consistency } else { Consistency::Linearizable };
            (Op::Read { consistency }, Outcome::Ok(Reply::Read { entry, index }))
        };
        let (op, outcome) = match &action.verb {
            TxnVerb::Get | TxnVerb::GetOrEmpty if is_first => match entries {
                Some(entries) => read(entries[at].clone()),
                None => continue,
            },
            TxnVerb::CheckNotExists if is_first && entries.is_some() => read(None),
            TxnVerb::Set { value } if is_last => (Op::Write { value: value.clone() }, done()),
            TxnVerb::Cas { expected, value } if is_first && is_last => {
                (Op::Cas { expected: *expected, value: value.clone() }, done())
            }
            TxnVerb::Cas { value, .. } if is_last => (Op::Write { value: value.clone() }, done()),
            TxnVerb::Delete if is_last => (Op::Delete, done()),
            TxnVerb::DeleteCas { expected } if is_first && is_last => {
                (Op::DeleteCas { expected: *expected }, done())
            }
            TxnVerb::DeleteCas { .. } if is_last => (Op::Delete, done()),
            TxnVerb::Get
            | TxnVerb::GetOrEmpty
            | TxnVerb::CheckNotExists
            // An index without its value names no state that the register knows; the transactions' own checker does.
            | TxnVerb::CheckIndex { .. }
            | TxnVerb::CheckSession { .. }
            | TxnVerb::Set { .. }
            | TxnVerb::Cas { .. }
            | TxnVerb::Delete
            | TxnVerb::DeleteCas { .. } => continue,
        };
        parts.push(part(operation, &action.key, op, outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::super::TxnAction;
    use super::super::testing::{at, committed, rolled_back, set};
    use super::*;

    fn entry(value: &str, modify_index: u64) -> Entry {
        Entry { value: value.into(), modify_index, lock_index: 0, session: None }
    }

    fn parts_of(operations: Vec<Operation>) -> Vec<(String, Op)> {
        let history = operations.into();
        Parts::new(&history).parts.into_iter().map(|part| (part.key, part.op)).collect()
    }

    #[test]
    fn a_listing_shows_what_is_absent() {
        let op = Op::List { above: None, consistency: Consistency::Linearizable };
        let reply = Reply::List { entries: vec![("a/2".into(), entry("x", 5))], index: 9 };
        let history: History = vec![
            at(1, "a/1", 1, 2).done(Op::Delete),
            at(1, "b", 1, 2).done(Op::Delete),
            at(2, "a/", 3, 4).is(op, Outcome::Ok(reply)),
        ]
        .into();
        let parts = Parts::new(&history);
        let keys = parts.by_key();
        assert_eq!(keys["a/1"].last().unwrap().observed(), Some((None, 9)));
        assert_eq!(keys["a/2"][0].observed(), Some((Some(&entry("x", 5)), 5)));
        assert_eq!(keys["b"].len(), 1);
    }

    #[test]
    fn a_transaction_that_was_rolled_back_did_nothing() {
        assert_eq!(parts_of(vec![at(1, "", 1, 2).is(set(&[("k", "a")]), rolled_back(&[0]))]), []);
    }

    #[test]
    fn a_value_that_was_replaced_within_its_transaction_was_never_there() {
        let actions = vec![
            TxnAction { key: "k".into(), verb: TxnVerb::Set { value: "a".into() } },
            TxnAction { key: "k".into(), verb: TxnVerb::Get },
            TxnAction { key: "k".into(), verb: TxnVerb::Delete },
        ];
        let op = Op::Txn { actions, consistency: Consistency::Linearizable };
        let reply = committed(vec![None, Some(entry("a", 5)), None], 5);
        assert_eq!(parts_of(vec![at(1, "", 1, 2).is(op, reply)]), [("k".to_owned(), Op::Delete)]);
    }
}
