//! The simulator as a tool: `sim sweep`, `sim replay`, `sim shrink`, `sim planted`, `sim marks`.
//!
//! `docs/simulation.md` says what a run is, `docs/replaying-a-failure.md` what to do with one that failed.

mod args;
mod marks;
mod planted;
mod progress;
mod replay;
mod shrink;
mod sweep;

use std::io::Write as _;
use std::process::ExitCode;

use args::Args;

const USAGE: &str = "usage: sim COMMAND

  sweep [FIRST [COUNT]]     runs seeds from FIRST on (0, 100)
      --servers 1|3|5       plans for so many servers
      --bug NAME            with a planted defect
      --ground GROUND       worlds (as they are), raft, agents or gossip
      --jobs N              so many at a time (as many as there are processors)
      --results FILE        writes one line of JSON for each run
      --resume FILE         the same, and leaves out what the file has already
      --each                prints a line for each run
      --progress            tells now and then how far it is, also where standard error is no terminal
  replay SEED|FILE          runs a seed, a plan or a failure's report again, with its log
      --servers, --bug      as above, for a seed
      --log FILTER          what is logged, as info,step=trace
      --stop-at SECONDS|#EVENT
                            ends the run there
  shrink SEED|FILE          removes what the failure does not need
      --servers, --bug      as above, for a seed
      --runs N              tries at most so many plans (300)
      --out FILE            writes the plan there instead of printing it
  planted [SEEDS [NAME...]] says for each defect how many seeds find it (500)
      --ground GROUND       looks there only
      --jobs N
  marks [SEEDS]             says which rare branches so many seeds of each ground take (200)
      --jobs N
  help                      prints this

Exit status: 0 if all is well, 1 if a run failed (or a defect or a mark was missed), 2 for mistakes on the command line.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let asks_for_help = |word: &String| matches!(word.as_str(), "--help" | "-h");
    if words.first().is_some_and(|word| word == "help") || words.iter().any(asks_for_help) {
        // Whoever looks at the first lines only closes the pipe.
        let _ = writeln!(std::io::stdout(), "{USAGE}");
        return ExitCode::SUCCESS;
    }
    let mut words = words.into_iter();
    let Some(command) = words.next() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let run =
        |known: &[&str], run: fn(Args) -> Result<ExitCode, String>| Args::parse(words, known).and_then(run);
    let result = match command.as_str() {
        "sweep" => {
            run(&["servers", "bug", "ground", "jobs", "results", "resume", "each", "progress"], sweep::run)
        }
        "replay" => run(&["servers", "bug", "log", "stop-at"], replay::run),
        "shrink" => run(&["servers", "bug", "runs", "out"], shrink::run),
        "planted" => run(&["ground", "jobs"], planted::run),
        "marks" => run(&["jobs"], marks::run),
        _ => Err(format!("{command} is no command")),
    };
    result.unwrap_or_else(|error| {
        eprintln!("sim: {error}; `sim help` tells what there is");
        ExitCode::from(2)
    })
}
