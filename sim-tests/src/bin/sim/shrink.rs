//! `sim shrink`: a smaller plan that fails in the same way.

use std::process::ExitCode;

use proconsul_sim_tests::{runner, shrink};

use crate::args::Args;

/// So many runs are spent if nothing else is said.
const RUNS: u32 = 300;

pub fn run(args: Args) -> Result<ExitCode, String> {
    let plan = args.plan_named()?;
    let report = runner::run(&plan, false);
    println!("{}", report.summary());
    let Some(first) = report.violations.first() else {
        println!("this plan does not fail: there is nothing to shrink");
        return Ok(ExitCode::SUCCESS);
    };
    let auditor = first.auditor.clone();
    let mut tries = 0;
    let small = shrink::shrink(plan, args.value("runs")?.unwrap_or(RUNS), |plan| {
        tries += 1;
        let fails = runner::run(plan, false).violations.iter().any(|it| it.auditor == auditor);
        if fails {
            eprintln!("run {tries}: {}", shrink::size(plan));
        }
        fails
    });
    let json = serde_json::to_string_pretty(&small).expect("a plan has no map keys that JSON lacks");
    match args.text("out") {
        Some(path) => std::fs::write(path, json + "\n").map_err(|error| format!("{path}: {error}"))?,
        None => println!("{json}"),
    }
    println!("{tries} runs; left: {}", shrink::size(&small));
    Ok(ExitCode::FAILURE)
}
