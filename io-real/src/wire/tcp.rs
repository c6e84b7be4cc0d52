//! All connections of an agent, over TCP.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::ids::ServerId;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::handshake::{self, Failure, Hello, Role};
use super::link::{self, Queue};
use super::socket;
use crate::ports::{Wire, WireEvent};

/// What may wait for a server.
const SERVER_QUEUE_BYTES: usize = 64 << 20;
/// What may wait for a client agent, or at one.
const CLIENT_QUEUE_BYTES: usize = 16 << 20;
/// So many events may wait for the node; then connections are not read.
const EVENTS_WAITING_MAX: usize = 1_024;
/// A connection is made and has begun after this long, or is given up.
const DIAL_LIMIT: Duration = Duration::from_secs(4);
/// A caller says who it is within this long.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// So many callers may be about to say who they are.
const HANDSHAKES_MAX: usize = 256;
/// The second attempt to connect is held back for so long, each later one for twice as long as the one before,
const BACKOFF_FIRST: Duration = Duration::from_millis(25);
/// but never longer than this.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Who an agent is to its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its identity.
    pub id: ServerId,
    /// Its datacenter.
    pub datacenter: Text,
    /// Drawn anew by each process.
    pub instance: u64,
}

/// Why servers cannot listen for agents.
#[derive(Debug, Error)]
#[error(
    "cannot listen for RPC on {address} (TCP): {error}; stop the other program, or set another address with -bind or \
     another port with -server-port"
)]
pub struct BindError {
    /// Which address.
    pub address: SocketAddr,
    /// The system's words.
    pub error: io::Error,
}

/// Connections with other agents over TCP. They belong to the runtime in which this was made; when it is dropped, what
/// is queued is still written.
pub struct TcpWire {
    shared: Arc<Shared>,
    runtime: Handle,
    /// Is listened to from the first time that somebody wants to hear.
    idle: Option<TcpListener>,
    local_address: Option<SocketAddr>,
    events: mpsc::Receiver<Event>,
    ready: VecDeque<WireEvent>,
    peers: BTreeMap<ServerId, Peer>,
    next_dial: u64,
}

/// What the connections' tasks know.
struct Shared {
    /// Who this agent is, with nobody to call yet.
    me: Hello,
    /// The address that connections are made from; `None` lets the system choose.
    source: Option<IpAddr>,
    events: mpsc::Sender<Event>,
}

/// What is known of a peer.
#[derive(Default)]
struct Peer {
    /// Connections, in the order in which they came up. The first is used: changing over would reorder frames.
    links: Vec<Link>,
    /// A connection that is being made.
    dial: Option<Dial>,
    /// Attempts that have failed since one has not, when the last of them did, and where it led.
    failures: u32,
    failed_at: Option<Instant>,
    address: Text,
    /// Why the last attempt failed, if that was told to the operator.
    reported: Option<String>,
}

struct Link {
    id: LinkId,
    instance: u64,
    /// Where the peer is, unless in the same datacenter.
    datacenter: Option<Text>,
    queue: Arc<Queue>,
}

struct Dial {
    id: LinkId,
    queue: Arc<Queue>,
}

/// Numbers of connections: each side of them has its own, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkId {
    Dialled(u64),
    Accepted(u64),
}

/// What connections' tasks tell.
enum Event {
    Up(ServerId, Link),
    Frame(ServerId, LinkId, Bytes),
    Closed(ServerId, LinkId),
    DialFailed(ServerId, LinkId, Failure),
}

impl TcpWire {
    /// The wire of a server, which takes connections on this address. Call inside a runtime.
    ///
    /// # Errors
    /// The port is taken, or the address is not ours.
    pub fn bind(address: SocketAddr, me: Identity) -> Result<TcpWire, BindError> {
        let failed = |error| BindError { address, error };
        let listener = socket::listen(address).map_err(failed)?;
        let source = Some(address.ip()).filter(|ip| !ip.is_unspecified());
        let mut wire = TcpWire::new(me, Role::Server, source);
        wire.local_address = Some(listener.local_addr().map_err(failed)?);
        wire.idle = Some(listener);
        Ok(wire)
    }

    /// The wire of a client agent, which takes none. It dials from `source`, or from what the system chooses. Call
    /// inside a runtime.
    #[must_use]
    pub fn client(me: Identity, source: Option<IpAddr>) -> TcpWire {
        TcpWire::new(me, Role::Client, source.filter(|ip| !ip.is_unspecified()))
    }

    fn new(me: Identity, role: Role, source: Option<IpAddr>) -> TcpWire {
        let (sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let Identity { id, datacenter, instance } = me;
        let me = Hello { datacenter, id, role, instance, callee: ServerId::default() };
        TcpWire {
            shared: Arc::new(Shared { me, source, events: sender }),
            runtime: Handle::current(),
            idle: None,
            local_address: None,
            events,
            ready: VecDeque::new(),
            peers: BTreeMap::new(),
            next_dial: 1,
        }
    }

    /// How many connections with a peer are up.
    #[cfg(test)]
    pub(super) fn links(&self, peer: ServerId) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.links.len())
    }

    /// Breaks the connection that is used for a peer.
    #[cfg(test)]
    pub(super) fn break_first(&self, peer: ServerId) {
        self.peers[&peer].links[0].queue.cut();
    }

    /// Where a server takes connections, as bound.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    fn dial(&mut self, to: ServerId, address: &Text, datacenter: Option<&Text>, frame: Bytes) {
        let peer = self.peers.entry(to).or_default();
        if peer.address != *address {
            // Nothing is known of this one.
            peer.address = address.clone();
            peer.failures = 0;
        }
        let since_failure = peer.failed_at.map_or(Duration::MAX, |at| at.elapsed());
        let wait = backoff(peer.failures).saturating_sub(since_failure);
        let queue_bytes = queue_bytes_max(&self.shared.me.role);
        let queue = Arc::new(Queue::new(queue_bytes));
        if let Some(former) = peer.dial.take() {
            former.queue.move_to(&queue);
            former.queue.cut();
        }
        queue.push(frame);
        let id = LinkId::Dialled(self.next_dial);
        self.next_dial += 1;
        peer.dial = Some(Dial { id, queue: Arc::clone(&queue) });
        let target = Target { id: to, address: address.clone(), datacenter: datacenter.cloned() };
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move { dial(&shared, target, id, queue, wait).await });
    }

    fn hear(&mut self, event: Event) -> Option<WireEvent> {
        match event {
            Event::Frame(from, id, frame) => {
                let known = self.peers.get(&from).is_some_and(|peer| peer.links.iter().any(|it| it.id == id));
                return known.then_some(WireEvent::Frame(from, frame));
            }
            Event::Up(peer, link) => self.up(peer, link),
            Event::Closed(peer, id) => self.closed(peer, id),
            Event::DialFailed(peer, id, failure) => self.dial_failed(peer, id, &failure),
        }
        self.ready.pop_front()
    }

    fn up(&mut self, id: ServerId, link: Link) {
        let peer = self.peers.entry(id).or_default();
        if link.datacenter.is_some() && peer.links.iter().any(|it| it.datacenter.is_none()) {
            // Two agents have one identity, as copies of a machine have. The one of this datacenter counts.
            tracing::warn!(peer = %id, datacenter = ?link.datacenter, "has the identity of an agent of this datacenter");
            return link.queue.cut();
        }
        match &peer.dial {
            Some(dial) if dial.id == link.id => peer.dial = None,
            // It has called while it was being called. What waits need not wait longer. The dial goes on: if each side
            // gave up its own in favour of the other's, nothing would be left.
            Some(dial) => dial.queue.move_to(&link.queue),
            // Abandoned for a newer address just when it came up.
            None if matches!(link.id, LinkId::Dialled(_)) => return link.queue.cut(),
            None => {}
        }
        peer.failures = 0;
        peer.reported = None;
        if peer.links.iter().any(|it| it.instance != link.instance || it.datacenter != link.datacenter) {
            // A new process: the connections of the former one lead nowhere, whether that is noticed or not.
            for former in peer.links.drain(..) {
                former.queue.cut();
            }
            self.ready.push_back(WireEvent::Down(id));
        }
        if peer.links.is_empty() {
            self.ready.push_back(WireEvent::Up(id, link.datacenter.clone()));
        }
        peer.links.push(link);
    }

    fn closed(&mut self, id: ServerId, link: LinkId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.links.iter().any(|it| it.id == link) {
            return;
        }
        // Of two connections one has carried what this agent sent, and perhaps the other what the peer sent: nobody
        // knows what is lost unless both end.
        for other in peer.links.drain(..) {
            other.queue.cut();
        }
        self.ready.push_back(WireEvent::Down(id));
        if peer.address.is_empty() {
            self.peers.remove(&id);
        }
    }

    fn dial_failed(&mut self, id: ServerId, link: LinkId, failure: &Failure) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.dial.as_ref().is_none_or(|dial| dial.id != link) {
            return;
        }
        peer.dial = None;
        peer.failures += 1;
        peer.failed_at = Some(Instant::now());
        let reason = failure.to_string();
        if failure.needs_attention() && peer.reported.as_ref() != Some(&reason) {
            tracing::warn!(server = %id, address = %peer.address, reason, "a server was called and refused");
            peer.reported = Some(reason);
        } else {
            tracing::debug!(server = %id, address = %peer.address, reason, "a server was not reached");
        }
        if peer.links.is_empty() {
            self.ready.push_back(WireEvent::Down(id));
        }
    }
}

/// How long after so many failures in a row the next attempt is made, counted from the last failure.
fn backoff(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => (BACKOFF_FIRST * (1 << doublings.min(10))).min(BACKOFF_MAX),
    }
}

impl Wire for TcpWire {
    fn send(&mut self, to: ServerId, address: &Text, datacenter: Option<&Text>, frame: Bytes) {
        if let Some(peer) = self.peers.get(&to) {
            if let Some(link) = peer.links.first() {
                return link.queue.push(frame);
            }
            if let Some(dial) = &peer.dial
                && (peer.address == *address || address.is_empty())
            {
                return dial.queue.push(frame);
            }
        }
        if !address.is_empty() {
            self.dial(to, address, datacenter, frame);
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<WireEvent> {
        if let Some(listener) = self.idle.take() {
            self.runtime.spawn(accept(listener, Arc::clone(&self.shared)));
        }
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(event);
            }
            match self.events.poll_recv(cx) {
                Poll::Ready(Some(event)) => {
                    if let Some(event) = self.hear(event) {
                        return Poll::Ready(event);
                    }
                }
                // Never closed: this end holds a sender.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for TcpWire {
    fn drop(&mut self) {
        for peer in self.peers.values() {
            for link in &peer.links {
                link.queue.close();
            }
            if let Some(dial) = &peer.dial {
                dial.queue.cut();
            }
        }
    }
}

/// Whom to dial.
struct Target {
    id: ServerId,
    address: Text,
    /// Where it is, unless in the same datacenter.
    datacenter: Option<Text>,
}

impl Target {
    /// What is said to it first.
    fn hello(&self, me: &Hello) -> Hello {
        let hello = Hello { callee: self.id, ..me.clone() };
        match &self.datacenter {
            None => hello,
            Some(there) => {
                Hello { datacenter: there.clone(), role: Role::Abroad(me.datacenter.clone()), ..hello }
            }
        }
    }
}

/// What may wait for an agent, or at one.
fn queue_bytes_max(role: &Role) -> usize {
    match role {
        Role::Server | Role::Abroad(_) => SERVER_QUEUE_BYTES,
        Role::Client => CLIENT_QUEUE_BYTES,
    }
}

/// Makes a connection and runs it to its end.
async fn dial(shared: &Shared, target: Target, id: LinkId, queue: Arc<Queue>, wait: Duration) {
    let connected = async {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        timeout(DIAL_LIMIT, connect(shared, &target))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    };
    let connected = tokio::select! {
        biased;
        // Abandoned, which is known, or because too much waits for it.
        () = queue.was_cut() => Err(io::Error::from(io::ErrorKind::Interrupted).into()),
        connected = connected => connected,
    };
    match connected {
        Ok((stream, instance)) => {
            let link = Link { id, instance, datacenter: target.datacenter, queue };
            run(shared, target.id, link, stream).await;
        }
        Err(failure) => {
            // A node that has stopped needs not know.
            let _ = shared.events.send(Event::DialFailed(target.id, id, failure)).await;
        }
    }
}

async fn connect(shared: &Shared, target: &Target) -> Result<(TcpStream, u64), Failure> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
    for address in tokio::net::lookup_host(target.address.as_str()).await? {
        match socket::dialling(shared.source, address)?.connect(address).await {
            Ok(mut stream) => {
                socket::tune(&stream)?;
                let hello = target.hello(&shared.me);
                let instance = handshake::call(&mut stream, &hello).await?;
                return Ok((stream, instance));
            }
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// Takes connections until nobody listens.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut next = 1;
    loop {
        let (stream, from) = tokio::select! {
            biased;
            () = shared.events.closed() => return,
            accepted = socket::accept(&listener) => accepted,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%from, "too many callers at once; one was turned away");
            continue;
        };
        let (shared, id) = (Arc::clone(&shared), LinkId::Accepted(next));
        next += 1;
        tokio::spawn(async move {
            let greeted = greet(stream, &shared.me).await;
            drop(place);
            match greeted {
                Ok((stream, hello)) => {
                    let queue = Arc::new(Queue::new(queue_bytes_max(&hello.role)));
                    let datacenter = match hello.role {
                        Role::Server | Role::Client => None,
                        Role::Abroad(datacenter) => Some(datacenter),
                    };
                    let link = Link { id, instance: hello.instance, datacenter, queue };
                    run(&shared, hello.id, link, stream).await;
                }
                Err(failure) if failure.needs_attention() => {
                    tracing::warn!(%from, reason = %failure, "a caller was refused");
                }
                Err(failure) => tracing::debug!(%from, reason = %failure, "a caller went away"),
            }
        });
    }
}

async fn greet(mut stream: TcpStream, me: &Hello) -> Result<(TcpStream, Hello), Failure> {
    socket::tune(&stream)?;
    let hello = timeout(HANDSHAKE_LIMIT, handshake::answer(&mut stream, me))
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))?;
    Ok((stream, hello))
}

/// Runs a connection that has begun, and tells the node of its beginning and its end.
async fn run(shared: &Shared, peer: ServerId, link: Link, mut stream: TcpStream) {
    let (id, queue) = (link.id, Arc::clone(&link.queue));
    let events = &shared.events;
    if events.send(Event::Up(peer, link)).await.is_err() {
        return;
    }
    let (reader, writer) = stream.split();
    let ended = link::run(reader, writer, &queue, events, |frame| Event::Frame(peer, id, frame)).await;
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection broke");
    }
    // A node that has stopped needs not know.
    let _ = events.send(Event::Closed(peer, id)).await;
}
