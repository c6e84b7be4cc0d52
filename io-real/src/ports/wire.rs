//! Frames between servers.

use async_trait::async_trait;
use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::ids::ServerId;

/// Carries frames to and from other servers, best effort: a frame may be lost, never altered.
#[async_trait]
pub trait Wire: Send + 'static {
    /// Queues a frame, or loses it when the peer's queue is full or the peer is unreachable. Never waits for the peer.
    fn send(&mut self, to: ServerId, address: &Text, frame: Bytes);

    /// The next thing that peers did. Must be cancel-safe: the driver drops and re-creates this future.
    async fn next(&mut self) -> WireEvent;
}

/// What another server did.
#[derive(Debug)]
pub enum WireEvent {
    /// A connection came up.
    Up(ServerId),
    /// A frame came.
    Frame(ServerId, Bytes),
    /// A connection was closed or refused.
    Down(ServerId),
}
