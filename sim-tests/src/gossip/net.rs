//! A network of thousands of gossip machines in one loop: no async, no sockets, one seed.
//!
//! Members are numbers; their names and addresses follow from the number. What is due stands in one heap, ordered by
//! time and then by the order in which it was put there, so a run is a function of its seed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::cx::{self, Cx};
use proconsul_core::gossip::{
    CallError, Config, Effect, Gossip, Key, KeysReport, MemberChange, MemberInfo, Pool, Roster, Status, tag,
};
use proconsul_core::ids::Uuid;
use proconsul_core::rng::Rng;
use proconsul_core::time::{Mono, Now, Wall};
use proconsul_core::timers::Timers;

use super::links::Links;

/// A member's number.
pub type Id = usize;

/// What its surroundings do to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// All is well.
    Up,
    /// The process is gone; its host refuses connections.
    Killed,
    /// The host is gone; nothing comes back.
    Silent,
    /// The process is stopped: nothing happens in it, and what comes waits at its door (SIGSTOP, a starved or paused
    /// machine).
    Stopped,
    /// The process runs, but whatever it sends or receives waits (the anomaly of the Lifeguard paper, section V.D).
    Blocked,
}

/// One change of a belief.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief {
    /// When.
    pub at: Mono,
    /// Who believes.
    pub observer: Id,
    /// Of whom.
    pub subject: Id,
    /// What; nothing when the subject was forgotten.
    pub status: Option<Status>,
}

/// One delivery of a user event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: Mono,
    /// To whom.
    pub member: Id,
    /// Which event.
    pub event: Uuid,
}

/// Payload bytes and packets of one member, without the headers of IP, UDP and TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Datagrams sent.
    pub packets: u64,
    /// Bytes in them.
    pub datagrams_sent: u64,
    /// Bytes in datagrams received.
    pub datagrams_received: u64,
    /// Bytes sent over streams, requests and answers.
    pub streams_sent: u64,
    /// Bytes received over streams.
    pub streams_received: u64,
}

/// A member and its surroundings.
#[derive(Debug)]
pub struct Host {
    /// The machine.
    pub gossip: Gossip,
    /// What happens to it.
    pub life: Life,
    /// What it sent and received since [`Net::forget_traffic`].
    pub traffic: Traffic,
    config: Config,
    /// Counts restarts: what was meant for a former life is dropped.
    era: u32,
    timers: Timers<cx::Timer>,
    /// The wake-up in the heap that will be heeded.
    armed: Mono,
    inbox: Vec<Arrival>,
    outbox: Vec<Effect>,
    known: Vec<SocketAddr>,
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
enum Arrival {
    Datagram { from: SocketAddr, bytes: Bytes },
    Call { caller: u64, from: SocketAddr, bytes: Bytes },
    Answer { call: u64, era: u32, result: Result<Bytes, CallError> },
    Wake,
}

#[derive(Debug)]
struct Due {
    at: Mono,
    number: u64,
    host: Id,
    what: Arrival,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest is the greatest: the heap yields the greatest first.
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// A stream under way, at the caller's end.
#[derive(Clone, Copy, Debug)]
struct Stream {
    from: Id,
    to: Id,
    era: u32,
    call: u64,
}

/// The network.
#[derive(Debug)]
pub struct Net {
    /// The time, the same for everybody.
    pub now: Mono,
    /// The members, by number.
    pub hosts: Vec<Host>,
    /// What happens to packets under way.
    pub links: Links,
    /// Every change of a belief since [`Net::forget_history`], in order.
    pub beliefs: Vec<Belief>,
    /// Every user event that was delivered.
    pub deliveries: Vec<Delivery>,
    /// Changes of keys that ended: who asked, and what came of it.
    pub reports: Vec<(Id, KeysReport)>,
    /// Joins that ended: who joined, and how many it contacted.
    pub joined: Vec<(Id, usize)>,
    /// How many steps the loop has made.
    pub steps: u64,
    rng: Rng,
    heap: BinaryHeap<Due>,
    next: u64,
    streams: BTreeMap<u64, Stream>,
    spare: Vec<Effect>,
}

/// Where a member is reached.
#[must_use]
pub fn address(id: Id) -> SocketAddr {
    let number = u32::try_from(id).expect("a pool has fewer than sixteen million members");
    SocketAddr::from(((0x0a00_0000 + number + 1).to_be_bytes(), 8301))
}

/// Who is reached there.
#[must_use]
pub fn member_at(address: SocketAddr) -> Id {
    match address.ip() {
        IpAddr::V4(ip) => (u32::from(ip) - 0x0a00_0001) as usize,
        IpAddr::V6(_) => unreachable!("members have IPv4 addresses here"),
    }
}

/// What a member is called.
#[must_use]
pub fn name(id: Id) -> String {
    format!("node-{id:05}")
}

/// A client agent with the tags that agents have.
#[must_use]
pub fn config(id: Id) -> Config {
    let mut config = Config::new(name(id).into(), address(id));
    // As random as real ones: what orders members by identity must not find them in the order of their names.
    let mut rng = Rng::from_seed(0x1d).fork(id as u64);
    let identity = Uuid::random(&mut rng).to_string();
    let tags =
        [(tag::ID, identity.as_str()), (tag::DATACENTER, "dc1"), (tag::ROLE, "node"), (tag::BUILD, "1.0.0")];
    config.tags = tags.map(|(name, value)| (name.into(), value.into())).into();
    config.datacenter = "dc1".into();
    config
}

impl Net {
    /// A network without members.
    #[must_use]
    pub fn new(seed: u64, links: Links) -> Net {
        Net {
            now: Mono(1_000_000_000),
            hosts: Vec::new(),
            links,
            beliefs: Vec::new(),
            deliveries: Vec::new(),
            reports: Vec::new(),
            joined: Vec::new(),
            steps: 0,
            rng: Rng::from_seed(seed),
            heap: BinaryHeap::new(),
            next: 0,
            streams: BTreeMap::new(),
            spare: Vec::new(),
        }
    }

    /// So many members that all know each other; what each knows of the others is shared until it differs.
    #[must_use]
    pub fn of(seed: u64, members: usize, links: Links, change: impl Fn(&mut Config)) -> Net {
        let mut net = Net::new(seed, links);
        let configs: Vec<Config> = (0..members)
            .map(|id| {
                let mut config = config(id);
                change(&mut config);
                config
            })
            .collect();
        let roster = Roster::new(configs.iter().map(|config| {
            Arc::new(MemberInfo::new(config.name.clone(), config.address, config.tags.clone()))
        }));
        for config in configs {
            let (rng, now) = (net.rng.fork(net.hosts.len() as u64), net.clock());
            let gossip = Gossip::with_members(Pool::Lan, config.clone(), &roster, rng, now);
            net.place(gossip, config);
        }
        net.forget_history();
        net
    }

    /// A new member that knows nobody.
    pub fn add(&mut self, config: Config) -> Id {
        let (rng, now) = (self.rng.fork(self.hosts.len() as u64), self.clock());
        let gossip = Gossip::new(Pool::Lan, config.clone(), Vec::new(), rng, now);
        self.place(gossip, config)
    }

    fn place(&mut self, gossip: Gossip, config: Config) -> Id {
        let id = self.hosts.len();
        self.hosts.push(Host {
            gossip,
            life: Life::Up,
            traffic: Traffic::default(),
            era: 0,
            timers: Timers::default(),
            armed: Mono::NEVER,
            inbox: Vec::new(),
            outbox: Vec::new(),
            known: Vec::new(),
            keys: config.keys.clone(),
            config,
        });
        self.act(id, Gossip::start);
        id
    }

    /// The process begins again, with the addresses and keys that it saved.
    pub fn restart(&mut self, id: Id) {
        let (seed, now) = (self.rng.next_u64(), self.clock());
        let host = &mut self.hosts[id];
        host.config.keys.clone_from(&host.keys);
        let (config, known) = (host.config.clone(), host.known.clone());
        host.gossip = Gossip::new(Pool::Lan, config, known, Rng::from_seed(seed), now);
        host.timers = Timers::default();
        host.armed = Mono::NEVER;
        host.era += 1;
        host.life = Life::Up;
        host.inbox.clear();
        host.outbox.clear();
        self.act(id, Gossip::start);
    }

    /// Changes what happens to a member. One that can act again first does what is late, then reads what came, then
    /// what it meant to send leaves.
    pub fn set_life(&mut self, id: Id, life: Life) {
        self.hosts[id].life = life;
        if life != Life::Up {
            return;
        }
        for effect in core::mem::take(&mut self.hosts[id].outbox) {
            self.carry_out(id, effect);
        }
        self.act(id, |_, _| ());
        for arrival in core::mem::take(&mut self.hosts[id].inbox) {
            self.deliver(id, arrival);
        }
    }

    /// Lets a member do something, and whatever is due with it.
    pub fn act<T>(&mut self, id: Id, act: impl FnOnce(&mut Gossip, &mut Cx<'_, Effect>) -> T) -> T {
        let now = self.clock();
        let mut effects = core::mem::take(&mut self.spare);
        let host = &mut self.hosts[id];
        let result = act(&mut host.gossip, &mut Cx { now, timers: &mut host.timers, effects: &mut effects });
        while let Some(timer) = host.timers.pop_due(now.mono) {
            let cx::Timer::Gossip(_, timer) = timer else { unreachable!("only gossip runs here") };
            host.gossip.on_timer(&mut Cx { now, timers: &mut host.timers, effects: &mut effects }, timer);
        }
        if let Some((deadline, _)) = host.timers.next()
            && (deadline < host.armed || host.armed <= now.mono)
        {
            host.armed = deadline;
            self.schedule(deadline, id, Arrival::Wake);
        }
        for effect in effects.drain(..) {
            self.carry_out(id, effect);
        }
        self.spare = effects;
        result
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_to(self.now + duration);
    }

    /// Lets time pass until then.
    pub fn run_to(&mut self, until: Mono) {
        while self.step(until) {}
        self.now = until;
    }

    /// Lets time pass until something holds, which is looked at `every` so often; how long that took, or nothing when it
    /// did not hold within `limit`.
    pub fn run_until(
        &mut self,
        limit: Duration,
        every: Duration,
        holds: impl Fn(&Net) -> bool,
    ) -> Option<Duration> {
        let begun = self.now;
        while !holds(self) {
            if self.now.since(begun) >= limit {
                return None;
            }
            self.run_for(every);
        }
        Some(self.now.since(begun))
    }

    /// Begins a new history.
    pub fn forget_history(&mut self) {
        self.beliefs.clear();
        self.deliveries.clear();
    }

    /// Begins to count anew.
    pub fn forget_traffic(&mut self) {
        for host in &mut self.hosts {
            host.traffic = Traffic::default();
        }
    }

    /// What one member believes of another.
    #[must_use]
    pub fn status(&self, observer: Id, subject: Id) -> Option<Status> {
        self.hosts[observer].gossip.member(&self.hosts[subject].config.name).map(|member| member.status)
    }

    /// Those that are up.
    pub fn up(&self) -> impl Iterator<Item = Id> + '_ {
        (0..self.hosts.len()).filter(|id| self.hosts[*id].life == Life::Up)
    }

    fn step(&mut self, until: Mono) -> bool {
        if self.heap.peek().is_none_or(|due| due.at > until) {
            return false;
        }
        let Due { at, host, what, .. } = self.heap.pop().expect("it was just seen");
        self.now = at;
        self.steps += 1;
        self.deliver(host, what);
        true
    }

    fn deliver(&mut self, id: Id, arrival: Arrival) {
        match (self.hosts[id].life, &arrival) {
            (Life::Up, _) | (Life::Blocked, Arrival::Wake) => {}
            (Life::Stopped, Arrival::Wake) => {
                // Heeded when it goes on.
                self.hosts[id].armed = Mono::NEVER;
                return;
            }
            (Life::Stopped | Life::Blocked, _) => return self.hosts[id].inbox.push(arrival),
            (Life::Killed, Arrival::Call { caller, .. }) => {
                return self.complete(*caller, Err(CallError::Refused));
            }
            (Life::Killed | Life::Silent, _) => return,
        }
        match arrival {
            Arrival::Datagram { from, bytes } => {
                self.hosts[id].traffic.datagrams_received += bytes.len() as u64;
                self.act(id, |gossip, cx| gossip.on_datagram(cx, from, &bytes));
            }
            Arrival::Call { caller, from, bytes } => {
                self.hosts[id].traffic.streams_received += bytes.len() as u64;
                self.act(id, |gossip, cx| gossip.on_call(cx, caller, from, &bytes));
            }
            Arrival::Answer { call, era, result } if self.hosts[id].era == era => {
                if let Ok(bytes) = &result {
                    self.hosts[id].traffic.streams_received += bytes.len() as u64;
                }
                self.act(id, |gossip, cx| gossip.on_answer(cx, call, result));
            }
            Arrival::Answer { .. } => {}
            Arrival::Wake => {
                if self.hosts[id].armed <= self.now {
                    self.hosts[id].armed = Mono::NEVER;
                    self.act(id, |_, _| ());
                }
            }
        }
    }

    fn carry_out(&mut self, id: Id, effect: Effect) {
        let sends = matches!(effect, Effect::Datagram { .. } | Effect::Call { .. } | Effect::Answer { .. });
        if sends && self.hosts[id].life == Life::Blocked {
            return self.hosts[id].outbox.push(effect);
        }
        let now = self.now;
        match effect {
            Effect::Datagram { to, bytes } => {
                let traffic = &mut self.hosts[id].traffic;
                traffic.packets += 1;
                traffic.datagrams_sent += bytes.len() as u64;
                let target = member_at(to);
                if let Some(delay) = self.links.datagram(&mut self.rng, id, target)
                    && target < self.hosts.len()
                {
                    self.schedule(now + delay, target, Arrival::Datagram { from: address(id), bytes });
                }
            }
            Effect::Call { call, to, bytes, timeout } => self.begin(id, call, member_at(to), bytes, timeout),
            Effect::Answer { caller, bytes } => {
                self.hosts[id].traffic.streams_sent += bytes.len() as u64;
                self.complete(caller, Ok(bytes));
            }
            Effect::Member(change) => {
                let (member, status) = match change {
                    MemberChange::Upsert(member) => {
                        let status = Some(member.status);
                        (member, status)
                    }
                    MemberChange::Reaped(member) => (member, None),
                };
                let subject = member_at(member.address);
                self.beliefs.push(Belief { at: now, observer: id, subject, status });
            }
            Effect::UserEvent(event) => {
                self.deliveries.push(Delivery { at: now, member: id, event: event.id });
            }
            Effect::Joined { contacted, .. } => self.joined.push((id, contacted)),
            Effect::Left => self.hosts[id].life = Life::Killed,
            Effect::Keys { report, .. } => self.reports.push((id, report)),
            Effect::SaveKeys(keys) => self.hosts[id].keys = keys,
            Effect::SaveKnown(known) => self.hosts[id].known = known,
            // Whole pools do not restart here.
            Effect::SaveClocks(_) => {}
            Effect::NameConflict { .. } => unreachable!("names are unique here"),
            Effect::Suspected(_) | Effect::Warn(_) => {}
        }
    }

    /// A stream: three crossings until the request is there, one until the answer is.
    fn begin(&mut self, from: Id, call: u64, to: Id, bytes: Bytes, timeout: Duration) {
        self.hosts[from].traffic.streams_sent += bytes.len() as u64;
        self.next += 1;
        let (caller, era, now) = (self.next, self.hosts[from].era, self.now);
        self.streams.insert(caller, Stream { from, to, era, call });
        let late = Arrival::Answer { call, era, result: Err(CallError::TimedOut) };
        self.schedule(now + timeout, from, late);
        if to < self.hosts.len()
            && let Some(delay) = self.links.stream(&mut self.rng, from, to, 3)
        {
            self.schedule(now + delay, to, Arrival::Call { caller, from: address(from), bytes });
        }
    }

    fn complete(&mut self, caller: u64, result: Result<Bytes, CallError>) {
        if let Some(Stream { from, to, era, call }) = self.streams.remove(&caller)
            && let Some(delay) = self.links.stream(&mut self.rng, from, to, 1)
        {
            self.schedule(self.now + delay, from, Arrival::Answer { call, era, result });
        }
    }

    fn schedule(&mut self, at: Mono, host: Id, what: Arrival) {
        self.next += 1;
        self.heap.push(Due { at, number: self.next, host, what });
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: Wall(0) }
    }
}
