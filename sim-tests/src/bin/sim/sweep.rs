//! `sim sweep`: many seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use proconsul_core::planted::Bug;
use proconsul_sim_tests::ground::Ground;
use proconsul_sim_tests::plan::Plan;
use proconsul_sim_tests::runner;
use serde::{Deserialize, Serialize};

use crate::args::Args;
use crate::progress::Progress;

/// One run, as a line of the result file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    seed: u64,
    /// Equal for equal runs of the same revision.
    trace: String,
    ok: bool,
    /// Who objected first, and to what.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// Real time.
    ms: u64,
    /// Simulated time, where the ground has one.
    #[serde(default)]
    simulated_ms: u64,
    /// What happened, counted.
    counts: BTreeMap<String, u64>,
    /// How to run it again.
    #[serde(skip)]
    replay: Option<String>,
}

/// What is done for one seed.
enum Work {
    World(Box<Plan>),
    Aside(u64),
}

pub fn run(args: Args) -> Result<ExitCode, String> {
    let seeds = runner::seeds(args.number(0, 0)?, args.number(1, 100)?);
    let ground = args.text("ground").map_or(Ok(Ground::Worlds), str::parse)?;
    let bug = args.bug()?;
    let (mut results, done) = match (args.text("results"), args.text("resume")) {
        (_, Some(path)) => (Some(append(path)?), known(path)?),
        (Some(path), None) => {
            (Some(File::create(path).map_err(|error| format!("{path}: {error}"))?), BTreeSet::new())
        }
        (None, None) => (None, BTreeSet::new()),
    };
    let mut work = Vec::new();
    for seed in seeds.filter(|seed| !done.contains(seed)) {
        work.push(match ground {
            Ground::Worlds => Work::World(Box::new(args.plan(seed)?)),
            Ground::Raft | Ground::Agents | Ground::Gossip => Work::Aside(seed),
        });
    }
    let total = work.len() as u64;
    let mut progress = Progress::of(total, args.has("progress"));
    let (mut simulated_ms, mut busy_ms) = (0, 0);
    let mut failures = Vec::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let each = args.has("each");
    runner::in_parallel(
        &work,
        args.jobs()?,
        |work| run_one(work, ground, bug),
        |_, line| {
            let text = line.text();
            if each || !line.ok {
                progress.clear();
                println!("{text}");
            }
            if let Some(replay) = &line.replay {
                println!("  {replay}");
            }
            simulated_ms += line.simulated_ms;
            busy_ms += line.ms;
            if let Some(file) = &mut results {
                let json = serde_json::to_string(&line).expect("a line has no map keys that JSON lacks");
                writeln!(file, "{json}").unwrap_or_else(|error| eprintln!("the result file: {error}"));
            }
            progress.advance(!line.ok);
            for (what, count) in line.counts {
                *counts.entry(what).or_default() += count;
            }
            if !line.ok {
                failures.push(text);
            }
        },
    );
    progress.clear();
    println!("{total} seeds, {} failed, {:.2} seeds/s", failures.len(), progress.rate());
    if simulated_ms > 0 {
        let seconds = |ms: u64| ms as f64 / 1_000.0;
        println!(
            "{:.0} simulated s, {:.1} simulated s / real s in all, {:.1} for each of those that run at a time",
            seconds(simulated_ms),
            seconds(simulated_ms) / progress.seconds(),
            seconds(simulated_ms) / seconds(busy_ms).max(1e-3),
        );
    }
    for (what, count) in counts {
        println!("{count:>10} {what}");
    }
    failures.iter().for_each(|failure| println!("  {failure}"));
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_one(work: &Work, ground: Ground, bug: Option<Bug>) -> Line {
    let begun = Instant::now();
    let ms = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    match work {
        Work::World(plan) => {
            let mut report = runner::run(plan, false);
            if report.failed() {
                report.revision = runner::revision();
            }
            let replay = report.failed().then(|| report.save());
            let failure = report.violations.first().map(ToString::to_string);
            Line {
                seed: plan.seed,
                ok: !report.failed(),
                trace: report.trace_hash,
                failure,
                ms: ms(),
                simulated_ms: report.simulated_ms,
                counts: report.counts,
                replay,
            }
        }
        Work::Aside(seed) => {
            let trial = ground.run(*seed, bug);
            let ok = trial.failure.is_none();
            let failure = trial.failure.map(|it| it.to_string());
            Line {
                seed: *seed,
                trace: trial.fingerprint,
                ok,
                failure,
                ms: ms(),
                simulated_ms: 0,
                counts: BTreeMap::new(),
                replay: None,
            }
        }
    }
}

impl Line {
    fn text(&self) -> String {
        let verdict = self.failure.as_ref().map_or_else(
            || "ok".to_owned(),
            |failure| format!("FAILED {}", failure.lines().next().unwrap_or_default()),
        );
        format!("seed {} trace {} {verdict}", self.seed, self.trace)
    }
}

/// Opens a result file behind its last line, which may have been cut off.
fn append(path: &str) -> Result<File, String> {
    let failed = |error: std::io::Error| format!("{path}: {error}");
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
    let text = std::fs::read(path).map_err(failed)?;
    if text.last().is_some_and(|last| *last != b'\n') {
        writeln!(file).map_err(failed)?;
    }
    Ok(file)
}

/// The seeds that a result file has already. A last line that was cut off counts for nothing.
fn known(path: &str) -> Result<BTreeSet<u64>, String> {
    let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    Ok(lines.filter_map(|line| serde_json::from_str::<Line>(&line).ok()).map(|line| line.seed).collect())
}
