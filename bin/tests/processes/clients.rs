//! Client libraries that other people wrote, as their registries hand them out, on tours through an agent.
//!
//! Where a language or its registry is not there, the tour is left out, and that is said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::Agent;

/// Runs a command, and returns what it printed.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{command:?}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

fn ends_with_all_parts(outcome: Result<String, String>, parts: &[&str]) {
    let said = outcome.unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(said.lines().collect::<Vec<_>>(), parts);
}

/// A Python of its own with the library.
fn python(dir: &Path) -> Result<PathBuf, String> {
    run(Command::new("python3").args(["-m", "venv"]).arg(dir.join("venv")))?;
    let python = dir.join("venv/bin/python");
    let install =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "py-consul"];
    run(Command::new(&python).args(install).current_dir(dir))?;
    Ok(python)
}

#[test]
fn a_python_client_and_a_loop_that_renders_templates_go_on_a_tour() {
    let dir = tempfile::tempdir().expect("a directory");
    match python(dir.path()) {
        Err(why) => eprintln!("left out: the tour needs python3 and py-consul from its registry: {why}"),
        Ok(python) => {
            let agent = Agent::dev();
            let port = agent.ports().http.to_string();
            let outcome = run(Command::new(python).arg(script("tour.py")).arg(port).current_dir(dir.path()));
            let parts = ["keys", "watches", "services", "locks", "transactions", "others", "templates"];
            ends_with_all_parts(outcome, &parts);
        }
    }
}

/// Installs the library into a directory.
fn node(dir: &Path) -> Result<(), String> {
    run(Command::new("node").arg("--version"))?;
    let install = ["install", "--no-audit", "--no-fund", "--fetch-retries=1", "consul"];
    run(Command::new("npm").args(install).current_dir(dir)).map(drop)
}

#[test]
fn a_node_client_goes_on_a_tour() {
    let dir = tempfile::tempdir().expect("a directory");
    match node(dir.path()) {
        Err(why) => {
            eprintln!("left out: the tour needs node and the package consul from its registry: {why}")
        }
        Ok(()) => {
            let agent = Agent::dev();
            let port = agent.ports().http.to_string();
            let outcome = run(Command::new("node").arg(script("tour.mjs")).arg(port).current_dir(dir.path()));
            ends_with_all_parts(outcome, &["keys", "watches", "services", "locks", "transactions", "others"]);
        }
    }
}
