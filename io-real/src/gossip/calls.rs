//! Calls: a connection for one request and one answer, each behind its length in four bytes, big-endian.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use proconsul_core::gossip::{CallError, Pool};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{Losses, Streamed};
use crate::wire::socket;

/// Largest request or answer: the whole state of a pool of many thousand members.
pub(super) const MESSAGE_BYTES_MAX: usize = 20 << 20;
/// So many calls may come at a time. Exchanges take milliseconds; more than this is a flood.
pub(super) const CALLERS_MAX: usize = 128;
/// A caller has so long for its request, and again for taking the answer.
const CALLER_LIMIT: Duration = Duration::from_secs(10);
/// What is read at once, and allocated before anything has come.
const READ_STEP_BYTES: usize = 64 << 10;

/// A bound port that is not yet listened to.
pub(super) struct CallListener {
    pool: Pool,
    listener: TcpListener,
}

impl CallListener {
    pub(super) fn bind(pool: Pool, address: SocketAddr) -> io::Result<CallListener> {
        Ok(CallListener { pool, listener: socket::listen(address)? })
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes calls until nobody listens.
    pub(super) async fn listen(self, events: mpsc::UnboundedSender<Streamed>, losses: Arc<Losses>) {
        let CallListener { pool, listener } = self;
        let places = Arc::new(Semaphore::new(CALLERS_MAX));
        loop {
            let (stream, from) = tokio::select! {
                biased;
                () = events.closed() => return,
                accepted = socket::accept(&listener) => accepted,
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                Losses::count(&losses.calls);
                continue;
            };
            let events = events.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(stream, pool, from, &events).await {
                    tracing::debug!(%from, %error, "a gossip call broke off");
                }
                drop(place);
            });
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    pool: Pool,
    from: SocketAddr,
    events: &mpsc::UnboundedSender<Streamed>,
) -> io::Result<()> {
    let bytes = timeout(CALLER_LIMIT, read_message(&mut stream)).await??;
    let (answer, answered) = oneshot::channel();
    if events.send(Streamed::Call { pool, from, bytes, answer }).is_err() {
        return Ok(());
    }
    // No answer: the node does not like the request, or has stopped.
    let Ok(Ok(answer)) = timeout(CALLER_LIMIT, answered).await else { return Ok(()) };
    timeout(CALLER_LIMIT, write_message(&mut stream, &answer)).await??;
    Ok(())
}

/// Makes a call.
pub(super) async fn call(
    source: Option<IpAddr>,
    to: SocketAddr,
    request: Bytes,
    limit: Duration,
) -> Result<Bytes, CallError> {
    timeout(limit, exchange(source, to, request)).await.unwrap_or(Err(CallError::TimedOut))
}

async fn exchange(source: Option<IpAddr>, to: SocketAddr, request: Bytes) -> Result<Bytes, CallError> {
    let mut stream = connect(source, to).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => CallError::Refused,
        _ => CallError::TimedOut,
    })?;
    let closed = |_| CallError::Closed;
    write_message(&mut stream, &request).await.map_err(closed)?;
    read_message(&mut stream).await.map_err(closed)
}

async fn connect(source: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket: TcpSocket = socket::dialling(source, to)?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Writes a message and its length.
pub(super) async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let len = u32::try_from(message.len()).ok().filter(|len| *len as usize <= MESSAGE_BYTES_MAX);
    let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too large"))?;
    // One segment for what is small: most of it is.
    let mut head = BytesMut::with_capacity(4 + message.len().min(READ_STEP_BYTES));
    head.put_u32(len);
    let (first, rest) = message.split_at(message.len().min(READ_STEP_BYTES));
    head.put_slice(first);
    stream.write_all(&head).await?;
    stream.write_all(rest).await?;
    stream.flush().await
}

/// Reads a message. Memory grows with what has come, not with what was announced.
pub(super) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let len = stream.read_u32().await? as usize;
    if len > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too large"));
    }
    let mut message = BytesMut::new();
    let mut stream = stream.take(len as u64);
    while message.len() < len {
        message.reserve((len - message.len()).min(READ_STEP_BYTES));
        if stream.read_buf(&mut message).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(message.freeze())
}
