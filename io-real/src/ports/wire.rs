//! Frames between agents.

use std::task::{Context, Poll};

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::ids::ServerId;

/// Carries frames to and from other agents, best effort: a frame may be lost, never altered or repeated. A loss is
/// always told: whoever hears no [`WireEvent::Down`] may rely on what was sent since [`WireEvent::Up`]. So a pair of
/// agents is connected or it is not: if each has called the other, the loss of one of the two connections ends both.
pub trait Wire: Send + 'static {
    /// Queues a frame, or loses it when the peer is unreachable. Never waits for the peer: a peer whose queue is full is
    /// disconnected.
    ///
    /// It goes over any connection with that peer, whoever made it. Without one, `address` is dialled; an empty
    /// `address` is none to dial: the frame is lost then. `datacenter` is where the peer is, unless that is this agent's own.
    fn send(&mut self, to: ServerId, address: &Text, datacenter: Option<&Text>, frame: Bytes);

    /// The next thing that peers did, or later a wake-up of `cx`.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<WireEvent>;
}

/// What another agent did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireEvent {
    /// It is connected, and was not before. A server of another datacenter comes with the name of that.
    Up(ServerId, Option<Text>),
    /// A frame came.
    Frame(ServerId, Bytes),
    /// A connection with it was closed, or an attempt to connect has failed. What was queued for it is lost.
    Down(ServerId),
}
