//! The network between hosts: which links are up, how good they are, which hosts have power and a running process.
//!
//! Three things travel on it, each in its own file: frames between agents ([`crate::wire`]), datagrams and calls of
//! gossip ([`crate::gossip`]), and byte streams between clients and servers ([`crate::stream`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use madsim::runtime::{Handle, NodeHandle};
use proconsul_core::ids::ServerId;
use proconsul_core::rng::Rng;
use proconsul_io_real::ports::WireEvent;
use serde::{Deserialize, Serialize};
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc};

use crate::frames::Frames;
use crate::gossip::GossipInbox;
use crate::trace::Trace;

/// A simulated machine: servers and clients are numbered together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostId(pub u32);

impl std::fmt::Display for HostId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "h{}", self.0)
    }
}

impl HostId {
    /// The address that it begins with.
    #[must_use]
    pub fn ip(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + self.0)
    }

    /// A port on this host, by the address that it begins with.
    #[must_use]
    pub fn address(self, port: u16) -> String {
        format!("{}:{port}", self.ip())
    }
}

/// How well one direction of a link works. Rates are in parts per million of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkQuality {
    /// Least time on the way, in microseconds.
    pub latency_min_us: u64,
    /// Most time on the way.
    pub latency_max_us: u64,
    /// How often a packet is lost. A connection sends it again, after a while; a datagram is gone.
    pub loss_ppm: u32,
    /// How often a datagram arrives twice.
    pub duplicate_ppm: u32,
    /// How often a datagram is held back long enough for others to overtake it.
    pub reorder_ppm: u32,
    /// Bytes per second; zero is without limit.
    pub bytes_per_s: u64,
}

impl Default for LinkQuality {
    fn default() -> LinkQuality {
        LinkQuality {
            latency_min_us: 200,
            latency_max_us: 3_000,
            loss_ppm: 0,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            bytes_per_s: 0,
        }
    }
}

/// How long a lost packet of a connection takes to be sent again, at most.
const RESEND_MAX: Duration = Duration::from_millis(400);

/// The network. Clones share it.
#[derive(Clone)]
pub struct Fabric(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Told when something earlier than all else is due.
    due: Notify,
    /// Told when a link, a host's power or a process changes.
    changed: Notify,
    /// Where the network's own tasks run: a machine that never fails.
    node: NodeHandle,
    trace: Trace,
}

pub(crate) struct State {
    pub(crate) rng: Rng,
    quality: LinkQuality,
    links: BTreeMap<(HostId, HostId), LinkQuality>,
    /// Directions of links that are cut.
    cut: BTreeMap<(HostId, HostId), Cut>,
    cuts: u64,
    hosts: BTreeMap<HostId, HostNet>,
    pub(crate) frames: Frames,
}

/// One direction of a link is cut.
struct Cut {
    /// By so many faults.
    faults: u32,
    /// Tells it from other times that the link was cut.
    number: u64,
}

/// What the network knows of a host.
pub(crate) struct HostNet {
    /// Its address.
    pub(crate) ip: Ipv4Addr,
    /// Counts starts; tells the sockets of one process from those of the next.
    pub(crate) life: u64,
    pub(crate) running: bool,
    /// How often the power failed; whatever was connected before does not say goodbye.
    pub(crate) power_losses: u64,
    pub(crate) powered: bool,
    /// Which agent its process is.
    pub(crate) server: Option<ServerId>,
    pub(crate) inbox: Option<mpsc::UnboundedSender<WireEvent>>,
    pub(crate) gossip: Option<GossipInbox>,
    pub(crate) accept: Option<mpsc::UnboundedSender<DuplexStream>>,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Death {
    /// The process is killed; its kernel closes its connections, and keeps what was written to files.
    Process,
    /// The machine loses power: nobody is told, and what was not synced may be gone.
    Power,
}

impl Fabric {
    /// A network on which every link is up and of the same quality. Call inside the simulation, once.
    #[must_use]
    pub fn new(rng: Rng, quality: LinkQuality, datagrams: bool, trace: Trace) -> Fabric {
        let node = Handle::current().create_node().name("network").build();
        let fabric = Fabric(Arc::new(Inner {
            state: Mutex::new(State {
                rng,
                quality,
                links: BTreeMap::new(),
                cut: BTreeMap::new(),
                cuts: 0,
                hosts: BTreeMap::new(),
                frames: Frames::new(datagrams),
            }),
            due: Notify::new(),
            changed: Notify::new(),
            node: node.clone(),
            trace,
        }));
        drop(node.spawn(fabric.clone().carry_frames()));
        fabric
    }

    /// The run is over: tasks of the network are dropped, which they would not be by themselves.
    pub fn end(&self) {
        Handle::current().kill(self.0.node.id());
    }

    /// Puts a host on the network, powered, without a process. `agent` is who it is to its peers.
    pub fn add_host(&self, host: HostId, agent: Option<ServerId>) {
        let net = HostNet {
            ip: host.ip(),
            life: 0,
            running: false,
            power_losses: 0,
            powered: true,
            server: agent,
            inbox: None,
            gossip: None,
            accept: None,
        };
        let before = self.lock().hosts.insert(host, net);
        assert!(before.is_none(), "{host} is on the network already");
    }

    /// A host's address.
    #[must_use]
    pub fn ip(&self, host: HostId) -> Ipv4Addr {
        self.lock().host(host).ip
    }

    /// Gives a host another address: what goes to the former one reaches nobody.
    ///
    /// # Panics
    /// It has a process, which would not notice; or another host has this address.
    pub fn readdress(&self, host: HostId, ip: Ipv4Addr) {
        let mut state = self.lock();
        assert!(state.host_of_ip(IpAddr::V4(ip)).is_none_or(|other| other == host), "{ip} is taken");
        let net = state.host_mut(host);
        assert!(!net.running, "{host} is stopped before it gets another address");
        net.ip = ip;
    }

    /// Another agent runs on a host from its next start on.
    ///
    /// # Panics
    /// It has a process, which would not notice.
    pub fn set_agent(&self, host: HostId, agent: ServerId) {
        let mut state = self.lock();
        let net = state.host(host);
        assert!(!net.running, "{host} is stopped before another agent runs on it");
        // Whoever was connected with the former agent hears that it is gone, not that the new one is.
        state.lose_links_to(host);
        state.host_mut(host).server = Some(agent);
    }

    /// Cuts one direction of a link. What is cut twice is mended when it has been mended twice.
    pub fn cut(&self, from: HostId, to: HostId) {
        let mut state = self.lock();
        state.cuts += 1;
        let number = state.cuts;
        let cut = state.cut.entry((from, to)).or_insert(Cut { faults: 0, number });
        cut.faults += 1;
        if cut.faults == 1 {
            state.watch_cut(from, to, number);
        }
        drop(state);
        self.notify();
    }

    /// Takes back one cut. What had been waiting arrives in its order, or its connections turn out to have been given
    /// up meanwhile.
    pub fn mend(&self, from: HostId, to: HostId) {
        let mut state = self.lock();
        let Some(cut) = state.cut.get_mut(&(from, to)) else { return };
        cut.faults -= 1;
        if cut.faults == 0 {
            state.cut.remove(&(from, to));
            state.release_stalled(from, to);
        }
        drop(state);
        self.notify();
    }

    /// Takes back every cut and loses nothing from here on.
    pub fn mend_all(&self) {
        let mut state = self.lock();
        state.links.clear();
        state.quality = LinkQuality { loss_ppm: 0, duplicate_ppm: 0, reorder_ppm: 0, ..state.quality };
        for (from, to) in std::mem::take(&mut state.cut).into_keys() {
            state.release_stalled(from, to);
        }
        drop(state);
        self.notify();
    }

    /// Gives one direction of a link the quality that it began with.
    pub fn reset_quality(&self, from: HostId, to: HostId) {
        self.lock().links.remove(&(from, to));
    }

    /// Changes the quality of one direction of a link.
    pub fn set_quality(&self, from: HostId, to: HostId, quality: LinkQuality) {
        self.lock().links.insert((from, to), quality);
    }

    /// A process starts on a host; gives its life's number.
    pub fn process_started(&self, host: HostId) -> u64 {
        let mut state = self.lock();
        let net = state.host_mut(host);
        assert!(!net.running, "{host} runs already");
        net.running = true;
        net.powered = true;
        net.life += 1;
        let life = net.life;
        drop(state);
        self.notify();
        life
    }

    /// The process on a host has ended, in one way or another.
    pub fn process_ended(&self, host: HostId, death: Death) {
        let mut state = self.lock();
        let net = state.host_mut(host);
        net.running = false;
        net.inbox = None;
        net.gossip = None;
        net.accept = None;
        match death {
            Death::Process => {}
            Death::Power => {
                net.powered = false;
                net.power_losses += 1;
            }
        }
        state.close_connections_of(host, death);
        drop(state);
        self.notify();
    }

    /// The hash that this network writes to.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.node.spawn(task));
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("a simulation runs on one thread and ends with its first panic")
    }

    pub(crate) fn due(&self) -> &Notify {
        &self.0.due
    }

    /// Wakes whoever waits for the network to change.
    fn notify(&self) {
        self.0.changed.notify_waiters();
        self.0.due.notify_one();
    }

    /// Waits until `ready` holds; it is asked again after every change of the network.
    pub(crate) async fn wait_until(&self, mut ready: impl FnMut(&State) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if ready(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl State {
    pub(crate) fn host(&self, host: HostId) -> &HostNet {
        self.hosts.get(&host).unwrap_or_else(|| panic!("{host} is not on the network"))
    }

    pub(crate) fn host_mut(&mut self, host: HostId) -> &mut HostNet {
        self.hosts.get_mut(&host).unwrap_or_else(|| panic!("{host} is not on the network"))
    }

    /// Whether a host's process is the one that was started with this life's number.
    pub(crate) fn is_alive(&self, host: HostId, life: u64) -> bool {
        let net = self.host(host);
        net.running && net.life == life
    }

    pub(crate) fn host_of_ip(&self, ip: IpAddr) -> Option<HostId> {
        self.hosts.iter().find(|(_, net)| IpAddr::V4(net.ip) == ip).map(|(host, _)| *host)
    }

    /// The host that an address with a port belongs to.
    pub(crate) fn host_at(&self, address: &str) -> Option<HostId> {
        self.host_of_ip(address.parse::<SocketAddr>().ok()?.ip())
    }

    pub(crate) fn host_of_agent(&self, agent: ServerId) -> Option<HostId> {
        self.hosts.iter().find(|(_, net)| net.server == Some(agent)).map(|(host, _)| *host)
    }

    pub(crate) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cut.contains_key(&(from, to))
    }

    pub(crate) fn is_same_cut(&self, from: HostId, to: HostId, number: u64) -> bool {
        self.cut.get(&(from, to)).is_some_and(|cut| cut.number == number)
    }

    pub(crate) fn quality(&self, from: HostId, to: HostId) -> LinkQuality {
        self.links.get(&(from, to)).copied().unwrap_or(self.quality)
    }

    /// True with a probability in parts per million. Draws nothing when it is zero.
    pub(crate) fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.rng.below(1_000_000) < u64::from(ppm)
    }

    /// Time on the way for so many bytes, without loss.
    pub(crate) fn latency(&mut self, from: HostId, to: HostId, len: usize) -> Duration {
        let quality = self.quality(from, to);
        let spread = quality.latency_max_us.saturating_sub(quality.latency_min_us);
        let mut micros = quality.latency_min_us + self.rng.below(spread + 1);
        micros += (len as u64).saturating_mul(1_000_000).checked_div(quality.bytes_per_s).unwrap_or(0);
        Duration::from_micros(micros)
    }

    /// Time on the way over a connection, where what is lost is sent again.
    pub(crate) fn connected_latency(&mut self, from: HostId, to: HostId, len: usize) -> Duration {
        let mut latency = self.latency(from, to, len);
        let loss = self.quality(from, to).loss_ppm;
        while self.chance(loss.min(900_000)) {
            latency += RESEND_MAX / 4 + self.rng.duration_below(RESEND_MAX * 3 / 4);
        }
        latency
    }
}
