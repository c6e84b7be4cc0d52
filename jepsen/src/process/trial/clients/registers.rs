//! Registers: reads, writes, compare-and-sets and deletes of keys.

use super::{AFTER_FAILURE, Caller};
use crate::history::{Consistency, Op, Outcome};
use crate::process::kv::{self, Reads};
use crate::workload::Registers;

/// How a client reads. Each way has keys of its own, so that each promise is judged by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Freshness {
    /// With `?consistent`.
    Consistent,
    /// Without a mode.
    Default,
}

impl Freshness {
    /// What the names of its keys begin with.
    pub(in super::super) fn prefix(self) -> &'static str {
        match self {
            Freshness::Consistent => "consistent/",
            Freshness::Default => "default/",
        }
    }

    pub(in super::super) fn reads(self) -> Reads {
        match self {
            Freshness::Consistent => Reads::Consistent,
            Freshness::Default => Reads::Default,
        }
    }

    /// The name of a key.
    pub(in super::super) fn key(self, number: u64) -> String {
        format!("{}{}", self.prefix(), Registers::key(number))
    }
}

pub(super) async fn run(mut caller: Caller, freshness: Freshness) {
    // The number of the client in the values stays when its number in the history changes.
    let mut workload = Registers::new(caller.random.draw(), caller.number, caller.shared.keys);
    while !caller.shared.stopped() {
        let (key, mut op) = workload.next_operation();
        if matches!(op, Op::Read { .. }) && caller.one_in(8) {
            op = Op::Read { consistency: Consistency::Stale };
        }
        let name = format!("{}{key}", freshness.prefix());
        let stale = op == Op::Read { consistency: Consistency::Stale };
        let id = caller.begin(&name, op.clone());
        let outcome = kv::perform(&mut caller.http, &name, &op, freshness.reads()).await;
        caller.end(id, outcome.clone());
        if !stale {
            workload.saw(&key, &outcome);
        }
        let answered = matches!(outcome, Outcome::Ok(_));
        tokio::time::sleep(if answered { caller.shared.rest } else { AFTER_FAILURE }).await;
    }
}
