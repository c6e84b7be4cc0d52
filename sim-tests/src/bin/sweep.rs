//! Runs many seeds: `sweep [--servers N] [--bug NAME] [FIRST [COUNT]]`, or as `MADSIM_TEST_SEED` and `MADSIM_TEST_NUM` say.
//!
//! Prints one line per run; leaves a file and prints a replay command for each one that failed; exits with 1 then.

use std::process::ExitCode;

use proconsul_sim_tests::plan::Plan;
use proconsul_sim_tests::runner::{self, Report};

fn main() -> ExitCode {
    let mut numbers = Vec::new();
    let (mut servers, mut bug) = (None, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| usage(&format!("{word} needs a value")));
        match word.as_str() {
            "--servers" => {
                servers = Some(value().parse().unwrap_or_else(|_| usage("--servers needs 1, 3 or 5")))
            }
            "--bug" => bug = Some(value()),
            _ => numbers.push(word.parse().unwrap_or_else(|_| usage(&format!("{word} is no number")))),
        }
    }
    if let Some(name) = &bug
        && runner::bug_by_name(name).is_none()
    {
        usage(&format!("there is no defect {name}"));
    }
    let seeds = runner::seeds(numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(100));
    let plans: Vec<Plan> = seeds
        .map(|seed| {
            let plan =
                servers.map_or_else(|| Plan::from_seed(seed), |servers| Plan::with_servers(seed, servers));
            Plan { bug: bug.clone(), ..plan }
        })
        .collect();
    let (reports, took) = runner::timed(|| {
        runner::sweep(plans, |report| {
            println!("{}", report.summary());
            if report.failed() {
                report.save();
            }
        })
    });
    let failed = reports.iter().filter(|report| report.failed()).count();
    println!("{} seeds, {failed} failed, {:.1} s", reports.len(), took.as_secs_f64());
    for (what, count) in totals(&reports) {
        println!("{count:>10} {what}");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn totals(reports: &[Report]) -> std::collections::BTreeMap<String, u64> {
    let mut totals = std::collections::BTreeMap::new();
    for (what, count) in reports.iter().flat_map(|report| &report.counts) {
        *totals.entry(what.clone()).or_default() += count;
    }
    totals
}

fn usage(what: &str) -> ! {
    eprintln!("{what}\nusage: sweep [--servers N] [--bug NAME] [FIRST [COUNT]]");
    std::process::exit(2)
}
