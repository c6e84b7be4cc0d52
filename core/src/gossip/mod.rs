//! Gossip: who is there, who has failed, what is to be told to everybody.
//!
//! SWIM (Das, Gupta, Motivala 2002) with the extensions of Lifeguard (Dadgar, Phillips, Currey 2017), and above it
//! lamport-clocked intents, user events and queries. One machine is one pool: agents have one for their datacenter
//! (LAN), servers a second one that spans datacenters (WAN).
//!
//! | concept | file |
//! |---|---|
//! | who is known | `member`, `table` |
//! | finding failures | `probe`, `round`, `awareness`, `suspicion` |
//! | what is claimed of members, and who wins | `claims`, `conflict` |
//! | telling everybody | `broadcast`, `pacing`, `packet` |
//! | exchanging everything | `push_pull`, `digest`, `join` |
//! | coming and going | `intents`, `leave`, `reap` |
//! | events and questions | `events`, `queries`, `keys`, `keyring` |

mod awareness;
mod broadcast;
mod claims;
mod config;
mod conflict;
mod digest;
mod events;
mod intents;
mod join;
mod keyring;
mod keys;
mod lamport;
mod leave;
mod member;
mod pacing;
mod packet;
mod probe;
mod push_pull;
mod queries;
mod reap;
mod round;
mod stats;
mod suspicion;
mod table;
#[cfg(test)]
mod tests;
mod timer;
mod types;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use config::{Config, Profile};
pub use keyring::{BadKey, BadSeal, Key, KeyRefused, Keyring, KeysChange, KeysReport, SEAL_BYTES};
pub use member::{MemberInfo, State};
pub use packet::{PACKET_BYTES_MAX, STREAM_BYTES_MAX, VERSION};
pub use stats::{Dropped, Gauges, Stats};
pub use timer::Timer;
pub use types::{
    CallError, Clocks, EVENT_BYTES_MAX, EVENT_ENCODED_BYTES_MAX, Effect, EventTooBig, META_BYTES_MAX, Member,
    MemberChange, Pool, Status, UserEvent, tag,
};

use self::awareness::Awareness;
use self::broadcast::{Queue, Topic};
use self::conflict::Conflicts;
use self::events::Events;
use self::intents::Intents;
use self::join::{Joining, Known, Purpose};
use self::keys::KeysWanted;
use self::leave::Leaving;
use self::member::Millis;
use self::pacing::Pacer;
use self::packet::{Alive, BODY_BYTES_MAX, Message, Messages, PLAIN, SEALED, checked, encode, label, plain};
use self::probe::Probes;
use self::queries::Queries;
use self::suspicion::Suspicion;
use self::table::{Slot, Table};
use crate::Text;
use crate::coordinate::{Coordinate, Vivaldi};
use crate::cx::{self, Cx};
use crate::rng::Rng;
use crate::time::{Mono, Now};

/// A broadcast waits this long for others to go with it, when none was sent for a while.
const GATHER: Duration = Duration::from_millis(10);

/// One member's part in one pool.
#[derive(Debug)]
pub struct Gossip {
    pool: Pool,
    config: Config,
    rng: Rng,
    /// This member; never vacant, never suspected or dead.
    me: Slot,
    table: Table,
    awareness: Awareness,
    probes: Probes,
    /// Of exactly those members that are suspected.
    suspicions: BTreeMap<Slot, Suspicion>,
    queue: Queue,
    pacer: Pacer,
    /// When broadcasts were sent last.
    gossiped: Option<Mono>,
    /// Streams under way, and why.
    calls: BTreeMap<u64, Purpose>,
    next_call: u64,
    joins: BTreeMap<u64, Joining>,
    known: Known,
    intents: Intents,
    events: Events,
    queries: Queries,
    conflicts: Conflicts,
    ring: Keyring,
    /// Lamport time of the last change of the ring; zero: as configured.
    ring_time: u64,
    /// Packets that could not be opened when the ring was asked for last, and when.
    unopened: (u64, Option<Mono>),
    keys_wanted: BTreeMap<u64, KeysWanted>,
    leaving: Leaving,
    vivaldi: Vivaldi,
    /// Where the others say they are, as far as they were asked; kept in the pool of servers only.
    located: BTreeMap<Text, Coordinate>,
    stats: Stats,
}

impl Gossip {
    /// A member that knows nobody yet. `known` are addresses saved by an earlier run; [`Gossip::start`] tries them.
    #[must_use]
    pub fn new(pool: Pool, config: Config, known: Vec<SocketAddr>, rng: Rng, now: Now) -> Gossip {
        Gossip::with_table(pool, config, Table::default(), known, rng, now)
    }

    /// A member that knows all of these from the start, for simulations. Nothing is said of them by
    /// [`Effect::Member`]. Members with the same roster share it in memory until their beliefs differ.
    #[must_use]
    pub fn with_members(pool: Pool, config: Config, members: &Roster, rng: Rng, now: Now) -> Gossip {
        let mut gossip = Gossip::with_table(pool, config, members.0.clone(), Vec::new(), rng, now);
        gossip.events.belong();
        gossip
    }

    fn with_table(
        pool: Pool,
        config: Config,
        mut table: Table,
        known: Vec<SocketAddr>,
        mut rng: Rng,
        now: Now,
    ) -> Gossip {
        let me = table.find(&config.name).unwrap_or_else(|| {
            let info = MemberInfo::new(config.name.clone(), config.address, config.tags.clone());
            table.insert(Arc::new(info), 1, State::Alive, Millis::at(now.mono))
        });
        let first_seq = rng.next_u64() as u32;
        Gossip {
            pool,
            me,
            awareness: Awareness::new(config.lifeguard),
            probes: Probes::new(first_seq),
            suspicions: BTreeMap::new(),
            queue: Queue::default(),
            pacer: Pacer::new(config.profile.bytes_per_second, now.mono),
            gossiped: None,
            calls: BTreeMap::new(),
            next_call: 0,
            joins: BTreeMap::new(),
            known: Known::new(known),
            intents: Intents::default(),
            events: Events::default(),
            queries: Queries::default(),
            conflicts: Conflicts::default(),
            ring: Keyring::new(config.keys.clone()),
            ring_time: 0,
            unopened: (0, None),
            keys_wanted: BTreeMap::new(),
            leaving: Leaving::No,
            vivaldi: Vivaldi::new(rng.fork(1)),
            located: BTreeMap::new(),
            stats: Stats::default(),
            table,
            rng,
            config,
        }
    }

    /// Lamport times go on above these, which an earlier run saved; to be called before [`Gossip::start`]. Whoever began
    /// anew would fire events that members which stayed take for long gone.
    pub fn resume(&mut self, clocks: Clocks) {
        // Absurd times were never reached by counting, and are left.
        let _ = self.intents.clock.witness(clocks.member);
        let _ = self.events.clock.witness(clocks.event);
        let _ = self.queries.clock.witness(clocks.query);
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            member: self.intents.clock.time(),
            event: self.events.clock.time(),
            query: self.queries.clock.time(),
        }
    }

    /// The first step: announces this member, arms timers, tries the known addresses.
    pub fn start(&mut self, cx: &mut Cx<'_, Effect>) {
        self.tell(cx, self.me);
        self.intents.clock.tick();
        self.events.clock.tick();
        self.queries.clock.tick();
        self.begin_work(cx);
        self.rejoin(cx);
    }

    /// A datagram came. It may be anything; what is no good is counted and dropped.
    pub fn on_datagram(&mut self, cx: &mut Cx<'_, Effect>, from: SocketAddr, bytes: &[u8]) {
        self.stats.packets_received += 1;
        self.stats.bytes_received += bytes.len() as u64;
        if !self.listens_to(from) {
            return;
        }
        let Some((body, sealed)) = self.open(bytes, PACKET_BYTES_MAX) else {
            return self.on_unopened(cx, from);
        };
        for message in (Messages { rest: &body[1..] }) {
            let Ok(message) = message else {
                self.stats.dropped.malformed += 1;
                return;
            };
            self.on_message(cx, from, message, sealed);
        }
    }

    /// Whether anything is taken from an address.
    fn listens_to(&mut self, from: SocketAddr) -> bool {
        let listens = self.config.allows(from.ip());
        self.stats.dropped.outside += u64::from(!listens);
        listens
    }

    /// A deadline came.
    pub fn on_timer(&mut self, cx: &mut Cx<'_, Effect>, timer: Timer) {
        match timer {
            Timer::Gossip => self.on_gossip(cx),
            Timer::PingLate => self.on_ping_late(cx),
            Timer::Relay(seq) => self.on_relay_late(cx, seq),
            Timer::Probe => self.on_probe(cx),
            Timer::Suspicion(slot) => self.on_suspicion_over(cx, slot),
            Timer::PushPull => self.on_push_pull(cx),
            Timer::Query(id) => self.on_query_timer(cx, id),
            Timer::Leave => self.on_leave_over(cx),
            Timer::Reap => self.on_reap(cx),
            Timer::Reconnect => self.on_reconnect(cx),
            Timer::SaveKnown => self.on_save_known(cx),
        }
    }

    /// Replaces what this member tells about itself.
    ///
    /// # Panics
    /// The tags' encoding exceeds [`META_BYTES_MAX`].
    pub fn set_tags(&mut self, cx: &mut Cx<'_, Effect>, tags: BTreeMap<Text, Text>) {
        if self.config.tags == tags {
            return;
        }
        self.config.tags.clone_from(&tags);
        let info = MemberInfo::new(self.config.name.clone(), self.config.address, tags);
        self.table.set_info(self.me, Arc::new(info));
        let (state, incarnation) = (self.table.at(self.me).state, self.incarnation().saturating_add(1));
        self.table.set_state(self.me, state, incarnation, Millis::at(cx.mono()));
        self.tell(cx, self.me);
        self.announce(cx);
    }

    /// One member by name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Member> {
        self.table.find(name).map(|slot| self.table.at(slot).member())
    }

    /// All members that are not forgotten, this one included, in the order of their names.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.table.by_name().map(member::Entry::member)
    }

    /// What SWIM itself believes of a member, for auditors.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<State> {
        self.table.find(name).map(|slot| self.table.at(slot).state)
    }

    /// The keys, the one that seals first; empty when nothing is sealed.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.ring.list()
    }

    /// Where this member is in the space of round-trip times.
    #[must_use]
    pub fn coordinate(&self) -> &Coordinate {
        self.vivaldi.get()
    }

    /// Where other members of the pool of servers said they are when they were last probed.
    #[must_use]
    pub fn located(&self) -> &BTreeMap<Text, Coordinate> {
        &self.located
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let left = self.table.gone().filter(|slot| self.table.at(*slot).status() == Status::Left).count();
        Stats {
            alive: self.table.alive(),
            failed: self.table.len() - self.table.alive() - left,
            left,
            gauges: self.gauges(),
            incarnation: self.incarnation(),
            ..self.stats.clone()
        }
    }

    /// How the pool is at the moment.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let (member_queue, event_queue) = self.queue.len();
        Gauges {
            health_score: self.awareness.score(),
            member_queue,
            event_queue,
            member_time: self.intents.clock.time(),
            event_time: self.events.clock.time(),
            query_time: self.queries.clock.time(),
            encrypted: !self.ring.is_empty(),
        }
    }

    fn on_message(&mut self, cx: &mut Cx<'_, Effect>, from: SocketAddr, message: Message<'_>, sealed: bool) {
        match message {
            Message::Ping { seq, target } => self.on_ping(cx, from, seq, target),
            Message::PingRequest { seq, target, address } => {
                self.on_ping_request(cx, from, seq, target, address)
            }
            Message::Ack { seq, coordinate } => self.on_ack(cx, seq, coordinate),
            Message::Nack { seq } => self.on_nack(seq),
            Message::Verify { target } => self.on_verify(cx, target),
            Message::Alive(alive) => self.on_alive(cx, &alive),
            Message::Suspect { incarnation, name, from, refused } => {
                self.on_suspect(cx, incarnation, name, from, refused);
            }
            Message::Dead { incarnation, name, from } => self.on_dead(cx, incarnation, name, from),
            Message::Join { time, name } => self.on_join_intent(cx, time, name),
            Message::Leave { time, name, prune } => self.on_leave_intent(cx, time, name, prune),
            Message::Event(event) => self.on_event_told(cx, &event),
            Message::Query { time, id, from, address, ask } => {
                self.on_query(cx, queries::Question { time, id, from, address, ask }, sealed);
            }
            Message::Answer { id, from, reply } => self.on_query_answer(cx, id, from, &reply, sealed),
        }
    }

    /// Tells everybody, and starts to, if nothing was being told.
    fn broadcast(&mut self, cx: &mut Cx<'_, Effect>, topic: Topic, message: &Message<'_>) {
        let message = encode(message, Vec::with_capacity(64));
        if message.len() >= BODY_BYTES_MAX {
            // Only packets that were not made by a member hold such messages: they would wait for room for ever.
            self.stats.dropped.oversized += 1;
            return;
        }
        self.queue.push(topic, Bytes::from(message));
        if self.deadline(cx, Timer::Gossip).is_none() {
            let soonest = cx.mono() + GATHER;
            let next = self
                .gossiped
                .map_or(soonest, |last| (last + self.config.profile.gossip_interval).max(soonest));
            self.arm(cx, Timer::Gossip, next);
        }
    }

    fn on_gossip(&mut self, cx: &mut Cx<'_, Effect>) {
        let now = cx.mono();
        self.gossiped = Some(now);
        let (me, remembered) = (self.me, self.config.profile.gossip_to_dead);
        let targets = self.table.random(&mut self.rng, self.config.profile.gossip_nodes, |slot, entry| {
            slot != me
                && match entry.state {
                    State::Alive | State::Suspect => true,
                    State::Dead => entry.since.age(now) < remembered,
                    State::Left => false,
                }
        });
        if targets.is_empty() && self.table.alive() <= 1 {
            // Nobody is there; who comes later learns it from the exchange of state.
            self.queue = Queue::default();
        }
        for slot in targets {
            let to = self.table.at(slot).info.address;
            let mut body = vec![label(self.pool)];
            self.piggyback(cx, &mut body);
            if body.len() > 1 {
                self.send_body(cx, to, &body);
            }
        }
        if !self.queue.is_empty() {
            self.arm(cx, Timer::Gossip, now + self.config.profile.gossip_interval);
        }
        self.check_left(cx);
    }

    /// Sends one message, and broadcasts as far as there is room.
    fn send(&mut self, cx: &mut Cx<'_, Effect>, to: SocketAddr, message: &Message<'_>) {
        self.send_all(cx, to, core::slice::from_ref(message));
    }

    fn send_all(&mut self, cx: &mut Cx<'_, Effect>, to: SocketAddr, messages: &[Message<'_>]) {
        let mut body = vec![label(self.pool)];
        for message in messages {
            body = encode(message, body);
        }
        self.piggyback(cx, &mut body);
        self.send_body(cx, to, &body);
    }

    fn piggyback(&mut self, cx: &Cx<'_, Effect>, body: &mut Vec<u8>) {
        if self.queue.is_empty() || body.len() >= BODY_BYTES_MAX {
            return;
        }
        let room = (BODY_BYTES_MAX - body.len()).min(self.pacer.available(cx.mono()));
        let limit = self.config.profile.retransmit_limit(self.table.alive());
        let before = body.len();
        self.queue.fill(body, room, limit);
        self.pacer.spend(body.len() - before);
    }

    fn send_body(&mut self, cx: &mut Cx<'_, Effect>, to: SocketAddr, body: &[u8]) {
        let bytes = self.wrap(body, None);
        assert!(bytes.len() <= PACKET_BYTES_MAX, "a datagram of {} bytes", bytes.len());
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += bytes.len() as u64;
        cx.emit(Effect::Datagram { to, bytes });
    }

    /// A packet of this body; sealed with `key` instead of our own first one, if one is given.
    fn wrap(&mut self, body: &[u8], key: Option<&Key>) -> Bytes {
        if self.ring.is_empty() || !self.config.verify_outgoing {
            return Bytes::from(plain(body));
        }
        let sealed = match key {
            Some(key) if Some(key) != self.ring.primary() => {
                Keyring::new(vec![key.clone()]).seal(&mut self.rng, body, &[VERSION])
            }
            _ => self.ring.seal(&mut self.rng, body, &[VERSION]),
        };
        let mut packet = Vec::with_capacity(2 + sealed.len());
        packet.extend_from_slice(&[VERSION, SEALED]);
        packet.extend_from_slice(&sealed);
        Bytes::from(packet)
    }

    /// The body of a packet, its label included, and whether it was sealed.
    fn open<'a>(&mut self, bytes: &'a [u8], bytes_max: usize) -> Option<(Cow<'a, [u8]>, bool)> {
        let dropped = &mut self.stats.dropped;
        if bytes.len() > bytes_max {
            dropped.oversized += 1;
            return None;
        }
        let (body, sealed) = match bytes {
            [VERSION, PLAIN, rest @ ..] => {
                if !self.ring.is_empty() && self.config.verify_incoming {
                    dropped.plain += 1;
                    return None;
                }
                let Some(body) = checked(rest) else {
                    dropped.damaged += 1;
                    return None;
                };
                (Cow::Borrowed(body), false)
            }
            [VERSION, SEALED, sealed @ ..] => {
                if self.ring.is_empty() {
                    dropped.sealed += 1;
                    return None;
                }
                let Ok(body) = self.ring.open(sealed, &[VERSION]) else {
                    dropped.seal += 1;
                    return None;
                };
                (Cow::Owned(body), true)
            }
            [VERSION, ..] | [] => {
                dropped.malformed += 1;
                return None;
            }
            _ => {
                dropped.version += 1;
                return None;
            }
        };
        match body.first() {
            Some(byte) if *byte == label(self.pool) => Some((body, sealed)),
            Some(_) => {
                dropped.pool += 1;
                None
            }
            None => {
                dropped.malformed += 1;
                None
            }
        }
    }

    /// Opens a stream; what comes of it ends in `on_answer`.
    fn call(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        to: SocketAddr,
        body: &[u8],
        timeout: Duration,
        purpose: Purpose,
    ) {
        self.next_call += 1;
        let bytes = self.wrap(body, None);
        self.stats.streams_sent += 1;
        self.stats.stream_bytes_sent += bytes.len() as u64;
        self.calls.insert(self.next_call, purpose);
        cx.emit(Effect::Call { call: self.next_call, to, bytes, timeout });
    }

    /// Says outside what is believed of a member.
    fn tell(&mut self, cx: &mut Cx<'_, Effect>, slot: Slot) {
        cx.emit(Effect::Member(MemberChange::Upsert(self.table.at(slot).member())));
        self.known_changed(cx);
    }

    fn announce(&mut self, cx: &mut Cx<'_, Effect>) {
        self.broadcast_alive(cx, self.me);
    }

    fn broadcast_alive(&mut self, cx: &mut Cx<'_, Effect>, slot: Slot) {
        let entry = self.table.at(slot);
        let (info, incarnation) = (Arc::clone(&entry.info), entry.incarnation);
        let alive = Alive { incarnation, name: &info.name, address: info.address, meta: &info.meta };
        self.broadcast(cx, Topic::Member(slot), &Message::Alive(alive));
    }

    fn incarnation(&self) -> u32 {
        self.table.at(self.me).incarnation
    }

    /// Arms what runs as long as there is somebody else.
    fn begin_work(&mut self, cx: &mut Cx<'_, Effect>) {
        if self.table.alive() > 1 {
            if self.deadline(cx, Timer::Probe).is_none() {
                let delay = self.rng.duration_below(self.config.profile.probe_interval);
                self.arm_probe(cx, cx.mono() + delay);
            }
            if self.deadline(cx, Timer::PushPull).is_none() {
                let interval = self.config.profile.push_pull_interval_for(self.table.alive());
                let delay = self.rng.duration_below(interval);
                self.arm(cx, Timer::PushPull, cx.mono() + delay);
            }
        }
    }

    fn arm(&self, cx: &mut Cx<'_, Effect>, timer: Timer, at: Mono) {
        cx.timers.set(cx::Timer::Gossip(self.pool, timer), at);
    }

    fn disarm(&self, cx: &mut Cx<'_, Effect>, timer: Timer) {
        cx.timers.cancel(&cx::Timer::Gossip(self.pool, timer));
    }

    fn deadline(&self, cx: &Cx<'_, Effect>, timer: Timer) -> Option<Mono> {
        cx.timers.deadline(&cx::Timer::Gossip(self.pool, timer))
    }
}

/// Members that simulated members know from the start; a clone shares everything.
#[derive(Clone, Debug)]
pub struct Roster(Table);

impl Roster {
    /// All of these, alive. Their names differ.
    ///
    /// # Panics
    /// Two have the same name.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = Arc<MemberInfo>>) -> Roster {
        Roster(Table::of(members))
    }
}
