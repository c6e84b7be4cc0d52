//! Connections to other servers.

use async_trait::async_trait;
use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::ids::ServerId;

use crate::ports::{Wire, WireEvent};

/// The wire of a server that is alone: nobody speaks, nobody is reached.
#[derive(Clone, Copy, Debug)]
pub struct NoWire;

#[async_trait]
impl Wire for NoWire {
    fn send(&mut self, _to: ServerId, _address: &Text, _frame: Bytes) {}

    async fn next(&mut self) -> WireEvent {
        std::future::pending().await
    }
}
