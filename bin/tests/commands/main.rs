//! The command line against answers that Consul gave, recorded in `cases`.
//!
//! Every case gets a directory and agents of its own, on ports that were free a moment before; they are ended by their ids.
//! Set `PROCONSUL_COMMANDS_FILTER` to play only the cases whose file contains it:
//!
//! ```sh
//! PROCONSUL_COMMANDS_FILTER=kv cargo test -p proconsul --test commands -- --nocapture
//! ```
//!
//! A case is an object with `agents`, `files`, `mask` and `steps`; a step runs the program (`run`, `start`, `signal`, `wait`),
//! asks an agent over HTTP (`http`) or looks at a file (`inspect`, `until_file`), and says how to look at the output (`as`,
//! `err_as`) and what is expected of it.

mod exceptions;
mod steps;
mod views;
mod world;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::Value;

/// Only cases whose file contains this are played.
const FILTER: &str = "PROCONSUL_COMMANDS_FILTER";
/// So many cases at a time: most of a case is waiting.
const AT_A_TIME: usize = 6;
/// So often a case begins anew when another program took a port of its agents.
const TRIES: usize = 4;

/// A case, by its file's name.
struct Case {
    name: String,
    case: Value,
}

/// What came of a case: of each step that expects something, its number, its name and what is wrong with it.
type Outcome = Result<Vec<(usize, String, Option<String>)>, String>;

fn cases() -> Vec<Case> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/commands/cases");
    let filter = std::env::var(FILTER).unwrap_or_default();
    let files = std::fs::read_dir(dir).expect("the cases").map(|file| file.expect("a file").path());
    let mut cases: Vec<Case> = files
        .filter_map(|path| {
            let name = path.file_stem()?.to_str()?.to_owned();
            if !name.contains(&filter) {
                return None;
            }
            let text = std::fs::read_to_string(&path).expect("a case");
            Some(Case { case: serde_json::from_str(&text).expect("JSON"), name })
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

fn play(case: &Case) -> Outcome {
    let mut last = Err("not played".to_owned());
    for _ in 0..TRIES {
        last = steps::play(&case.case);
        match &last {
            Err(why) if why.contains("cannot listen") => {}
            _ => break,
        }
    }
    last
}

#[test]
fn commands_answer_as_recorded() {
    let began = Instant::now();
    let cases = cases();
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::default();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((at, case)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, cases.get(at)?)))
                {
                    let outcome = play(case);
                    outcomes.lock().expect("no player panics").push((at, outcome));
                }
            });
        }
    });
    let (mut passed, mut excepted, mut wrong) = (0, 0, Vec::new());
    let mut outcomes = outcomes.into_inner().expect("no player panics");
    outcomes.sort_by_key(|(at, _)| *at);
    for (at, outcome) in outcomes {
        let name = &cases[at].name;
        let exception = exceptions::of(name);
        match outcome {
            Err(why) if exception.is_none() => wrong.push(format!("{name}: the case did not begin: {why}")),
            Err(_) => excepted += 1,
            Ok(steps) => {
                let before = excepted;
                for (number, step, problem) in steps {
                    match problem {
                        None => passed += 1,
                        Some(_) if exceptions::covers(name, number) => excepted += 1,
                        Some(problem) => wrong.push(format!("{name}[{number}] {step}\n    {problem}")),
                    }
                }
                if let Some(reason) = exception.filter(|_| excepted == before) {
                    wrong.push(format!("{name}: passes whole, remove its exception ({reason})"));
                }
            }
        }
    }
    println!("{passed} steps as recorded, {excepted} exceptions, {} s", began.elapsed().as_secs());
    assert!(wrong.is_empty(), "{} problems:\n{}", wrong.len(), wrong.join("\n"));
}
