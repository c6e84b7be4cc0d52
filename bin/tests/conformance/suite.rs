//! Plays all cases, several at a time, and holds what came out against the exceptions.

use std::rc::Rc;
use std::time::Instant;

use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use super::case::{self, Case};
use super::exceptions::{self, Exception, Steps};
use super::ground::Kind;
use super::player::{self, Outcome};

/// Only cases whose file contains this are played.
const FILTER: &str = "PROCONSUL_CONFORMANCE_FILTER";

/// So many cases at a time, over all tests of this program: most of a case is waiting.
static ROOM: Semaphore = Semaphore::const_new(6);

/// Plays all cases that there is room for.
///
/// # Panics
/// If a step fails that is no exception, or an exception that does not fail.
pub fn play_all(kind: Kind) {
    let begun = Instant::now();
    let filter = std::env::var(FILTER).unwrap_or_default();
    let cases = case::all().into_iter().filter(|case| kind.has_room_for(case) && case.file.contains(&filter));
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut played = LocalSet::new().block_on(&runtime, async {
        let mut tasks = JoinSet::new();
        for case in cases.map(Rc::new) {
            tasks.spawn_local(async move {
                let _permit = ROOM.acquire().await.expect("it is never closed");
                let outcome = player::play(kind, &case).await;
                (case, outcome)
            });
        }
        tasks.join_all().await
    });
    played.sort_by(|(a, _), (b, _)| a.file.cmp(&b.file));
    let mut report = Report::default();
    for (case, outcome) in &played {
        let own: Vec<&Exception> = exceptions::of(kind).filter(|one| one.file == case.file).collect();
        report.add(case, outcome, &own);
    }
    for exception in exceptions::of(kind) {
        if filter.is_empty() && !played.iter().any(|(case, _)| case.file == exception.file) {
            report.wrong.push(format!("{}: an exception for a case that is not played", exception.file));
        }
    }
    let Report { passed, excepted, wrong } = report;
    let seconds = begun.elapsed().as_secs();
    println!("{kind:?}: {passed} steps as recorded, {excepted} exceptions, {seconds} s");
    assert!(wrong.is_empty(), "{} problems on {kind:?}:\n{}", wrong.len(), wrong.join("\n"));
}

#[derive(Default)]
struct Report {
    passed: usize,
    excepted: usize,
    wrong: Vec<String>,
}

impl Report {
    fn add(&mut self, case: &Case, outcome: &Result<Outcome, String>, exceptions: &[&Exception]) {
        let file = &case.file;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(_) if exceptions.iter().any(|one| one.steps == Steps::All) => {
                self.excepted += case.steps.len();
                return;
            }
            Err(why) => {
                self.wrong.push(format!("{file}: the case did not begin: {why}"));
                return;
            }
        };
        for (number, (step, problems)) in case.steps.iter().zip(outcome).enumerate() {
            if problems.is_empty() {
                self.passed += 1;
            } else if exceptions.iter().any(|one| one.covers(&step.name)) {
                self.excepted += 1;
            } else {
                let problems = problems.join("\n    ");
                self.wrong.push(format!("{file}: {}. {}\n    {problems}", number + 1, step.described()));
            }
        }
        for exception in exceptions {
            self.wrong.extend(exception.stale(case, outcome).map(|why| format!("{file}: {why}")));
        }
    }
}
