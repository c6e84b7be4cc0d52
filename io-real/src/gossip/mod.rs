//! Sockets for gossip: per pool, datagrams and calls on one address and port.

mod calls;
mod datagrams;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::gossip::{CallError, Pool};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use self::calls::CallListener;
use self::datagrams::DatagramSocket;
use crate::ports::{GossipEvent, GossipPort};

/// So many datagrams may wait for the node; what comes then is lost, as it would be in a full socket.
const DATAGRAMS_WAITING_MAX: usize = 4_096;

/// The gossip of an agent that is alone: nobody speaks, nobody is reached.
#[derive(Clone, Copy, Debug)]
pub struct NoGossip;

impl GossipPort for NoGossip {
    fn send(&mut self, _pool: Pool, _to: SocketAddr, _bytes: Bytes) {}

    fn call(&mut self, _pool: Pool, _call: u64, _to: SocketAddr, _bytes: Bytes, _timeout: Duration) {}

    fn answer(&mut self, _pool: Pool, _caller: u64, _bytes: Bytes) {}

    fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<GossipEvent> {
        Poll::Pending
    }
}

/// Why gossip cannot listen.
#[derive(Debug, Error)]
#[error(
    "cannot listen for {} gossip on {address} ({protocol}): {error}; stop the other program, or set another \
     address with -bind or another port with {}",
    pool_name(*.pool), port_setting(*.pool)
)]
pub struct BindError {
    /// Whose port.
    pub pool: Pool,
    /// Which address.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub protocol: &'static str,
    /// The system's words.
    pub error: io::Error,
}

fn pool_name(pool: Pool) -> &'static str {
    match pool {
        Pool::Lan => "LAN",
        Pool::Wan => "WAN",
    }
}

fn port_setting(pool: Pool) -> &'static str {
    match pool {
        Pool::Lan => "-serf-lan-port",
        Pool::Wan => "-serf-wan-port",
    }
}

/// What was lost here, for lack of room.
#[derive(Debug, Default)]
pub struct Losses {
    /// Datagrams that came faster than the node took them.
    pub received: AtomicU64,
    /// Datagrams that the system did not take.
    pub sent: AtomicU64,
    /// Calls that came while too many were under way.
    pub calls: AtomicU64,
}

impl Losses {
    /// Counts one.
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What comes over streams.
enum Streamed {
    /// A request, and where its answer goes.
    Call { pool: Pool, from: SocketAddr, bytes: Bytes, answer: oneshot::Sender<Bytes> },
    /// The end of a call that the node made.
    Answer { pool: Pool, call: u64, result: Result<Bytes, CallError> },
}

/// The sockets of an agent. They belong to the runtime in which they were bound, and are closed when this is dropped.
pub struct Sockets {
    runtime: Handle,
    lan: Sender,
    wan: Option<Sender>,
    /// Listen from the first time that somebody wants to hear: nothing piles up while the node recovers.
    idle: Vec<(DatagramSocket, CallListener)>,
    datagrams: mpsc::Receiver<GossipEvent>,
    streamed: mpsc::UnboundedReceiver<Streamed>,
    to_datagrams: mpsc::Sender<GossipEvent>,
    to_streamed: mpsc::UnboundedSender<Streamed>,
    callers: BTreeMap<u64, oneshot::Sender<Bytes>>,
    next_caller: u64,
    losses: Arc<Losses>,
}

/// What a pool sends from.
struct Sender {
    socket: std::net::UdpSocket,
    /// The address that calls are made from; `None` lets the system choose.
    source: Option<IpAddr>,
}

impl Sockets {
    /// Takes the port of each pool, for datagrams and for streams. Call inside a runtime.
    ///
    /// # Errors
    /// A port is taken, or an address is not ours.
    pub fn bind(lan: SocketAddr, wan: Option<SocketAddr>) -> Result<Sockets, BindError> {
        let (to_datagrams, datagrams) = mpsc::channel(DATAGRAMS_WAITING_MAX);
        let (to_streamed, streamed) = mpsc::unbounded_channel();
        let mut idle = Vec::new();
        let mut bind = |pool, address: SocketAddr| {
            let failed = |protocol| move |error| BindError { pool, address, protocol, error };
            let listener = CallListener::bind(pool, address).map_err(failed("TCP"))?;
            // Port zero is whatever the system gives, and the same for both.
            let address = listener.local_address().map_err(failed("TCP"))?;
            let (socket, sender) = DatagramSocket::bind(pool, address).map_err(failed("UDP"))?;
            idle.push((socket, listener));
            Ok(Sender { socket: sender, source: Some(address.ip()).filter(|ip| !ip.is_unspecified()) })
        };
        let lan = bind(Pool::Lan, lan)?;
        let wan = wan.map(|wan| bind(Pool::Wan, wan)).transpose()?;
        Ok(Sockets {
            runtime: Handle::current(),
            lan,
            wan,
            idle,
            datagrams,
            streamed,
            to_datagrams,
            to_streamed,
            callers: BTreeMap::new(),
            next_caller: 1,
            losses: Arc::default(),
        })
    }

    /// The address of a pool's port, as bound.
    ///
    /// # Errors
    /// There is no such pool here.
    pub fn local_address(&self, pool: Pool) -> io::Result<SocketAddr> {
        self.sender(pool).ok_or(io::ErrorKind::NotFound)?.socket.local_addr()
    }

    /// What was lost so far.
    #[must_use]
    pub fn losses(&self) -> Arc<Losses> {
        Arc::clone(&self.losses)
    }

    fn sender(&self, pool: Pool) -> Option<&Sender> {
        match pool {
            Pool::Lan => Some(&self.lan),
            Pool::Wan => self.wan.as_ref(),
        }
    }

    fn listen(&mut self) {
        for (socket, listener) in self.idle.drain(..) {
            let losses = Arc::clone(&self.losses);
            self.runtime.spawn(socket.receive(self.to_datagrams.clone(), losses));
            let losses = Arc::clone(&self.losses);
            self.runtime.spawn(listener.listen(self.to_streamed.clone(), losses));
        }
    }

    fn take_caller(&mut self, answer: oneshot::Sender<Bytes>) -> u64 {
        let caller = self.next_caller;
        self.next_caller += 1;
        self.callers.retain(|_, waiting| !waiting.is_closed());
        self.callers.insert(caller, answer);
        caller
    }
}

impl GossipPort for Sockets {
    fn send(&mut self, pool: Pool, to: SocketAddr, bytes: Bytes) {
        let Some(sender) = self.sender(pool) else { return };
        if let Err(error) = sender.socket.send_to(&bytes, to) {
            Losses::count(&self.losses.sent);
            tracing::debug!(%to, %error, "a datagram was not sent");
        }
    }

    fn call(&mut self, pool: Pool, call: u64, to: SocketAddr, bytes: Bytes, timeout: Duration) {
        let source = self.sender(pool).and_then(|sender| sender.source);
        let done = self.to_streamed.clone();
        self.runtime.spawn(async move {
            let result = calls::call(source, to, bytes, timeout).await;
            // A node that has stopped needs no answer.
            let _ = done.send(Streamed::Answer { pool, call, result });
        });
    }

    fn answer(&mut self, _pool: Pool, caller: u64, bytes: Bytes) {
        if let Some(waiting) = self.callers.remove(&caller) {
            // Who went away meanwhile needs no answer.
            let _ = waiting.send(bytes);
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<GossipEvent> {
        if !self.idle.is_empty() {
            self.listen();
        }
        // Few, and each bounded by what the node asked for or by a limit on callers.
        if let Poll::Ready(Some(streamed)) = self.streamed.poll_recv(cx) {
            return Poll::Ready(match streamed {
                Streamed::Call { pool, from, bytes, answer } => {
                    GossipEvent::Call { pool, caller: self.take_caller(answer), from, bytes }
                }
                Streamed::Answer { pool, call, result } => GossipEvent::Answer { pool, call, result },
            });
        }
        match self.datagrams.poll_recv(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            // Never closed: this end holds a sender.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
