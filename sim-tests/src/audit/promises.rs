//! What clients are promised, checked on the history of all clients by `proconsul-jepsen`; each of its checkers quotes
//! the source of its promise.
//!
//! Default reads count as linearizable: the workloads only make them where no clock drifts beyond the configured bound.
//! When agents have brought their registrations to the catalog is looked at directly, in calm.

use proconsul_jepsen::history::{History, Outcome};
use proconsul_jepsen::sessions::Timing;
use proconsul_jepsen::suite::{self, Rules};

use super::Audit;

/// Half a millisecond is what the simulation's own timers may round away.
const TIMER_SLACK_NS: u64 = 500_000;

/// Checks every promise on the whole history and counts its operations. `drift_ppm` is the worst drift of any server.
pub fn check_history(history: &History, drift_ppm: u64, audit: &Audit) {
    let rules = Rules { timing: Timing { drift_ppm, slack: TIMER_SLACK_NS }, ..Rules::default() };
    for check in suite::check(history, &rules).failed() {
        audit.report(check.name, check.verdict.to_string());
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
