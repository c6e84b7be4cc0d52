//! `sim marks`: which rare branches seeds take.

use std::collections::BTreeMap;
use std::process::ExitCode;

use proconsul_core::marks::Mark;
use proconsul_sim_tests::ground::Ground;
use proconsul_sim_tests::runner;

use crate::args::Args;

/// Exits with 1 if a branch was never taken.
pub fn run(args: Args) -> Result<ExitCode, String> {
    let (seeds, jobs) = (args.number(0, 200)?, args.jobs()?);
    let mut taken: BTreeMap<(Mark, Ground), u64> = BTreeMap::new();
    for ground in Ground::ALL {
        let seeds: Vec<u64> = (0..seeds).collect();
        runner::in_parallel(
            &seeds,
            jobs,
            |seed| ground.run(*seed, None),
            |at, trial| {
                if let Some(failure) = trial.failure {
                    eprintln!("{ground} {}: {failure}", seeds[at]);
                }
                for mark in trial.marks.iter() {
                    *taken.entry((mark, ground)).or_default() += 1;
                }
            },
        );
    }
    let mut missed = 0;
    println!("In how many of {seeds} seeds each mark was hit:\n");
    println!("| mark | worlds | raft | agents | gossip |\n|---|---|---|---|---|");
    for mark in Mark::ALL {
        let counts = Ground::ALL.map(|ground| taken.get(&(*mark, ground)).copied().unwrap_or(0));
        let [worlds, raft, agents, gossip] = counts;
        let note = if counts == [0; 4] { " **never**" } else { "" };
        println!("| `{mark:?}`{note} | {worlds} | {raft} | {agents} | {gossip} |");
        missed += usize::from(counts == [0; 4]);
    }
    println!("\n{missed} of {} never hit", Mark::ALL.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
