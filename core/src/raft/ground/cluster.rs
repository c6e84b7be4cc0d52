//! A group of servers in one plain event loop: virtual time, a network that loses, doubles, delays and reorders, disks
//! that lose what was not done, clocks that drift. Everything follows from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::audit::{self, Auditor};
use crate::cx::{self, Cx};
use crate::ids::{LogIndex, ServerId, Uuid};
use crate::raft::{
    Body, Config, Effect, Entry, HardState, Limits, Member, Membership, Message, PersistToken, Raft, Record,
    Recovered, Role, SnapshotMeta, Timer, Timing,
};
use crate::rng::Rng;
use crate::time::{Mono, Now, Wall};
use crate::timers::Timers;

pub(crate) const MS: u64 = 1_000_000;

/// How network, disks and clocks misbehave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// In thousandths.
    pub(crate) loss: u64,
    /// In thousandths.
    pub(crate) doubling: u64,
    /// Longest delay of a message.
    pub(crate) delay: u64,
    /// Longest time of a write.
    pub(crate) write: u64,
    /// How far clocks are off at most.
    pub(crate) drift_ppm: u64,
    /// Checkpoint after this many entries.
    pub(crate) checkpoint_every: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Weather { loss: 0, doubling: 0, delay: MS, write: MS, drift_ppm: 0, checkpoint_every: 1_000 }
    }
}

#[derive(Debug)]
enum Event {
    Wake,
    Deliver { from: usize, message: Message },
    Written { token: PersistToken },
    Checkpointed { meta: SnapshotMeta, state: u64 },
    Installed { meta: SnapshotMeta, state: u64 },
    PeerDown { peer: ServerId },
    Restart,
}

struct Scheduled {
    at: u64,
    order: u64,
    to: usize,
    /// Events of a former life are void, except deliveries.
    life: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What a crash leaves.
#[derive(Debug, Default)]
struct Disk {
    hard: HardState,
    /// Contiguous.
    entries: VecDeque<Entry>,
    /// What the next entry follows if there are none.
    base: LogIndex,
    checkpoint: SnapshotMeta,
    checkpoint_state: u64,
    writing: VecDeque<(PersistToken, Vec<Record>)>,
    written_at: u64,
}

impl Disk {
    fn perform(&mut self, record: Record, auditor: &mut Auditor) {
        match record {
            Record::HardState(hard) => {
                assert!(hard.term >= self.hard.term, "terms on disk never fall");
                self.hard = hard;
            }
            Record::Entry(entry) => {
                let last = self.entries.back().map_or(self.base, |last| last.index);
                assert_eq!(entry.index, last.next(), "entries on disk follow each other");
                auditor.logs(&entry, self.entries.back().map(|last| last.term));
                self.entries.push_back(entry);
            }
            Record::Truncate(from) => {
                while self.entries.back().is_some_and(|last| last.index >= from) {
                    self.entries.pop_back();
                }
                let last = self.entries.back().map_or(self.base, |last| last.index);
                assert_eq!(last, from.prev(), "what is voided on disk was there");
            }
            Record::Reset { index, .. } => {
                self.entries.clear();
                self.base = index;
            }
        }
    }
}

pub(crate) struct Server {
    pub(crate) raft: Option<Raft>,
    timers: Timers<cx::Timer>,
    disk: Disk,
    /// Parts per million by which its clock is fast; negative if slow.
    drift: i64,
    /// What its clock showed at the beginning.
    offset: u64,
    life: u64,
    wake_at: u64,
    /// It does not run before this time; what arrives waits.
    paused_until: u64,
    state: u64,
    applied: LogIndex,
    checkpointing: bool,
    arriving: Vec<u8>,
    /// Tickets of reads with what was committed when they came.
    reads: BTreeMap<u64, LogIndex>,
    was_leader_in: u64,
    pub(crate) reads_done: u64,
}

pub(crate) struct Cluster {
    pub(crate) now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    pub(crate) servers: Vec<Server>,
    pub(crate) rng: Rng,
    pub(crate) weather: Weather,
    /// Directed links that carry nothing.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    pub(crate) auditor: Auditor,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    pub(crate) events: u64,
    /// What an operator has the servers start with.
    pub(crate) forced: Option<Membership>,
    founders: usize,
    ticket: u64,
    seed: u64,
    /// A running fingerprint of everything that was sent.
    pub(crate) trace: u64,
}

pub(crate) fn id(at: usize) -> ServerId {
    Uuid(at as u128 + 1)
}

fn position(id: ServerId) -> usize {
    usize::try_from(id.0).unwrap() - 1
}

pub(crate) fn members(voters: std::ops::Range<usize>) -> Membership {
    let member = |at| (id(at), Member { address: format!("s{at}:8300").into(), voter: true });
    Membership { servers: voters.map(member).collect() }
}

impl Cluster {
    /// `servers.end` servers, of which the first `servers.start` found a group.
    pub(crate) fn new(
        seed: u64,
        servers: std::ops::Range<usize>,
        weather: Weather,
        timing: Timing,
        limits: Limits,
    ) -> Cluster {
        let (voters, all) = (servers.start, servers.end);
        let mut cluster = Cluster {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            servers: Vec::new(),
            rng: Rng::from_seed(seed),
            weather,
            cut: BTreeSet::new(),
            auditor: Auditor::default(),
            timing,
            limits,
            events: 0,
            forced: None,
            founders: voters,
            ticket: 0,
            seed,
            trace: 0,
        };
        for _ in 0..all {
            let drift = cluster.rng.below(2 * weather.drift_ppm + 1) as i64 - weather.drift_ppm as i64;
            let offset = cluster.rng.below(1_000_000 * MS);
            cluster.servers.push(Server {
                raft: None,
                timers: Timers::default(),
                disk: Disk::default(),
                drift,
                offset,
                life: 0,
                wake_at: u64::MAX,
                paused_until: 0,
                state: 0,
                applied: LogIndex(0),
                checkpointing: false,
                arriving: Vec::new(),
                reads: BTreeMap::new(),
                was_leader_in: 0,
                reads_done: 0,
            });
        }
        for at in 0..all {
            cluster.start(at);
        }
        cluster
    }

    fn start(&mut self, at: usize) {
        let now = self.local(at, self.now);
        let rng = self.rng.fork(at as u64 + 100 * self.servers[at].life).fork(self.seed);
        let server = &mut self.servers[at];
        let disk = &server.disk;
        let recovered = Recovered {
            hard: disk.hard,
            snapshot: disk.checkpoint.clone(),
            entries: disk.entries.iter().cloned().collect(),
        };
        server.state = disk.checkpoint_state;
        server.applied = disk.checkpoint.index;
        server.timers = Timers::default();
        server.wake_at = u64::MAX;
        server.checkpointing = false;
        let config = Config { id: id(at), timing: self.timing, limits: self.limits };
        server.raft = Some(Raft::new(config, recovered, rng, Now { mono: now, wall: Wall(0) }));
        if let (Some(forced), Some(raft)) = (&self.forced, &mut self.servers[at].raft) {
            raft.force_membership(forced.clone()).expect("somebody votes");
        }
        self.call(at, |raft, cx| raft.start(cx));
        if at < self.founders {
            let founders = members(0..self.founders);
            let _ = self.call(at, |raft, cx| raft.bootstrap(cx, founders));
        }
    }

    /// What a server's clock shows at a true time.
    pub(crate) fn local(&self, at: usize, time: u64) -> Mono {
        let server = &self.servers[at];
        let rate = (1_000_000 + server.drift) as u128;
        Mono(server.offset + (u128::from(time) * rate / 1_000_000) as u64)
    }

    /// The first true time at which a server's clock shows this.
    fn true_time(&self, at: usize, mono: Mono) -> u64 {
        let server = &self.servers[at];
        let rate = (1_000_000 + server.drift) as u128;
        (u128::from(mono.0.saturating_sub(server.offset)) * 1_000_000).div_ceil(rate) as u64
    }

    fn schedule(&mut self, at: u64, to: usize, event: Event) {
        self.order += 1;
        let life = self.servers[to].life;
        self.queue.push(Reverse(Scheduled { at, order: self.order, to, life, event }));
    }

    /// Runs one call into a server, carries out its effects and audits.
    pub(crate) fn call<T>(&mut self, at: usize, f: impl FnOnce(&mut Raft, &mut Cx<'_, Effect>) -> T) -> T {
        let now = Now { mono: self.local(at, self.now), wall: Wall(0) };
        let server = &mut self.servers[at];
        let mut effects = Vec::new();
        let mut cx = Cx { now, timers: &mut server.timers, effects: &mut effects };
        let raft = server.raft.as_mut().expect("runs");
        let result = f(raft, &mut cx);
        for effect in effects {
            self.perform(at, effect);
        }
        self.audit(at);
        if let Some((deadline, _)) = self.servers[at].timers.next() {
            let wake_at = self.true_time(at, deadline).max(self.now);
            if wake_at < self.servers[at].wake_at {
                self.servers[at].wake_at = wake_at;
                self.schedule(wake_at, at, Event::Wake);
            }
        }
        result
    }

    /// Whether a follower says that it has everything that is committed by now.
    fn calls_itself_new(&self, at: usize) -> bool {
        let now = self.local(at, self.now);
        let raft = self.servers[at].raft.as_ref().expect("runs");
        raft.role() == Role::Follower && raft.as_of(now) == Some(now)
    }

    fn perform(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(at, position(to), message),
            Effect::Persist { token, records } => self.write(at, token, records),
            Effect::Commit { entries } => self.apply(at, &entries),
            Effect::ReadReady { ticket, index } => {
                let server = &mut self.servers[at];
                let committed = server.reads.remove(&ticket).expect("one answer for each read");
                assert!(
                    index >= committed,
                    "a read index includes what was committed before: {index} {committed}"
                );
                assert!(server.applied >= index, "a ready read can be answered");
                server.reads_done += 1;
            }
            Effect::ReadFailed { ticket } => {
                self.servers[at].reads.remove(&ticket).expect("one answer for each read");
            }
            Effect::ReadSnapshot { to, seq } => {
                // Three pieces: three bytes, three bytes, two bytes.
                let meta = self.servers[at].disk.checkpoint.clone();
                let bytes = self.servers[at].disk.checkpoint_state.to_le_bytes();
                let from = (seq as usize * 3).min(8);
                let piece = Bytes::copy_from_slice(&bytes[from..(from + 3).min(8)]);
                self.call(at, |raft, cx| raft.on_snapshot_data(cx, to, meta, seq, piece, seq == 2));
            }
            Effect::SnapshotData { meta, seq, data, last } => {
                let server = &mut self.servers[at];
                if seq == 0 {
                    server.arriving.clear();
                }
                server.arriving.extend_from_slice(&data);
                if last {
                    let state =
                        u64::from_le_bytes(server.arriving[..].try_into().expect("every piece, once"));
                    assert_eq!(state, self.auditor.state_at(meta.index), "a snapshot is of committed state");
                    let done = self.now + self.rng.below(50 * MS);
                    self.schedule(done, at, Event::Installed { meta, state });
                }
            }
            Effect::RoleChanged => {}
            Effect::Forgotten => unreachable!("no disk is lost here"),
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        for number in [self.now, from as u64, to as u64, message.term.0] {
            self.trace = audit::mix(self.trace, &number.to_le_bytes());
        }
        if self.cut.contains(&(from, to)) || to >= self.servers.len() {
            return;
        }
        let copies = if self.rng.below(1000) < self.weather.doubling { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.below(1000) >= self.weather.loss {
                // Most messages are quick, some take long: that reorders.
                let slow = if self.rng.below(16) == 0 { self.weather.delay * 4 } else { self.weather.delay };
                let at = self.now + MS / 20 + self.rng.below(slow);
                self.schedule(at, to, Event::Deliver { from, message: message.clone() });
            }
        }
    }

    fn write(&mut self, at: usize, token: PersistToken, records: Vec<Record>) {
        let took = MS / 20 + self.rng.below(self.weather.write);
        let server = &mut self.servers[at];
        server.disk.writing.push_back((token, records));
        server.disk.written_at = server.disk.written_at.max(self.now + took);
        let done = server.disk.written_at;
        self.schedule(done, at, Event::Written { token });
    }

    fn apply(&mut self, at: usize, entries: &[Entry]) {
        let before = self.auditor.committed();
        let server = &mut self.servers[at];
        let term = server.raft.as_ref().expect("runs").term();
        for entry in entries {
            assert_eq!(entry.index, server.applied.next(), "entries are applied in order, once");
            server.applied = entry.index;
            server.state = audit::apply(server.state, entry);
            self.auditor.applies(entry, server.state, term);
        }
        if self.auditor.committed() > before {
            // Whoever else may answer reads by its lease must know of this.
            for other in (0..self.servers.len()).filter(|other| *other != at) {
                assert!(!self.has_lease(other), "lease: {other} would serve stale reads, {at} committed");
            }
        }
        self.checkpoint(at);
    }

    fn checkpoint(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let is_due = server.applied.0 >= server.disk.checkpoint.index.0 + self.weather.checkpoint_every;
        if server.checkpointing || !is_due {
            return;
        }
        let Some(meta) = server.raft.as_ref().expect("runs").snapshot_meta(server.applied) else { return };
        if self.forced.is_none() {
            self.auditor.checkpoints(&meta);
        }
        server.checkpointing = true;
        let state = server.state;
        let done = self.now + self.rng.below(100 * MS);
        self.schedule(done, at, Event::Checkpointed { meta, state });
    }

    pub(crate) fn has_lease(&self, at: usize) -> bool {
        let now = self.local(at, self.now);
        self.servers[at].raft.as_ref().and_then(Raft::lease_until).is_some_and(|until| now < until)
    }

    fn audit(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let Some(raft) = &server.raft else { return };
        if raft.role() == Role::Leader && server.was_leader_in != raft.term().0 {
            self.auditor.leads(raft);
            server.was_leader_in = raft.term().0;
        }
        if self.has_lease(at) {
            let raft = self.raft(at);
            assert!(raft.ready(), "lease: only of a leader that knows all that is committed");
            assert!(raft.commit_index() >= self.auditor.committed(), "lease: {at} would serve stale reads");
            for other in (0..self.servers.len()).filter(|other| *other != at) {
                assert!(!self.has_lease(other), "lease: {at} and {other} at once");
            }
        }
    }

    /// Takes the next event. `false` if nothing will ever happen.
    pub(crate) fn step(&mut self) -> bool {
        let Some(Reverse(scheduled)) = self.queue.pop() else { return false };
        let Scheduled { at, to, life, event, .. } = scheduled;
        assert!(at >= self.now, "time never goes back");
        self.now = at;
        self.events += 1;
        let server = &mut self.servers[to];
        let is_of_this_life = server.life == life;
        if server.raft.is_none() && !matches!(event, Event::Restart) {
            return true;
        }
        if server.paused_until > at && !matches!(event, Event::Restart) {
            if is_of_this_life {
                let resume = server.paused_until;
                self.schedule(resume, to, event);
            }
            return true;
        }
        match event {
            // A link that is cut loses what is on it.
            Event::Deliver { from, .. } if self.cut.contains(&(from, to)) => {}
            Event::Deliver { from, message } => {
                let told = match &message.body {
                    Body::Append(append) => Some(append.commit),
                    _ => None,
                };
                let before = self.calls_itself_new(to);
                self.call(to, |raft, cx| raft.on_message(cx, id(from), message));
                if let Some(told) = told
                    && !before
                    && self.calls_itself_new(to)
                {
                    let raft = self.servers[to].raft.as_ref().expect("runs");
                    let reached = raft.commit_index();
                    assert!(
                        reached >= told,
                        "a follower is as new as what it has applied, not as the last sign of life: {reached} {told}"
                    );
                }
            }
            _ if !is_of_this_life => {}
            Event::Wake => self.wake(to),
            Event::Written { token } => {
                while self.servers[to].disk.writing.front().is_some_and(|(front, _)| *front <= token) {
                    let disk = &mut self.servers[to].disk;
                    let (_, records) = disk.writing.pop_front().unwrap();
                    records.into_iter().for_each(|record| disk.perform(record, &mut self.auditor));
                }
                self.call(to, |raft, cx| raft.on_persisted(cx, token));
            }
            Event::Checkpointed { meta, state } => {
                let keep = self.rng.below(20);
                let server = &mut self.servers[to];
                server.checkpointing = false;
                if meta.index > server.disk.checkpoint.index {
                    let keep_after = LogIndex(meta.index.0.saturating_sub(keep));
                    server.disk.checkpoint = meta.clone();
                    server.disk.checkpoint_state = state;
                    server.raft.as_mut().expect("runs").compact(meta, keep_after);
                }
            }
            Event::Installed { meta, state } => {
                let server = &mut self.servers[to];
                assert!(meta.index > server.applied, "an installation moves forward");
                server.disk.checkpoint = meta.clone();
                server.disk.checkpoint_state = state;
                server.state = state;
                server.applied = meta.index;
                self.call(to, |raft, cx| raft.on_snapshot_installed(cx, &meta));
            }
            Event::PeerDown { peer } => self.call(to, |raft, cx| raft.on_peer_down(cx, peer)),
            Event::Restart => {
                if self.servers[to].raft.is_none() {
                    self.start(to);
                }
            }
        }
        true
    }

    fn wake(&mut self, at: usize) {
        self.servers[at].wake_at = u64::MAX;
        let now = self.local(at, self.now);
        while let Some(timer) = self.servers[at].timers.pop_due(now) {
            let cx::Timer::Raft(timer) = timer else { unreachable!("only Raft runs here") };
            self.call(at, |raft, cx| raft.on_timer(cx, timer));
        }
        // Arms the wake-up for what is left.
        self.call(at, |_, _| ());
    }

    /// Runs for a while.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time.as_nanos() as u64;
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until a condition holds.
    ///
    /// # Panics
    /// If it does not within the limit.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut(&Cluster) -> bool,
    ) {
        let end = self.now + limit.as_nanos() as u64;
        while !condition(self) {
            let next = self.queue.peek().map_or(u64::MAX, |Reverse(next)| next.at);
            if next > end {
                panic!("not within {limit:?}: {what}; {}", self.summary());
            }
            self.step();
        }
    }

    /// Who is what, and how far.
    fn summary(&self) -> String {
        let of = |server: &Server| match &server.raft {
            Some(raft) => {
                let (role, commit, last) = (raft.role(), raft.commit_index(), raft.last_index());
                format!("{role:?} in term {}, committed {commit} of {last}", raft.term())
            }
            None => "down".to_owned(),
        };
        self.servers.iter().map(of).collect::<Vec<_>>().join("; ")
    }

    /// The process dies: what was being written is lost from some point on.
    pub(crate) fn crash(&mut self, at: usize) {
        let writing = std::mem::take(&mut self.servers[at].disk.writing);
        let records: Vec<Record> = writing.into_iter().flat_map(|(_, records)| records).collect();
        let done = usize::try_from(self.rng.below(records.len() as u64 + 1)).unwrap();
        let server = &mut self.servers[at];
        records.into_iter().take(done).for_each(|record| server.disk.perform(record, &mut self.auditor));
        server.disk.written_at = 0;
        server.raft = None;
        server.life += 1;
        server.paused_until = 0;
        server.reads.clear();
        server.was_leader_in = 0;
        // The operating system closes its connections, and the others see that.
        for other in 0..self.servers.len() {
            if other != at && !self.cut.contains(&(at, other)) && self.servers[other].raft.is_some() {
                self.schedule(self.now + MS, other, Event::PeerDown { peer: id(at) });
            }
        }
    }

    /// A server whose disk is busy.
    pub(crate) fn writing(&self) -> Option<usize> {
        self.servers.iter().position(|server| server.raft.is_some() && !server.disk.writing.is_empty())
    }

    /// Whether a server's disk is busy.
    pub(crate) fn is_writing(&self, at: usize) -> bool {
        !self.servers[at].disk.writing.is_empty()
    }

    pub(crate) fn restart_after(&mut self, at: usize, wait: u64) {
        self.schedule(self.now + wait, at, Event::Restart);
    }

    pub(crate) fn pause(&mut self, at: usize, time: u64) {
        self.servers[at].paused_until = self.now + time;
    }

    /// Cuts both directions between two sides.
    pub(crate) fn split(&mut self, side: &[usize]) {
        for a in 0..self.servers.len() {
            for b in 0..self.servers.len() {
                if side.contains(&a) != side.contains(&b) {
                    self.cut.insert((a, b));
                }
            }
        }
    }

    /// How long a server will wait for a leader yet, by its own clock.
    pub(crate) fn patience(&self, at: usize) -> Duration {
        let deadline = self.servers[at].timers.deadline(&cx::Timer::Raft(Timer::Election));
        deadline.map_or(Duration::MAX, |deadline| deadline.since(self.local(at, self.now)))
    }

    pub(crate) fn raft(&self, at: usize) -> &Raft {
        self.servers[at].raft.as_ref().expect("runs")
    }

    /// Running servers that believe to lead.
    pub(crate) fn leaders(&self) -> Vec<usize> {
        let leads =
            |at: &usize| self.servers[*at].raft.as_ref().is_some_and(|raft| raft.role() == Role::Leader);
        (0..self.servers.len()).filter(leads).collect()
    }

    /// The leader of the latest term that is ready.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leaders = self.leaders();
        leaders.into_iter().filter(|at| self.raft(*at).ready()).max_by_key(|at| self.raft(*at).term())
    }

    pub(crate) fn wait_for_leader(&mut self) -> usize {
        self.run_until(Duration::from_secs(20), "a leader", |cluster| cluster.leader().is_some());
        self.leader().unwrap()
    }

    /// Proposes at a server; the index if it took it.
    pub(crate) fn propose(&mut self, at: usize, payload: &[u8]) -> Option<LogIndex> {
        let payload = Bytes::copy_from_slice(payload);
        self.call(at, |raft, cx| raft.propose(cx, payload).ok())
    }

    /// Reads at a server, through a quorum.
    pub(crate) fn read(&mut self, at: usize) -> bool {
        self.ticket += 1;
        let ticket = self.ticket;
        let committed = self.auditor.committed();
        self.servers[at].reads.insert(ticket, committed);
        let asked = self.call(at, |raft, cx| raft.read_index(cx, ticket).is_ok());
        if !asked {
            self.servers[at].reads.remove(&ticket);
        }
        asked
    }

    pub(crate) fn reads_waiting(&self) -> usize {
        self.servers.iter().map(|server| server.reads.len()).sum()
    }
}

impl Server {
    /// A pause ends at once; what waited is handled soon.
    pub(crate) fn pause_ends(&mut self, now: u64) {
        self.paused_until = self.paused_until.min(now);
    }
}
