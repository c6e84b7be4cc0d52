//! Connections with other agents: frames of Raft, forwarded requests and snapshots over one port.
//!
//! `handshake` begins a connection, `frames` cuts it into frames, `link` queues and runs one, and [`TcpWire`]
//! knows which there are. All but the last are generic over the stream.

mod frames;
mod handshake;
mod link;
pub(crate) mod socket;
mod tcp;
#[cfg(test)]
mod tests;

use std::task::{Context, Poll};

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::ids::ServerId;

use crate::ports::{Wire, WireEvent};

pub use tcp::{BindError, Identity, TcpWire};

/// The wire of a server that is alone: nobody speaks, nobody is reached.
#[derive(Clone, Copy, Debug)]
pub struct NoWire;

impl Wire for NoWire {
    fn send(&mut self, _to: ServerId, _address: &Text, _datacenter: Option<&Text>, _frame: Bytes) {}

    fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<WireEvent> {
        Poll::Pending
    }
}
