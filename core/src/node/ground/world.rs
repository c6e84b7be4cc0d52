//! Several agents on a network of lists: gossip, RPC and clients together, without a task or a socket. They keep nothing,
//! or servers have a disk in memory that loses what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::disk::{Disk, Job};
use crate::Text;
use crate::api::{Authorizer, Call, HttpReply, Request};
use crate::format::{Format, Formats};
use crate::gossip::tag;
use crate::ids::Uuid;
use crate::raft::{Member, Timing};
use crate::rng::Rng;
use crate::store::AutopilotSettings;
use crate::time::Wall;

/// One way, for everything.
const LATENCY: Duration = Duration::from_micros(500);

/// The second copy of a frame is held back for less than this.
const HELD_BACK: Duration = Duration::from_millis(300);

/// What an older program understands.
const FIRST: Formats = Formats { oldest: Format::FIRST, newest: Format::FIRST };

/// What a world, or one datacenter of it, is made of.
#[derive(Clone)]
pub struct Plan {
    pub servers: usize,
    pub clients: usize,
    /// How servers form their group.
    pub forming: FormingPolicy,
}

#[derive(Debug)]
struct Agent {
    node: Node,
    id: Uuid,
    alive: bool,
    published: Arc<Published>,
    left: bool,
    /// Counts its processes. What a former one asked for is not answered to this one.
    life: u64,
}

/// Something that is going to happen to an agent.
#[derive(Debug)]
enum Event {
    /// Something reaches an agent; if it is of a connection or answers something, then this process only.
    Input(usize, u64, Box<Input>),
    /// The disk of an agent's process has done what it was asked for first.
    Disk(usize, u64),
}

/// A datacenter of several.
#[derive(Clone)]
struct Datacenter {
    name: Text,
    /// The number of its first agent.
    first: usize,
    plan: Plan,
}

/// Agents by number; servers come first, in each datacenter if there are several.
pub struct World {
    agents: Vec<Agent>,
    /// Empty if there is only one.
    datacenters: Vec<Datacenter>,
    pub now: Now,
    events: BTreeMap<(Mono, u64), Event>,
    next: u64,
    /// Pairs that a connection is up between, smaller number first.
    connected: BTreeSet<(usize, usize)>,
    /// Pairs that hear nothing of each other, smaller number first.
    pub cut: BTreeSet<(usize, usize)>,
    /// Who made a call over a stream: the answerer's number of it, with the caller's own.
    callers: BTreeMap<u64, (usize, u64, Pool, u64)>,
    replies: BTreeMap<RequestId, HttpReply>,
    pub halted: Vec<String>,
    /// Which datagrams are lost, and how many of all.
    losing: (Rng, f64),
    /// Which frames between agents come twice, and how many of all.
    doubling: (Rng, f64),
    /// Of agents that have one.
    disks: BTreeMap<usize, Disk>,
    /// Agents whose next process is of an older program, which understands the first format only.
    pub old: BTreeSet<usize>,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// Whether what happens to a part of all happens to this one.
fn befalls((rng, part): &mut (Rng, f64)) -> bool {
    (rng.below(1_000_000) as f64) < *part * 1_000_000.0
}

fn address(agent: usize, port: u16) -> SocketAddr {
    let host = u8::try_from(agent + 1).expect("a small world");
    ([127, 0, 1, host], port).into()
}

pub fn name(agent: usize) -> Text {
    Text::new(format!("n{agent}"))
}

pub fn id(agent: usize) -> Uuid {
    Uuid(1000 + agent as u128)
}

pub fn config(plan: &Plan, agent: usize) -> Config {
    let (server, id, node) = (agent < plan.servers, id(agent), name(agent));
    let ip = Text::new(address(agent, 0).ip().to_string());
    let role = if server { tag::ROLE_SERVER } else { tag::ROLE_CLIENT };
    let mut tags: BTreeMap<Text, Text> =
        [(tag::ROLE, role.to_owned()), (tag::DATACENTER, "dc1".to_owned()), (tag::ID, id.to_string())]
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
    if server {
        tags.insert(tag::PORT.into(), "8300".into());
    }
    if let (true, FormingPolicy::Expect(count)) = (server, &plan.forming) {
        tags.insert(tag::EXPECT.into(), count.to_string().into());
    }
    let lan = gossip::Config {
        tags,
        datacenter: "dc1".into(),
        ..gossip::Config::new(node.clone(), address(agent, 8301))
    };
    let policy = JoinPolicy {
        addresses: vec![Text::new(address(0, 8301).to_string())],
        interval: Duration::from_secs(30),
        attempts_max: None,
        default_port: 8301,
    };
    Config {
        about: About {
            node: node.clone(),
            id,
            datacenter: "dc1".into(),
            address: ip.clone(),
            server,
            domain: "consul".into(),
            kv_max_value_size: 1 << 19,
            txn_max_req_len: 1 << 19,
            ..About::default()
        },
        timing: Timing::default(),
        forming: if server { plan.forming.clone() } else { FormingPolicy::Wait },
        recover: None,
        lan,
        wan: None,
        join: [(Pool::Lan, policy)].into(),
        autopilot: AutopilotSettings::default(),
        config_entries: Vec::new(),
        keeps_local: false,
        keeps_keys: false,
        agent: agent::Config {
            node,
            id: Some(id),
            address: ip,
            datacenter: "dc1".into(),
            ..agent::Config::default()
        },
        hold_timeout: Duration::from_secs(7),
        checkpoints: CheckpointPolicy::default(),
        tombstone_ttl: Duration::from_secs(900),
    }
}

/// The port of a pool of gossip.
fn port(pool: Pool) -> u16 {
    match pool {
        Pool::Lan => 8301,
        Pool::Wan => 8302,
    }
}

/// An agent of one of several datacenters. Servers join the first of all servers, as somebody has told them to.
fn config_in(datacenter: &Datacenter, agent: usize) -> Config {
    let Datacenter { name, first, plan } = datacenter;
    let servers = first + plan.servers;
    let mut config = config(&Plan { servers, ..plan.clone() }, agent);
    let policy = |agent, pool| JoinPolicy {
        addresses: vec![Text::new(address(agent, port(pool)).to_string())],
        interval: Duration::from_secs(30),
        attempts_max: None,
        default_port: port(pool),
    };
    config.about.datacenter = name.clone();
    config.agent.datacenter = name.clone();
    config.lan.datacenter = name.clone();
    config.lan.tags.insert(tag::DATACENTER.into(), name.clone());
    config.join.insert(Pool::Lan, policy(*first, Pool::Lan));
    if agent < servers {
        config.lan.tags.insert(tag::WAN_PORT.into(), port(Pool::Wan).to_string().into());
        let own = Text::new(format!("{}.{name}", config.about.node));
        config.wan = Some(gossip::Config {
            tags: config.lan.tags.clone(),
            datacenter: name.clone(),
            ..gossip::Config::new(own, address(agent, port(Pool::Wan)))
        });
        if agent == *first {
            config.join.insert(Pool::Wan, policy(0, Pool::Wan));
        }
    }
    config
}

/// The group that all servers of the plan found together.
pub fn founders(servers: usize) -> Membership {
    founders_from(0, servers)
}

fn founders_from(first: usize, servers: usize) -> Membership {
    let member = |agent| Member { address: Text::new(address(agent, 8300).to_string()), voter: true };
    Membership { servers: (first..first + servers).map(|agent| (id(agent), member(agent))).collect() }
}

impl World {
    pub fn new(plan: &Plan) -> World {
        World::with_old(plan, BTreeSet::new())
    }

    /// A world in which some agents are of an older program.
    pub fn with_old(plan: &Plan, old: BTreeSet<usize>) -> World {
        World::with(plan, old, BTreeMap::new())
    }

    /// A world whose servers have disks.
    pub fn with_disks(plan: &Plan, rng: &Rng) -> World {
        let disks = (0..plan.servers).map(|server| (server, Disk::new(rng.fork(server as u64)))).collect();
        World::with(plan, BTreeSet::new(), disks)
    }

    /// A world of several datacenters, `dc1`, `dc2` and so on, each with so many servers, which found a group, and clients.
    pub fn federated(sizes: &[(usize, usize)]) -> World {
        let none = Plan { servers: 0, clients: 0, forming: FormingPolicy::Wait };
        let mut world = World::with(&none, BTreeSet::new(), BTreeMap::new());
        let mut first = 0;
        for (number, (servers, clients)) in (1..).zip(sizes) {
            let forming = FormingPolicy::Found(founders_from(first, *servers));
            let plan = Plan { servers: *servers, clients: *clients, forming };
            world.datacenters.push(Datacenter { name: Text::new(format!("dc{number}")), first, plan });
            first += servers + clients;
        }
        for agent in 0..first {
            let plan = world.plan_of(agent);
            world.add(&plan, agent);
        }
        world
    }

    /// The plan of an agent's datacenter, of several.
    pub fn plan_of(&self, agent: usize) -> Plan {
        self.datacenter_of(agent).expect("of several").plan.clone()
    }

    fn datacenter_of(&self, agent: usize) -> Option<&Datacenter> {
        self.datacenters.iter().rev().find(|datacenter| datacenter.first <= agent)
    }

    /// Where `other` is, as it tells `agent`, if that is another datacenter.
    fn elsewhere(&self, agent: usize, other: usize) -> Option<Text> {
        let there = self.datacenter_of(other)?;
        (there.name != self.datacenter_of(agent)?.name).then(|| there.name.clone())
    }

    fn with(plan: &Plan, old: BTreeSet<usize>, disks: BTreeMap<usize, Disk>) -> World {
        let now = Now { mono: Mono(1_000_000_000), wall: Wall(0) };
        let mut world = World {
            agents: Vec::new(),
            datacenters: Vec::new(),
            now,
            events: BTreeMap::new(),
            next: 0,
            connected: BTreeSet::new(),
            cut: BTreeSet::new(),
            callers: BTreeMap::new(),
            replies: BTreeMap::new(),
            halted: Vec::new(),
            losing: (Rng::from_seed(0), 0.0),
            doubling: (Rng::from_seed(0), 0.0),
            disks,
            old,
        };
        for agent in 0..plan.servers + plan.clients {
            world.add(plan, agent);
        }
        world
    }

    pub fn add(&mut self, plan: &Plan, agent: usize) {
        let seed = [u8::try_from(agent + 1).expect("a small world"); 32];
        let (agent_state, out) = self.process(plan, agent, seed, 0);
        self.agents.push(agent_state);
        self.perform(agent, out);
    }

    /// A process of an agent, and what it does first.
    fn process(&mut self, plan: &Plan, agent: usize, seed: [u8; 32], life: u64) -> (Agent, Outbox) {
        let restored = self.disks.get_mut(&agent).map(Disk::restore).unwrap_or_default();
        let mut node = Node::new(self.config(plan, agent), restored, seed, self.now)
            .expect("what was kept fits together");
        let published = node.first_publication(self.now);
        let mut out = Outbox::default();
        node.start(self.now, &mut out);
        (Agent { node, id: id(agent), alive: true, published, left: false, life }, out)
    }

    fn config(&self, plan: &Plan, agent: usize) -> Config {
        let mut config = match self.datacenter_of(agent) {
            Some(datacenter) => config_in(datacenter, agent),
            None => config(plan, agent),
        };
        if self.old.contains(&agent) {
            config.about.formats = FIRST;
        }
        if self.disks.contains_key(&agent) {
            config.keeps_local = true;
            config.agent.persist = true;
            // Often, so that processes begin with one.
            config.checkpoints =
                CheckpointPolicy { entries: 20, trailing_entries: 10, ..CheckpointPolicy::default() };
        }
        config
    }

    fn by_id(&self, id: Uuid) -> Option<usize> {
        self.agents.iter().position(|agent| agent.id == id)
    }

    /// From now on this part of all datagrams is lost.
    pub fn lose(&mut self, seed: u64, part: f64) {
        self.losing = (Rng::from_seed(seed), part);
    }

    /// From now on this part of all frames between agents comes twice, the second time later.
    pub fn double(&mut self, seed: u64, part: f64) {
        self.doubling = (Rng::from_seed(seed), part);
    }

    /// From now on two agents hear nothing of each other. Connections last a while and are lost then.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert(pair(a, b));
        if self.connected.remove(&pair(a, b)) {
            let (id_a, id_b) = (self.agents[a].id, self.agents[b].id);
            self.later(a, Input::PeerDown { peer: id_b });
            self.later(b, Input::PeerDown { peer: id_a });
        }
    }

    /// From now on an agent hears nobody, and nobody it; connections do not show it.
    pub fn isolate(&mut self, agent: usize) {
        for other in 0..self.agents.len() {
            self.cut.insert(pair(agent, other));
        }
    }

    /// From now on everybody hears everybody.
    pub fn mend(&mut self) {
        self.cut.clear();
    }

    /// Starts a new process of an agent that died. It begins with what its disk has, if it has one.
    pub fn restart(&mut self, plan: &Plan, agent: usize) {
        self.next += 1;
        let seed = crate::rng::Rng::from_seed(self.next).next_u64().to_le_bytes().repeat(4);
        let seed = <[u8; 32]>::try_from(seed).expect("four times eight bytes");
        let (agent_state, out) = self.process(plan, agent, seed, self.agents[agent].life + 1);
        self.agents[agent] = agent_state;
        self.perform(agent, out);
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&pair(from, to))
    }

    fn later(&mut self, agent: usize, input: Input) {
        self.later_in(agent, self.agents[agent].life, input);
    }

    fn later_in(&mut self, agent: usize, life: u64, input: Input) {
        self.schedule(LATENCY, Event::Input(agent, life, Box::new(input)));
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.next += 1;
        self.events.insert((self.now.mono + after, self.next), event);
    }

    fn at(&self, to: SocketAddr) -> Option<usize> {
        (0..self.agents.len()).find(|agent| address(*agent, 0).ip() == to.ip())
    }

    fn perform(&mut self, from: usize, mut out: Outbox) {
        for output in out.drain() {
            match output {
                Output::Datagram { pool, to, bytes } => {
                    if let Some(to) = self.at(to)
                        && self.reaches(from, to)
                        && !befalls(&mut self.losing)
                    {
                        self.later(to, Input::Datagram { pool, from: address(from, port(pool)), bytes });
                    }
                }
                Output::GossipCall { pool, call, to, bytes, timeout } => {
                    self.call(from, pool, call, to, bytes, timeout);
                }
                Output::GossipAnswer { caller, bytes, .. } => {
                    if let Some((asker, life, pool, call)) = self.callers.remove(&caller) {
                        self.later_in(asker, life, Input::GossipAnswer { pool, call, result: Ok(bytes) });
                    }
                }
                Output::Peer { to, frame, .. } => self.send(from, to, frame),
                Output::Publish(published) => self.agents[from].published = published,
                Output::Reply { id, reply } => {
                    self.replies.insert(id, reply);
                }
                Output::Left => self.agents[from].left = true,
                Output::Halt { reason } => {
                    self.halted.push(reason);
                    self.kill(from);
                }
                Output::Warn(_) | Output::Execute(_) | Output::Cancel { .. } => {}
                Output::Log(write) => self.write(from, Job::Log(write)),
                Output::Checkpoint { op, checkpoint } => self.write(from, Job::Checkpoint(op, checkpoint)),
                Output::SaveLocal { op, changes } => self.write(from, Job::Local(op, changes)),
                other => panic!("{other:?} is not done here"),
            }
        }
    }

    fn write(&mut self, agent: usize, job: Job) {
        let disk = self.disks.get_mut(&agent).expect("agents without a disk keep nothing");
        let after = disk.begin(job);
        self.schedule(after, Event::Disk(agent, self.agents[agent].life));
    }

    fn call(&mut self, from: usize, pool: Pool, call: u64, to: SocketAddr, bytes: Bytes, timeout: Duration) {
        let failed = |result| Input::GossipAnswer { pool, call, result: Err(result) };
        match self.at(to) {
            Some(to) if self.reaches(from, to) && self.agents[to].alive => {
                self.next += 1;
                let caller = self.next;
                self.callers.insert(caller, (from, self.agents[from].life, pool, call));
                self.later(to, Input::GossipCall { pool, caller, from: address(from, port(pool)), bytes });
            }
            Some(to) if self.reaches(from, to) => self.later(from, failed(gossip::CallError::Refused)),
            _ => {
                let input = failed(gossip::CallError::TimedOut);
                self.schedule(timeout, Event::Input(from, self.agents[from].life, Box::new(input)));
            }
        }
    }

    fn send(&mut self, from: usize, to: Uuid, frame: Bytes) {
        let Some(to) = self.by_id(to) else { return };
        let (here, there) = (self.agents[from].id, self.agents[to].id);
        if !self.reaches(from, to) {
            return;
        }
        if !self.agents[to].alive {
            return self.later(from, Input::PeerDown { peer: there });
        }
        if self.connected.insert(pair(from, to)) {
            self.later(from, Input::PeerUp { peer: there, datacenter: self.elsewhere(from, to) });
            self.later(to, Input::PeerUp { peer: here, datacenter: self.elsewhere(to, from) });
        }
        if befalls(&mut self.doubling) {
            let after = LATENCY + self.doubling.0.duration_below(HELD_BACK);
            let copy = Input::PeerFrame { peer: here, frame: frame.clone() };
            self.schedule(after, Event::Input(to, self.agents[to].life, Box::new(copy)));
        }
        self.later(to, Input::PeerFrame { peer: here, frame });
    }

    /// Ends an agent's process at once.
    pub fn kill(&mut self, agent: usize) {
        self.agents[agent].alive = false;
        if let Some(disk) = self.disks.get_mut(&agent) {
            disk.crash();
        }
        let gone = self.agents[agent].id;
        for other in 0..self.agents.len() {
            if self.connected.remove(&pair(agent, other)) {
                self.later(other, Input::PeerDown { peer: gone });
            }
        }
    }

    pub fn step(&mut self, agent: usize, input: Input) {
        if !self.agents[agent].alive || self.agents[agent].left {
            return;
        }
        let mut out = Outbox::default();
        self.agents[agent].node.step(self.now, input, &mut out);
        self.perform(agent, out);
        if self.agents[agent].left {
            self.kill(agent);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input(agent, life, input) => {
                let travels_alone = matches!(*input, Input::Datagram { .. } | Input::GossipCall { .. });
                if travels_alone || self.agents[agent].life == life {
                    self.step(agent, *input);
                }
            }
            Event::Disk(agent, life) => {
                if self.agents[agent].alive && self.agents[agent].life == life {
                    let disk = self.disks.get_mut(&agent).expect("it was asked for something");
                    let done = disk.finish();
                    self.step(agent, done);
                }
            }
        }
    }

    /// Lets the next thing happen, if it is due by `end`.
    fn advance(&mut self, end: Mono) -> bool {
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let wake = (0..self.agents.len())
            .filter(|agent| self.agents[*agent].alive)
            .filter_map(|agent| self.agents[agent].node.next_deadline().map(|(at, _)| (at, agent)))
            .min();
        match (event, wake) {
            (Some(at), wake) if at <= end && wake.is_none_or(|(due, _)| at <= due) => {
                self.now.mono = self.now.mono.max(at);
                let (_, event) = self.events.pop_first().expect("just seen");
                self.happen(event);
                true
            }
            (_, Some((due, agent))) if due <= end => {
                self.now.mono = self.now.mono.max(due);
                self.step(agent, Input::Wake);
                true
            }
            _ => false,
        }
    }

    /// Lets time pass until something holds.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub fn until(&mut self, what: &str, limit: Duration, holds: impl Fn(&World) -> bool) {
        let end = self.now.mono + limit;
        while !holds(self) {
            assert!(self.advance(end), "not within {limit:?}: {what}");
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while self.advance(end) {}
        self.now.mono = end;
    }

    /// Who leads, if living servers agree.
    pub fn leader(&self) -> Option<usize> {
        self.leader_among(0..self.agents.len())
    }

    /// Who leads among these agents.
    pub fn leader_among(&self, mut agents: std::ops::Range<usize>) -> Option<usize> {
        agents.find(|agent| self.agents[*agent].alive && self.agents[*agent].published.lease.is_leader)
    }

    /// An agent's node, for what nobody can see from outside.
    pub fn node(&self, agent: usize) -> &Node {
        &self.agents[agent].node
    }

    pub fn published(&self, agent: usize) -> &Published {
        &self.agents[agent].published
    }

    pub fn is_alive(&self, agent: usize) -> bool {
        self.agents[agent].alive
    }

    /// Whether an agent's process is the first that it had.
    pub fn is_first_process(&self, agent: usize) -> bool {
        self.agents[agent].life == 0
    }

    /// Begins a request; its reply comes later.
    pub fn begin(&mut self, agent: usize, call: Call) -> RequestId {
        self.next += 1;
        let id = RequestId(self.next);
        self.step(agent, Input::Request { id, request: Request { call, authorizer: Authorizer } });
        id
    }

    pub fn reply(&self, id: RequestId) -> Option<&HttpReply> {
        self.replies.get(&id)
    }

    /// Asks an agent and waits for the answer.
    pub fn ask(&mut self, agent: usize, call: Call) -> HttpReply {
        let id = self.begin(agent, call);
        self.until("a reply", Duration::from_secs(20), |world| world.replies.contains_key(&id));
        self.replies.remove(&id).expect("just seen")
    }
}
