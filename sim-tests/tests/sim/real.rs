//! The real server under faults.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use proconsul_core::marks::{Hits, Mark};
use proconsul_sim_tests::ground::Ground;
use proconsul_sim_tests::plan::Plan;
use proconsul_sim_tests::runner::{self, Report};

/// Runs all plans and fails with the story of those that failed, each saved with its replay command.
fn must_pass(plans: Vec<Plan>) -> Vec<Report> {
    let reports = runner::sweep(plans, |report| {
        if report.failed() {
            eprintln!("{}", report.save());
        }
    });
    let failed: Vec<String> = reports.iter().filter(|report| report.failed()).map(Report::summary).collect();
    assert!(failed.is_empty(), "{} of {} runs failed:\n{}", failed.len(), reports.len(), failed.join("\n"));
    reports
}

/// The sweep, once for all tests that look at it.
fn swept_worlds() -> &'static [Report] {
    static REPORTS: OnceLock<Vec<Report>> = OnceLock::new();
    REPORTS.get_or_init(|| must_pass(runner::seeds(1_000, 200).map(Plan::from_seed).collect()))
}

#[test]
fn three_and_five_servers_keep_every_promise_under_faults() {
    let reports = swept_worlds();
    // A sweep in which nothing happens proves nothing.
    let total = |what: &str| reports.iter().filter_map(|report| report.counts.get(what)).sum::<u64>();
    let runs = reports.len() as u64;
    for (what, per_run) in [("elections", 1), ("deaths", 1), ("operations answered", 200)] {
        assert!(total(what) >= per_run * runs, "only {} {what} in {runs} runs", total(what));
    }
    if runs >= 100 {
        assert!(total("torn writes") > 0, "no write was torn in {runs} runs");
    }
}

/// What this sweep is too short for: a server to which a snapshot is sent while its log already agrees with it. A test of
/// Raft's rules takes that branch.
const TOO_RARE: [Mark; 1] = [Mark::SnapshotKeepsTail];

/// The marks that were not hit.
fn missed(hits: &Hits) -> Vec<Mark> {
    Mark::ALL.iter().copied().filter(|mark| !hits.contains(*mark)).collect()
}

#[test]
fn the_sweep_takes_every_rare_branch() {
    let mut hits = Hits::default();
    let worlds = swept_worlds();
    worlds.iter().for_each(|report| hits.extend(&report.hits()));
    for (ground, seeds) in [(Ground::Raft, 300), (Ground::Agents, 40), (Ground::Gossip, 2)] {
        let seeds: Vec<u64> = (0..seeds).collect();
        let run = |seed: &u64| ground.run(*seed, None);
        runner::in_parallel(&seeds, runner::processors(), run, |at, trial| {
            assert!(trial.failure.is_none(), "{ground} {at}: {:?}", trial.failure);
            hits.extend(&trial.marks);
        });
    }
    // Whoever wants fewer worlds wants no statistics of them.
    if worlds.len() >= 200 {
        let missed: Vec<Mark> = missed(&hits).into_iter().filter(|mark| !TOO_RARE.contains(mark)).collect();
        assert_eq!(missed, [], "never taken; `sim marks` tells how often the others are");
    }
}

#[test]
fn a_rare_branch_that_is_never_taken_is_missed() {
    for untaken in Mark::ALL {
        let mut hits = Hits::default();
        Mark::ALL.iter().filter(|mark| *mark != untaken).for_each(|mark| hits.insert(*mark));
        assert_eq!(missed(&hits), [*untaken]);
    }
    // What counts is what code says, on the thread of the run.
    let (_, hits) = runner::isolated(0, None, || proconsul_core::marks::hit(Mark::SplitVote));
    assert_eq!(missed(&hits).len(), Mark::ALL.len() - 1);
}

#[test]
fn a_sole_server_keeps_every_promise_under_faults() {
    must_pass((1..=20).map(|seed| Plan::with_servers(seed, 1)).collect());
}

#[test]
fn what_once_failed_passes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut plans = Vec::new();
    for file in std::fs::read_dir(&directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|it| it == "json") {
            let text = std::fs::read_to_string(&path).unwrap();
            let plan = Plan::from_json(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            plans.push((path, plan));
        }
    }
    plans.sort_by(|a, b| a.0.cmp(&b.0));
    must_pass(plans.into_iter().map(|(_, plan)| plan).collect());
}

/// `sim` in a process of its own.
fn sim(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(args).env_remove("MADSIM_TEST_SEED").env_remove("MADSIM_TEST_NUM");
    command
}

/// The lines of a sweep in a process of its own, in order of seeds.
fn swept(args: &[&str]) -> Vec<String> {
    let output = sim(&["sweep", "--each"]).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> =
        text.lines().filter(|line| line.starts_with("seed ")).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn the_same_fifty_seeds_give_the_same_traces_in_another_process() {
    let first = swept(&["40", "50"]);
    assert_eq!(first.len(), 50, "{first:?}");
    assert_eq!(first, swept(&["40", "50"]));
    // In another company, too: what a run does depends on nothing but its plan.
    assert_eq!(first[2..3], swept(&["42", "1"]));
}

#[test]
fn the_same_seeds_of_other_grounds_give_the_same_runs_in_another_process() {
    for ground in ["raft", "gossip"] {
        let args = ["0", "16", "--ground", ground];
        let first = swept(&args);
        assert_eq!((first.len(), &first), (16, &swept(&args)));
    }
}

/// A report of a run that fails.
fn failure(directory: &Path) -> (Report, String) {
    let plan = Plan { bug: Some("WatchMissesDelete".to_owned()), ..Plan::from_seed(1) };
    let report = runner::run(&plan, false);
    assert!(report.failed(), "a deletion that wakes nobody is found in every run");
    let file = directory.join("report.json");
    std::fs::write(&file, serde_json::to_string(&report).unwrap()).unwrap();
    (report, file.to_str().unwrap().to_owned())
}

#[test]
fn the_printed_replay_command_reproduces_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let (report, file) = failure(directory.path());
    let output = sim(&["replay", &file]).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert_eq!(line.trim(), report.summary());
}

#[test]
fn a_replay_stops_where_it_is_told_to_and_is_the_same_up_to_there() {
    let [until, again] =
        [["--stop-at", "3", "--log", "off"], ["--stop-at", "3.0", "--log", "info"]].map(|args| {
            let output = sim(&["replay", "7"]).args(args).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
    assert!(until.contains("ended early"), "{until}");
    assert_eq!(until, again);
    let events: u64 = until.split("events ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let output = sim(&["replay", "7", "--log=off", &format!("--stop-at=#{events}")]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), until);
}

#[test]
fn a_shrunk_plan_fails_in_the_same_way() {
    let directory = tempfile::tempdir().unwrap();
    let (report, file) = failure(directory.path());
    let small = directory.path().join("small.json");
    let out = small.to_str().unwrap();
    let status = sim(&["shrink", &file, "--runs", "6", "--out", out]).output().unwrap().status;
    assert_eq!(status.code(), Some(1));
    let small = Plan::from_json(&std::fs::read_to_string(&small).unwrap()).unwrap();
    assert!(small.faults.len() <= report.plan.faults.len() / 2);
    let again = runner::run(&small, false);
    assert!(again.violations.iter().any(|it| it.auditor == report.violations[0].auditor));
}

#[test]
fn a_sweep_that_was_interrupted_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("results.jsonl");
    let path = file.to_str().unwrap();
    let args = ["--ground", "raft", "--resume", path];
    assert_eq!(swept(&[&["0", "3"], &args[..]].concat()).len(), 3);
    // The last line was being written when the power went.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{}\n{{\"seed\":", text.lines().next().unwrap())).unwrap();
    assert_eq!(swept(&[&["0", "3"], &args[..]].concat()).len(), 2);
    assert_eq!(swept(&[&["0", "3"], &args[..]].concat()).len(), 0);
}
