//! A short way to write histories by hand.

use super::{Consistency, Entry, Nanos, Op, Operation, Outcome, Reply, TxnAction, TxnVerb};

/// Builds one operation: `at(client, "k", 10, 20)` and then what it was.
pub(crate) struct At(Operation);

pub(crate) fn at(client: u32, key: &str, invoked: Nanos, completed: Nanos) -> At {
    At(Operation {
        client,
        key: key.into(),
        op: Op::Delete,
        invoked,
        completed: Some(completed),
        outcome: Outcome::Unknown,
    })
}

impl At {
    pub(crate) fn is(mut self, op: Op, outcome: Outcome) -> Operation {
        self.0.op = op;
        self.0.outcome = outcome;
        self.0
    }

    pub(crate) fn done(self, op: Op) -> Operation {
        self.is(op, Outcome::Ok(Reply::Done { index: None }))
    }

    pub(crate) fn write(self, value: &str) -> Operation {
        self.done(Op::Write { value: value.into() })
    }

    pub(crate) fn write_at(self, value: &str, index: u64) -> Operation {
        self.is(Op::Write { value: value.into() }, Outcome::Ok(Reply::Done { index: Some(index) }))
    }

    pub(crate) fn write_unknown(self, value: &str) -> Operation {
        self.is(Op::Write { value: value.into() }, Outcome::Unknown)
    }

    pub(crate) fn cas(self, expected: u64, value: &str, reply: Reply) -> Operation {
        self.is(Op::Cas { expected, value: value.into() }, Outcome::Ok(reply))
    }

    pub(crate) fn absent(self, index: u64) -> Operation {
        self.read_entry(None, index)
    }

    pub(crate) fn read(self, value: &str, modify_index: u64) -> Operation {
        let entry = Entry { value: value.into(), modify_index, lock_index: 0, session: None };
        self.read_entry(Some(entry), modify_index)
    }

    pub(crate) fn read_entry(self, entry: Option<Entry>, index: u64) -> Operation {
        self.is(
            Op::Read { consistency: Consistency::Linearizable },
            Outcome::Ok(Reply::Read { entry, index }),
        )
    }
}

pub(crate) const DONE: Reply = Reply::Done { index: None };

/// A transaction that sets these keys.
pub(crate) fn set(values: &[(&str, &str)]) -> Op {
    let action = |(key, value): &(&str, &str)| TxnAction {
        key: (*key).into(),
        verb: TxnVerb::Set { value: (*value).into() },
    };
    Op::Txn { actions: values.iter().map(action).collect(), consistency: Consistency::Linearizable }
}

/// A transaction that reads these keys.
pub(crate) fn get(keys: &[&str]) -> Op {
    let action = |key: &&str| TxnAction { key: (*key).into(), verb: TxnVerb::GetOrEmpty };
    Op::Txn { actions: keys.iter().map(action).collect(), consistency: Consistency::Linearizable }
}

/// A transaction was made, at an index, or at none (0) if it only looked.
pub(crate) fn committed(entries: Vec<Option<Entry>>, index: u64) -> Outcome {
    Outcome::Ok(Reply::Txn { entries, index: (index > 0).then_some(index) })
}

pub(crate) fn rolled_back(failed: &[usize]) -> Outcome {
    Outcome::Ok(Reply::RolledBack { failed: failed.to_vec() })
}
