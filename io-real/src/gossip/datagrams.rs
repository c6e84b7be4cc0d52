//! Datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::gossip::Pool;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Losses;
use crate::ports::GossipEvent;

/// What the system is asked to hold until we read. It may give less.
const RECEIVE_BUFFER_BYTES: usize = 2 << 20;
/// No datagram is larger.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// After an error that says nothing about the next datagram.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// A bound socket that is not yet read.
pub(super) struct DatagramSocket {
    pool: Pool,
    socket: UdpSocket,
}

impl DatagramSocket {
    /// Binds; gives the end to read from, and one to send from on any thread, which never waits.
    pub(super) fn bind(pool: Pool, address: SocketAddr) -> io::Result<(DatagramSocket, std::net::UdpSocket)> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // A smaller buffer loses more in a burst, no more than that.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        socket.bind(&address.into())?;
        let sender = socket.try_clone()?.into();
        Ok((DatagramSocket { pool, socket: UdpSocket::from_std(socket.into())? }, sender))
    }

    /// Hands on whatever comes, until nobody listens.
    pub(super) async fn receive(self, events: mpsc::Sender<GossipEvent>, losses: Arc<Losses>) {
        let DatagramSocket { pool, socket } = self;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let received = tokio::select! {
                biased;
                () = events.closed() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            let (len, from) = match received {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "a datagram could not be received");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            };
            let bytes = Bytes::copy_from_slice(&buffer[..len]);
            match events.try_send(GossipEvent::Datagram { pool, from, bytes }) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => Losses::count(&losses.received),
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }
}
