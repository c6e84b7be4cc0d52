//! One agent process.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::{Answer, Client};
use super::ports::Ports;

/// How long an agent may take to serve its first request.
pub const START_WITHIN: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub binary: PathBuf,
    /// `agent -dev` in memory, or a server that keeps its data on disk.
    pub dev: bool,
    /// More arguments, behind all others.
    pub arguments: Vec<String>,
}

/// An agent, running or killed, with a directory of its own.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    ports: Ports,
    directory: TempDir,
    child: Option<Child>,
    started: Instant,
}

impl Server {
    /// Prepares an agent with fresh ports and an empty directory, and starts it.
    ///
    /// # Errors
    ///
    /// If there is no directory or port, or the program cannot be run.
    pub fn start(launch: Launch) -> io::Result<Server> {
        let directory = tempfile::Builder::new().prefix("proconsul-jepsen-").tempdir()?;
        let ports = Ports::choose()?;
        let mut server = Server { launch, ports, directory, child: None, started: Instant::now() };
        server.restart()?;
        Ok(server)
    }

    /// Starts the agent on the directory and ports that it had before.
    ///
    /// # Errors
    ///
    /// If the program cannot be run.
    ///
    /// # Panics
    ///
    /// If the agent is still there.
    pub fn restart(&mut self) -> io::Result<()> {
        assert!(self.child.is_none(), "an agent is started once it is gone");
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.launch.binary);
        command.arg("agent");
        if self.launch.dev {
            command.arg("-dev");
        } else {
            command.args(["-server", "-bootstrap", "-data-dir"]).arg(self.directory.path().join("data"));
        }
        command.args(["-node", "n1", "-bind", "127.0.0.1", "-client", "127.0.0.1"]);
        for (flag, port) in [
            ("-http-port", self.ports.http),
            ("-dns-port", self.ports.dns),
            ("-server-port", self.ports.server),
            ("-serf-lan-port", self.ports.serf_lan),
            ("-serf-wan-port", self.ports.serf_wan),
        ] {
            command.args([flag, &port.to_string()]);
        }
        // A line of log per request would be part of every measurement.
        command.args(["-log-level", "warn"]);
        command.args(&self.launch.arguments);
        command.current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.started = Instant::now();
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot run {}: {error}", self.launch.binary.display()))
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// Ends the agent at once, as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; both calls then say so, and there is nothing else to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The process id.
    ///
    /// # Panics
    ///
    /// If the agent was killed.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the agent was started").id()
    }

    /// When the program was last executed.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Where the HTTP interface is.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.http).into()
    }

    /// Where the DNS interface is.
    #[must_use]
    pub fn dns(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.dns).into()
    }

    /// The last lines of the agent's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Waits until a write is acknowledged, and says how long that took since the program was executed.
    ///
    /// # Errors
    ///
    /// If the process ends, or does not take the write within [`START_WITHIN`].
    pub async fn first_put(&mut self) -> io::Result<Duration> {
        let mut client = Client::new(self.http());
        loop {
            let answer = client.request("PUT", "/v1/kv/ready", b"x").await;
            let taken = |answer: &Answer| answer.status == 200 && answer.body.trim_ascii() == b"true";
            if answer.as_ref().is_ok_and(taken) {
                return Ok(self.started.elapsed());
            }
            if let Some(status) = self.child.as_mut().expect("the agent was started").try_wait()? {
                let why = format!("the agent ended by itself with {status}\n{}", self.log_tail());
                return Err(io::Error::other(why));
            }
            if self.started.elapsed() > START_WITHIN {
                let why = format!(
                    "the agent took no write within {START_WITHIN:?}; the last answer: {answer:?}\n{}",
                    self.log_tail()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
