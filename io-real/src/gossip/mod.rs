//! Sockets for gossip.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::gossip::Pool;

use crate::ports::{GossipEvent, GossipPort};

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
