//! Connections with other agents.

use std::task::{Context, Poll};

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::ids::ServerId;

use crate::ports::{Wire, WireEvent};

/// The wire of a server that is alone: nobody speaks, nobody is reached.
#[derive(Clone, Copy, Debug)]
pub struct NoWire;

impl Wire for NoWire {
    fn send(&mut self, _to: ServerId, _address: &Text, _frame: Bytes) {}

    fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<WireEvent> {
        Poll::Pending
    }
}
