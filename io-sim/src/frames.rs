//! Connections for frames: made, accepted, broken, given up; and what is under way on them.
//!
//! As production has it: either end of a connection may send, each of two hosts may have made one, and a process is
//! told of a peer when its first connection comes up and when any of them is gone, which ends the other as well: so every
//! loss is told. What waits for a connection that is lost is lost with it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::ids::ServerId;
use proconsul_io_real::ports::WireEvent;

use crate::net::{Death, Fabric, HostId, State};
use crate::time::{nanos, sim_now, sim_sleep_until};

/// A peer's queue holds so many frames; with more the connection ends.
const QUEUE_MAX: usize = 1_024;
/// An attempt to connect is given up after this long.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// A connection does not outlive its link being cut, or its peer having no power, for longer than this.
const SILENCE_LIMIT: Duration = Duration::from_secs(8);
/// Datagrams that are held back arrive up to this much later.
const REORDER_MAX: Duration = Duration::from_millis(60);
/// Bytes of a packet without content.
const EMPTY_PACKET: usize = 60;

/// All frames and connections under way.
pub(crate) struct Frames {
    datagrams: bool,
    /// What is going to happen, by time and order of causation.
    events: BTreeMap<(u64, u64), Event>,
    next_seq: u64,
    next_connection: u64,
    /// Connections that at least one end believes in, or is making.
    connections: BTreeMap<u64, Connection>,
    /// Connections that a host believes in, by the host and its peer, in the order in which they came up there.
    links: BTreeMap<(HostId, HostId), Vec<u64>>,
    /// Connections that are being made, by who makes them and whom it wants.
    dials: BTreeMap<(HostId, ServerId), Dial>,
    /// What waits for a link to come back.
    stalled: BTreeMap<(HostId, HostId), VecDeque<Event>>,
}

struct Connection {
    /// Who made it, and whom with.
    ends: [HostId; 2],
    /// Which process of each end; zero is not known yet.
    lives: [u64; 2],
    /// Frames under way from each end.
    in_flight: [usize; 2],
    /// When the last of them arrives: nothing overtakes it.
    last_at: [u64; 2],
}

struct Dial {
    connection: u64,
    address: String,
    waiting: VecDeque<Bytes>,
}

#[derive(Clone)]
struct Event {
    from: HostId,
    to: HostId,
    connection: u64,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// «I want to connect with this agent.»
    Dial(ServerId),
    /// «You are connected.»
    Accept,
    /// «There is no such connection»: refused, or unknown since a restart.
    Reset,
    /// «I close this.» Nothing that was sent before comes after it.
    Close,
    /// A frame of a connection, or a datagram.
    Frame(Bytes),
    /// A datagram of gossip, to and from these ports.
    Gossip { ports: (u16, u16), bytes: Bytes },
    /// Nobody has answered the dial for this agent. Does not travel: `from` is told by its own clock.
    GiveUp(ServerId),
    /// The link has been cut, or `to` without power, for a while. Does not travel. `since` tells this cut or loss of
    /// power from others.
    Silence(Since),
}

#[derive(Clone, Copy)]
enum Since {
    Cut(u64),
    PowerLoss { life: u64 },
}

impl Event {
    /// Whether it is something of a connection, under way.
    fn travels(&self, from: HostId, to: HostId) -> bool {
        let travels = match self.kind {
            Kind::Dial(_) | Kind::Accept | Kind::Reset | Kind::Close | Kind::Frame(_) => true,
            Kind::Gossip { .. } | Kind::GiveUp(_) | Kind::Silence(_) => false,
        };
        travels && (self.from, self.to) == (from, to)
    }
}

impl Frames {
    pub(crate) fn new(datagrams: bool) -> Frames {
        Frames {
            datagrams,
            events: BTreeMap::new(),
            next_seq: 0,
            next_connection: 0,
            connections: BTreeMap::new(),
            links: BTreeMap::new(),
            dials: BTreeMap::new(),
            stalled: BTreeMap::new(),
        }
    }

    fn has_link(&self, at: HostId, peer: HostId, connection: u64) -> bool {
        self.links.get(&(at, peer)).is_some_and(|links| links.contains(&connection))
    }

    /// The connection and the direction of it that leads away from a host.
    fn direction(&mut self, connection: u64, from: HostId) -> Option<(&mut Connection, usize)> {
        let connection = self.connections.get_mut(&connection)?;
        let end = usize::from(connection.ends[0] != from);
        Some((connection, end))
    }

    /// Forgets a connection that neither end believes in nor makes.
    fn tidy(&mut self, id: u64) {
        if let Some(Connection { ends: [a, b], .. }) = self.connections.get(&id) {
            let (a, b) = (*a, *b);
            let dialled = self.dials.values().any(|dial| dial.connection == id);
            if !dialled && !self.has_link(a, b, id) && !self.has_link(b, a, id) {
                self.connections.remove(&id);
            }
        }
    }
}

impl Fabric {
    /// Resets every connection for frames between two hosts, as a firewall does: both ends are told at once.
    pub fn reset_connections(&self, a: HostId, b: HostId) {
        let mut state = self.lock();
        for (at, peer) in [(a, b), (b, a)] {
            state.lose_links(at, peer, |_| true);
        }
    }

    /// Breaks one of the connections that a host believes in, at that end only: the other end is told by what follows.
    #[cfg(test)]
    pub(crate) fn reset_one_connection(&self, at: HostId, peer: HostId, which: usize) {
        let mut state = self.lock();
        let id = state.frames.links[&(at, peer)][which];
        state.send_reset(at, peer, id);
        state.lose_links(at, peer, |it| it == id);
    }

    /// Lets everything happen at its time.
    pub(crate) async fn carry_frames(self) {
        loop {
            let next = self.lock().frames.events.first_key_value().map(|((at, _), _)| *at);
            match next {
                None => self.due().notified().await,
                Some(at) if at <= sim_now() => {
                    let (_, event) = self.lock().frames.events.pop_first().expect("it was there");
                    self.happen(event);
                }
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = self.due().notified() => {}
                        () = sim_sleep_until(at) => {}
                    }
                }
            }
        }
    }

    fn happen(&self, event: Event) {
        match &event.kind {
            Kind::Frame(bytes) => self.trace().record("frame", event.to, bytes),
            Kind::Gossip { bytes, .. } => self.trace().record("datagram", event.to, bytes),
            Kind::Dial(_) | Kind::Accept | Kind::Reset | Kind::Close | Kind::GiveUp(_) | Kind::Silence(_) => {
            }
        }
        self.lock().happen(event);
    }
}

impl State {
    /// Sends a frame as [`proconsul_io_real::ports::Wire::send`] says.
    pub(crate) fn send(&mut self, from: HostId, to: ServerId, address: &str, frame: Bytes) {
        let known = self.host_of_agent(to);
        if self.frames.datagrams {
            // As the greeting of a connection sees to: another agent at the address hears nothing.
            let target = known.filter(|host| address.is_empty() || self.host_at(address) == Some(*host));
            if let Some(target) = target {
                self.send_frame_alone(from, target, &frame);
            }
            return;
        }
        let link = known.and_then(|peer| Some((peer, *self.frames.links.get(&(from, peer))?.first()?)));
        if let Some((peer, connection)) = link {
            return self.transmit(from, peer, connection, frame);
        }
        let dial = self.frames.dials.get_mut(&(from, to));
        match dial {
            Some(dial) if address.is_empty() || dial.address == address => {
                if dial.waiting.len() < QUEUE_MAX {
                    dial.waiting.push_back(frame);
                } else {
                    let connection = dial.connection;
                    self.end_dial(from, to, connection);
                }
            }
            Some(_) | None if address.is_empty() => {}
            Some(_) | None => self.dial(from, to, address, frame),
        }
    }

    fn dial(&mut self, from: HostId, to: ServerId, address: &str, frame: Bytes) {
        self.frames.next_connection += 1;
        let id = self.frames.next_connection;
        let mut dial = Dial { connection: id, address: address.to_owned(), waiting: VecDeque::new() };
        if let Some(former) = self.frames.dials.remove(&(from, to)) {
            dial.waiting = former.waiting;
            self.frames.tidy(former.connection);
        }
        dial.waiting.push_back(frame);
        self.frames.dials.insert((from, to), dial);
        if let Some(target) = self.host_at(address) {
            let connection = Connection {
                ends: [from, target],
                lives: [self.host(from).life, 0],
                in_flight: [0; 2],
                last_at: [sim_now(); 2],
            };
            self.frames.connections.insert(id, connection);
            self.send_in_order(Event { from, to: target, connection: id, kind: Kind::Dial(to) });
        }
        let give_up = Event { from, to: from, connection: id, kind: Kind::GiveUp(to) };
        self.schedule(sim_now() + nanos(DIAL_LIMIT), give_up);
    }

    /// Sends a frame over a connection that `from` believes in.
    fn transmit(&mut self, from: HostId, to: HostId, connection: u64, frame: Bytes) {
        let Some((state, end)) = self.frames.direction(connection, from) else { return };
        if state.in_flight[end] < QUEUE_MAX {
            state.in_flight[end] += 1;
            self.send_in_order(Event { from, to, connection, kind: Kind::Frame(frame) });
        } else {
            self.send_reset(from, to, connection);
            self.lose_links(from, to, |id| id == connection);
        }
    }

    fn send_frame_alone(&mut self, from: HostId, to: HostId, frame: &Bytes) {
        let kind = Kind::Frame(frame.clone());
        self.send_alone(Event { from, to, connection: 0, kind }, frame.len());
    }

    /// Sends a datagram of gossip.
    pub(crate) fn send_gossip(&mut self, from: (HostId, u16), to: (HostId, u16), bytes: Bytes) {
        let len = bytes.len();
        let kind = Kind::Gossip { ports: (from.1, to.1), bytes };
        self.send_alone(Event { from: from.0, to: to.0, connection: 0, kind }, len);
    }

    /// Sends something that may be lost, overtaken and repeated.
    fn send_alone(&mut self, event: Event, len: usize) {
        let (from, to) = (event.from, event.to);
        let quality = self.quality(from, to);
        let copies = if self.chance(quality.duplicate_ppm) { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance(quality.loss_ppm) {
                continue;
            }
            let mut latency = self.latency(from, to, len);
            if self.chance(quality.reorder_ppm) {
                latency += self.rng.duration_below(REORDER_MAX);
            }
            self.schedule(sim_now() + nanos(latency), event.clone());
        }
    }

    /// Sends along a connection: nothing overtakes what was sent before.
    fn send_in_order(&mut self, event: Event) {
        let len = if let Kind::Frame(bytes) = &event.kind { bytes.len() } else { EMPTY_PACKET };
        let latency = self.connected_latency(event.from, event.to, len);
        let mut at = sim_now() + nanos(latency);
        if let Some((connection, end)) = self.frames.direction(event.connection, event.from) {
            at = at.max(connection.last_at[end]);
            connection.last_at[end] = at;
        }
        self.schedule(at, event);
    }

    fn send_reset(&mut self, from: HostId, to: HostId, connection: u64) {
        let latency = self.connected_latency(from, to, EMPTY_PACKET);
        self.schedule(sim_now() + nanos(latency), Event { from, to, connection, kind: Kind::Reset });
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.frames.next_seq += 1;
        self.frames.events.insert((at, self.frames.next_seq), event);
    }

    fn happen(&mut self, event: Event) {
        let Event { from, to, connection, ref kind } = event;
        match *kind {
            Kind::GiveUp(wanted) => return self.end_dial(from, wanted, connection),
            Kind::Silence(since) => return self.notice_silence(from, to, since),
            Kind::Dial(_)
            | Kind::Accept
            | Kind::Reset
            | Kind::Close
            | Kind::Frame(_)
            | Kind::Gossip { .. } => {}
        }
        if self.is_cut(from, to) {
            // What travels by itself is gone.
            if event.travels(from, to) && !self.frames.datagrams {
                self.frames.stalled.entry((from, to)).or_default().push_back(event);
            }
            return;
        }
        if let (Kind::Frame(_), Some((sender, end))) = (kind, self.frames.direction(connection, from)) {
            sender.in_flight[end] = sender.in_flight[end].saturating_sub(1);
        }
        if !self.host(to).powered {
            return;
        }
        match event.kind {
            // A process that has only just started does not listen yet.
            Kind::Dial(wanted) if self.host(to).inbox.is_some() && self.host(to).server == Some(wanted) => {
                self.accept(from, to, connection);
            }
            Kind::Dial(_) => self.send_reset(to, from, connection),
            Kind::Accept => self.accepted(from, to, connection),
            Kind::Reset | Kind::Close => {
                let wanted =
                    self.frames.dials.iter().find(|(key, dial)| key.0 == to && dial.connection == connection);
                match wanted.map(|((_, wanted), _)| *wanted) {
                    Some(wanted) => self.end_dial(to, wanted, connection),
                    None => self.lose_links(to, from, |id| id == connection),
                }
            }
            Kind::Frame(bytes) => {
                if self.frames.datagrams || self.frames.has_link(to, from, connection) {
                    self.tell(to, from, |peer| WireEvent::Frame(peer, bytes));
                } else {
                    self.send_reset(to, from, connection);
                }
            }
            Kind::Gossip { ports, bytes } => self.deliver_gossip(from, to, ports, bytes),
            Kind::GiveUp(_) | Kind::Silence(_) => unreachable!("handled above: they do not travel"),
        }
    }

    /// A dial arrives at a process that takes it.
    fn accept(&mut self, from: HostId, to: HostId, id: u64) {
        let life = self.host(to).life;
        // The dial was given up, and all about it is forgotten: this end finds out by its answer.
        let caller_life = self.host(from).life;
        let connection = self.frames.connections.entry(id).or_insert(Connection {
            ends: [from, to],
            lives: [caller_life, life],
            in_flight: [0; 2],
            last_at: [sim_now(); 2],
        });
        connection.lives[1] = life;
        // First, for what waits here goes over it at once.
        self.send_in_order(Event { from: to, to: from, connection: id, kind: Kind::Accept });
        self.link(to, from, id);
    }

    /// The answer to a dial arrives at the process that made it, or at its successor.
    fn accepted(&mut self, from: HostId, to: HostId, id: u64) {
        let dial = self.frames.dials.iter().find(|(key, dial)| key.0 == to && dial.connection == id);
        let Some(key) = dial.map(|(key, _)| *key) else { return self.send_reset(to, from, id) };
        let waiting = self.frames.dials.remove(&key).map(|dial| dial.waiting).unwrap_or_default();
        self.link(to, from, id);
        for frame in waiting {
            self.transmit(to, from, id, frame);
        }
    }

    /// A connection has come up at one end.
    fn link(&mut self, at: HostId, peer: HostId, id: u64) {
        // Connections with a former process of the peer lead nowhere, whether that was noticed or not.
        let life_of = |state: &State, id: u64| {
            let connection = state.frames.connections.get(&id);
            connection.map(|it| it.lives[usize::from(it.ends[0] != peer)])
        };
        let life = life_of(self, id);
        let former: Vec<u64> = self.frames.links.get(&(at, peer)).cloned().unwrap_or_default();
        let former: Vec<u64> = former.into_iter().filter(|it| life_of(self, *it) != life).collect();
        self.lose_links(at, peer, |id| former.contains(&id));
        let links = self.frames.links.entry((at, peer)).or_default();
        links.push(id);
        if links.len() == 1 {
            self.tell(at, peer, |id| WireEvent::Up(id, None));
        }
        // What waits for a connection that is still being made need not wait longer.
        let waiting = self
            .host(peer)
            .server
            .and_then(|wanted| self.frames.dials.get_mut(&(at, wanted)))
            .map(|dial| std::mem::take(&mut dial.waiting));
        for frame in waiting.unwrap_or_default() {
            self.transmit(at, peer, id, frame);
        }
    }

    /// An attempt to connect has failed.
    fn end_dial(&mut self, from: HostId, wanted: ServerId, connection: u64) {
        let key = (from, wanted);
        if self.frames.dials.get(&key).is_none_or(|dial| dial.connection != connection) {
            return;
        }
        self.frames.dials.remove(&key);
        self.frames.tidy(connection);
        let has_links = self
            .host_of_agent(wanted)
            .is_some_and(|peer| self.frames.links.get(&(from, peer)).is_some_and(|links| !links.is_empty()));
        if !has_links && let Some(inbox) = &self.host(from).inbox {
            // The process may have ended without having been told so: its inbox leads nowhere.
            let _ = inbox.send(WireEvent::Down(wanted));
        }
    }

    /// One end does not believe in some of its connections any more.
    fn lose_links(&mut self, at: HostId, peer: HostId, lost: impl Fn(u64) -> bool) {
        let key = (at, peer);
        if !self.frames.links.get(&key).is_some_and(|links| links.iter().any(|id| lost(*id))) {
            return;
        }
        let links = self.frames.links.remove(&key).unwrap_or_default();
        self.tell(at, peer, WireEvent::Down);
        for id in links {
            if !lost(id) {
                self.send_reset(at, peer, id);
            }
            self.frames.tidy(id);
        }
    }

    /// Nobody believes in a connection with this host any more, and what is under way to it is gone.
    pub(crate) fn lose_links_to(&mut self, host: HostId) {
        self.frames.events.retain(|_, event| event.to != host || !matches!(event.kind, Kind::Frame(_)));
        let peers: Vec<HostId> =
            self.frames.links.keys().filter(|(_, peer)| *peer == host).map(|(at, _)| *at).collect();
        for at in peers {
            self.lose_links(at, host, |_| true);
        }
    }

    /// Tells the process on `host`, if there is one, something about `peer`.
    fn tell(&mut self, host: HostId, peer: HostId, event: impl FnOnce(ServerId) -> WireEvent) {
        let Some(peer) = self.host(peer).server else { return };
        if let Some(inbox) = &self.host(host).inbox {
            // The process may have ended without having been told so: its inbox leads nowhere.
            let _ = inbox.send(event(peer));
        }
    }

    /// A link has been cut just now: if it stays so, both ends notice.
    pub(crate) fn watch_cut(&mut self, from: HostId, to: HostId, cut: u64) {
        let kind = Kind::Silence(Since::Cut(cut));
        self.schedule(sim_now() + nanos(SILENCE_LIMIT), Event { from, to, connection: 0, kind });
    }

    fn notice_silence(&mut self, a: HostId, b: HostId, since: Since) {
        match since {
            Since::Cut(cut) if self.is_same_cut(a, b, cut) => {
                self.lose_links(a, b, |_| true);
                self.lose_links(b, a, |_| true);
            }
            Since::Cut(_) => {}
            Since::PowerLoss { life } => {
                let peers: Vec<_> =
                    self.frames.links.keys().filter(|(_, peer)| *peer == b).copied().collect();
                for (at, peer) in peers {
                    let dead: Vec<_> = self
                        .frames
                        .connections
                        .iter()
                        .filter(|(_, it)| {
                            it.ends.iter().zip(it.lives).any(|(end, of)| *end == b && of <= life)
                        })
                        .map(|(id, _)| *id)
                        .collect();
                    self.lose_links(at, peer, |id| dead.contains(&id));
                }
            }
        }
    }

    /// A link is back: what waited for it arrives, unless its connection was given up.
    pub(crate) fn release_stalled(&mut self, from: HostId, to: HostId) {
        let Some(queue) = self.frames.stalled.remove(&(from, to)) else { return };
        let now = sim_now();
        let resent = self.connected_latency(from, to, EMPTY_PACKET)
            + self.rng.duration_below(Duration::from_millis(200));
        let at = now + nanos(resent);
        for connection in self.frames.connections.values_mut() {
            if let Some(end) = connection.ends.iter().position(|end| *end == from)
                && connection.ends[1 - end] == to
            {
                connection.last_at[end] = connection.last_at[end].max(at);
            }
        }
        // What was sent later, and happens to be under way, must not overtake what is sent again.
        let early: Vec<_> =
            self.frames.events.range(..(at, 0)).filter(|(_, it)| it.travels(from, to)).collect();
        let early: Vec<_> = early.into_iter().map(|(key, _)| *key).collect();
        let early: Vec<_> = early.into_iter().filter_map(|key| self.frames.events.remove(&key)).collect();
        for event in queue.into_iter().chain(early) {
            self.schedule(at, event);
        }
    }

    /// The process on `host` has ended.
    pub(crate) fn close_connections_of(&mut self, host: HostId, death: Death) {
        let mut mine: Vec<(HostId, u64)> = Vec::new();
        for ((at, peer), links) in &self.frames.links {
            if *at == host {
                mine.extend(links.iter().map(|id| (*peer, *id)));
            }
        }
        for ((at, _), dial) in &self.frames.dials {
            if *at == host
                && let Some(connection) = self.frames.connections.get(&dial.connection)
            {
                mine.push((connection.ends[1], dial.connection));
            }
        }
        if death == Death::Process {
            for (peer, connection) in &mine {
                self.send_in_order(Event {
                    from: host,
                    to: *peer,
                    connection: *connection,
                    kind: Kind::Close,
                });
            }
        }
        self.frames.links.retain(|(at, _), _| *at != host);
        self.frames.dials.retain(|(at, _), _| *at != host);
        for (_, connection) in mine {
            self.frames.tidy(connection);
        }
        if death == Death::Power {
            let kind = Kind::Silence(Since::PowerLoss { life: self.host(host).life });
            self.schedule(
                sim_now() + nanos(SILENCE_LIMIT),
                Event { from: host, to: host, connection: 0, kind },
            );
        }
    }
}
