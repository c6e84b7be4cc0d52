//! The agents of a world: what outlives their processes, and starting, killing and healing them.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proconsul_core::format::Formats;
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

use crate::audit::{Agent, Audit};
use crate::plan::{Plan, Target, Tuning};
use crate::workload::{Doors, Registered};

/// Until a process that halted is started again.
const RESTART_DELAY: Duration = Duration::from_millis(500);
/// So many servers may be added.
const ADDED_MAX: usize = 2;

/// What an agent's process is started with.
#[derive(Clone)]
pub struct Surroundings {
    /// Which agent, counted from zero: servers first, then client agents, then servers that were added.
    pub agent: Agent,
    /// Whether it is a server.
    pub server: bool,
    /// Name of its node.
    pub name: String,
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
    /// Every server of the group that it founds with its address, itself included. Empty: it waits to be taken up.
    pub founders: Vec<(ServerId, String)>,
    /// Whom it joins.
    pub join: Vec<String>,
    /// The formats that its program knows.
    pub formats: Formats,
    /// Settings.
    pub tuning: Tuning,
    /// Who watches it.
    pub audit: Audit,
    /// The ways into the agents' processes.
    pub doors: Doors,
}

/// Why a process ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to leave, and has left.
    Left,
    /// It could not go on.
    Halted(String),
    /// It found what it must not use, and did not begin.
    Refused(String),
}

/// The main task of an agent's process; ends with the reason why the process stops.
pub type Main = fn(Surroundings) -> Pin<Box<dyn Future<Output = Exit> + Send>>;

/// All agents. Clones share them.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    plan: Plan,
    fabric: Fabric,
    audit: Audit,
    main: Main,
    state: Mutex<State>,
    rng: Rng,
    registered: Registered,
    doors: Doors,
    exits: mpsc::UnboundedSender<(Agent, u64, Exit)>,
}

struct State {
    slots: Vec<Slot>,
    rng: Rng,
    /// Identities whose disks are gone, or may be.
    lost: BTreeSet<ServerId>,
    /// Identities that may be removed from the group by what is under way. Nobody knows when a request of an operator's
    /// stops being under way, so most stay here.
    leaving: BTreeSet<ServerId>,
    is_healed: bool,
}

struct Slot {
    host: Host,
    surroundings: Surroundings,
    /// Its disk was made to fail since its process was started: it may end itself for that.
    may_halt: bool,
    /// Its disk is made to fail.
    disk_fails: bool,
    /// Bits of its files were flipped: it may refuse to start.
    is_rotten: bool,
    /// It was asked to leave, now or in a former life, and comes back so long after it has.
    leave: Option<Duration>,
    /// How often its disk was replaced.
    generation: u128,
}

/// The old program of a plan with an upgrade.
const OLD: Formats =
    Formats { oldest: proconsul_core::format::Format::FIRST, newest: proconsul_core::format::Format::FIRST };

/// Servers are hosts 1 to 5, client agents 21 and so on, added servers 41 and so on; workload clients come after them.
fn host_of(plan: &Plan, agent: Agent) -> HostId {
    let (servers, all) = (usize::from(plan.servers), usize::from(plan.servers + plan.client_agents));
    let number = match agent {
        agent if agent < servers => 1 + agent,
        agent if agent < all => 21 + agent - servers,
        agent => 41 + agent - all,
    };
    HostId(u32::try_from(number).expect("a small world"))
}

/// Whom every agent of a plan joins: the servers. Where there is one only, it finds its pool again through the others,
/// those that may be added included: one that has left, or lost what it knew of them, is looked for by nobody.
fn joins(plan: &Plan) -> std::ops::Range<Agent> {
    let all = usize::from(plan.servers + plan.client_agents);
    0..if plan.servers == 1 { all + ADDED_MAX } else { usize::from(plan.servers) }
}

/// Whether a group of these voters gets on although some have lost their disks, also when those who may be on their way out
/// are gone, which leaves the lost ones where they are.
fn survives(voters: &[&ServerId], lost: &BTreeSet<ServerId>, leaving: &BTreeSet<ServerId>) -> bool {
    let gone = voters.iter().filter(|it| lost.contains(it)).count();
    let sure = voters.iter().filter(|it| !lost.contains(it) && !leaving.contains(it)).count();
    gone == 0 || gone < sure
}

fn id_of(agent: Agent, generation: u128) -> ServerId {
    // Recognisable in logs, and a valid version 4 identifier.
    Uuid(0x5e5e_5e5e_0000_4000_8000_0000_0000_0001 + (generation << 16) + agent as u128)
}

impl Cluster {
    /// Machines for all agents of a plan, without processes.
    #[must_use]
    pub fn new(plan: &Plan, fabric: Fabric, audit: Audit, main: Main) -> Cluster {
        let rng = Rng::from_seed(plan.seed).fork(0x636c_7573);
        let (exits, gone) = mpsc::unbounded_channel();
        let state = State {
            slots: Vec::new(),
            rng: rng.fork(0),
            lost: BTreeSet::new(),
            leaving: BTreeSet::new(),
            is_healed: false,
        };
        let (plan, state) = (plan.clone(), Mutex::new(state));
        let agents = usize::from(plan.servers + plan.client_agents);
        let cluster = Cluster(Arc::new(Inner {
            plan,
            fabric,
            audit,
            main,
            state,
            rng,
            registered: Registered::default(),
            doors: Doors::default(),
            exits,
        }));
        for agent in 0..agents {
            let slot = cluster.slot(agent);
            cluster.lock().slots.push(slot);
        }
        drop(madsim::task::spawn(cluster.clone().bury(gone)));
        cluster
    }

    fn slot(&self, agent: Agent) -> Slot {
        let Inner { plan, fabric, audit, rng, .. } = &*self.0;
        let host = host_of(plan, agent);
        let all = usize::from(plan.servers + plan.client_agents);
        let is_server = agent < usize::from(plan.servers) || agent >= all;
        let clock = SimClock::new(plan.clocks.get(agent).copied().unwrap_or_default());
        let fork = |label: u64| rng.fork(label << 8 | agent as u64);
        let faults = DiskFaults { sync_latency: usual_sync(plan), short_reads: 10, ..DiskFaults::default() };
        let checkpoint_max = Duration::from_micros(plan.disk.checkpoint_max_us);
        let founders = (0..usize::from(plan.servers))
            .map(|server| (id_of(server, 0), host_of(plan, server).address(8300)))
            .filter(|_| agent < usize::from(plan.servers));
        let is_old = plan.old.iter().any(|old| usize::from(*old) == agent);
        let kind = if is_server { "server" } else { "client" };
        let surroundings = Surroundings {
            agent,
            server: is_server,
            name: format!("{kind}{agent}"),
            id: id_of(agent, 0),
            host,
            life: 0,
            fabric: fabric.clone(),
            clock: clock.clone(),
            disk: SimDisk::new(host, fork(1), faults, fabric.trace().clone()),
            checkpoints: SimCheckpoints::new(host, fork(2), checkpoint_max, fabric.trace().clone()),
            prober: ScriptedProber::default(),
            seed: 0,
            founders: founders.collect(),
            join: joins(plan).map(|agent| host_of(plan, agent).ip().to_string()).collect(),
            formats: if is_old { OLD } else { Formats::KNOWN },
            tuning: plan.tuning,
            audit: audit.clone(),
            doors: self.0.doors.clone(),
        };
        Slot {
            host: Host::new(host, &surroundings.name, Some(surroundings.id), clock, fabric.clone()),
            surroundings,
            may_halt: false,
            disk_fails: false,
            is_rotten: false,
            leave: None,
            generation: 0,
        }
    }

    /// The ways into the agents' processes.
    #[must_use]
    pub fn doors(&self) -> Doors {
        self.0.doors.clone()
    }

    /// What the agents were told to run.
    #[must_use]
    pub fn registered(&self) -> Registered {
        self.0.registered.clone()
    }

    /// How many agents there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Whether there are none; there always are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().slots.is_empty()
    }

    /// The agents' machines.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostId> {
        self.lock().slots.iter().map(|slot| slot.host.id()).collect()
    }

    /// The servers' machines.
    #[must_use]
    pub fn server_hosts(&self) -> Vec<HostId> {
        let state = self.lock();
        state.slots.iter().filter(|slot| slot.surroundings.server).map(|slot| slot.host.id()).collect()
    }

    /// An agent's machine.
    #[must_use]
    pub fn host(&self, agent: Agent) -> HostId {
        self.lock().slots[agent].host.id()
    }

    /// Whether an agent is a server.
    #[must_use]
    pub fn is_server(&self, agent: Agent) -> bool {
        self.lock().slots[agent].surroundings.server
    }

    /// An agent's name and identity.
    #[must_use]
    pub fn identity(&self, agent: Agent) -> (String, ServerId) {
        let slot = &self.lock().slots[agent];
        (slot.surroundings.name.clone(), slot.surroundings.id)
    }

    /// The agent that a fault is for.
    #[must_use]
    pub fn find(&self, target: Target) -> Option<Agent> {
        let plan = &self.0.plan;
        match target {
            Target::Server(server) => Some(usize::from(server % plan.servers)),
            Target::ClientAgent(client) => {
                let client = client.checked_rem(plan.client_agents)?;
                Some(usize::from(plan.servers + client))
            }
            Target::Leader => Some(self.0.audit.leader().unwrap_or(0)),
        }
    }

    /// Starts an agent's process, unless it has one.
    pub fn start(&self, agent: Agent) {
        let mut state = self.lock();
        let seed = state.rng.next_u64();
        let slot = &mut state.slots[agent];
        if slot.host.process() != Process::Down {
            return;
        }
        let (main, exits) = (self.0.main, self.0.exits.clone());
        let mut surroundings = slot.surroundings.clone();
        surroundings.seed = seed;
        slot.host.start(|life| async move {
            surroundings.life = life;
            let exit = main(surroundings).await;
            // Nobody listens when the world is being taken down.
            let _ = exits.send((agent, life, exit));
        });
    }

    /// Ends an agent's process, if it has one.
    pub fn kill(&self, agent: Agent, death: Death) {
        let slot = &mut self.lock().slots[agent];
        if slot.host.process() != Process::Down {
            slot.host.kill(death);
            if death == Death::Power {
                let loss = slot.surroundings.disk.lose_power();
                tracing::info!(agent, ?loss, "power is lost");
                self.0.audit.count("torn writes", loss.torn as u64);
                self.0.audit.count("lost writes", loss.lost as u64);
            }
            self.0.audit.forget(agent);
            self.0.audit.count("deaths", 1);
        }
    }

    /// Pauses an agent's process, or lets it go on.
    pub fn set_paused(&self, agent: Agent, paused: bool) {
        let host = &mut self.lock().slots[agent].host;
        if paused { host.pause() } else { host.resume() }
    }

    /// An agent's clocks.
    #[must_use]
    pub fn clock(&self, agent: Agent) -> SimClock {
        self.lock().slots[agent].host.clock().clone()
    }

    /// Changes what is wrong with an agent's disk. If that fails anything, its process may end itself.
    pub fn set_disk_faults(&self, agent: Agent, change: impl FnOnce(&SimDisk, &mut DiskFaults)) {
        let slot = &mut self.lock().slots[agent];
        let disk = slot.surroundings.disk.clone();
        slot.surroundings.disk.set_faults(|faults| {
            change(&disk, faults);
            slot.disk_fails = faults.write_errors + faults.sync_errors + faults.read_errors > 0
                || faults.capacity.is_some();
            slot.may_halt |= slot.disk_fails;
        });
    }

    /// The run is over: whatever the agents are doing is dropped.
    pub fn end(&self) {
        self.lock().slots.iter_mut().for_each(|slot| slot.host.end());
    }

    /// Everything runs again, and can reach everything. From here on nobody dies, and nobody is old.
    pub fn heal(&self) {
        self.0.fabric.mend_all();
        self.lock().is_healed = true;
        let sync_latency = usual_sync(&self.0.plan);
        for agent in 0..self.len() {
            self.set_disk_faults(agent, |_, faults| {
                *faults = DiskFaults { sync_latency, ..DiskFaults::default() };
            });
            self.set_paused(agent, false);
            self.upgrade(agent);
            self.start(agent);
        }
    }

    /// Whether everything was healed: what is under way must not do any more harm.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        self.lock().is_healed
    }

    /// Stops an agent of an older program; it is the newer one that is started next.
    pub fn upgrade(&self, agent: Agent) {
        if self.lock().slots[agent].surroundings.formats == Formats::KNOWN {
            return;
        }
        self.kill(agent, Death::Process);
        self.lock().slots[agent].surroundings.formats = Formats::KNOWN;
        self.0.audit.count("upgrades", 1);
    }

    /// A further server with a machine of its own; gives its number. `None` if there are enough.
    pub fn add_server(&self) -> Option<Agent> {
        let agent = self.len();
        if agent >= usize::from(self.0.plan.servers + self.0.plan.client_agents) + ADDED_MAX {
            return None;
        }
        let slot = self.slot(agent);
        self.lock().slots.push(slot);
        self.0.audit.count("servers added", 1);
        self.start(agent);
        Some(agent)
    }

    /// An agent is going to leave, and to be started again so long after it has. Whoever removes a server must first
    /// say so, for a lost disk counts more in a smaller group. False if the group could not do without it.
    pub fn expect_leave(&self, agent: Agent, away: Option<Duration>) -> bool {
        let groups = self.groups();
        let mut state = self.lock();
        let id = state.slots[agent].surroundings.id;
        let State { lost, leaving, slots, .. } = &mut *state;
        let is_safe = groups.iter().all(|voters| {
            let left: Vec<_> = voters.iter().filter(|it| **it != id).collect();
            survives(&left, lost, leaving)
        });
        if is_safe {
            leaving.insert(id);
            slots[agent].leave = away;
        }
        is_safe
    }

    /// Kills a server whose disk is going to be damaged or replaced. False, and nothing happens, if the group might not
    /// survive one more lost disk, as far as anybody can know.
    pub fn may_lose(&self, agent: Agent) -> bool {
        let groups = self.groups();
        let mut state = self.lock();
        let State { lost, leaving, slots, .. } = &mut *state;
        let slot = &slots[agent];
        let id = slot.surroundings.id;
        if slot.host.process() != Process::Running || groups.is_empty() {
            return false;
        }
        let is_new = lost.insert(id);
        let survive = groups.iter().all(|voters| survives(&voters.iter().collect::<Vec<_>>(), lost, leaving));
        if is_new && !survive {
            lost.remove(&id);
        }
        survive
    }

    /// Those who vote, as each running server sees it.
    fn groups(&self) -> Vec<Vec<ServerId>> {
        let published = self.0.audit.published();
        let voters = |group: &proconsul_core::raft::Membership| {
            group.servers.iter().filter(|(_, it)| it.voter).map(|(id, _)| *id).collect::<Vec<_>>()
        };
        published.values().map(|it| voters(&it.membership)).filter(|voters| !voters.is_empty()).collect()
    }

    /// Flips bits in the log of a server without a process.
    pub fn rot(&self, agent: Agent, bits: u8) {
        let slot = &mut self.lock().slots[agent];
        for _ in 0..bits {
            if let Some((file, offset)) = slot.surroundings.disk.rot() {
                tracing::info!(agent, file, offset, "a bit has flipped");
                slot.is_rotten = true;
                self.0.audit.count("bits flipped", 1);
            }
        }
    }

    /// Replaces the disk of a server without a process: it is another server from here on.
    pub fn wipe(&self, agent: Agent) {
        let slot = &mut self.lock().slots[agent];
        slot.surroundings.disk.wipe();
        slot.surroundings.checkpoints.wipe();
        slot.generation += 1;
        slot.is_rotten = false;
        slot.surroundings.id = id_of(agent, slot.generation);
        slot.surroundings.founders.clear();
        self.0.fabric.set_agent(slot.host.id(), slot.surroundings.id);
        self.0.registered.forget(agent);
        tracing::info!(agent, id = %slot.surroundings.id, "the disk was replaced");
        self.0.audit.count("disks replaced", 1);
    }

    /// Processes do not end by themselves, except where a disk failed, where they were told to, or where they must not
    /// use what they find; then somebody starts them again.
    async fn bury(self, mut gone: mpsc::UnboundedReceiver<(Agent, u64, Exit)>) {
        while let Some((agent, life, exit)) = gone.recv().await {
            self.kill(agent, Death::Process);
            match self.judge(agent, &exit) {
                Some(after) => {
                    tracing::info!(agent, ?exit, "ended, as it should");
                    let cluster = self.clone();
                    drop(madsim::task::spawn(async move {
                        let wait = if cluster.is_healed() { after.min(RESTART_DELAY) } else { after };
                        sim_sleep(wait).await;
                        cluster.start(agent);
                    }));
                }
                None => {
                    let what = format!("agent {agent}, start {life}, ended by itself: {exit:?}");
                    self.0.audit.report("process", what);
                }
            }
        }
    }

    /// After which time a process that has ended is started again; `None` if it should not have ended.
    fn judge(&self, agent: Agent, exit: &Exit) -> Option<Duration> {
        let (may_halt, is_rotten, leave, is_old) = {
            let State { slots, leaving, .. } = &mut *self.lock();
            let slot = &mut slots[agent];
            let may_halt = std::mem::replace(&mut slot.may_halt, slot.disk_fails);
            let leave = if *exit == Exit::Left { slot.leave.take() } else { None };
            if leave.is_some() {
                leaving.remove(&slot.surroundings.id);
            }
            (may_halt, slot.is_rotten, leave, slot.surroundings.formats == OLD)
        };
        match exit {
            Exit::Left => {
                let away = leave?;
                self.0.audit.count("leaves", 1);
                Some(away)
            }
            Exit::Halted(_) if may_halt => {
                self.0.audit.count("halts", 1);
                Some(RESTART_DELAY)
            }
            Exit::Refused(_) if is_rotten => {
                self.0.audit.count("damaged logs refused", 1);
                self.wipe(agent);
                Some(RESTART_DELAY)
            }
            // It was away while the others went on to a newer format.
            Exit::Halted(reason) | Exit::Refused(reason) if is_old && reason.contains("format") => {
                self.0.audit.count("outdated agents stopped", 1);
                self.upgrade(agent);
                Some(RESTART_DELAY)
            }
            Exit::Halted(_) | Exit::Refused(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("a simulation runs on one thread and ends with its first panic")
    }
}

/// How long syncs take, least and most, where nothing is done to a disk.
fn usual_sync(plan: &Plan) -> (Duration, Duration) {
    (Duration::ZERO, Duration::from_micros(plan.disk.sync_max_us))
}
