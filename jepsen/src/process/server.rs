//! One server, or agent in memory, on 127.0.0.1.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::agent::{Agent, ON_DISK};
use super::client::{Answer, Client};
use super::network::Place;

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

/// An agent that needs nobody else, running or killed.
#[derive(Debug)]
pub struct Server {
    agent: Agent,
    started: Instant,
}

impl Server {
    /// Prepares an agent with fresh ports and an empty directory, and starts it.
    ///
    /// # Errors
    ///
    /// If there is no directory or port, or the program cannot be run.
    pub fn start(launch: Launch) -> io::Result<Server> {
        Server::start_at(Place::localhost()?, launch)
    }

    /// [`Server::start`] at a place.
    ///
    /// # Errors
    ///
    /// If there is no directory, or the program cannot be run.
    pub fn start_at(place: Place, launch: Launch) -> io::Result<Server> {
        let mode: &[&str] = if launch.dev { &["-dev"] } else { &["-server", "-bootstrap"] };
        let data: &[&str] = if launch.dev { &[] } else { &ON_DISK };
        // A line of log per request would be part of every measurement.
        let quiet: &[&str] = &["-log-level", "warn"];
        let arguments = [mode, data, quiet].concat().into_iter().map(str::to_owned);
        let arguments = arguments.chain(launch.arguments).collect();
        let agent = Agent::new(&launch.binary, "n1", place, arguments)?;
        let mut server = Server { agent, started: Instant::now() };
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
        self.started = Instant::now();
        self.agent.start()
    }

    /// Ends the agent at once, as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        self.agent.kill();
    }

    /// The process id.
    ///
    /// # Panics
    ///
    /// If the agent was killed.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.agent.pid()
    }

    /// When the program was last executed.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Where the HTTP interface is.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.agent.http()
    }

    /// Where the DNS interface is.
    #[must_use]
    pub fn dns(&self) -> SocketAddr {
        self.agent.dns()
    }

    /// The last lines of the agent's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.agent.log_tail()
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
            if let Some(status) = self.agent.ended()? {
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

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.agent.directory()
    }
}
