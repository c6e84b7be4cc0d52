//! A network of members in one event loop: latency, loss, partitions, kills, pauses, restarts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::cx::{self, Cx};
use crate::gossip::{
    CallError, Clocks, Config, Effect, Gossip, Key, KeysReport, Member, Pool, Profile, Roster, State, Status,
    UserEvent, tag,
};
use crate::ids::Uuid;
use crate::rng::Rng;
use crate::time::{Mono, Now, Wall};
use crate::timers::Timers;

/// What becomes of packets to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Up,
    /// The process is gone, the host refuses connections.
    Killed,
    /// Nothing comes back.
    Silent,
    /// The process is stopped; what comes waits for it.
    Stopped,
    /// What comes and what goes waits, while the process works: the anomaly of Lifeguard's experiments.
    Blocked,
}

pub struct Host {
    pub config: Config,
    pub gossip: Gossip,
    pub life: Life,
    /// Counts restarts; answers to calls of a former life are dropped.
    era: u64,
    timers: Timers<cx::Timer>,
    armed: Mono,
    backlog: Vec<Arrival>,
    outbox: Vec<Effect>,
    pub known: Vec<SocketAddr>,
    pub clocks: Clocks,
    pub keys: Vec<Key>,
    pub events: Vec<UserEvent>,
    pub joined: Vec<(u64, usize, Option<String>)>,
    pub reports: Vec<KeysReport>,
    pub warnings: Vec<String>,
    pub left: bool,
    pub conflict: bool,
    /// Every status that each member was said to have, in order.
    pub history: BTreeMap<String, Vec<Status>>,
    pub bytes_sent: u64,
}

#[derive(Clone, Debug)]
enum Arrival {
    Datagram { from: SocketAddr, bytes: Bytes },
    Call { caller: u64, from: SocketAddr, bytes: Bytes },
    Answer { call: u64, era: u64, result: Result<Bytes, CallError> },
    Wake,
}

/// A stream under way.
struct Stream {
    host: usize,
    era: u64,
    call: u64,
}

pub struct Net {
    pub now: Mono,
    pub hosts: Vec<Host>,
    rng: Rng,
    heap: BinaryHeap<Reverse<(Mono, u64, usize)>>,
    arrivals: BTreeMap<u64, Arrival>,
    next: u64,
    streams: BTreeMap<u64, Stream>,
    /// Percent of datagrams that are lost.
    pub loss: u64,
    /// Which side of the partition a host is on.
    pub side: Vec<u8>,
    pub pool: Pool,
    /// A firewall refuses all streams.
    pub refuse_streams: bool,
}

pub fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (host / 250) as u8, (host % 250 + 1) as u8], 8301))
}

pub fn config(host: usize) -> Config {
    let mut config = Config::new(format!("m{host}").into(), address(host));
    let id = Uuid(0xabc0_0000_0000 + host as u128).to_string();
    config.tags = [(tag::ID, id.as_str()), (tag::DATACENTER, "dc1"), (tag::ROLE, tag::ROLE_CLIENT)]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
    config.datacenter = "dc1".into();
    config
}

impl Net {
    pub fn new(seed: u64) -> Net {
        Net {
            now: Mono(1_000_000_000),
            hosts: Vec::new(),
            rng: Rng::from_seed(seed),
            heap: BinaryHeap::new(),
            arrivals: BTreeMap::new(),
            next: 0,
            streams: BTreeMap::new(),
            loss: 0,
            side: Vec::new(),
            pool: Pool::Lan,
            refuse_streams: false,
        }
    }

    /// So many members that have joined the first one and all know each other.
    pub fn of(seed: u64, members: usize) -> Net {
        let mut net = Net::new(seed);
        for host in 0..members {
            net.add(config(host));
        }
        net.join_all();
        net.run_until(30, "all know all", |net| net.all_alive(members));
        net
    }

    pub fn join_all(&mut self) {
        for host in 1..self.hosts.len() {
            self.act(host, |gossip, cx| gossip.join(cx, vec![address(0)], 1));
        }
    }

    pub fn add(&mut self, config: Config) -> usize {
        let rng = self.rng.fork(self.hosts.len() as u64);
        let gossip = Gossip::new(self.pool, config.clone(), Vec::new(), rng, self.clock());
        self.add_gossip(config, gossip)
    }

    pub fn add_known(&mut self, config: Config, roster: &Roster) -> usize {
        let rng = self.rng.fork(self.hosts.len() as u64);
        let gossip = Gossip::with_members(self.pool, config.clone(), roster, rng, self.clock());
        self.add_gossip(config, gossip)
    }

    fn add_gossip(&mut self, config: Config, gossip: Gossip) -> usize {
        let host = self.hosts.len();
        self.hosts.push(Host {
            gossip,
            life: Life::Up,
            era: 0,
            timers: Timers::default(),
            armed: Mono::NEVER,
            backlog: Vec::new(),
            outbox: Vec::new(),
            known: Vec::new(),
            clocks: Clocks::default(),
            keys: config.keys.clone(),
            events: Vec::new(),
            joined: Vec::new(),
            reports: Vec::new(),
            warnings: Vec::new(),
            left: false,
            conflict: false,
            history: BTreeMap::new(),
            bytes_sent: 0,
            config,
        });
        self.side.push(0);
        self.act(host, Gossip::start);
        host
    }

    /// The process of a host ends and begins again, with what it saved.
    pub fn restart(&mut self, host: usize, change: impl FnOnce(&mut Config)) {
        let seed = self.rng.next_u64();
        let now = self.clock();
        let at = &mut self.hosts[host];
        change(&mut at.config);
        at.config.keys.clone_from(&at.keys);
        at.gossip = Gossip::new(self.pool, at.config.clone(), at.known.clone(), Rng::from_seed(seed), now);
        at.gossip.resume(at.clocks);
        at.timers = Timers::default();
        at.armed = Mono::NEVER;
        at.era += 1;
        at.life = Life::Up;
        at.left = false;
        at.backlog.clear();
        at.outbox.clear();
        at.history.clear();
        self.act(host, Gossip::start);
    }

    pub fn kill(&mut self, host: usize) {
        self.hosts[host].life = Life::Killed;
    }

    pub fn stop(&mut self, host: usize) {
        self.hosts[host].life = Life::Stopped;
    }

    /// A stopped process goes on: its timers are late, and what came waits at its door, behind the timers.
    pub fn go_on(&mut self, host: usize) {
        self.hosts[host].life = Life::Up;
        self.deliver(host, Arrival::Wake);
        for effect in std::mem::take(&mut self.hosts[host].outbox) {
            self.carry_out(host, effect);
        }
        for arrival in std::mem::take(&mut self.hosts[host].backlog) {
            self.deliver(host, arrival);
        }
    }

    pub fn act<T>(&mut self, host: usize, act: impl FnOnce(&mut Gossip, &mut Cx<'_, Effect>) -> T) -> T {
        let now = self.clock();
        let mut effects = Vec::new();
        let at = &mut self.hosts[host];
        let mut cx = Cx { now, timers: &mut at.timers, effects: &mut effects };
        let result = act(&mut at.gossip, &mut cx);
        while let Some(timer) = at.timers.pop_due(now.mono) {
            let cx::Timer::Gossip(_, timer) = timer else { unreachable!("only gossip runs here") };
            let mut cx = Cx { now, timers: &mut at.timers, effects: &mut effects };
            at.gossip.on_timer(&mut cx, timer);
        }
        for effect in effects {
            self.carry_out(host, effect);
        }
        let at = &mut self.hosts[host];
        if let Some((deadline, _)) = at.timers.next()
            && (deadline < at.armed || at.armed <= now.mono)
        {
            at.armed = deadline;
            self.schedule(deadline, host, Arrival::Wake);
        }
        result
    }

    /// Lets time pass until something holds; fails when it does not hold in time. Returns how long it took.
    pub fn run_until(&mut self, seconds: u64, what: &str, mut holds: impl FnMut(&Net) -> bool) -> Duration {
        let begun = self.now;
        let until = begun + Duration::from_secs(seconds);
        let mut looked = Mono(0);
        loop {
            // Looking costs more than a step.
            if self.now.since(looked) >= Duration::from_millis(20) {
                looked = self.now;
                if holds(self) {
                    return self.now.since(begun);
                }
            }
            assert!(self.now < until, "not within {seconds} s: {what}");
            if !self.step_one(until) {
                self.now = until;
            }
        }
    }

    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.step_one(until) {}
        self.now = until;
    }

    fn step_one(&mut self, until: Mono) -> bool {
        match self.heap.peek() {
            Some(Reverse((at, _, _))) if *at <= until => {}
            _ => return false,
        }
        let Reverse((at, number, host)) = self.heap.pop().expect("it was just seen");
        self.now = at;
        let arrival = self.arrivals.remove(&number).expect("each arrives once");
        self.deliver(host, arrival);
        true
    }

    fn deliver(&mut self, host: usize, arrival: Arrival) {
        match (self.hosts[host].life, &arrival) {
            (Life::Up, _) | (Life::Blocked, Arrival::Wake) => {}
            (Life::Blocked, _) => return self.hosts[host].backlog.push(arrival),
            (Life::Stopped, Arrival::Wake) => return,
            (Life::Stopped, _) => return self.hosts[host].backlog.push(arrival),
            (Life::Killed, Arrival::Call { caller, .. }) => {
                let caller = *caller;
                return self.complete(caller, Err(CallError::Refused));
            }
            (Life::Killed | Life::Silent, _) => return,
        }
        match arrival {
            Arrival::Datagram { from, bytes } => {
                self.act(host, |gossip, cx| gossip.on_datagram(cx, from, &bytes));
            }
            Arrival::Call { caller, from, bytes } => {
                self.act(host, |gossip, cx| gossip.on_call(cx, caller, from, &bytes));
            }
            Arrival::Answer { call, era, result } => {
                if self.hosts[host].era == era {
                    self.act(host, |gossip, cx| gossip.on_answer(cx, call, result));
                }
            }
            Arrival::Wake => {
                self.hosts[host].armed = Mono::NEVER;
                self.act(host, |_, _| ());
            }
        }
    }

    fn carry_out(&mut self, host: usize, effect: Effect) {
        let leaves = matches!(effect, Effect::Datagram { .. } | Effect::Call { .. } | Effect::Answer { .. });
        if leaves && self.hosts[host].life == Life::Blocked {
            return self.hosts[host].outbox.push(effect);
        }
        match effect {
            Effect::Datagram { to, bytes } => {
                self.hosts[host].bytes_sent += bytes.len() as u64;
                let lost = self.rng.below(100) < self.loss;
                if let Some(target) = self.host_at(to)
                    && self.reaches(host, target)
                    && !lost
                {
                    let from = self.hosts[host].config.address;
                    let at = self.arrival_time();
                    self.schedule(at, target, Arrival::Datagram { from, bytes });
                }
            }
            Effect::Call { call, to, bytes, timeout } => {
                self.next += 1;
                let caller = self.next;
                let era = self.hosts[host].era;
                self.streams.insert(caller, Stream { host, era, call });
                self.schedule(
                    self.now + timeout,
                    host,
                    Arrival::Answer { call, era, result: Err(CallError::TimedOut) },
                );
                match self.host_at(to) {
                    Some(_) if self.refuse_streams => self.complete(caller, Err(CallError::Refused)),
                    Some(target) if self.reaches(host, target) => {
                        let from = self.hosts[host].config.address;
                        let at = self.arrival_time();
                        self.schedule(at, target, Arrival::Call { caller, from, bytes });
                    }
                    Some(_) => {}
                    None => self.complete(caller, Err(CallError::Refused)),
                }
            }
            Effect::Answer { caller, bytes } => self.complete(caller, Ok(bytes)),
            Effect::Member(change) => {
                let (member, status) = match change {
                    crate::gossip::MemberChange::Upsert(member) => {
                        let status = member.status;
                        (member, Some(status))
                    }
                    crate::gossip::MemberChange::Reaped(member) => (member, None),
                };
                let history = self.hosts[host].history.entry(member.name.to_string()).or_default();
                if let Some(status) = status
                    && history.last() != Some(&status)
                {
                    history.push(status);
                }
            }
            Effect::UserEvent(event) => self.hosts[host].events.push(event),
            Effect::Joined { ticket, contacted, error } => {
                self.hosts[host].joined.push((ticket, contacted, error.map(|error| error.to_string())));
            }
            Effect::Left => self.hosts[host].left = true,
            Effect::Keys { report, .. } => self.hosts[host].reports.push(report),
            Effect::SaveKeys(keys) => self.hosts[host].keys = keys,
            Effect::SaveKnown(known) => self.hosts[host].known = known,
            Effect::SaveClocks(clocks) => self.hosts[host].clocks = clocks,
            Effect::NameConflict { .. } => self.hosts[host].conflict = true,
            Effect::Suspected(_) => {}
            Effect::Warn(line) => self.hosts[host].warnings.push(line.to_string()),
        }
    }

    fn complete(&mut self, caller: u64, result: Result<Bytes, CallError>) {
        if let Some(Stream { host, era, call }) = self.streams.remove(&caller) {
            let at = self.arrival_time();
            self.schedule(at, host, Arrival::Answer { call, era, result });
        }
    }

    fn schedule(&mut self, at: Mono, host: usize, arrival: Arrival) {
        self.next += 1;
        self.arrivals.insert(self.next, arrival);
        self.heap.push(Reverse((at, self.next, host)));
    }

    fn arrival_time(&mut self) -> Mono {
        self.now + Duration::from_micros(200 + self.rng.below(800))
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        self.side[from] == self.side[to]
    }

    /// The last host with this address: an earlier one has moved away.
    fn host_at(&self, address: SocketAddr) -> Option<usize> {
        self.hosts.iter().rposition(|host| host.config.address == address)
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: Wall(0) }
    }

    pub fn status(&self, at: usize, of: usize) -> Option<Status> {
        self.member(at, of).map(|member| member.status)
    }

    pub fn member(&self, at: usize, of: usize) -> Option<Member> {
        self.hosts[at].gossip.member(&self.hosts[of].config.name)
    }

    /// Every member that is up believes this of that one.
    pub fn all_say(&self, of: usize, status: Status) -> bool {
        (0..self.hosts.len())
            .filter(|at| *at != of && self.hosts[*at].life == Life::Up && !self.hosts[*at].left)
            .all(|at| self.status(at, of) == Some(status))
    }

    pub fn all_alive(&self, members: usize) -> bool {
        self.hosts.iter().filter(|host| host.life == Life::Up).all(|host| {
            host.gossip.members().filter(|member| member.status == Status::Alive).count() == members
                && (0..self.hosts.len()).all(|of| {
                    self.hosts[of].life != Life::Up
                        || host.gossip.state(&self.hosts[of].config.name) == Some(State::Alive)
                })
        })
    }

    /// Nobody was ever said to have failed.
    pub fn nobody_failed(&self) -> bool {
        self.hosts.iter().all(|host| host.history.values().flatten().all(|status| *status != Status::Failed))
    }
}

/// A profile in which a day is a minute, for tests of what takes days.
pub fn hurried() -> Profile {
    Profile { reap_interval: Duration::from_secs(1), ..Profile::lan() }
}
