//! A full disk: a small file system of its own, where the system lets us have one.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::support::{Agent, wait_for};

/// A file system in memory, mounted for as long as this lives.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Small> {
        let dir = tempfile::Builder::new().prefix("proconsul-test-small-").tempdir().expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=192m", "proconsul-test"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: this system does not let the test mount a file system");
        }
        mounted.then_some(Small(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that there is.
    fn fill(&self) {
        let mut ballast =
            File::options().create(true).append(true).open(self.path().join("ballast")).expect("a file");
        for size in [1 << 20, 4096, 1] {
            let piece = vec![1; size];
            while ballast.write_all(&piece).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.path().join("ballast")).expect("removed");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A failure shows in the removal of the directory, which says so.
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_makes_a_server_read_only_until_there_is_room() {
    let Some(small) = Small::mount() else { return };
    let data = small.path().join("data");
    let mut agent = Agent::new(&["-server", "-bootstrap", "-data-dir", data.to_str().expect("text")]);
    agent.start();
    let mut http = agent.http();
    assert_eq!(http.put("/v1/kv/before", "1"), true);
    small.fill();
    // What is zero-filled already still takes a few writes.
    let said = wait_for("a write is refused", || {
        let answer =
            http.request("PUT", "/v1/kv/more", "x".repeat(50_000)).map_err(|error| error.to_string())?;
        if answer.status == 500 {
            Ok(String::from_utf8_lossy(&answer.body).into_owned())
        } else {
            Err(format!("{answer:?}"))
        }
    });
    assert!(said.contains("is full") && said.contains("free space"), "{said}");
    assert_eq!(http.ok("GET", "/v1/kv/before?raw", "").body, "1");
    assert_eq!(http.ok("GET", "/v1/kv/before?raw&consistent", "").body, "1");
    let about = http.get("/v1/agent/self");
    assert!(
        about["Stats"]["alarm"]["disk"].as_str().is_some_and(|text| text.contains("No space left")),
        "{about}"
    );
    assert_eq!(http.request("GET", "/v1/operator/autopilot/health", "").expect("an answer").status, 429);
    let (_, info, _) = agent.cli(&["info"]);
    assert!(info.contains("alarm:") && info.contains("No space left"), "{info}");
    small.free();
    wait_for("it takes writes again", || {
        let answer = http.request("PUT", "/v1/kv/after", "2").map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    assert_eq!(http.get("/v1/agent/self")["Stats"]["alarm"], serde_json::Value::Null);
    let log = agent.log();
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(
        (count("ALARM: the disk of the Raft log"), count("the disk of the Raft log has room again")),
        (1, 1),
        "{log}"
    );
    agent.kill();
    agent.start();
    let mut http = agent.http();
    assert_eq!(http.ok("GET", "/v1/kv/before?raw", "").body, "1");
    assert_eq!(http.ok("GET", "/v1/kv/after?raw", "").body, "2");
    drop(agent);
}
