//! From the core's reply to hyper's response.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{BoxStream, StreamExt as _};
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use proconsul_core::api::{ContentType, HttpReply, QueryMeta};

use super::body::Body;
use super::process;
use super::snapshot::Saved;

static INDEX: HeaderName = HeaderName::from_static("x-consul-index");
static KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
static LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");

/// Shorter bodies are not worth compressing: they fit into one packet. They are wrapped as they are, since Consul answers
/// with gzip whoever takes it, whatever the length.
const COMPRESSED_BYTES_MIN: usize = 1_400;
/// So many headers are in nearly every response.
const HEADERS_USUAL: usize = 8;

/// Whether a client takes gzip. A client that names it with quality zero does not.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            named && !refused
        })
    })
}

/// The response to send.
pub(super) fn response(reply: HttpReply, gzip: bool) -> Response<Body> {
    let HttpReply { status, content_type, meta, headers, body } = reply;
    let compressed = (gzip && !body.is_empty()).then(|| match body.len() {
        COMPRESSED_BYTES_MIN.. => compress(&body),
        _ => wrap(&body),
    });
    let mut response = Response::new(Body::Whole(Full::new(match &compressed {
        Some(compressed) => compressed.clone(),
        None => body,
    })));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let map = response.headers_mut();
    map.reserve(HEADERS_USUAL);
    let content_type = match content_type {
        ContentType::None => None,
        ContentType::Json => Some("application/json"),
        ContentType::Text => Some("text/plain; charset=utf-8"),
        ContentType::Raw => Some("text/plain"),
        ContentType::Html => Some("text/html; charset=utf-8"),
    };
    if let Some(content_type) = content_type {
        map.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    map.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if compressed.is_some() {
        map.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Some(meta) = meta {
        insert_meta(map, meta);
    }
    for (name, value) in headers {
        // The core writes names and values that HTTP allows; a value made of a client's words may not be.
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
        {
            map.append(name, value);
        }
    }
    response
}

/// The response that an archive is. It is compressed already, whatever the client takes.
pub(super) fn archive(saved: Saved) -> Response<Body> {
    let mut response = Response::new(Body::Stream(saved.archive));
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-gzip"));
    map.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    insert_meta(map, saved.meta);
    response
}

/// The response of a body that comes piece by piece.
pub(super) fn stream(
    pieces: BoxStream<'static, Bytes>,
    content_type: &'static str,
    gzip: bool,
) -> Response<Body> {
    let stream = if gzip { process::compressed(pieces) } else { pieces.map(Ok).boxed() };
    let mut response = Response::new(Body::Stream(stream));
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    map.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if gzip {
        map.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn insert_meta(map: &mut HeaderMap, meta: QueryMeta) {
    if meta.index > 0 {
        map.insert(&INDEX, HeaderValue::from(meta.index));
    }
    map.insert(&KNOWN_LEADER, HeaderValue::from_static(if meta.known_leader { "true" } else { "false" }));
    map.insert(&LAST_CONTACT, HeaderValue::from(meta.last_contact_ms));
}

fn compress(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4 + 64), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).map(Bytes::from).expect("memory is the only sink")
}

/// A short body as gzip (RFC 1952) with one block that is stored (RFC 1951, section 3.2.4). Preparing a compressor takes
/// longer than everything else about a short answer.
fn wrap(body: &[u8]) -> Bytes {
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    const LAST_AND_STORED: u8 = 1;
    let length = u16::try_from(body.len()).expect("short bodies are wrapped");
    let mut sum = flate2::Crc::new();
    sum.update(body);
    let mut wrapped = Vec::with_capacity(HEAD.len() + 5 + body.len() + 8);
    wrapped.extend_from_slice(&HEAD);
    wrapped.push(LAST_AND_STORED);
    wrapped.extend_from_slice(&length.to_le_bytes());
    wrapped.extend_from_slice(&(!length).to_le_bytes());
    wrapped.extend_from_slice(body);
    wrapped.extend_from_slice(&sum.sum().to_le_bytes());
    wrapped.extend_from_slice(&u32::from(length).to_le_bytes());
    wrapped.into()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn whoever_takes_gzip_gets_gzip_whatever_the_length() {
        for length in [1, 2, COMPRESSED_BYTES_MIN - 1, COMPRESSED_BYTES_MIN, 100_000] {
            let body = (0..length).map(|at| at as u8).collect::<Vec<_>>();
            let sent = if length < COMPRESSED_BYTES_MIN { wrap(&body) } else { compress(&body) };
            let mut read = Vec::new();
            flate2::read::GzDecoder::new(&sent[..]).read_to_end(&mut read).expect("it is gzip");
            assert_eq!(read, body);
            let headers = response(HttpReply::json(200, body), true).headers().clone();
            assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
        }
        assert!(!response(HttpReply::empty(404), true).headers().contains_key(header::CONTENT_ENCODING));
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let accepts = |value: &'static str| {
            accepts_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert!(accepts("gzip") && accepts("deflate, gzip;q=0.5") && accepts("*"));
        assert!(!accepts("identity") && !accepts("gzip;q=0") && !accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn index_headers_are_numbers_and_words() {
        let mut reply = HttpReply::json(200, "[]");
        reply.meta = Some(QueryMeta { index: 7, known_leader: true, last_contact_ms: 3 });
        let response = response(reply, false);
        assert_eq!(response.headers()[&INDEX], "7");
        assert_eq!(response.headers()[&KNOWN_LEADER], "true");
        assert_eq!(response.headers()[&LAST_CONTACT], "3");
        assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
    }
}
