//! Frames between agents.

use std::task::{Context, Poll};

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::ids::ServerId;

/// Carries frames to and from other agents, best effort: a frame may be lost, never altered or repeated.
pub trait Wire: Send + 'static {
    /// Queues a frame, or loses it when the peer's queue is full or the peer is unreachable. Never waits for the peer.
    ///
    /// It goes over any connection with that peer, whoever made it. Without one, `address` is dialled; an empty
    /// `address` is none to dial: the frame is lost then.
    fn send(&mut self, to: ServerId, address: &Text, frame: Bytes);

    /// The next thing that peers did, or later a wake-up of `cx`.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<WireEvent>;
}

/// What another agent did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireEvent {
    /// It is connected, and was not before.
    Up(ServerId),
    /// A frame came.
    Frame(ServerId, Bytes),
    /// Its last connection was closed, or an attempt to connect has failed. What was queued for it is lost.
    Down(ServerId),
}
