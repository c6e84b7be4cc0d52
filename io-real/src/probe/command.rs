//! Checks that run programs: scripts, and the system's manager of services.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use proconsul_core::Text;
use proconsul_core::agent::ProbeOutcome;
use proconsul_core::store::model::Health;
use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use super::outcome;
use crate::words::io_reason;

/// Runs a script check: exit status 0 passes, 1 warns, everything else is critical.
pub(super) async fn script(args: &[Text], limit: Duration, output_max: usize) -> ProbeOutcome {
    match run(args, limit, output_max).await {
        Ok((Some(status), output)) => {
            let health = match status.code() {
                Some(0) => Health::Passing,
                Some(1) => Health::Warning,
                Some(_) | None => Health::Critical,
            };
            outcome(health, output.text())
        }
        Ok((None, output)) => {
            let limit = proconsul_core::duration::format(limit);
            let (mut text, said) = (format!("Timed out ({limit}) running check"), output.text());
            if !said.is_empty() {
                text = format!("{text}\n\n{said}");
            }
            outcome(Health::Critical, text)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !args[0].contains('/') => {
            let text = format!("exec: {:?}: executable file not found in $PATH", args[0].as_str());
            outcome(Health::Critical, text)
        }
        Err(error) => outcome(Health::Critical, format!("fork/exec {}: {}", args[0], io_reason(&error))),
    }
}

/// Asks systemd for the state of a unit.
pub(super) async fn os_service(name: &str, limit: Duration) -> ProbeOutcome {
    unit_state("systemctl", name, limit).await
}

async fn unit_state(systemctl: &str, name: &str, limit: Duration) -> ProbeOutcome {
    let args = [systemctl, "is-active", "--", name].map(Text::new);
    let (status, output) = match run(&args, limit, OUTPUT_MAX).await {
        Ok((Some(status), output)) => (status, output),
        Ok((None, _)) => {
            return outcome(Health::Critical, format!("Cannot ask systemd about {name:?}: i/o timeout"));
        }
        Err(error) => {
            let text = format!("Cannot ask systemd about {name:?}: {}", io_reason(&error));
            return outcome(Health::Critical, text);
        }
    };
    let output = output.text();
    match output.trim() {
        _ if status.success() => outcome(Health::Passing, format!("Service \"{name}\" is healthy")),
        state @ ("activating" | "reloading") => {
            outcome(Health::Warning, format!("Service \"{name}\" is {state}"))
        }
        state => outcome(Health::Critical, format!("Service \"{name}\" is unhealthy: {state}")),
    }
}

/// What the manager of services says is a word.
const OUTPUT_MAX: usize = 256;

/// The end of what a program has written.
pub(super) struct Output {
    kept: VecDeque<u8>,
    max: usize,
    written: usize,
}

impl Output {
    pub(super) fn new(max: usize) -> Output {
        Output { kept: VecDeque::new(), max, written: 0 }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.written += bytes.len();
        self.kept.extend(&bytes[bytes.len().saturating_sub(self.max)..]);
        let excess = self.kept.len().saturating_sub(self.max);
        self.kept.drain(..excess);
    }

    pub(super) fn text(mut self) -> String {
        let text = String::from_utf8_lossy(self.kept.make_contiguous()).into_owned();
        if self.written > self.max {
            format!("Captured {} of {} bytes\n...\n{text}", self.max, self.written)
        } else {
            text
        }
    }
}

/// A program's process group, which is killed when nobody waits for the program any more.
struct Running {
    group: Pid,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // One that has just ended by itself needs no killing.
            let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
        }
    }
}

/// Runs a program to its end, or until it has taken too long and is killed: then there is no status. Its output and its
/// errors are in the order in which they came.
async fn run(args: &[Text], limit: Duration, output_max: usize) -> io::Result<(Option<ExitStatus>, Output)> {
    let deadline = tokio::time::sleep(limit);
    tokio::pin!(deadline);
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(&*args[0]);
    command.args(args[1..].iter().map(Text::as_str));
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let mut child = command.spawn()?;
    // The pipe ends when the program has closed it, so nobody else may hold it open.
    drop(command);
    let mut running = Running { group: Pid::from_child(&child), ended: false };
    // Reaps it in any case, also when it was killed because nobody waits.
    let mut exit = tokio::task::spawn_blocking(move || child.wait());
    let mut reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
    let mut output = Output::new(output_max);
    let mut buffer = vec![0; 8 << 10];
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            read = reader.read(&mut buffer), if open => match read {
                Ok(0) | Err(_) => open = false,
                Ok(read) => output.add(&buffer[..read]),
            },
            // What it has started may hold the pipe for ever; only its own end counts.
            ended = &mut exit => {
                running.ended = true;
                // The runtime may learn of the end before it learns of the last words.
                while let Ok(read) = rustix::io::read(&reader, &mut buffer) {
                    if read == 0 {
                        break;
                    }
                    output.add(&buffer[..read]);
                }
                return Ok((Some(ended.map_err(io::Error::other)??), output));
            }
            () = &mut deadline => return Ok((None, output)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(text: &str, limit: Duration, output_max: usize) -> (Health, String) {
        let outcome = script(&["/bin/sh", "-c", text].map(Text::new), limit, output_max).await;
        (outcome.status, outcome.output)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_exit_status_is_the_state() {
        assert_eq!(sh("echo a; echo b >&2", LONG, 100).await, (Health::Passing, "a\nb\n".into()));
        assert_eq!(sh("exit 1", LONG, 100).await, (Health::Warning, String::new()));
        assert_eq!(sh("exit 2", LONG, 100).await.0, Health::Critical);
        assert_eq!(sh("kill -9 $$", LONG, 100).await.0, Health::Critical);
        let outcome = script(&["/does/not/exist".into()], LONG, 100).await;
        assert_eq!(outcome.status, Health::Critical);
        assert_eq!(outcome.output, "fork/exec /does/not/exist: no such file or directory");
        let outcome = script(&["no-such-program".into()], LONG, 100).await;
        assert_eq!(outcome.output, "exec: \"no-such-program\": executable file not found in $PATH");
    }

    #[tokio::test]
    async fn of_long_output_the_end_is_kept() {
        let (_, output) = sh("printf 1234567890", LONG, 4).await;
        assert_eq!(output, "Captured 4 of 10 bytes\n...\n7890");
    }

    #[tokio::test]
    async fn a_script_that_takes_too_long_is_killed_with_its_children() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("pid");
        let text =
            format!("echo begun; sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
        let (status, output) = sh(&text, Duration::from_secs(2), 100).await;
        assert_eq!((status, output.as_str()), (Health::Critical, "Timed out (2s) running check\n\nbegun\n"));
        let pid = std::fs::read_to_string(&file).expect("it ran").trim().to_owned();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        while !state().is_empty() && !state().contains(") Z") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_unit_is_what_systemd_says() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let fake = dir.path().join("systemctl");
        let text = "#!/bin/sh\n[ \"$1 $2\" = 'is-active --' ] || exit 9\necho \"$3\"\n[ \"$3\" = active ]\n";
        std::fs::write(&fake, text).expect("written");
        std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).expect("ours");
        let fake = fake.to_str().expect("text").to_owned();
        for (name, status, output) in [
            ("active", Health::Passing, "Service \"active\" is healthy"),
            ("activating", Health::Warning, "Service \"activating\" is activating"),
            ("failed", Health::Critical, "Service \"failed\" is unhealthy: failed"),
        ] {
            let outcome = unit_state(&fake, name, LONG).await;
            assert_eq!((outcome.status, outcome.output.as_str()), (status, output));
        }
        let outcome = unit_state("/does/not/exist", "x", LONG).await;
        assert_eq!(outcome.status, Health::Critical);
        assert_eq!(outcome.output, "Cannot ask systemd about \"x\": no such file or directory");
    }

    #[tokio::test]
    async fn what_a_script_leaves_behind_is_not_waited_for() {
        let (status, output) = sh("sleep 2 & echo done", LONG, 100).await;
        assert_eq!(status, Health::Passing);
        assert_eq!(output, "done\n");
    }
}
