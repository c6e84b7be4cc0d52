//! DNS over TCP (RFC 7766): each message behind its length in two bytes, as many on a connection as the client likes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use proconsul_core::dns::Transport;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Answered, ERROR_PAUSE, Responder};

/// Connections at a time. Further ones are closed at once.
pub(super) const CONNECTIONS_MAX: usize = 1024;
/// A connection on which nothing arrives, or nothing can be written, for so long is closed (RFC 7766, section 6.2.3).
pub(super) const IDLE_MAX: Duration = Duration::from_secs(10);
/// Answers to questions that arrived together are written together, up to about this many bytes.
const BATCH: usize = 128 << 10;

pub(super) async fn serve(listener: TcpListener, responder: impl Responder) {
    let serve = |stream, responder| connection(stream, responder, IDLE_MAX);
    accept(listener, CONNECTIONS_MAX, responder, serve).await;
}

/// Takes connections and has each served by a task of its own. When there are as many as may be, a further one is closed
/// as soon as it has come.
pub(super) async fn accept<R, S, F>(listener: TcpListener, most: usize, responder: R, serve: S)
where
    R: Responder,
    S: Fn(TcpStream, R) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let free = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    let mut label = 0;
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "dns: accepting a connection");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&free).try_acquire_owned() else { continue };
        label += 1;
        // Without it only answers come a little later.
        let _ = stream.set_nodelay(true);
        let serving = serve(stream, responder.fork(label));
        connections.spawn(async move {
            if let Err(error) = serving.await {
                tracing::debug!(%error, "dns: a connection");
            }
            drop(place);
        });
    }
}

/// Answers the questions of one connection in order, until the client closes it or falls silent.
pub(super) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut responder: impl Responder,
    idle: Duration,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut packet = Vec::new();
    let mut out = Vec::new();
    let mut batch = Vec::new();
    loop {
        let mut length = [0; 2];
        match timeout(idle, stream.read_exact(&mut length)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
        packet.resize(usize::from(u16::from_be_bytes(length)), 0);
        match timeout(idle, stream.read_exact(&mut packet)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
        let answered = match responder.answer(&packet, Transport::Tcp, &mut out) {
            Answered::Now => true,
            Answered::Never => false,
            Answered::Later(answer) => {
                out.clear();
                answer.await.is_some_and(|answer| {
                    out.extend_from_slice(&answer);
                    true
                })
            }
        };
        if answered {
            let length =
                u16::try_from(out.len()).expect("answers over TCP are cut to what the length can say");
            batch.extend_from_slice(&length.to_be_bytes());
            batch.extend_from_slice(&out);
        }
        // Whole questions that have arrived already are answered before anything is written.
        let waiting = stream.buffer();
        let has_next = waiting.len() >= 2 && {
            let length = usize::from(u16::from_be_bytes([waiting[0], waiting[1]]));
            waiting.len() >= 2 + length
        };
        if !batch.is_empty() && (!has_next || batch.len() >= BATCH) {
            match timeout(idle, stream.write_all(&batch)).await {
                Ok(written) => written?,
                Err(_) => return Ok(()),
            }
            batch.clear();
        }
    }
}
