//! `sim planted`: how many seeds find each planted defect.

use std::process::ExitCode;
use std::time::Instant;

use proconsul_core::planted::Bug;
use proconsul_sim_tests::ground::{self, Ground};
use proconsul_sim_tests::runner;

use crate::args::Args;

/// Prints the table of docs/fault-model.md. Exits with 1 if a defect was not found.
pub fn run(args: Args) -> Result<ExitCode, String> {
    let seeds = args.number(0, 500)?;
    let mut bugs = Vec::new();
    for name in args.words.iter().skip(1) {
        bugs.push(runner::bug_by_name(name).ok_or_else(|| format!("there is no defect {name}"))?);
    }
    if bugs.is_empty() {
        bugs = Bug::ALL.to_vec();
    }
    let only: Option<Ground> = args.text("ground").map(str::parse).transpose()?;
    let jobs = args.jobs()?;
    let begun = Instant::now();
    let mut missed = 0;
    println!("| defect | found on | seeds needed | by |\n|---|---|---|---|");
    for bug in bugs {
        let only = only.map(|ground| [ground]);
        let grounds = only.as_ref().map_or(Ground::of(bug), |only| only.as_slice());
        match ground::find(bug, grounds, seeds, jobs) {
            Some(found) => {
                let by = found.by.to_string();
                let by: String = by.lines().next().unwrap_or_default().chars().take(120).collect();
                println!("| `{bug:?}` | {} | {} | {by} |", found.ground, found.seeds);
            }
            None => {
                missed += 1;
                println!("| `{bug:?}` | - | not in {seeds} | nobody |");
            }
        }
    }
    println!("\n{missed} missed, {:.0} s of real time", begun.elapsed().as_secs_f64());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
