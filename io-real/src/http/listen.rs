//! Listeners of the HTTP front-end on a tokio runtime.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};

use super::site::Site;
use crate::tls::{self, Acceptor};

/// Waiting connections that the system keeps.
const BACKLOG: u32 = 1024;
/// Pause after the system refused to accept, when it is short of descriptors for example.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(50);

/// Why a listener cannot stand.
#[derive(Debug, Error)]
#[error("cannot listen on {what}: {error}; stop the other program, or set another address or port")]
pub struct ListenError {
    what: String,
    error: io::Error,
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// TLS over TCP.
    Tls {
        /// Below TLS.
        listener: TcpListener,
        /// What is shown to clients and asked of them.
        acceptor: Acceptor,
        /// How long a client may take to shake hands (Consul: `limits.https_handshake_timeout`); zero: any time.
        handshake: Duration,
    },
    /// A Unix domain socket. The file is removed when it is bound again, not before.
    Unix(UnixListener),
}

impl Listener {
    /// Binds a TCP address.
    ///
    /// # Errors
    /// The address is in use or not this host's.
    pub fn tcp(address: SocketAddr) -> Result<Listener, ListenError> {
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        bind().map(Listener::Tcp).map_err(|error| ListenError { what: address.to_string(), error })
    }

    /// The same listener over TLS; one on a Unix socket stays as it is.
    #[must_use]
    pub fn over_tls(self, acceptor: Acceptor, handshake: Duration) -> Listener {
        match self {
            Listener::Tcp(listener) => Listener::Tls { listener, acceptor, handshake },
            other => other,
        }
    }

    /// Binds a path. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// The path cannot be bound.
    pub fn unix(path: &PathBuf) -> Result<Listener, ListenError> {
        if std::os::unix::net::UnixStream::connect(path).is_err() && path.exists() {
            // What cannot be removed cannot be bound either, which is reported below.
            let _ = std::fs::remove_file(path);
        }
        UnixListener::bind(path)
            .map(Listener::Unix)
            .map_err(|error| ListenError { what: path.display().to_string(), error })
    }

    /// The address it is bound to, of TCP listeners.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) | Listener::Tls { listener, .. } => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }
}

/// Accepts connections until the runtime ends.
pub async fn listen(listener: Listener, site: Site) {
    match listener {
        Listener::Tcp(listener) => listen_tcp(listener, site, None).await,
        Listener::Tls { listener, acceptor, handshake } => {
            listen_tcp(listener, site, Some((acceptor, handshake))).await;
        }
        Listener::Unix(listener) => listen_unix(listener, site).await,
    }
}

async fn listen_tcp(listener: TcpListener, site: Site, over: Option<(Acceptor, Duration)>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
                continue;
            }
        };
        let Some(place) = site.enter(peer.ip()) else {
            tracing::warn!(client = %peer.ip(), "more HTTP connections from one address than limits.http_max_conns_per_client");
            // Over TLS the words could not be read.
            if over.is_none() {
                tokio::spawn(refuse(stream));
            }
            continue;
        };
        // Without it only answers come a little later.
        let _ = stream.set_nodelay(true);
        let (site, over) = (site.clone(), over.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Some((acceptor, limit)) = over {
                return serve_tls(stream, peer, &site, &acceptor, limit).await;
            }
            if let Err(error) = super::serve_at(TokioIo::new(stream), &site, Some(peer.ip())).await {
                tracing::debug!(client = %peer, %error, "HTTP connection ended");
            }
        });
    }
}

async fn serve_tls(stream: TcpStream, peer: SocketAddr, site: &Site, acceptor: &Acceptor, limit: Duration) {
    let limit = if limit.is_zero() { Duration::MAX } else { limit };
    let stream = match tokio::time::timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!("http: TLS handshake error from {peer}: {}", tls::explain(&error, ""));
            return;
        }
        Err(_) => {
            tracing::warn!("http: TLS handshake error from {peer}: it took longer than {limit:?}");
            return;
        }
    };
    if let Err(error) = super::serve_at(TokioIo::new(stream), site, Some(peer.ip())).await {
        tracing::debug!(client = %peer, %error, "HTTPS connection ended");
    }
}

async fn listen_unix(listener: UnixListener, site: Site) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let site = site.clone();
                tokio::spawn(async move {
                    if let Err(error) = super::serve_at(TokioIo::new(stream), &site, None).await {
                        tracing::debug!(%error, "HTTP connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
            }
        }
    }
}

/// Tells a client that it has too many connections.
async fn refuse(mut stream: TcpStream) {
    use tokio::io::AsyncWriteExt;
    const TEXT: &[u8] =
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
        Your IP is issuing too many concurrent connections, please rate limit your calls\n";
    // A client that does not listen learns it from the closed connection.
    let _ = stream.write_all(TEXT).await;
    let _ = stream.shutdown().await;
}
