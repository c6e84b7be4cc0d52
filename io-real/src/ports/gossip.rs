//! Datagrams and calls between agents: what gossip travels on.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::gossip::{CallError, Pool};

/// The gossip ports of an agent, one for each pool that it belongs to. Nothing here ever waits for anybody.
pub trait GossipPort: Send + 'static {
    /// Sends a datagram, or loses it.
    fn send(&mut self, pool: Pool, to: SocketAddr, bytes: Bytes);

    /// Connects, sends a request, reads an answer, within `timeout` altogether; ends with one [`GossipEvent::Answer`].
    fn call(&mut self, pool: Pool, call: u64, to: SocketAddr, bytes: Bytes, timeout: Duration);

    /// Answers a call that came, or loses the answer when the caller has gone.
    fn answer(&mut self, pool: Pool, caller: u64, bytes: Bytes);

    /// The next thing that came, or later a wake-up of `cx`.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<GossipEvent>;
}

/// What came to a gossip port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GossipEvent {
    /// A datagram.
    Datagram {
        /// Which pool's port.
        pool: Pool,
        /// Who sent it.
        from: SocketAddr,
        /// As it came.
        bytes: Bytes,
    },
    /// Somebody calls.
    Call {
        /// Which pool's port.
        pool: Pool,
        /// Never reused.
        caller: u64,
        /// Who calls.
        from: SocketAddr,
        /// The request, as it came.
        bytes: Bytes,
    },
    /// A call has ended.
    Answer {
        /// Which pool.
        pool: Pool,
        /// The caller's number of it.
        call: u64,
        /// The answer as it came, or why there is none.
        result: Result<Bytes, CallError>,
    },
}
