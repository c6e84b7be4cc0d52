//! What clients are promised, checked on the history of all clients by `proconsul-jepsen`; each of its checkers quotes
//! the source of its promise.
//!
//! Default reads count as linearizable: the workloads only make them where no clock drifts beyond the configured bound.

use std::collections::{BTreeMap, BTreeSet};

use proconsul_jepsen::history::{Consistency, History, Op, Outcome};
use proconsul_jepsen::sessions::Timing;
use proconsul_jepsen::verdict::Verdict;
use proconsul_jepsen::{index_order, linearizability, locks, sessions, watches};

use super::Audit;

/// Checks every promise on the whole history and counts its operations. `drift_ppm` is the worst drift of any server.
pub fn check_history(history: &History, drift_ppm: u64, audit: &Audit) {
    if let Err(error) = history.validate() {
        audit.report("history", error.to_string());
        return;
    }
    // Half a millisecond is what the simulation's own timers may round away.
    let timing = Timing { drift_ppm, slack: 500_000 };
    let checks: [(&str, Verdict); 5] = [
        ("linearizability", linearizability::check(history, linearizability::Budget::default())),
        ("index order", index_order::check(history)),
        ("session TTL", sessions::check(history, timing)),
        ("lock exclusion", locks::check(history, locks::Rules { timing, lock_delay: true })),
        ("watches", watches::check(history, watches::Rules { wake_within: None })),
    ];
    for (auditor, verdict) in checks {
        if !verdict.is_valid() {
            audit.report(auditor, verdict.to_string());
        }
    }
    if let Err(what) = stale_reads_are_sane(history) {
        audit.report("stale reads", what);
    }
    for operation in history.operations() {
        let outcome = match operation.outcome {
            Outcome::Ok(_) => "answered",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        };
        audit.count(&format!("operations {outcome}"), 1);
    }
}

/// «stale: any server may answer … results can be arbitrarily stale» (HTTP API documentation, Consistency Modes): a stale
/// read shows some state that the key really had. Values are unique, so it must show a value with the modify index that
/// everybody else saw it with, and one that somebody had already begun to write.
fn stale_reads_are_sane(history: &History) -> Result<(), String> {
    // When a session ends, its locks get another modify index with the same value, and no client did it.
    let locks: BTreeSet<&str> = history
        .operations()
        .iter()
        .filter(|it| matches!(it.op, Op::Acquire { .. }))
        .map(|it| it.key.as_str())
        .collect();
    let begun: BTreeMap<(&str, &str), u64> = history
        .operations()
        .iter()
        .filter_map(|it| it.op.value().map(|value| ((it.key.as_str(), value), it.invoked)))
        .collect();
    let mut indexes: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for operation in history.operations() {
        let Some((Some(entry), _)) = operation.observed() else { continue };
        let value = (operation.key.as_str(), entry.value.as_str());
        let index = *indexes.entry(value).or_insert(entry.modify_index);
        if index != entry.modify_index && !locks.contains(operation.key.as_str()) {
            return Err(format!(
                "{value:?} was seen with the modify indexes {index} and {}",
                entry.modify_index
            ));
        }
        let is_stale = matches!(
            operation.op,
            Op::Read { consistency: Consistency::Stale | Consistency::StaleWithin(_) }
        );
        match begun.get(&value) {
            None => return Err(format!("nobody wrote {value:?}, which {operation:?} saw")),
            Some(at) if is_stale && Some(*at) > operation.completed => {
                return Err(format!("{operation:?} saw a value that was written only at {at}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
