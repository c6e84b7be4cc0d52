//! A simulated machine: power, one process, and what outlives it.

use madsim::runtime::{Handle, NodeHandle};
use proconsul_core::ids::ServerId;

use crate::clock::SimClock;
use crate::net::{Death, Fabric, HostId};

/// A machine and its process. What the process must find again after a restart (disk, checkpoints, clock) is kept by
/// whoever owns the host.
pub struct Host {
    id: HostId,
    name: String,
    fabric: Fabric,
    clock: SimClock,
    node: Option<NodeHandle>,
    state: Process,
}

/// Whether a host's process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// It does not: begin by [`Host::start`], end by [`Host::kill`].
    Down,
    /// It does.
    Running,
    /// It is stopped and does not know it (SIGSTOP, a suspended virtual machine); its clocks go on.
    Paused,
}

impl Host {
    /// A machine with power and without a process. `agent` is who it is to its peers.
    #[must_use]
    pub fn new(id: HostId, name: &str, agent: Option<ServerId>, clock: SimClock, fabric: Fabric) -> Host {
        fabric.add_host(id, agent);
        Host { id, name: name.to_owned(), fabric, clock, node: None, state: Process::Down }
    }

    /// Its number on the network.
    #[must_use]
    pub fn id(&self) -> HostId {
        self.id
    }

    /// Its name in logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its clocks.
    #[must_use]
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// Whether its process runs.
    #[must_use]
    pub fn process(&self) -> Process {
        self.state
    }

    /// Starts a process; `main` makes its first task from its life's number.
    ///
    /// # Panics
    /// A process is there already.
    pub fn start<F>(&mut self, main: impl FnOnce(u64) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        assert_eq!(self.state, Process::Down, "{} is killed before it is started again", self.name);
        let life = self.fabric.process_started(self.id);
        self.fabric.trace().record("start", self.id, &life.to_le_bytes());
        tracing::info!(host = %self.name, life, "process starts");
        // A new machine for each process: nothing of the former one can come back to life.
        let node = Handle::current().create_node().name(self.name.clone()).build();
        drop(node.spawn(main(life)));
        self.node = Some(node);
        self.state = Process::Running;
    }

    /// Ends the process at once, wherever it is. Harmless when there is none.
    pub fn kill(&mut self, death: Death) {
        let Some(node) = self.node.take() else { return };
        self.fabric.trace().record("kill", self.id, &[]);
        tracing::info!(host = %self.name, ?death, "process dies");
        Handle::current().kill(node.id());
        self.fabric.process_ended(self.id, death);
        self.state = Process::Down;
    }

    /// The run is over: its tasks are dropped, which they would not be by themselves, and nothing is recorded.
    pub fn end(&mut self) {
        if let Some(node) = self.node.take() {
            Handle::current().kill(node.id());
        }
    }

    /// Stops the process without its knowing. Harmless unless it is running.
    pub fn pause(&mut self) {
        if let (Process::Running, Some(node)) = (self.state, &self.node) {
            self.fabric.trace().record("pause", self.id, &[]);
            tracing::info!(host = %self.name, "process is paused");
            Handle::current().pause(node.id());
            self.state = Process::Paused;
        }
    }

    /// Lets a paused process go on. Harmless unless it is paused.
    pub fn resume(&mut self) {
        if let (Process::Paused, Some(node)) = (self.state, &self.node) {
            self.fabric.trace().record("resume", self.id, &[]);
            tracing::info!(host = %self.name, "process goes on");
            Handle::current().resume(node.id());
            self.state = Process::Running;
        }
    }
}
