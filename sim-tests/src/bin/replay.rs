//! Runs one plan again: `replay [--shrink] FILE`, a plan or a failure's report, with its log on standard error.
//!
//! `SIM_LOG` says what is logged, e.g. `SIM_LOG=debug` or `SIM_LOG=trace=trace`. With `--shrink`, what the failure does
//! not need is removed from the plan, and the smaller plan is printed.

use std::process::ExitCode;

use proconsul_sim_tests::plan::Plan;
use proconsul_sim_tests::{runner, shrink};

/// So many runs may be spent on making a plan smaller.
const SHRINK_RUNS_MAX: u32 = 300;

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let shrinks = words.iter().any(|word| word == "--shrink");
    words.retain(|word| word != "--shrink");
    let [path] = words.as_slice() else {
        eprintln!("usage: replay [--shrink] FILE");
        return ExitCode::from(2);
    };
    let plan = match read(path) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("{path}: {error}");
            return ExitCode::from(2);
        }
    };
    let report = runner::run(&plan, !shrinks);
    for violation in &report.violations {
        eprintln!("{}: {}", violation.auditor, violation.what);
    }
    println!("{}", report.summary());
    if shrinks && report.failed() {
        let small = shrink::shrink(plan, SHRINK_RUNS_MAX, |plan| runner::run(plan, false).failed());
        println!("{}", serde_json::to_string_pretty(&small).expect("a plan has no map keys that JSON lacks"));
    }
    if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn read(path: &str) -> Result<Plan, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Plan::from_json(&text).map_err(|error| error.to_string())
}
