//! Plants each defect in turn and says in how many of so many seeds it was found: `planted [SEEDS [NAME...]]`.
//!
//! Exits with 1 if one was not found at all. What it prints is the table of docs/fault-model.md.

use std::process::ExitCode;

use proconsul_core::planted::Bug;
use proconsul_sim_tests::plan::Plan;
use proconsul_sim_tests::runner;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let seeds: u64 = words.next().map_or(40, |word| word.parse().expect("usage: planted [SEEDS [NAME...]]"));
    let names: Vec<String> = words.collect();
    let mut all_found = true;
    println!("| defect | found in | of seeds | first seed | first found by |\n|---|---|---|---|---|");
    for bug in Bug::ALL {
        let name = format!("{bug:?}");
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        let plans =
            (0..seeds).map(|seed| Plan { bug: Some(name.clone()), ..Plan::from_seed(seed) }).collect();
        let reports = runner::sweep(plans, |_| {});
        let found: Vec<_> = reports.iter().filter(|report| report.failed()).collect();
        let (first, by) = match found.first() {
            Some(report) => (report.plan.seed.to_string(), report.violations[0].auditor.clone()),
            None => ("-".to_owned(), "nobody".to_owned()),
        };
        println!("| {name} | {} | {seeds} | {first} | {by} |", found.len());
        all_found &= !found.is_empty();
    }
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
