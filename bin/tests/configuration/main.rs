//! The configuration against what Consul said about it, recorded in `conformance/cases/config`: what `validate` says, whether
//! an agent would start and why not, and what settings result.
//!
//! No agent is started: the command line is read, the files are, and the result is compared. What only a running agent can
//! show (answers over HTTP, files and ports that cannot be had) is left to the tests of processes.

mod exceptions;
mod inventory;
mod trial;

use std::path::Path;

use serde_json::Value;

use exceptions::EXCEPTIONS;
use trial::Trial;

/// The only test that changes the working directory: names of files in messages are relative, and a process has one of it.
#[test]
fn files_and_flags_are_understood_as_recorded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases/config");
    let mut files: Vec<_> =
        std::fs::read_dir(dir).expect("the cases").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let (mut compared, mut wrong, mut excepted) = (0, Vec::new(), Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a case");
        let case: Value = serde_json::from_str(&text).expect("JSON");
        let stem = file.file_stem().expect("a name").to_string_lossy().into_owned();
        for input in case["inputs"].as_array().expect("inputs") {
            // Later versions of Consul were read about, not recorded.
            if input.get("since").is_some() {
                continue;
            }
            let name = format!("{stem}/{}", input["name"].as_str().expect("a name"));
            let problems = Trial::new(input).problems();
            compared += 1;
            match (problems.is_empty(), EXCEPTIONS.iter().any(|(known, _)| *known == name)) {
                (true, false) => {}
                (false, true) => excepted.push(name),
                (false, false) => wrong.push(format!("{name}: {}", problems.join("\n    "))),
                (true, true) => wrong.push(format!("{name}: an exception that is as recorded")),
            }
        }
    }
    assert!(compared > 250, "only {compared} inputs were found");
    assert_eq!(excepted.len(), EXCEPTIONS.len(), "there are exceptions for inputs that do not exist");
    assert!(wrong.is_empty(), "{} of {compared} inputs:\n{}", wrong.len(), wrong.join("\n"));
}
