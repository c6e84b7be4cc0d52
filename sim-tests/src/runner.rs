//! Running plans: each on a thread of its own, as many at a time as there are processors, with a watchdog.
//!
//! A fresh thread for each run, because the standard library's hash maps and other thread-local state are seeded once
//! per thread: on a used thread the same seed would run differently.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, mpsc};
use std::time::Duration;

use madsim::runtime::{Handle, Runtime};
use proconsul_core::marks::{self, Hits, Mark};
use proconsul_core::planted::{self, Bug};
use proconsul_io_sim::time::sim_sleep;
use proconsul_io_sim::trace::{Stop, Trace};
use serde::{Deserialize, Serialize};

use crate::log::RunLog;
use crate::plan::Plan;
use crate::world::{self, Outcome};

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
    /// How much time passed in the simulation.
    #[serde(default)]
    pub simulated_ms: u64,
    /// Rare branches that were taken, see [`proconsul_core::marks`].
    #[serde(default)]
    pub marks: Vec<String>,
    /// Revision of the code, where git knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The last lines of the log, if something went wrong.
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

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.auditor, self.what)
    }
}

impl Report {
    /// Whether anything went wrong.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.violations.is_empty()
    }

    /// Whether the run was ended because somebody wanted that.
    #[must_use]
    pub fn was_stopped(&self) -> bool {
        self.counts.contains_key(STOPPED)
    }

    /// The marks as a set.
    #[must_use]
    pub fn hits(&self) -> Hits {
        let mut hits = Hits::default();
        let known = |name: &String| Mark::ALL.iter().find(|mark| format!("{mark:?}") == *name);
        self.marks.iter().filter_map(known).for_each(|mark| hits.insert(*mark));
        hits
    }

    /// Writes the report of a failed run to `target/sim-failures`. Tells how to run it again.
    #[must_use]
    pub fn save(&self) -> String {
        let path = failures_dir().join(format!("{}.json", self.name()));
        let json = serde_json::to_string_pretty(self).expect("a report has no map keys that JSON lacks");
        let written = std::fs::create_dir_all(failures_dir()).and_then(|()| std::fs::write(&path, json));
        match written {
            Ok(()) => format!(
                "replay: cargo run -p proconsul-sim-tests --features sim --bin sim -- replay {}",
                shown(&path).display()
            ),
            Err(error) => format!("cannot write {}: {error}", path.display()),
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
            None if self.was_stopped() => "ended early".to_owned(),
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a package of a workspace");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("sim-failures")
}

/// As short as it can be written here.
fn shown(path: &Path) -> &Path {
    std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path)
}

/// What somebody wants to see of a run. Changes nothing in it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The log goes to standard error as it comes.
    pub echo: bool,
    /// What is logged, in the form of `tracing`'s environment filters; otherwise what `SIM_LOG` says.
    pub filter: Option<String>,
    /// Where the run ends before its end.
    pub stop: Option<Stop>,
}

/// Runs one plan; its log is echoed to standard error if `echo`.
#[must_use]
pub fn run(plan: &Plan, echo: bool) -> Report {
    watch(plan, View { echo, ..View::default() })
}

/// Runs one plan for somebody who looks on.
#[must_use]
pub fn watch(plan: &Plan, view: View) -> Report {
    let sent = plan.clone();
    on_a_thread(plan.seed, move || run_here(sent, view)).unwrap_or_else(|violation| Report {
        plan: plan.clone(),
        violations: vec![violation],
        trace_hash: String::new(),
        events: 0,
        counts: BTreeMap::new(),
        simulated_ms: 0,
        marks: Vec::new(),
        revision: None,
        log: Vec::new(),
    })
}

/// Runs something on a thread of its own and gives up on it when it takes too long.
fn on_a_thread<T: Send + 'static>(
    seed: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Violation> {
    hush_panics();
    let (done, result) = mpsc::channel();
    std::thread::Builder::new()
        .name(format!("seed {seed}"))
        .stack_size(16 << 20)
        .spawn(move || {
            // A watchdog that gave up does not listen any more.
            let _ = done.send(work());
        })
        .expect("the system starts threads");
    result.recv_timeout(WATCHDOG).map_err(|_| Violation {
        auditor: "watchdog".to_owned(),
        what: format!("the run did not end within {WATCHDOG:?} of real time"),
    })
}

/// Runs what panics when something is wrong, with a defect or without, on a thread of its own. Tells which marks it hit.
pub fn isolated<T: Send + 'static>(
    seed: u64,
    bug: Option<Bug>,
    work: impl FnOnce() -> T + Send + 'static,
) -> (Result<T, Violation>, Hits) {
    let ran = on_a_thread(seed, move || {
        planted::plant(bug);
        let result = panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| panicked());
        (result, marks::take())
    });
    ran.unwrap_or_else(|violation| (Err(violation), Hits::default()))
}

fn panicked() -> Violation {
    Violation { auditor: "panic".to_owned(), what: last_panic() }
}

/// Runs one plan on this thread, which must be fresh.
fn run_here(plan: Plan, view: View) -> Report {
    let (log, trace) = (RunLog::new(view.echo).filtered(view.filter), Trace::default());
    if let Some(stop) = view.stop {
        trace.stop_at(stop);
    }
    planted::plant(
        plan.bug.as_deref().map(|name| bug_by_name(name).unwrap_or_else(|| panic!("no defect {name}"))),
    );
    let outcome = tracing::subscriber::with_default(log.subscriber(), || {
        panic::catch_unwind(AssertUnwindSafe(|| {
            let mut runtime = Runtime::with_seed_and_config(plan.seed, madsim::Config::default());
            runtime.set_time_limit(SIMULATED_MAX);
            let outcome = runtime.block_on(run_on_a_node(plan.clone(), trace.clone()));
            // Futures that are dropped with the runtime must not speak to it any more; what they say is not lost.
            drop(runtime);
            outcome
        }))
    });
    let (mut violations, counts, simulated) = match outcome {
        Ok(outcome) => (outcome.violations, outcome.counts, outcome.simulated),
        Err(_) if trace.is_stopped() => {
            (Vec::new(), BTreeMap::from([(STOPPED.to_owned(), 1)]), Duration::ZERO)
        }
        Err(_) => (vec![panicked()], BTreeMap::new(), Duration::ZERO),
    };
    violations
        .extend(log.errors().into_iter().map(|what| Violation { auditor: "error log".to_owned(), what }));
    Report {
        trace_hash: format!("{:016x}", trace.hash()),
        events: trace.events(),
        counts,
        simulated_ms: u64::try_from(simulated.as_millis()).unwrap_or(u64::MAX),
        marks: marks::take().iter().map(|mark| format!("{mark:?}")).collect(),
        revision: None,
        // Thousands of good runs would fill the memory with what nobody reads.
        log: if violations.is_empty() { Vec::new() } else { log.tail() },
        violations,
        plan,
    }
}

/// Runs one plan on a node of madsim's, and ends that: tasks that wait for something when the runtime goes would stay for
/// ever, and the whole world with them.
async fn run_on_a_node(plan: Plan, trace: Trace) -> Outcome {
    let node = Handle::current().create_node().name("world").build();
    let run = node.spawn(async move { world::run(&plan, &trace).await });
    let outcome = run.await.expect("a panic of a task ends the whole run");
    Handle::current().kill(node.id());
    // Whatever was ended is dropped when it would go on.
    sim_sleep(Duration::from_nanos(1)).await;
    outcome
}

/// Counted in a run that was ended because somebody wanted that.
const STOPPED: &str = "ended before its end";

/// The defect of that name.
#[must_use]
pub fn bug_by_name(name: &str) -> Option<Bug> {
    Bug::ALL.iter().copied().find(|bug| format!("{bug:?}") == name)
}

/// As many runs at a time as there are processors.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs many plans on all processors; `report` sees each report as it comes. Gives the reports in the order of plans.
pub fn sweep(plans: Vec<Plan>, mut report: impl FnMut(&Report)) -> Vec<Report> {
    let mut reports: Vec<Option<Report>> = plans.iter().map(|_| None).collect();
    in_parallel(
        &plans,
        processors(),
        |plan| run(plan, false),
        |at, mut result| {
            if result.failed() {
                result.revision = revision();
            }
            report(&result);
            reports[at] = Some(result);
        },
    );
    reports.into_iter().map(|report| report.expect("every plan was run")).collect()
}

/// Does something with every item, so many at a time; `each` is given the results as they come.
pub fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    jobs: usize,
    work: impl Fn(&I) -> T + Sync,
    mut each: impl FnMut(usize, T),
) {
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (next, done, work) = (&next, done.clone(), &work);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    done.send((at, work(item))).expect("the receiver outlives the workers");
                }
            });
        }
        drop(done);
        results.into_iter().for_each(|(at, result)| each(at, result));
    });
}

/// The first of these seeds that something comes of, so many tried at a time.
pub fn first_of<T: Send>(
    seeds: Range<u64>,
    jobs: usize,
    work: impl Fn(u64) -> Option<T> + Sync,
) -> Option<(u64, T)> {
    let seeds: Vec<u64> = seeds.collect();
    // Nobody begins a seed behind one that something came of; those before it are finished.
    let bound = AtomicU64::new(u64::MAX);
    let mut first: Option<(u64, T)> = None;
    let try_one = |seed: &u64| {
        if *seed > bound.load(Ordering::Relaxed) {
            return None;
        }
        let result = work(*seed)?;
        bound.fetch_min(*seed, Ordering::Relaxed);
        Some(result)
    };
    in_parallel(&seeds, jobs, try_one, |at, result| {
        if let Some(result) = result
            && first.as_ref().is_none_or(|(known, _)| seeds[at] < *known)
        {
            first = Some((seeds[at], result));
        }
    });
    first
}

/// Where a sweep begins and how long it is: `MADSIM_TEST_SEED` and `MADSIM_TEST_NUM`, or these.
#[must_use]
pub fn seeds(first: u64, count: u64) -> Range<u64> {
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
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                LAST_PANIC.set(Some(format!("{} ({place})", info.payload_as_str().unwrap_or_default())));
            } else {
                before(info);
            }
        }));
    });
}
