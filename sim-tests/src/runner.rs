//! Running plans: each on a thread of its own, as many at a time as there are processors, with a watchdog.
//!
//! A fresh thread for each run, because the standard library's hash maps and other thread-local state are seeded once
//! per thread: on a used thread the same seed would run differently.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, mpsc};
use std::time::{Duration, Instant};

use madsim::runtime::Runtime;
use proconsul_core::planted::{self, Bug};
use proconsul_io_sim::trace::Trace;
use serde::{Deserialize, Serialize};

use crate::log::RunLog;
use crate::plan::Plan;
use crate::world;

/// A run may take this much real time; one that takes longer is stuck.
const WATCHDOG: Duration = Duration::from_secs(120);
/// And this much simulated time, all phases together.
const SIMULATED_MAX: Duration = Duration::from_secs(900);

/// How a run ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What was run.
    pub plan: Plan,
    /// What went wrong; empty when nothing did.
    pub violations: Vec<Violation>,
    /// Hash of the trace, in hexadecimal.
    pub trace_hash: String,
    /// Events in the trace.
    pub events: u64,
    /// What happened, counted: operations by outcome, elections, restarts.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
    /// Revision of the code, where git knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The last lines of the log.
    #[serde(default)]
    pub log: Vec<String>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which auditor says so.
    pub auditor: String,
    /// What it saw.
    pub what: String,
}

impl Report {
    /// Whether anything went wrong.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.violations.is_empty()
    }

    /// Writes the report of a failed run to `target/sim-failures` and says how to run it again.
    pub fn save(&self) {
        let path = failures_dir().join(format!("{}.json", self.name()));
        let json = serde_json::to_string_pretty(self).expect("a report has no map keys that JSON lacks");
        let written = std::fs::create_dir_all(failures_dir()).and_then(|()| std::fs::write(&path, json));
        match written {
            Ok(()) => eprintln!(
                "replay: cargo run -p proconsul-sim-tests --features sim --bin replay -- {}",
                path.display()
            ),
            Err(error) => eprintln!("cannot write {}: {error}", path.display()),
        }
    }

    fn name(&self) -> String {
        match &self.plan.bug {
            Some(bug) => format!("{bug}-{}", self.plan.seed),
            None => self.plan.seed.to_string(),
        }
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let verdict = match self.violations.first() {
            None => "ok".to_owned(),
            Some(first) => format!(
                "FAILED ({} violations; first, {}: {})",
                self.violations.len(),
                first.auditor,
                first.what.lines().next().unwrap_or_default()
            ),
        };
        let Plan { seed, servers, .. } = self.plan;
        format!("seed {seed} servers {servers} trace {} events {} {verdict}", self.trace_hash, self.events)
    }
}

fn failures_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    target.join("sim-failures")
}

/// Runs one plan; its log is echoed to standard error if `echo`.
#[must_use]
pub fn run(plan: &Plan, echo: bool) -> Report {
    hush_panics();
    let (done, result) = mpsc::channel();
    let sent = plan.clone();
    std::thread::Builder::new()
        .name(format!("seed {}", plan.seed))
        .stack_size(16 << 20)
        .spawn(move || {
            // A watchdog that gave up does not listen any more.
            let _ = done.send(run_here(sent, echo));
        })
        .expect("the system starts threads");
    result.recv_timeout(WATCHDOG).unwrap_or_else(|_| Report {
        plan: plan.clone(),
        violations: vec![Violation {
            auditor: "watchdog".to_owned(),
            what: format!("the run did not end within {WATCHDOG:?} of real time"),
        }],
        trace_hash: String::new(),
        events: 0,
        counts: BTreeMap::new(),
        revision: None,
        log: Vec::new(),
    })
}

/// Runs one plan on this thread, which must be fresh.
fn run_here(plan: Plan, echo: bool) -> Report {
    let (log, trace) = (RunLog::new(echo), Trace::default());
    planted::plant(
        plan.bug.as_deref().map(|name| bug_by_name(name).unwrap_or_else(|| panic!("no defect {name}"))),
    );
    let outcome = tracing::subscriber::with_default(log.subscriber(), || {
        panic::catch_unwind(AssertUnwindSafe(|| {
            let mut runtime = Runtime::with_seed_and_config(plan.seed, madsim::Config::default());
            runtime.set_time_limit(SIMULATED_MAX);
            let outcome = runtime.block_on(world::run(&plan, &trace));
            // Futures that are dropped with the runtime must not speak to it any more; what they say is not lost.
            drop(runtime);
            outcome
        }))
    });
    let (mut violations, counts) = match outcome {
        Ok(outcome) => (outcome.violations, outcome.counts),
        Err(_) => (vec![Violation { auditor: "panic".to_owned(), what: last_panic() }], BTreeMap::new()),
    };
    violations
        .extend(log.errors().into_iter().map(|what| Violation { auditor: "error log".to_owned(), what }));
    Report {
        violations,
        trace_hash: format!("{:016x}", trace.hash()),
        events: trace.events(),
        counts,
        revision: None,
        log: log.tail(),
        plan,
    }
}

/// The defect of that name.
#[must_use]
pub fn bug_by_name(name: &str) -> Option<Bug> {
    Bug::ALL.iter().copied().find(|bug| format!("{bug:?}") == name)
}

/// Runs many plans on all processors; `report` sees each report as it comes. Gives the reports in the order of plans.
pub fn sweep(plans: Vec<Plan>, mut report: impl FnMut(&Report)) -> Vec<Report> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    let mut reports: Vec<Option<Report>> = plans.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (plans, next, done) = (&plans, &next, done.clone());
            scope.spawn(move || {
                while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let at = plans.iter().position(|it| std::ptr::eq(it, plan)).expect("taken from there");
                    done.send((at, run(plan, false))).expect("the receiver outlives the workers");
                }
            });
        }
        drop(done);
        for (at, mut result) in results {
            if result.failed() {
                result.revision = revision();
            }
            report(&result);
            reports[at] = Some(result);
        }
    });
    reports.into_iter().map(|report| report.expect("every plan was run")).collect()
}

/// Where a sweep begins and how long it is: `MADSIM_TEST_SEED` and `MADSIM_TEST_NUM`, or these.
#[must_use]
pub fn seeds(first: u64, count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("MADSIM_TEST_SEED").unwrap_or(first);
    first..first + number("MADSIM_TEST_NUM").unwrap_or(count)
}

/// The revision of the code, where git knows it.
#[must_use]
pub fn revision() -> Option<String> {
    static REVISION: Mutex<Option<Option<String>>> = Mutex::new(None);
    let mut revision = REVISION.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    revision
        .get_or_insert_with(|| {
            let output = std::process::Command::new("git")
                .args(["describe", "--always", "--dirty"])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .output()
                .ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        })
        .clone()
}

/// How long something took, in real time.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn last_panic() -> String {
    LAST_PANIC.take().unwrap_or_else(|| "unknown".to_owned())
}

/// Panics of runs are reported with their seed, once, and not by every thread as it comes.
fn hush_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let of_a_run = std::thread::current().name().is_some_and(|name| name.starts_with("seed "));
            if of_a_run {
                LAST_PANIC.set(Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
}
