//! The DNS interface against answers that Consul gave, recorded in `cases/dns`.
//!
//! Every case gets an agent of its own, since most of them are about its configuration.

mod message;
mod player;
mod recursor;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use serde_json::Value;

/// Only cases whose file contains this are played.
const FILTER: &str = "PROCONSUL_CONFORMANCE_FILTER";
/// So many cases at a time: most of a case is waiting.
const WORKERS: usize = 6;

/// A recorded case.
pub struct Case {
    pub file: String,
    pub config: Value,
    pub token: Option<String>,
    pub recursors: Vec<Value>,
    pub setup: Vec<Value>,
    pub settle: f64,
    pub steps: Vec<Value>,
}

/// Cases that do not go as recorded, and why. One that does fails the test.
const EXCEPTIONS: [(&str, &str); 2] = [("acl-anonymous.json", ACCESS_RULES), ("acl-deny.json", ACCESS_RULES)];
const ACCESS_RULES: &str = "access rules are not built yet";

fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases/dns");
    let entries = fs::read_dir(directory).expect("the cases");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Case {
    let text = fs::read_to_string(path).expect("a readable case");
    let mut case: Value = serde_json::from_str(&text).expect("a case is JSON");
    let mut list = |name: &str| match case[name].take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    let (recursors, setup, steps) = (list("recursors"), list("setup"), list("steps"));
    Case {
        file: path.file_name().expect("it has a name").to_string_lossy().into_owned(),
        config: case["config"].take(),
        token: case["token"].as_str().map(str::to_owned),
        recursors,
        setup,
        settle: case["settle"].as_f64().unwrap_or(0.0),
        steps,
    }
}

/// Plays all cases.
///
/// # Panics
/// If a step goes otherwise than recorded, or an exception is none.
pub fn play_all() {
    let begun = Instant::now();
    let filter = std::env::var(FILTER).unwrap_or_default();
    let cases: Vec<Case> =
        cases().into_iter().filter(|case| format!("dns/{}", case.file).contains(&filter)).collect();
    let rest = Mutex::new(cases.iter());
    let played = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(case) = rest.lock().expect("nobody panics with it").next() else { break };
                    let outcome = player::play(case);
                    played.lock().expect("nobody panics with it").push((case, outcome));
                }
            });
        }
    });
    let (mut passed, mut excepted, mut wrong) = (0, 0, Vec::new());
    for (case, outcome) in played.into_inner().expect("nobody panicked with it") {
        let exception = EXCEPTIONS.iter().find(|(file, _)| *file == case.file);
        let problems = match outcome {
            Ok(outcome) => {
                passed += outcome.iter().filter(|problem| problem.is_none()).count();
                outcome.into_iter().flatten().collect()
            }
            Err(why) => vec![format!("it did not begin: {why}")],
        };
        match exception {
            None => wrong.extend(problems.iter().map(|problem| format!("{}: {problem}", case.file))),
            Some((file, reason)) if problems.is_empty() => {
                wrong.push(format!("{file}: passes whole, remove its exception ({reason})"));
            }
            Some(_) => excepted += problems.len(),
        }
    }
    println!("DNS: {passed} steps as recorded, {excepted} exceptions, {} s", begun.elapsed().as_secs());
    wrong.sort();
    assert!(wrong.is_empty(), "{} problems over DNS:\n{}", wrong.len(), wrong.join("\n"));
}
