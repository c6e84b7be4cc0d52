//! Frames between servers.
//!
//! As a connection does it by default: in order, and lost only with the connection. A plan may have them travel as
//! datagrams instead, each for itself, lost or late, and Raft's own also twice; servers must survive both.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::ids::ServerId;
use proconsul_core::node::PeerMessage;
use proconsul_io_real::ports::{Wire, WireEvent};
use tokio::sync::mpsc;

use crate::net::{Death, Fabric, HostId, State};
use crate::time::{nanos, sim_now, sim_sleep_until};

/// A peer's queue holds so many frames; more are lost.
const QUEUE_MAX: usize = 1_024;
/// An attempt to connect is given up after this long.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// A connection does not outlive its link being cut for longer than this.
const STALL_LIMIT: Duration = Duration::from_secs(8);
/// Datagrams that are held back arrive up to this much later.
const REORDER_MAX: Duration = Duration::from_millis(60);

/// One server's end of the wire. Belongs to one life of its process.
pub struct SimWire {
    fabric: Fabric,
    host: HostId,
    life: u64,
    inbox: mpsc::UnboundedReceiver<WireEvent>,
}

/// All frames and connections under way.
pub(crate) struct Frames {
    datagrams: bool,
    /// What is going to happen, by time and order of causation.
    events: BTreeMap<(u64, u64), Event>,
    next_seq: u64,
    next_connection: u64,
    /// Connections by the host that made them and the one they lead to.
    connections: BTreeMap<(HostId, HostId), Connection>,
    /// Connections that a host has taken: to it, from whom, which one.
    taken: BTreeMap<(HostId, HostId), u64>,
    /// What waits for a link to come back, with the time it has waited since.
    stalled: BTreeMap<(HostId, HostId), VecDeque<(u64, Event)>>,
}

struct Connection {
    id: u64,
    open: bool,
    /// Frames until the connection is up.
    waiting: VecDeque<Bytes>,
    /// Frames under way.
    in_flight: usize,
    /// When the last of them arrives: nothing overtakes it.
    last_at: u64,
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
    /// «I want to connect.»
    Dial,
    /// «You are connected.»
    Accept,
    /// «There is no such connection»: refused, or unknown since a restart. Travels against the connection's direction.
    Reset,
    /// «I close this.» Travels in the connection's direction.
    Close,
    /// A frame of a connection, or a datagram.
    Frame(Bytes),
    /// Nobody has answered the dial. Does not travel: `from` is told by its own clock.
    GiveUp,
}

impl Event {
    fn travels(&self, from: HostId, to: HostId) -> bool {
        (self.from, self.to) == (from, to) && !matches!(self.kind, Kind::GiveUp)
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
            taken: BTreeMap::new(),
            stalled: BTreeMap::new(),
        }
    }
}

impl Fabric {
    /// The wire of the process that was started with this life's number.
    #[must_use]
    pub fn wire(&self, host: HostId, life: u64) -> SimWire {
        let (sender, inbox) = mpsc::unbounded_channel();
        self.lock().host_mut(host).inbox = Some(sender);
        SimWire { fabric: self.clone(), host, life, inbox }
    }

    /// Resets every connection for frames between two hosts, as a firewall does: both ends are told at once.
    pub fn reset_connections(&self, a: HostId, b: HostId) {
        let mut state = self.lock();
        state.reset_connection(a, b);
        state.reset_connection(b, a);
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
        if let Kind::Frame(bytes) = &event.kind {
            self.trace().record("frame", event.to, bytes);
        }
        self.lock().happen(event);
    }
}

/// Raft's messages may come twice. A forwarded request may not: a connection never repeats a frame, and the wire of
/// production has no other means.
fn may_come_twice(frame: &[u8]) -> bool {
    matches!(PeerMessage::decode(frame), Ok(PeerMessage::Raft(_)))
}

impl Wire for SimWire {
    fn send(&mut self, to: ServerId, address: &Text, frame: Bytes) {
        let target = HostId::of_address(address);
        let mut state = self.fabric.lock();
        let Some(target) = target.filter(|host| state.knows(*host)) else {
            drop(state);
            tracing::warn!(%to, %address, "no such host");
            return;
        };
        if state.host(self.host).life == self.life && state.host(self.host).running {
            state.send(self.host, target, frame);
            drop(state);
            self.fabric.due().notify_one();
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<WireEvent> {
        match self.inbox.poll_recv(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            // The host has no process any more.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl State {
    fn send(&mut self, from: HostId, to: HostId, frame: Bytes) {
        if self.frames.datagrams {
            return self.send_datagram(from, to, frame);
        }
        match self.frames.connections.get_mut(&(from, to)) {
            Some(connection) if connection.open => {
                if connection.in_flight < QUEUE_MAX {
                    connection.in_flight += 1;
                    let id = connection.id;
                    self.send_in_order(Event { from, to, connection: id, kind: Kind::Frame(frame) });
                }
            }
            Some(connection) => {
                if connection.waiting.len() < QUEUE_MAX {
                    connection.waiting.push_back(frame);
                }
            }
            None => self.dial(from, to, frame),
        }
    }

    fn dial(&mut self, from: HostId, to: HostId, first: Bytes) {
        self.frames.next_connection += 1;
        let id = self.frames.next_connection;
        let connection =
            Connection { id, open: false, waiting: [first].into(), in_flight: 0, last_at: sim_now() };
        self.frames.connections.insert((from, to), connection);
        self.send_in_order(Event { from, to, connection: id, kind: Kind::Dial });
        self.schedule(sim_now() + nanos(DIAL_LIMIT), Event { from, to, connection: id, kind: Kind::GiveUp });
    }

    fn send_datagram(&mut self, from: HostId, to: HostId, frame: Bytes) {
        let quality = self.quality(from, to);
        let copies = if self.chance(quality.duplicate_ppm) && may_come_twice(&frame) { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance(quality.loss_ppm) {
                continue;
            }
            let mut latency = self.latency(from, to, frame.len());
            if self.chance(quality.reorder_ppm) {
                latency += self.rng.duration_below(REORDER_MAX);
            }
            let event = Event { from, to, connection: 0, kind: Kind::Frame(frame.clone()) };
            self.schedule(sim_now() + nanos(latency), event);
        }
    }

    /// Sends along a connection's direction: nothing overtakes what was sent before.
    fn send_in_order(&mut self, event: Event) {
        let len = if let Kind::Frame(bytes) = &event.kind { bytes.len() } else { 60 };
        let latency = self.connected_latency(event.from, event.to, len);
        let mut at = sim_now() + nanos(latency);
        if let Some(connection) = self.frames.connections.get_mut(&(event.from, event.to)) {
            at = at.max(connection.last_at);
            connection.last_at = at;
        }
        self.schedule(at, event);
    }

    /// Sends against a connection's direction.
    fn send_back(&mut self, event: Event) {
        let latency = self.connected_latency(event.from, event.to, 60);
        self.schedule(sim_now() + nanos(latency), event);
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.frames.next_seq += 1;
        self.frames.events.insert((at, self.frames.next_seq), event);
    }

    fn happen(&mut self, event: Event) {
        let Event { from, to, connection, ref kind } = event;
        if let Kind::GiveUp = kind {
            if self.frames.connections.get(&(from, to)).is_some_and(|it| it.id == connection && !it.open) {
                self.lose_connection(from, to);
            }
            return;
        }
        if self.is_cut(from, to) {
            if !self.frames.datagrams {
                self.frames.stalled.entry((from, to)).or_default().push_back((sim_now(), event));
            }
            return;
        }
        if !self.host(to).powered {
            return;
        }
        match event.kind {
            Kind::Dial if self.host(to).running => {
                self.frames.taken.insert((to, from), connection);
                self.tell(to, from, WireEvent::Up);
                self.send_back(Event { from: to, to: from, connection, kind: Kind::Accept });
            }
            Kind::Dial => self.send_back(Event { from: to, to: from, connection, kind: Kind::Reset }),
            Kind::Accept => self.opened(to, from, connection),
            Kind::Reset => {
                if self.frames.connections.get(&(to, from)).is_some_and(|it| it.id == connection) {
                    self.lose_connection(to, from);
                }
            }
            Kind::Close => {
                if self.frames.taken.get(&(to, from)) == Some(&connection) {
                    self.frames.taken.remove(&(to, from));
                    self.tell(to, from, WireEvent::Down);
                }
            }
            Kind::Frame(bytes) if self.frames.datagrams => {
                self.tell(to, from, |peer| WireEvent::Frame(peer, bytes));
            }
            Kind::Frame(bytes) => {
                if let Some(sender) = self.frames.connections.get_mut(&(from, to))
                    && sender.id == connection
                {
                    sender.in_flight -= 1;
                }
                if self.frames.taken.get(&(to, from)) == Some(&connection) {
                    self.tell(to, from, |peer| WireEvent::Frame(peer, bytes));
                } else {
                    self.send_back(Event { from: to, to: from, connection, kind: Kind::Reset });
                }
            }
            Kind::GiveUp => unreachable!("handled above: it does not travel"),
        }
    }

    /// The other side has accepted a connection that `from` made.
    fn opened(&mut self, from: HostId, to: HostId, id: u64) {
        let Some(connection) =
            self.frames.connections.get_mut(&(from, to)).filter(|it| it.id == id && !it.open)
        else {
            return;
        };
        connection.open = true;
        connection.in_flight = connection.waiting.len();
        let waiting = std::mem::take(&mut connection.waiting);
        self.tell(from, to, WireEvent::Up);
        for frame in waiting {
            self.send_in_order(Event { from, to, connection: id, kind: Kind::Frame(frame) });
        }
    }

    /// A connection that `from` had made, or tried to, is gone.
    fn lose_connection(&mut self, from: HostId, to: HostId) {
        self.frames.connections.remove(&(from, to));
        self.tell(from, to, WireEvent::Down);
    }

    fn reset_connection(&mut self, from: HostId, to: HostId) {
        let Some(id) = self.frames.connections.get(&(from, to)).map(|it| it.id) else { return };
        self.lose_connection(from, to);
        if self.frames.taken.get(&(to, from)) == Some(&id) {
            self.frames.taken.remove(&(to, from));
            self.tell(to, from, WireEvent::Down);
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

    /// A link is back: what waited for it arrives, unless its connection was given up.
    pub(crate) fn release_stalled(&mut self, from: HostId, to: HostId) {
        let Some(queue) = self.frames.stalled.remove(&(from, to)) else { return };
        let now = sim_now();
        let resent =
            self.connected_latency(from, to, 60) + self.rng.duration_below(Duration::from_millis(200));
        let at = now + nanos(resent);
        if let Some(connection) = self.frames.connections.get_mut(&(from, to)) {
            connection.last_at = connection.last_at.max(at);
        }
        // What was sent later, and happens to be under way, must not overtake what is sent again.
        let early: Vec<_> =
            self.frames.events.range(..(at, 0)).filter(|(_, it)| it.travels(from, to)).collect();
        let early: Vec<_> = early.into_iter().map(|(key, _)| *key).collect();
        let early: Vec<_> = early.into_iter().filter_map(|key| self.frames.events.remove(&key)).collect();
        let given_up = |since: u64| now.saturating_sub(since) > nanos(STALL_LIMIT);
        for (since, event) in queue.into_iter().chain(early.into_iter().map(|event| (now, event))) {
            if !matches!(event.kind, Kind::Frame(_)) || !given_up(since) {
                self.schedule(at, event);
            } else if self.frames.connections.get(&(from, to)).is_some_and(|it| it.id == event.connection) {
                self.lose_connection(from, to);
                self.schedule(at, Event { kind: Kind::Close, ..event });
            }
        }
    }

    /// The process on `host` has ended.
    pub(crate) fn close_connections_of(&mut self, host: HostId, death: Death) {
        let made: Vec<_> =
            self.frames.connections.keys().filter(|(from, _)| *from == host).copied().collect();
        for (from, to) in made {
            let id = self.frames.connections[&(from, to)].id;
            if death == Death::Process {
                self.send_in_order(Event { from, to, connection: id, kind: Kind::Close });
            }
            self.frames.connections.remove(&(from, to));
        }
        let taken: Vec<_> =
            self.frames.taken.iter().filter(|((at, _), _)| *at == host).map(|(k, v)| (*k, *v)).collect();
        for ((at, from), id) in taken {
            self.frames.taken.remove(&(at, from));
            if death == Death::Process {
                self.send_back(Event { from: at, to: from, connection: id, kind: Kind::Reset });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proconsul_core::ids::Uuid;
    use proconsul_core::rng::Rng;

    use super::*;
    use crate::clock::{ClockError, SimClock};
    use crate::host::Host;
    use crate::net::LinkQuality;
    use crate::testing::in_sim;
    use crate::time::sim_sleep;
    use crate::trace::Trace;

    const A: HostId = HostId(1);
    const B: HostId = HostId(2);

    fn id(host: HostId) -> ServerId {
        Uuid(host.0.into())
    }

    struct World {
        fabric: Fabric,
        hosts: Vec<Host>,
    }

    impl World {
        fn new(quality: LinkQuality, datagrams: bool) -> World {
            let fabric = Fabric::new(Rng::from_seed(8), quality, datagrams, Trace::default());
            let hosts = [A, B].map(|host| {
                let clock = SimClock::new(ClockError::default());
                Host::new(host, "host", Some(id(host)), clock, fabric.clone())
            });
            World { fabric, hosts: hosts.into() }
        }

        fn start(&mut self, host: HostId) -> SimWire {
            let mut started = 0;
            self.hosts[host.0 as usize - 1].start(|life| {
                started = life;
                std::future::pending()
            });
            self.fabric.wire(host, started)
        }
    }

    fn send(wire: &mut SimWire, to: HostId, number: u32) {
        let address = Text::from(to.address(8300));
        wire.send(id(to), &address, Bytes::from(number.to_le_bytes().to_vec()));
    }

    /// What has come by now: numbers of frames, and words for the rest.
    async fn events(wire: &mut SimWire, wait: Duration) -> Vec<String> {
        let mut seen = Vec::new();
        let end = sim_now() + nanos(wait);
        loop {
            tokio::select! {
                biased;
                event = poll_fn(|cx| wire.poll_next(cx)) => seen.push(match event {
                    WireEvent::Up(_) => "up".to_owned(),
                    WireEvent::Down(_) => "down".to_owned(),
                    WireEvent::Frame(_, bytes) => {
                        u32::from_le_bytes(bytes.as_ref().try_into().unwrap()).to_string()
                    }
                }),
                () = sim_sleep_until(end) => return seen,
            }
        }
    }

    fn numbers(seen: &[String]) -> Vec<u32> {
        seen.iter().filter_map(|word| word.parse().ok()).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn frames_of_a_connection_keep_their_order_through_loss_and_a_short_cut() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality { loss_ppm: 200_000, ..LinkQuality::default() }, false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            for number in 0..50 {
                send(&mut a, B, number);
            }
            world.fabric.cut(A, B);
            sim_sleep(SECOND).await;
            world.fabric.mend(A, B);
            for number in 50..100 {
                send(&mut a, B, number);
            }
            let seen = events(&mut b, SECOND * 30).await;
            assert_eq!(seen[0], "up");
            assert_eq!(numbers(&seen), (0..100).collect::<Vec<_>>());
        });
    }

    #[test]
    fn datagrams_are_lost_and_reordered() {
        in_sim(1, || async {
            let quality = LinkQuality {
                loss_ppm: 100_000,
                duplicate_ppm: 500_000,
                reorder_ppm: 100_000,
                ..LinkQuality::default()
            };
            let mut world = World::new(quality, true);
            let (mut a, mut b) = (world.start(A), world.start(B));
            for number in 0..500 {
                send(&mut a, B, number);
            }
            let seen = numbers(&events(&mut b, SECOND).await);
            let mut distinct = seen.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert!(distinct.len() < 480, "some were lost: {}", distinct.len());
            assert_eq!(seen.len(), distinct.len(), "what is not Raft's own never comes twice");
            assert!(!seen.is_sorted(), "some were overtaken");
        });
    }

    #[test]
    fn a_killed_process_is_reported_and_its_successor_is_another_peer() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            send(&mut a, B, 1);
            assert_eq!(events(&mut b, SECOND).await, ["up", "1"]);
            world.hosts[1].kill(Death::Process);
            assert_eq!(events(&mut a, SECOND).await, ["up", "down"]);
            send(&mut a, B, 2);
            assert_eq!(events(&mut a, SECOND).await, ["down"], "refused");
            let mut b = world.start(B);
            send(&mut a, B, 3);
            assert_eq!(events(&mut b, SECOND).await, ["up", "3"]);
        });
    }

    #[test]
    fn a_machine_that_loses_power_says_nothing() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            send(&mut a, B, 1);
            assert_eq!(events(&mut b, SECOND).await, ["up", "1"]);
            world.hosts[1].kill(Death::Power);
            send(&mut a, B, 2);
            assert_eq!(events(&mut a, SECOND * 10).await, ["up"]);
            let mut b = world.start(B);
            send(&mut a, B, 3);
            assert_eq!(events(&mut a, SECOND).await, ["down"], "the new process knows no such connection");
            assert_eq!(events(&mut b, SECOND).await, Vec::<String>::new());
            send(&mut a, B, 4);
            assert_eq!(events(&mut b, SECOND).await, ["up", "4"]);
        });
    }

    #[test]
    fn a_reset_is_told_to_both_ends_and_the_next_frame_connects_anew() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            send(&mut a, B, 1);
            sim_sleep(SECOND).await;
            world.fabric.reset_connections(B, A);
            send(&mut a, B, 2);
            assert_eq!(events(&mut a, SECOND).await, ["up", "down", "up"]);
            assert_eq!(events(&mut b, SECOND).await, ["up", "1", "down", "up", "2"]);
        });
    }

    #[test]
    fn a_one_way_cut_lets_the_other_way_through() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            send(&mut a, B, 1);
            send(&mut b, A, 1);
            sim_sleep(SECOND).await;
            world.fabric.cut(A, B);
            send(&mut a, B, 2);
            send(&mut b, A, 2);
            assert_eq!(numbers(&events(&mut b, SECOND).await), [1]);
            assert_eq!(numbers(&events(&mut a, SECOND).await), [1, 2]);
        });
    }
}
