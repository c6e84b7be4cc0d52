//! DNS over HTTPS (RFC 8484), within a stream that is private already: `GET /dns-query?dns=<message in base64url>` and
//! `POST /dns-query` with the message as body.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proconsul_core::dns::{Transport, fresh_for};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use super::{Answered, QUESTION_MAX, Responder};

const PATH: &str = "/dns-query";
/// The media type of messages (RFC 8484, section 6).
const MESSAGE: &str = "application/dns-message";
/// Questions under way on one connection.
const STREAMS_MAX: u32 = 128;
/// Headers of a question, in bytes.
const HEADERS_MAX: u32 = 32 << 10;

type Reply = Response<Full<Bytes>>;

/// Answers the questions of one connection, until the client closes it or falls silent.
pub(super) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    is_h2: bool,
    responder: impl Responder,
    idle: Duration,
) -> io::Result<()> {
    let asked = Arc::new(AtomicU64::new(0));
    // Answering takes microseconds; what takes longer is waited for outside.
    let responder = Arc::new(Mutex::new(responder));
    let count = Arc::clone(&asked);
    let service = service_fn(move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        let responder = Arc::clone(&responder);
        async move { Ok::<_, Infallible>(respond(request, &responder).await) }
    });
    let stream = TokioIo::new(stream);
    if is_h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_MAX);
        let mut serving = pin!(builder.serve_connection(stream, service));
        let mut before = 0;
        loop {
            tokio::select! {
                ended = serving.as_mut() => return ended.map_err(io::Error::other),
                () = sleep(idle) => {
                    let now = asked.load(Ordering::Relaxed);
                    if now == before {
                        return Ok(());
                    }
                    before = now;
                }
            }
        }
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(HEADERS_MAX as usize);
    builder.serve_connection(stream, service).await.map_err(io::Error::other)
}

async fn respond(request: Request<Incoming>, responder: &Mutex<impl Responder>) -> Reply {
    if request.uri().path() != PATH {
        return refusal(StatusCode::NOT_FOUND);
    }
    let packet = match *request.method() {
        Method::GET => match in_query(request.uri().query().unwrap_or_default()) {
            Some(packet) => packet,
            None => return refusal(StatusCode::BAD_REQUEST),
        },
        Method::POST => {
            if request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != MESSAGE) {
                return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
            match Limited::new(request.into_body(), QUESTION_MAX).collect().await {
                Ok(body) => body.to_bytes().into(),
                Err(_) => return refusal(StatusCode::PAYLOAD_TOO_LARGE),
            }
        }
        _ => return refusal(StatusCode::METHOD_NOT_ALLOWED),
    };
    let mut out = Vec::new();
    let answered = {
        let mut responder = responder.lock().unwrap_or_else(PoisonError::into_inner);
        responder.answer(&packet, Transport::Tcp, &mut out)
    };
    let answer = match answered {
        Answered::Now => Some(Bytes::from(out)),
        Answered::Never => None,
        Answered::Later(answer) => answer.await,
    };
    // Whoever sends what is no question gets no answer elsewhere; here something has to be said.
    let Some(answer) = answer else { return refusal(StatusCode::BAD_REQUEST) };
    let max_age = format!("max-age={}", fresh_for(&answer));
    let response = Response::builder().header(CONTENT_TYPE, MESSAGE).header(CACHE_CONTROL, max_age);
    response.body(Full::new(answer)).expect("both headers are text")
}

/// The message that the parameters of a GET hold.
fn in_query(query: &str) -> Option<Vec<u8>> {
    let text = query.split('&').find_map(|pair| pair.strip_prefix("dns="))?;
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok().filter(|packet| packet.len() <= QUESTION_MAX)
}

fn refusal(status: StatusCode) -> Reply {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
