//! Operations counted by what they are and how they ended.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use crate::history::{History, Op, Operation, Outcome, Reply};

/// What an operation is, for a person who looks at many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A fresh read of a key, by default or `?consistent`.
    Read,
    /// A read that may be old.
    StaleRead,
    /// A write, compare-and-set or delete of a key.
    Change,
    /// A blocking query.
    Watch,
    /// Anything about a lock or a session.
    Lock,
    /// A set.
    Set,
    /// A transaction.
    Transaction,
    /// A registration, or a look at the catalog.
    Catalog,
    /// A snapshot that is saved or restored.
    Snapshot,
}

impl Class {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Class; 9] = [
        Class::Read,
        Class::StaleRead,
        Class::Change,
        Class::Watch,
        Class::Lock,
        Class::Set,
        Class::Transaction,
        Class::Catalog,
        Class::Snapshot,
    ];

    /// The class of an operation.
    #[must_use]
    pub fn of(operation: &Operation) -> Class {
        use crate::history::Consistency::Linearizable;
        match &operation.op {
            Op::Read { consistency: Linearizable } | Op::List { above: None, consistency: Linearizable } => {
                Class::Read
            }
            Op::Read { .. } | Op::List { above: None, .. } => Class::StaleRead,
            Op::Watch { .. } | Op::List { .. } => Class::Watch,
            Op::Write { .. } | Op::Cas { .. } | Op::Delete | Op::DeleteCas { .. } | Op::DeleteTree => {
                Class::Change
            }
            Op::Acquire { .. }
            | Op::Release { .. }
            | Op::FencedWrite { .. }
            | Op::SessionCreate { .. }
            | Op::SessionRenew { .. }
            | Op::SessionDestroy { .. }
            | Op::SessionRead { .. }
            | Op::SessionUndermine { .. } => Class::Lock,
            Op::SetAdd { .. } | Op::SetRead { .. } => Class::Set,
            Op::Txn { .. } => Class::Transaction,
            Op::Register { .. } | Op::Deregister { .. } | Op::Catalog { .. } => Class::Catalog,
            Op::Save | Op::Restore { .. } => Class::Snapshot,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Read => "fresh reads",
            Class::StaleRead => "stale reads",
            Class::Change => "changes",
            Class::Watch => "watches",
            Class::Lock => "locks, sessions",
            Class::Set => "sets",
            Class::Transaction => "transactions",
            Class::Catalog => "catalog",
            Class::Snapshot => "snapshots",
        }
    }
}

/// How operations of one class ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// With an answer that is not a refusal.
    pub answered: usize,
    /// Because a condition did not hold.
    pub refused: usize,
    /// Certainly without effect.
    pub failed: usize,
    /// Nobody knows how.
    pub unknown: usize,
    /// How long answers took, shortest first.
    pub latencies: Vec<Duration>,
}

/// Counts of all classes that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary(BTreeMap<Class, Counts>);

impl Counts {
    /// Counts the operations of a history by class.
    #[must_use]
    pub fn of(history: &History) -> BTreeMap<Class, Counts> {
        let mut classes: BTreeMap<Class, Counts> = BTreeMap::new();
        for operation in history.operations() {
            let counts = classes.entry(Class::of(operation)).or_default();
            match &operation.outcome {
                Outcome::Ok(reply) => {
                    match reply {
                        Reply::Refused | Reply::RolledBack { .. } | Reply::NoSession => counts.refused += 1,
                        _ => counts.answered += 1,
                    }
                    if let Some(completed) = operation.completed {
                        counts.latencies.push(Duration::from_nanos(completed - operation.invoked));
                    }
                }
                Outcome::Failed => counts.failed += 1,
                Outcome::Unknown => counts.unknown += 1,
            }
        }
        for counts in classes.values_mut() {
            counts.latencies.sort_unstable();
        }
        classes
    }

    /// The latency that this share of the answers did not exceed, in milliseconds.
    #[must_use]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.latencies.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}

impl Summary {
    pub(super) fn of(history: &History) -> Summary {
        Summary(Counts::of(history))
    }

    pub(super) fn write(&self, page: &mut String) -> fmt::Result {
        writeln!(page, "<table>\n<tr>")?;
        let names = ["", "answered", "refused", "failed", "unknown", "median ms", "99 % ms", "longest ms"];
        for name in names {
            writeln!(page, "<th>{name}</th>")?;
        }
        writeln!(page, "</tr>")?;
        for (class, counts) in &self.0 {
            writeln!(page, "<tr><th>{}</th>", class.name())?;
            for count in [counts.answered, counts.refused, counts.failed, counts.unknown] {
                writeln!(page, "<td class=\"number\">{count}</td>")?;
            }
            for share in [0.5, 0.99, 1.0] {
                writeln!(page, "<td class=\"number\">{:.1}</td>", counts.quantile_ms(share))?;
            }
            writeln!(page, "</tr>")?;
        }
        writeln!(
            page,
            "</table>\n<p class=\"legend\">Refused: a condition did not hold. Failed: certainly without effect. \
             Unknown: with or without effect, now or later.</p>"
        )
    }
}
