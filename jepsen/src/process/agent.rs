//! One agent of a cluster: a process with an address, a name and a directory that outlive it.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use super::network::Place;
use super::ports::Ports;

/// The arguments of an agent that keeps its state on disk, and may have configuration files.
pub const ON_DISK: [&str; 4] = ["-data-dir", "data", "-config-dir", "conf"];

/// An agent, running, stopped or ended.
#[derive(Debug)]
pub struct Agent {
    name: String,
    binary: PathBuf,
    place: Place,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    directory: TempDir,
    child: Option<Child>,
    paused: bool,
}

impl Agent {
    /// An agent that is not started yet, with an empty directory. `arguments` follow those that say where it is.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made.
    pub fn new(binary: &Path, name: &str, place: Place, arguments: Vec<String>) -> io::Result<Agent> {
        let directory = tempfile::Builder::new().prefix("proconsul-agent-").tempdir()?;
        std::fs::create_dir(directory.path().join("conf"))?;
        Ok(Agent {
            name: name.to_owned(),
            binary: binary.to_owned(),
            place,
            arguments,
            environment: Vec::new(),
            directory,
            child: None,
            paused: false,
        })
    }

    /// The command that starts it.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.place.command(&self.binary);
        let address = self.address().to_string();
        command.args(["agent", "-node", &self.name, "-bind", &address, "-client", &address]);
        let ports = self.place.ports;
        for (flag, port) in [
            ("-http-port", ports.http),
            ("-dns-port", ports.dns),
            ("-server-port", ports.server),
            ("-serf-lan-port", ports.serf_lan),
            ("-serf-wan-port", ports.serf_wan),
        ] {
            command.args([flag, &port.to_string()]);
        }
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// Starts it, with its output at the end of [`Agent::log`].
    ///
    /// # Errors
    ///
    /// If the program cannot be run.
    ///
    /// # Panics
    ///
    /// If it was started and not seen to end.
    pub fn start(&mut self) -> io::Result<()> {
        assert!(self.child.is_none(), "{} is started once it is gone", self.name);
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.command();
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot run {}: {error}", self.binary.display()))
        })?;
        self.child = Some(child);
        self.paused = false;
        Ok(())
    }

    /// Ends it at once, as `kill -9` does, and waits until it is gone. Nothing happens if it is gone already.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; both calls then say so, and there is nothing else to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Stops it with SIGSTOP: it keeps its connections and says nothing.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn pause(&mut self) -> io::Result<()> {
        self.send(Signal::STOP)?;
        self.paused = true;
        Ok(())
    }

    /// Lets it go on after [`Agent::pause`].
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn resume(&mut self) -> io::Result<()> {
        self.send(Signal::CONT)?;
        self.paused = false;
        Ok(())
    }

    /// Whether it has ended by itself or by a signal, and how. It can be started again then.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Whether it has ended by itself or by a signal, and nobody was told yet: [`Agent::ended`] still says how.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = |child: &Child| waitid(WaitId::Pid(Pid::from_child(child)), look);
        self.child.as_ref().is_some_and(|child| matches!(ended(child), Ok(Some(_))))
    }

    /// Whether it was started, not seen to end, and not paused.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    /// Whether it was started, not seen to end, and paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.child.is_some() && self.paused
    }

    /// Gives it another place from the next start on.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn move_to(&mut self, place: Place) {
        assert!(self.child.is_none(), "{} moves when it is gone", self.name);
        self.place = place;
    }

    /// Gives it other variables from the next start on, besides those of this program.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    /// Gives it other arguments from the next start on.
    pub fn set_arguments(&mut self, arguments: Vec<String>) {
        self.arguments = arguments;
    }

    /// The arguments that follow those that say where it is.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Its node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.place.address
    }

    /// Its ports.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.place.ports
    }

    /// Where its HTTP interface is.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        (self.place.address, self.place.ports.http).into()
    }

    /// Where its DNS interface is.
    #[must_use]
    pub fn dns(&self) -> SocketAddr {
        (self.place.address, self.place.ports.dns).into()
    }

    /// Where servers speak with it.
    #[must_use]
    pub fn rpc(&self) -> SocketAddr {
        (self.place.address, self.place.ports.server).into()
    }

    /// Its directory, with `data`, and `conf` for configuration files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The program.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Everything that it printed, over all starts.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}
