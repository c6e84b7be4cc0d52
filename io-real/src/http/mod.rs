//! The HTTP front-end: bytes to the core's requests, the core's replies to bytes.
//!
//! [`serve`] is generic over the stream and starts no task and no timer, so that the simulator runs it as it is. What an
//! agent's cache watches is watched by tasks, so only a [`Site::with_cache`] has one.

mod body;
mod cache;
mod encode;
mod listen;
mod process;
mod site;
mod snapshot;
mod ui;

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use proconsul_core::api::{
    Headers, HttpReply, HttpRequest, Request, Routed, Wish, body_limit, indented, route, streams_body,
};

pub use listen::{ListenError, Listener, listen};
pub use site::{Bounds, HEADERS_BYTES_DEFAULT, Site};

use self::cache::Cache;
use crate::gate::{Gate, Refused};

/// So much of a body that nobody takes is read all the same: most clients send all of it before they look for a reply,
/// and a connection that is closed on them before that loses the reply, too.
const DISCARDED_BYTES_MAX: u64 = 1 << 20;

/// Serves one connection until either side ends it. Requests on it are answered in order. `client` is the address it
/// comes from, where it has one.
///
/// # Errors
/// The stream's, or a peer that does not speak HTTP.
pub async fn serve<S>(stream: S, gate: Gate, client: Option<IpAddr>) -> Result<(), hyper::Error>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    serve_at(stream, &Site::new(gate, Bounds::default()), client).await
}

/// Serves one connection of an interface.
async fn serve_at<S>(stream: S, site: &Site, client: Option<IpAddr>) -> Result<(), hyper::Error>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = service_fn(move |request| async move {
        let mut response = measured(site, client, request).await;
        site.decorate(response.headers_mut());
        Ok::<_, Infallible>(response)
    });
    let bounds = site.bounds();
    let mut builder = http1::Builder::new();
    builder
        .half_close(false)
        .title_case_headers(true)
        .header_read_timeout(bounds.idle)
        .max_buf_size(bounds.header_bytes);
    if bounds.idle.is_some() {
        builder.timer(TokioTimer::new());
    }
    builder.serve_connection(stream, service).await
}

/// Answers, counts that, and tells it.
async fn measured(
    site: &Site,
    client: Option<IpAddr>,
    request: hyper::Request<Incoming>,
) -> hyper::Response<body::Body> {
    let gate = site.gate();
    let began = gate.now().mono;
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = respond(site, client, request).await;
    let time = gate.now().mono.since(began);
    gate.metrics().served(method.as_str(), uri.path(), response.status().as_u16(), time);
    // Parameters may hold secrets.
    tracing::debug!(%method, path = uri.path(), status = response.status().as_u16(), latency = ?time, "Request finished");
    response
}

async fn respond(
    site: &Site,
    client: Option<IpAddr>,
    request: hyper::Request<Incoming>,
) -> hyper::Response<body::Body> {
    let gate = site.gate();
    let (head, mut body) = request.into_parts();
    let gzip = encode::accepts_gzip(&head.headers);
    if let Some(refusal) = site.limit(head.method.as_str(), head.uri.path()) {
        discard(&mut body).await;
        return encode::response(refusal, gzip);
    }
    if streams_body(head.method.as_str(), head.uri.path()) {
        let reply = match routed(gate, client, &head, Bytes::new()) {
            // What is rare is kept apart, so that those who wait do not carry its size.
            Routed::Restore { datacenter } => Box::pin(snapshot::restore(gate, datacenter, &mut body)).await,
            Routed::Reply(reply) => {
                discard(&mut body).await;
                reply
            }
            other => unreachable!("{other:?} takes no stream"),
        };
        return encode::response(reply, gzip);
    }
    let body = match in_time(site.bounds().idle, read_body(gate, &head, body)).await {
        Ok(body) => body,
        Err(refusal) => return encode::response(refusal, gzip),
    };
    let cached = match site.cache().zip(Cache::wanted(gate, &http_request(client, &head, Bytes::new()))) {
        None => None,
        Some((_, Err(refusal))) => return encode::response(refusal, gzip),
        Some((cache, Ok(read))) => match cache.kept(gate, &read) {
            Some(reply) => return encode::response(reply, gzip),
            None => Some((cache, read)),
        },
    };
    let reply = match routed(gate, client, &head, body.clone()) {
        Routed::Reply(reply) => reply,
        Routed::Call { request, indent } => {
            let reply = ask(gate, request).await;
            if indent { indented(reply) } else { reply }
        }
        Routed::Save { barrier, datacenter } => {
            match Box::pin(snapshot::save(gate, barrier, datacenter)).await {
                Ok(saved) => return encode::archive(saved),
                Err(reply) => reply,
            }
        }
        Routed::Process { wish: Wish::Page, .. } if site.pages().is_some() => {
            return encode::response(ui::own(site, head.uri.path()).await, gzip);
        }
        Routed::Process { wish, indent } => return Box::pin(process::answer(gate, wish, indent, gzip)).await,
        // The path was written in another way, which is as good.
        Routed::Restore { datacenter } => {
            Box::pin(snapshot::restore(gate, datacenter, &mut Full::new(body))).await
        }
    };
    let reply = match cached {
        Some((cache, read)) => cache.settle(gate, read, reply),
        None => reply,
    };
    encode::response(reply, gzip)
}

/// A body that comes too slowly is refused: its sender may be slow on purpose, and holds what has come.
async fn in_time(
    limit: Option<Duration>,
    body: impl Future<Output = Result<Bytes, HttpReply>>,
) -> Result<Bytes, HttpReply> {
    let Some(limit) = limit else { return body.await };
    let late = || HttpReply::text(408, format!("The body did not come within {limit:?}"));
    tokio::time::timeout(limit, body).await.unwrap_or_else(|_| Err(late()))
}

/// The body, as far as the endpoint takes it.
async fn read_body(
    gate: &Gate,
    head: &hyper::http::request::Parts,
    mut body: Incoming,
) -> Result<Bytes, HttpReply> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let limit = body_limit(head.method.as_str(), head.uri.path(), &gate.published().about);
    let announced = body.size_hint().exact();
    if limit.max == 0 {
        discard(&mut body).await;
        return Ok(Bytes::new());
    }
    if let Some(length) = announced.filter(|length| *length > limit.max) {
        // One that is not going to be read to its end is not waited for either: its sender may be slow on purpose.
        if length <= DISCARDED_BYTES_MAX {
            discard(&mut body).await;
        }
        return Err(limit.refuse(announced));
    }
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| HttpReply::text(400, format!("Cannot read the body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = (whole.len() + first.as_ref().map_or(0, Bytes::len) + data.len()) as u64;
        if length > limit.max {
            discard(&mut body).await;
            return Err(limit.refuse(None));
        }
        // Nearly every body comes in one piece, which is taken as it is.
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            piece => {
                whole.extend_from_slice(&piece.unwrap_or_default());
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

/// Reads on in a body that is of no use, within a bound; whoever sends more loses the connection.
async fn discard(body: &mut (impl Body<Data = Bytes> + Unpin)) {
    let mut discarded = 0;
    while discarded < DISCARDED_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        discarded += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}

/// What is to be done about a request.
fn routed(gate: &Gate, client: Option<IpAddr>, head: &hyper::http::request::Parts, body: Bytes) -> Routed {
    let published = gate.published();
    route(&published, &http_request(client, head, body), gate.now())
}

/// A request as the core knows it.
fn http_request(client: Option<IpAddr>, head: &hyper::http::request::Parts, body: Bytes) -> HttpRequest<'_> {
    let text = |name: header::HeaderName| value(&head.headers, &name);
    let headers = Headers {
        accept: text(header::ACCEPT),
        namespace: value(&head.headers, &NAMESPACE),
        partition: value(&head.headers, &PARTITION),
        forwarded_for: value(&head.headers, &FORWARDED_FOR),
        cache_control: text(header::CACHE_CONTROL),
    };
    HttpRequest {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or(""),
        client,
        headers,
        body,
    }
}

async fn ask(gate: &Gate, request: Request) -> HttpReply {
    match gate.ask(request).await {
        Ok(reply) => reply,
        Err(refused @ Refused::Full) => HttpReply::text(429, refused.to_string()),
        Err(refused @ Refused::Stopped) => HttpReply::text(503, refused.to_string()),
    }
}

static FORWARDED_FOR: header::HeaderName = header::HeaderName::from_static("x-forwarded-for");
static NAMESPACE: header::HeaderName = header::HeaderName::from_static("x-consul-namespace");
static PARTITION: header::HeaderName = header::HeaderName::from_static("x-consul-partition");

/// A header's value as text; empty when it is absent or no text.
fn value<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use hyper_util::rt::TokioIo;
    use proconsul_core::agent::AgentView;
    use proconsul_core::api::Front;
    use proconsul_core::node::{About, Lease, Published};
    use proconsul_core::raft::Membership;
    use proconsul_core::store::View;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::clock::RealClock;

    /// Sends a request over a pipe that holds less than its body, and reads only when all of it is sent.
    async fn exchange(method: &str, path: &str, body: usize) -> String {
        let published = Published {
            view: View::new(),
            lease: Lease::default(),
            membership: Arc::new(Membership::default()),
            agent: Arc::new(AgentView::default()),
            cluster: Arc::default(),
            alarm: None,
            about: Arc::new(About {
                server: true,
                kv_max_value_size: 10,
                front: Front { page: Some("/ui/".into()), ..Front::default() },
                ..About::default()
            }),
        };
        let (gate, _queue) =
            Gate::new(Arc::new(ArcSwap::from_pointee(published)), Arc::new(RealClock::new()));
        let (mut client, server) = tokio::io::duplex(256);
        let server = tokio::spawn(serve(TokioIo::new(server), gate, None));
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; body]).await.unwrap();
        // The connection lives on: it takes another request.
        client.write_all(b"GET /v1/none HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut replies = String::new();
        client.read_to_string(&mut replies).await.unwrap();
        server.await.unwrap().unwrap();
        replies
    }

    #[tokio::test]
    async fn a_body_that_is_refused_is_read_before_the_reply() {
        let replies = exchange("PUT", "/v1/kv/a", 100_000).await;
        assert!(replies.starts_with("HTTP/1.1 413 "), "{replies}");
        assert!(replies.contains("Request body(100000 bytes) too large, max size: 10 bytes."), "{replies}");
        assert!(replies.contains("HTTP/1.1 404 "), "{replies}");
    }

    #[tokio::test]
    async fn a_body_that_is_ignored_is_read_before_the_reply() {
        let replies = exchange("GET", "/v1/catalog/datacenters", 100_000).await;
        assert!(replies.starts_with("HTTP/1.1 200 "), "{replies}");
        assert!(replies.contains("HTTP/1.1 404 "), "{replies}");
    }

    #[tokio::test]
    async fn the_page_is_served_below_its_place_with_its_policy() {
        let replies = exchange("GET", "/ui/dc1/services/%3Cscript%3E?dc=dc1", 0).await;
        assert!(replies.starts_with("HTTP/1.1 200 "), "{replies}");
        assert!(
            replies.contains("Content-Security-Policy: default-src 'none'; script-src 'sha256-"),
            "{replies}"
        );
        assert!(replies.contains("<!doctype html>") && replies.contains("</html>"), "{replies}");
        assert!(replies.matches("<script").count() == 1, "nothing of the address is in the page: {replies}");
        let replies = exchange("HEAD", "/ui/", 0).await;
        assert!(replies.starts_with("HTTP/1.1 200 ") && !replies.contains("<!doctype"), "{replies}");
    }
}
