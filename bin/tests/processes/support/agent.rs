//! An agent process with a directory of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use proconsul_jepsen::process::agent;
use proconsul_jepsen::process::network::Place;
use proconsul_jepsen::process::ports::Ports;
use rustix::process::Signal;

use super::{Http, wait_for};

/// The program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_proconsul");

/// An agent, running or ended.
pub struct Agent {
    inner: agent::Agent,
}

/// How an agent refused to start.
#[derive(Debug)]
pub struct Refusal {
    pub status: Option<i32>,
    pub stderr: String,
}

impl Refusal {
    /// Checks for status 1, and returns what was said.
    pub fn text(&self) -> &str {
        assert_eq!(self.status, Some(1), "{self:?}");
        self.stderr.trim_end()
    }

    /// Checks for status 1 and one line, and returns the line.
    pub fn line(&self) -> &str {
        let text = self.text();
        assert!(!text.is_empty() && !text.contains('\n'), "not one line: {self:?}");
        text
    }
}

impl Agent {
    /// An agent that is not started yet. Its directory has a `conf` for configuration files.
    pub fn new(arguments: &[&str]) -> Agent {
        let place = Place::localhost().expect("free ports");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let inner = agent::Agent::new(Path::new(BINARY), "n1", place, arguments);
        Agent { inner: inner.expect("a directory") }
    }

    /// A server with its state on disk that is not started yet.
    pub fn new_server() -> Agent {
        Agent::new(&[&["-server", "-bootstrap"], &agent::ON_DISK[..]].concat())
    }

    /// A server with its state on disk, at work.
    pub fn server() -> Agent {
        let mut agent = Agent::new_server();
        agent.start();
        agent
    }

    /// An agent in memory, at work.
    pub fn dev() -> Agent {
        let mut agent = Agent::new(&["-dev"]);
        agent.start();
        agent
    }

    pub fn dir(&self) -> &Path {
        self.inner.directory()
    }

    /// Writes a file into the directory of configuration files.
    pub fn configure(&self, name: &str, text: &str) {
        std::fs::write(self.dir().join("conf").join(name), text).expect("a writable directory");
    }

    pub fn ports(&self) -> Ports {
        self.inner.ports()
    }

    pub fn command(&self) -> Command {
        self.inner.command()
    }

    /// Starts it, and waits until it leads and is in the catalog. Where another program took a port meanwhile, others
    /// are chosen, unless the agent has run on these before.
    pub fn start(&mut self) {
        let fresh = self.log().is_empty();
        for attempts_left in (0..5).rev() {
            self.spawn();
            match self.until_ready() {
                Ok(()) => return,
                Err(()) => {
                    let taken = self.log().contains("cannot listen");
                    assert!(fresh && taken && attempts_left > 0, "the agent ended:\n{}", self.log());
                    self.inner.move_to(Place::localhost().expect("free ports"));
                }
            }
        }
    }

    /// Starts it and does not wait.
    pub fn spawn(&mut self) {
        self.inner.start().expect("the program runs");
    }

    fn until_ready(&mut self) -> Result<(), ()> {
        let mut http = self.http();
        wait_for("the agent starts", || {
            if self.inner.ended().expect("ours").is_some() {
                return Ok(Err(()));
            }
            let answer = http.request("GET", "/v1/health/node/n1?consistent", "");
            match answer {
                Ok(answer) if answer.status == 200 && answer.body.len() > 10 => Ok(Ok(())),
                other => Err(format!("{other:?}\n{}", self.inner.log())),
            }
        })
    }

    /// Starts an agent that is expected to refuse.
    pub fn refusal(&self) -> Refusal {
        let mut child =
            self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        // Output of a refusal is far smaller than a pipe holds: it need not be read meanwhile.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("the agent refuses", || match child.try_wait().expect("ours") {
                Some(_) => Ok(()),
                None => Err("it still runs".to_owned()),
            });
        }));
        if ended.is_err() {
            // It has not been waited for: its id is its own.
            let _ = child.kill();
        }
        let Output { status, stderr, stdout } = child.wait_with_output().expect("ours");
        assert!(ended.is_ok(), "it started:\n{}", String::from_utf8_lossy(&stdout));
        Refusal { status: status.code(), stderr: String::from_utf8_lossy(&stderr).into_owned() }
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.inner.kill();
    }

    /// Sends a signal.
    pub fn send(&self, signal: Signal) {
        self.inner.send(signal).expect("ours");
    }

    /// Sends a signal and waits until the process is gone.
    pub fn signal(&mut self, signal: Signal) -> ExitStatus {
        self.send(signal);
        wait_for("the signal ends the agent", || {
            self.inner.ended().expect("ours").ok_or_else(|| "it still runs".to_owned())
        })
    }

    /// Stops it and starts it again on the same directory and ports.
    pub fn restart(&mut self) {
        self.signal(Signal::TERM);
        self.start();
    }

    pub fn pid(&self) -> u32 {
        self.inner.pid()
    }

    pub fn address(&self) -> SocketAddr {
        self.inner.http()
    }

    pub fn dns(&self) -> SocketAddr {
        self.inner.dns()
    }

    pub fn http(&self) -> Http {
        Http::new(self.address())
    }

    /// Everything that it printed.
    pub fn log(&self) -> String {
        self.inner.log()
    }

    /// Runs another command of the program against this agent: status, output, errors.
    pub fn cli(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(BINARY)
            .args(arguments)
            .env("CONSUL_HTTP_ADDR", self.address().to_string())
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .output()
            .expect("the program runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the agent:\n{}", self.log());
        }
    }
}
