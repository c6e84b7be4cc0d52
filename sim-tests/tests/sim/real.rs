//! The real server under faults.

use std::path::Path;
use std::process::Command;

use proconsul_sim_tests::plan::Plan;
use proconsul_sim_tests::runner::{self, Report};

/// Runs all plans and fails with the story of those that failed, each saved with its replay command.
fn must_pass(plans: Vec<Plan>) -> Vec<Report> {
    let reports = runner::sweep(plans, |report| {
        if report.failed() {
            report.save();
        }
    });
    let failed: Vec<String> = reports.iter().filter(|report| report.failed()).map(Report::summary).collect();
    assert!(failed.is_empty(), "{} of {} runs failed:\n{}", failed.len(), reports.len(), failed.join("\n"));
    reports
}

#[test]
fn three_and_five_servers_keep_every_promise_under_faults() {
    let reports = must_pass(runner::seeds(1_000, 200).map(Plan::from_seed).collect());
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

/// The lines of a sweep in a process of its own, in order of seeds.
fn swept(args: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sweep"))
        .args(args)
        .env_remove("MADSIM_TEST_SEED")
        .env_remove("MADSIM_TEST_NUM")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> =
        text.lines().filter(|line| line.starts_with("seed ")).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn the_same_seed_gives_the_same_trace_in_another_process() {
    let first = swept(&["40", "6"]);
    assert_eq!(first.len(), 6, "{first:?}");
    assert_eq!(first, swept(&["40", "6"]));
    // In another company, too: what a run does depends on nothing but its plan.
    assert_eq!(first[2..3], swept(&["42", "1"]));
}

#[test]
fn the_printed_replay_command_reproduces_a_failure() {
    let plan = Plan { bug: Some("WatchMissesDelete".to_owned()), ..Plan::from_seed(1) };
    let report = runner::run(&plan, false);
    assert!(report.failed(), "a deletion that wakes nobody is found in every run");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    std::fs::write(&file, serde_json::to_string(&report).unwrap()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_replay")).arg(&file).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert_eq!(line.trim(), report.summary());
}
