//! DNS that nobody on the way can read: over TLS (RFC 7858) and over HTTPS (RFC 8484).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::stream::{CONNECTIONS_MAX, IDLE_MAX, accept, connection};
use super::{Responder, https};
use crate::tls::Acceptor;

/// What is spoken within TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// DNS as over TCP.
    Stream,
    /// HTTP/2 or HTTP/1.1, with DNS messages at `/dns-query`.
    Http,
}

impl Within {
    /// The protocols to agree on in the handshake (ALPN), the preferred one first.
    #[must_use]
    pub fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Within::Stream => vec![b"dot".to_vec()],
            Within::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

/// A listener for DNS within TLS.
#[derive(Debug)]
pub struct PrivateListener {
    listener: TcpListener,
    within: Within,
    acceptor: Acceptor,
    handshake: Duration,
}

impl PrivateListener {
    /// Binds the socket. A client has `handshake` to shake hands; zero is as long as it may be silent otherwise.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(
        address: SocketAddr,
        within: Within,
        acceptor: Acceptor,
        handshake: Duration,
    ) -> io::Result<PrivateListener> {
        let handshake = if handshake.is_zero() { IDLE_MAX } else { handshake };
        Ok(PrivateListener { listener: TcpListener::bind(address).await?, within, acceptor, handshake })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the future is dropped.
    pub async fn serve(self, responder: impl Responder) {
        let PrivateListener { listener, within, acceptor, handshake } = self;
        accept(listener, CONNECTIONS_MAX, responder, move |stream, responder| {
            let acceptor = acceptor.clone();
            async move {
                let stream = shake_hands(&acceptor, handshake, stream).await?;
                match within {
                    Within::Stream => connection(stream, responder, IDLE_MAX).await,
                    Within::Http => {
                        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        https::connection(stream, is_h2, responder, IDLE_MAX).await
                    }
                }
            }
        })
        .await;
    }
}

async fn shake_hands(
    acceptor: &Acceptor,
    limit: Duration,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    timeout(limit, acceptor.accept(stream)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
#[path = "private_test.rs"]
mod tests;
