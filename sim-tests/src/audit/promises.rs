//! What clients are promised, checked on the history of all clients by `proconsul-jepsen`; each of its checkers quotes
//! the source of its promise.
//!
//! Default reads count as linearizable: the workloads only make them where no clock drifts beyond the configured bound.
//! When agents have brought their registrations to the catalog is looked at directly, in calm.
//!
//! How old a stale reading may be counts from when a message of the leader came, and for as long as the leader may not
//! know yet that it is deposed. So it is judged where messages come soon, see [`Hold`].

use proconsul_core::raft::Timing as Raft;
use proconsul_io_sim::time::nanos;
use proconsul_jepsen::history::{Consistency, History, Nanos, Operation, Outcome, Reply};
use proconsul_jepsen::sessions::Timing;
use proconsul_jepsen::stale;
use proconsul_jepsen::suite::{self, Rules};

use super::Audit;
use crate::plan::{Fault, Plan};
use crate::workload::Named;

/// Half a millisecond is what the simulation's own timers may round away.
const TIMER_SLACK_NS: u64 = 500_000;
/// After a link was mended or a process resumed, for so long what is late comes in.
const AFTERMATH_NS: u64 = 2_000_000_000;
/// Lost frames of a connection are sent again, and datagrams that are held back come, within this time.
const RESENT_NS: u64 = 1_000_000_000;

/// Checks every promise on the whole history and counts its operations.
pub fn check_history(history: &History, plan: &Plan, audit: &Audit) {
    let timing = Timing { drift_ppm: plan.drift_max_ppm(), slack: TIMER_SLACK_NS };
    let rules = Rules { timing, ..Rules::default() };
    for check in suite::check(history, &rules).failed() {
        audit.report(check.name, check.verdict.to_string());
    }
    check_ages(history, plan, timing, audit);
    for operation in history.operations() {
        let outcome = match operation.outcome {
            Outcome::Ok(_) => "answered",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        };
        audit.count(&format!("operations {outcome}"), 1);
    }
}

/// A time during which what the leader says may be held up on its way for long.
struct Hold {
    from: Nanos,
    to: Nanos,
}

impl Hold {
    fn of(at_ms: u64, fault: &Fault) -> Option<Hold> {
        let ms = match fault {
            Fault::Partition { ms, .. }
            | Fault::Isolate { ms, .. }
            | Fault::CutPair { ms, .. }
            | Fault::Sever { ms, .. }
            | Fault::Weather { ms, .. }
            | Fault::SlowLink { ms, .. }
            | Fault::Pause { ms, .. } => *ms,
            Fault::CutClients { .. }
            | Fault::Kill { .. }
            | Fault::KillAll { .. }
            | Fault::Drift { .. }
            | Fault::WallJump { .. }
            | Fault::SlowDisk { .. }
            | Fault::FailingDisk { .. }
            | Fault::FailingReads { .. }
            | Fault::FullDisk { .. }
            | Fault::Rot { .. }
            | Fault::Wipe { .. }
            | Fault::AddServer
            | Fault::Leave { .. }
            | Fault::RemovePeer { .. }
            | Fault::TransferLeader { .. }
            | Fault::Upgrade { .. } => return None,
        };
        let from = at_ms * 1_000_000;
        Some(Hold { from, to: from + ms * 1_000_000 + AFTERMATH_NS })
    }

    fn overlaps(&self, from: Nanos, to: Option<Nanos>) -> bool {
        from <= self.to && to.is_none_or(|to| self.from <= to)
    }

    /// Whether a stale answer may rest on what was held up.
    fn excuses(&self, operation: &Operation, slack: Nanos) -> bool {
        let told = match operation.reply() {
            Some(Reply::ReadStale { last_contact, .. }) => *last_contact,
            _ => 0,
        };
        let told = told + told / 10 + slack;
        self.overlaps(operation.invoked.saturating_sub(told), operation.completed)
    }
}

/// By so much a stale answer may be older than it says, as long as messages of the leader come soon.
#[must_use]
pub fn stale_slack(plan: &Plan) -> Nanos {
    // A leader that lost its quorum steps down within an election timeout.
    nanos(Raft::default().election) + 2 * plan.net.quality.latency_max_us * 1_000 + RESENT_NS
}

/// Answers over DNS that were older than their bound: what the leader said must have been held up.
pub fn check_names(named: &Named, plan: &Plan, audit: &Audit) {
    let holds: Vec<Hold> =
        plan.faults.iter().filter_map(|timed| Hold::of(timed.at_ms, &timed.fault)).collect();
    for late in named.late() {
        if !holds.iter().any(|hold| hold.overlaps(late.from, Some(late.to))) {
            audit.report("names over DNS", late.what);
        }
    }
}

/// A server that says how old its answer is has applied all that was committed then.
fn check_ages(history: &History, plan: &Plan, timing: Timing, audit: &Audit) {
    // What is restored is old, and clocks without a bound do not count.
    if history.may_be_restored() || !plan.trusts_clocks() {
        return;
    }
    let holds: Vec<Hold> =
        plan.faults.iter().filter_map(|timed| Hold::of(timed.at_ms, &timed.fault)).collect();
    let slack = stale_slack(plan);
    let is_stale =
        |operation: &Operation| operation.op.consistency().is_some_and(|it| it != Consistency::Linearizable);
    let mut judged = 0;
    let kept: History = history
        .operations()
        .iter()
        .filter(|operation| {
            let keeps = !is_stale(operation) || !holds.iter().any(|hold| hold.excuses(operation, slack));
            judged += u64::from(keeps && is_stale(operation));
            keeps
        })
        .cloned()
        .collect();
    if judged == 0 {
        return;
    }
    audit.count("ages of stale readings", judged);
    let timing = Timing { slack: timing.slack + slack, ..timing };
    let verdict = stale::check(&kept, stale::Rules { timing, bounded: true });
    if !verdict.is_valid() {
        audit.report("stale bounds", verdict.to_string());
    }
}
