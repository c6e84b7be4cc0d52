//! The exit code says what the checkers say.

use std::process::Command;

/// What `proconsul-jepsen check` returns for a history.
fn code(history: &str) -> Option<i32> {
    checked(history).0
}

/// The same, and the page that it writes, if it does.
fn checked(history: &str) -> (Option<i32>, String) {
    let directory = tempfile::Builder::new().prefix("proconsul-verdicts-").tempdir().expect("a directory");
    let file = directory.path().join("history.jsonl");
    std::fs::write(&file, history).expect("a writable directory");
    let page = directory.path().join("report.html");
    let output = Command::new(env!("CARGO_BIN_EXE_proconsul-jepsen"))
        .arg("check")
        .arg(&file)
        .arg("--report")
        .arg(&page)
        .output();
    let code = output.expect("the harness runs").status.code();
    (code, std::fs::read_to_string(page).unwrap_or_default())
}

const WRITE: &str = r#"{"client":1,"key":"k","op":{"write":{"value":"a"}},"invoked":1,"completed":2,"outcome":{"ok":{"done":{}}}}"#;

fn read(entry: &str) -> String {
    let reply = format!(r#"{{"ok":{{"read":{{"entry":{entry},"index":9}}}}}}"#);
    let op = r#"{"read":{"consistency":"linearizable"}}"#;
    format!(r#"{{"client":2,"key":"k","op":{op},"invoked":3,"completed":4,"outcome":{reply}}}"#)
}

#[test]
fn a_history_that_keeps_all_promises_is_a_success() {
    assert_eq!(code(&format!("{WRITE}\n{}\n", read(r#"{"value":"a","modify_index":9}"#))), Some(0));
}

#[test]
fn a_lost_write_is_a_failure() {
    assert_eq!(code(&format!("{WRITE}\n{}\n", read("null"))), Some(1));
}

#[test]
fn a_file_that_is_no_history_is_neither() {
    assert_eq!(code("{}\n"), Some(2));
}

#[test]
fn the_page_of_a_lost_write_shows_it_alone() {
    let other = |at: usize| {
        let line = WRITE.replace(r#""client":1"#, &format!(r#""client":{}"#, at + 10));
        line.replace(r#""k""#, &format!(r#""other-{at}""#)) + "\n"
    };
    let more: String = (0..50).map(other).collect();
    let (code, page) = checked(&format!("{more}{WRITE}\n{}\n", read("null")));
    assert_eq!(code, Some(1));
    let (_, anomaly) = page.split_once("First anomaly").expect("there is one");
    let (anomaly, _) = anomaly.split_once("<h2>").expect("it is not the last section");
    assert_eq!(anomaly.matches("<rect").count(), 2, "two operations: {anomaly}");
    assert!(!anomaly.contains("other-"), "{anomaly}");
    for foreign in ["http:", "https:", "<script", "url(", "src="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_program_that_does_not_stay_is_no_run_and_leaves_nothing() {
    for program in ["false", "no-such-program"] {
        let directory =
            tempfile::Builder::new().prefix("proconsul-verdicts-").tempdir().expect("a directory");
        let output = Command::new(env!("CARGO_BIN_EXE_proconsul-jepsen"))
            .args(["run", "--seconds", "5", "--binary"])
            .arg(std::path::Path::new("/bin").join(program))
            .arg("--report")
            .arg(directory.path().join("report.html"))
            .env("TMPDIR", directory.path())
            .stdin(std::process::Stdio::null())
            .output()
            .expect("the harness runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("ended by itself") || said.contains("cannot run"), "{said}");
        let left = std::fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(left, 0, "{said}");
    }
}
