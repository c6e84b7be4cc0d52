//! Programs that do the least possible for an answer of the same bytes.

use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// Answers every request with the same body.
pub(crate) fn http(port: u16, body_bytes: usize, body_file: Option<PathBuf>) -> Result<(), Box<dyn Error>> {
    let body = match body_file {
        Some(path) => Bytes::from(std::fs::read(path)?),
        None => Bytes::from(vec![b'x'; body_bytes]),
    };
    serve(port, move |_| {
        let body = body.clone();
        async move { answer(StatusCode::OK, body) }
    })
}

pub(crate) fn answer(status: StatusCode, body: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

pub(crate) fn serve<F, S>(port: u16, service: S) -> Result<(), Box<dyn Error>>
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service_fn(service.clone()));
            // A client that breaks off concerns nobody else.
            tokio::spawn(connection);
        }
    })
}

/// Answers every datagram with the same bytes behind the two of its identity; without a file with 127.0.0.1 behind the
/// question.
pub(crate) fn udp(port: u16, answer_file: Option<PathBuf>) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
    let mut packet = [0; 1_500];
    if let Some(file) = answer_file {
        let mut answer = std::fs::read(file)?;
        loop {
            let (_, from) = socket.recv_from(&mut packet)?;
            answer[..2].copy_from_slice(&packet[..2]);
            socket.send_to(&answer, from)?;
        }
    }
    loop {
        let (length, from) = socket.recv_from(&mut packet)?;
        if let Some(end) = question_end(&packet[..length])
            && let Some(room) = packet.get_mut(end..end + ADDRESS.len())
        {
            room.copy_from_slice(&ADDRESS);
            // An authoritative answer without error: one question, one answer, nothing else (RFC 1035, section 4.1.1).
            packet[2..4].copy_from_slice(&[0x85, 0x00]);
            packet[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
            socket.send_to(&packet[..end + ADDRESS.len()], from)?;
        }
    }
}

/// The name of the question, type A, class IN, TTL 0, 127.0.0.1.
const ADDRESS: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1];

fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1 + length;
        if length == 0 {
            return (at + 4 <= packet.len()).then_some(at + 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_question_is_found() {
        let mut packet = vec![0; 12];
        packet.extend_from_slice(b"\x03web\x06consul\0\0\x01\0\x01rest");
        assert_eq!(question_end(&packet), Some(packet.len() - 4));
        assert_eq!(question_end(&packet[..20]), None);
        assert_eq!(question_end(&[]), None);
    }
}
