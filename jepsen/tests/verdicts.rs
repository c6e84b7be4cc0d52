//! The exit code says what the checkers say.

use std::process::Command;

/// What `proconsul-jepsen check` returns for a history.
fn code(history: &str) -> Option<i32> {
    let directory = tempfile::Builder::new().prefix("proconsul-verdicts-").tempdir().expect("a directory");
    let file = directory.path().join("history.jsonl");
    std::fs::write(&file, history).expect("a writable directory");
    let output = Command::new(env!("CARGO_BIN_EXE_proconsul-jepsen")).arg("check").arg(&file).output();
    output.expect("the harness runs").status.code()
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
