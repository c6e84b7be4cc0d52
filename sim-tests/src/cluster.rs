//! The servers of a world: what outlives their processes, and starting, killing and healing them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proconsul_core::ids::{ServerId, Uuid};
use proconsul_core::rng::Rng;
use proconsul_io_sim::checkpoints::SimCheckpoints;
use proconsul_io_sim::clock::SimClock;
use proconsul_io_sim::disk::{DiskFaults, SimDisk};
use proconsul_io_sim::host::{Host, Process};
use proconsul_io_sim::net::{Death, Fabric, HostId};
use proconsul_io_sim::prober::ScriptedProber;
use proconsul_io_sim::time::sim_sleep;
use tokio::sync::mpsc;

use crate::audit::{Audit, Server};
use crate::plan::{Plan, Target, Tuning};

/// Until a process that halted is started again.
const RESTART_DELAY: Duration = Duration::from_millis(500);

/// What a server's process is started with.
#[derive(Clone)]
pub struct Surroundings {
    /// Which server, counted from zero.
    pub server: Server,
    /// Its identity.
    pub id: ServerId,
    /// Its machine.
    pub host: HostId,
    /// The number of this start.
    pub life: u64,
    /// The network.
    pub fabric: Fabric,
    /// Its clocks.
    pub clock: SimClock,
    /// Its log's files.
    pub disk: SimDisk,
    /// Its checkpoints.
    pub checkpoints: SimCheckpoints,
    /// Its health checks.
    pub prober: ScriptedProber,
    /// Seeds this process's randomness.
    pub seed: u64,
    /// Every server of the group with its address, itself included.
    pub group: Vec<(ServerId, String)>,
    /// Settings.
    pub tuning: Tuning,
    /// Who watches it.
    pub audit: Audit,
}

/// The main task of a server's process; ends with the reason why the process stops.
pub type Main = fn(Surroundings) -> Pin<Box<dyn Future<Output = String> + Send>>;

/// All servers. Clones share them.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    fabric: Fabric,
    audit: Audit,
    main: Main,
    slots: Mutex<Vec<Slot>>,
    rng: Mutex<Rng>,
    exits: mpsc::UnboundedSender<(Server, u64, String)>,
}

struct Slot {
    host: Host,
    surroundings: Surroundings,
    /// Its disk was made to fail since its process was started: it may end itself for that.
    may_halt: bool,
    /// Its disk is made to fail.
    disk_fails: bool,
}

/// Servers are hosts 1 to 5, clients come after them.
pub(crate) fn host_of(server: Server) -> HostId {
    HostId(u32::try_from(server).expect("at most five servers") + 1)
}

fn id_of(server: Server) -> ServerId {
    // Recognisable in logs, and a valid version 4 identifier.
    Uuid(0x5e5e_5e5e_0000_4000_8000_0000_0000_0001 + server as u128)
}

impl Cluster {
    /// Machines for all servers of a plan, without processes.
    #[must_use]
    pub fn new(plan: &Plan, fabric: Fabric, audit: Audit, main: Main) -> Cluster {
        let rng = Rng::from_seed(plan.seed).fork(0x636c_7573);
        let group: Vec<_> = (0..usize::from(plan.servers))
            .map(|server| (id_of(server), host_of(server).address(8300)))
            .collect();
        let (exits, gone) = mpsc::unbounded_channel();
        let slots = (0..usize::from(plan.servers))
            .map(|server| slot(plan, server, &fabric, &audit, &group, &rng))
            .collect();
        let cluster = Cluster(Arc::new(Inner {
            fabric,
            audit,
            main,
            slots: Mutex::new(slots),
            rng: Mutex::new(rng),
            exits,
        }));
        drop(madsim::task::spawn(cluster.clone().bury(gone)));
        cluster
    }

    /// How many servers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots().len()
    }

    /// Whether there are none; there always are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots().is_empty()
    }

    /// Their machines.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostId> {
        self.slots().iter().map(|slot| slot.host.id()).collect()
    }

    /// The server that a fault is for.
    #[must_use]
    pub fn find(&self, target: Target) -> Server {
        match target {
            Target::Server(server) => usize::from(server) % self.len(),
            Target::Leader => self.0.audit.leader().unwrap_or(0),
        }
    }

    /// Starts a server's process, unless it has one.
    pub fn start(&self, server: Server) {
        let seed = self.0.rng.lock().expect("one thread").next_u64();
        let slot = &mut self.slots()[server];
        if slot.host.process() != Process::Down {
            return;
        }
        let (main, exits) = (self.0.main, self.0.exits.clone());
        let mut surroundings = slot.surroundings.clone();
        surroundings.seed = seed;
        slot.host.start(|life| async move {
            surroundings.life = life;
            let reason = main(surroundings).await;
            // Nobody listens when the world is being taken down.
            let _ = exits.send((server, life, reason));
        });
    }

    /// Ends a server's process, if it has one.
    pub fn kill(&self, server: Server, death: Death) {
        let slot = &mut self.slots()[server];
        if slot.host.process() != Process::Down {
            slot.host.kill(death);
            if death == Death::Power {
                let loss = slot.surroundings.disk.lose_power();
                tracing::info!(server, ?loss, "power is lost");
                self.0.audit.count("torn writes", loss.torn as u64);
                self.0.audit.count("lost writes", loss.lost as u64);
            }
            self.0.audit.forget(server);
            self.0.audit.count("deaths", 1);
        }
    }

    /// Pauses a server's process, or lets it go on.
    pub fn set_paused(&self, server: Server, paused: bool) {
        let host = &mut self.slots()[server].host;
        if paused { host.pause() } else { host.resume() }
    }

    /// A server's clocks.
    #[must_use]
    pub fn clock(&self, server: Server) -> SimClock {
        self.slots()[server].host.clock().clone()
    }

    /// Changes what is wrong with a server's disk; gives what was wrong before. If it fails writes or syncs, its process
    /// may end itself.
    pub fn set_disk_faults(&self, server: Server, change: impl FnOnce(&mut DiskFaults)) {
        let slot = &mut self.slots()[server];
        slot.surroundings.disk.set_faults(|faults| {
            change(faults);
            slot.disk_fails = faults.write_errors + faults.sync_errors > 0;
            slot.may_halt |= slot.disk_fails;
        });
    }

    /// Everything runs again, and can reach everything.
    pub fn heal(&self) {
        self.0.fabric.mend_all();
        for server in 0..self.len() {
            self.set_paused(server, false);
            self.start(server);
        }
    }

    /// Processes do not end by themselves, except where a disk failed; then somebody starts them again.
    async fn bury(self, mut gone: mpsc::UnboundedReceiver<(Server, u64, String)>) {
        while let Some((server, life, reason)) = gone.recv().await {
            self.kill(server, Death::Process);
            let may_halt = {
                let slot = &mut self.slots()[server];
                std::mem::replace(&mut slot.may_halt, slot.disk_fails)
            };
            if may_halt {
                tracing::info!(server, %reason, "halted, as it should");
                self.0.audit.count("halts", 1);
                sim_sleep(RESTART_DELAY).await;
                self.start(server);
            } else {
                self.0
                    .audit
                    .report("process", format!("server {server}, start {life}, ended by itself: {reason}"));
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.0.slots.lock().expect("a simulation runs on one thread and ends with its first panic")
    }
}

fn slot(
    plan: &Plan,
    server: Server,
    fabric: &Fabric,
    audit: &Audit,
    group: &[(ServerId, String)],
    rng: &Rng,
) -> Slot {
    let host = host_of(server);
    let error = plan.clocks.get(server).copied().unwrap_or_default();
    let clock = SimClock::new(error);
    let fork = |label: u64| rng.fork(label << 8 | server as u64);
    let faults = DiskFaults {
        sync_latency: (Duration::ZERO, Duration::from_micros(plan.disk.sync_max_us)),
        short_reads: 10,
        ..DiskFaults::default()
    };
    let checkpoint_max = Duration::from_micros(plan.disk.checkpoint_max_us);
    let surroundings = Surroundings {
        server,
        id: id_of(server),
        host,
        life: 0,
        fabric: fabric.clone(),
        clock: clock.clone(),
        disk: SimDisk::new(host, fork(1), faults, fabric.trace().clone()),
        checkpoints: SimCheckpoints::new(host, fork(2), checkpoint_max, fabric.trace().clone()),
        prober: ScriptedProber::default(),
        seed: 0,
        group: group.to_vec(),
        tuning: plan.tuning,
        audit: audit.clone(),
    };
    let name = format!("server{server}");
    Slot {
        host: Host::new(host, &name, Some(id_of(server)), clock, fabric.clone()),
        surroundings,
        may_halt: false,
        disk_fails: false,
    }
}
