//! Checks over HTTP/2: its ping, and gRPC's health protocol (grpc.health.v1, «GRPC Health Checking Protocol»).

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::{self, Connection, SendRequest};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE};
use proconsul_core::agent::ProbeOutcome;
use proconsul_core::store::model::Health;
use tokio::time::timeout;

use super::outcome;
use super::tls::{self, Secure, Stream};

/// `SERVING` of the protocol's `ServingStatus`.
const SERVING: u64 = 1;
/// Its names.
const STATES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// The longest answer that is read; one of the protocol has seven bytes.
const ANSWER_MAX: usize = 64 << 10;

/// Sends a ping and waits for its answer.
pub(super) async fn ping(address: &str, tls: Option<Secure<'_>>, limit: Duration) -> ProbeOutcome {
    let ping = async {
        let (_sender, mut connection) = connect(address, tls).await?;
        let mut ping = connection.ping_pong().expect("nobody took it before");
        tokio::select! {
            pong = ping.ping(h2::Ping::opaque()) => pong.map(drop).map_err(|error| error.to_string()),
            end = connection => Err(ended(end)),
        }
    };
    match timeout(limit, ping).await {
        Ok(Ok(())) => outcome(Health::Passing, "HTTP2 ping was successful".to_owned()),
        Ok(Err(error)) => outcome(Health::Critical, format!("HTTP2 ping failed: {error}")),
        Err(_) => outcome(Health::Critical, "HTTP2 ping failed: i/o timeout".to_owned()),
    }
}

/// Asks for the health of a service, or of all.
pub(super) async fn health(target: &str, tls: Option<Secure<'_>>, limit: Duration) -> ProbeOutcome {
    let (address, service) = target.split_once('/').unwrap_or((target, ""));
    match timeout(limit, serving(address, service, tls)).await {
        Ok(Ok(())) => outcome(Health::Passing, format!("gRPC check {target}: success")),
        Ok(Err(error)) => outcome(Health::Critical, error),
        Err(_) => outcome(
            Health::Critical,
            "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned(),
        ),
    }
}

type Client = (SendRequest<Bytes>, Connection<Box<dyn Stream>, Bytes>);

async fn connect(address: &str, tls: Option<Secure<'_>>) -> Result<Client, String> {
    let stream = tls::connect(address, tls, Some(tls::H2)).await?;
    client::handshake(stream).await.map_err(|error| error.to_string())
}

fn ended(end: Result<(), h2::Error>) -> String {
    end.err().map_or_else(|| "EOF".to_owned(), |error| error.to_string())
}

async fn serving(address: &str, service: &str, tls: Option<Secure<'_>>) -> Result<(), String> {
    let unavailable = |error: String| format!("rpc error: code = Unavailable desc = {error}");
    let (sender, connection) = connect(address, tls).await.map_err(|error| {
        unavailable(format!("connection error: desc = \"transport: Error while dialing {error}\""))
    })?;
    tokio::select! {
        result = ask(sender, address, service, tls) => result,
        end = connection => Err(unavailable(ended(end))),
    }
}

async fn ask(
    sender: SendRequest<Bytes>,
    address: &str,
    service: &str,
    tls: Option<Secure<'_>>,
) -> Result<(), String> {
    let broken = |error: h2::Error| format!("rpc error: code = Unavailable desc = {error}");
    let scheme = if tls.is_some() { "https" } else { "http" };
    let authority =
        tls.map(|secure| secure.tls.server_name.as_str()).filter(|name| !name.is_empty()).unwrap_or(address);
    let request = Request::post(format!("{scheme}://{authority}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    let mut sender = sender.ready().await.map_err(broken)?;
    let (response, mut stream) = sender.send_request(request, false).map_err(broken)?;
    stream.send_data(question(service), true).map_err(broken)?;
    let response = response.await.map_err(broken)?;
    let status = response.status();
    if status != hyper::StatusCode::OK {
        return Err(format!("rpc error: code = Unknown desc = unexpected HTTP status code: {status}"));
    }
    refused(response.headers())?;
    let mut body = response.into_body();
    let mut answer = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(broken)?;
        // What is not read on keeps the other side from sending more.
        body.flow_control().release_capacity(data.len()).map_err(broken)?;
        answer.extend_from_slice(&data);
        if answer.len() > ANSWER_MAX {
            return Err("rpc error: code = ResourceExhausted desc = the answer is too long".to_owned());
        }
    }
    if let Some(trailers) = body.trailers().await.map_err(broken)? {
        refused(&trailers)?;
    }
    match state(&answer) {
        Some(SERVING) => Ok(()),
        Some(state) => {
            let index = usize::try_from(state).unwrap_or(usize::MAX);
            Err(format!("gRPC {service} serving status: {}", STATES.get(index).unwrap_or(&STATES[0])))
        }
        None => Err("rpc error: code = Internal desc = the answer cannot be read".to_owned()),
    }
}

/// A status of gRPC that is no success.
fn refused(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default();
            Err(format!("rpc error: code = {} desc = {message}", code_name(code)))
        }
    }
}

/// Names of gRPC's codes (gRPC's documentation, «Status codes»).
fn code_name(code: &str) -> &str {
    match code {
        "2" => "Unknown",
        "4" => "DeadlineExceeded",
        "5" => "NotFound",
        "7" => "PermissionDenied",
        "12" => "Unimplemented",
        "13" => "Internal",
        "14" => "Unavailable",
        "16" => "Unauthenticated",
        other => other,
    }
}

/// `HealthCheckRequest`, framed.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("names of services are short"));
    framed.put_slice(&message);
    framed.freeze()
}

/// `status` of a framed `HealthCheckResponse`; an absent one is zero.
fn state(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
    let mut message = message.get(..length).filter(|_| head[0] == 0)?;
    let mut state = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            0 => varint(&mut message)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
                continue;
            }
            _ => return None,
        };
        if key >> 3 == 1 {
            state = value;
        }
    }
    Some(state)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hyper::{HeaderMap, Response};
    use tokio::net::TcpListener;

    use proconsul_core::agent::Tls;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A server that knows the services `good` and `bad`.
    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                tokio::spawn(serve(stream));
            }
        });
        address
    }

    async fn serve(stream: impl Stream) {
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let mut body = request.into_body();
                let asked = body.data().await.expect("a question").expect("whole");
                let mut trailers = HeaderMap::new();
                let state = match &asked[5..] {
                    b"" | b"\x0a\x04good" => 1,
                    b"\x0a\x03bad" => 2,
                    _ => 0,
                };
                let mut stream = respond.send_response(Response::new(()), false).expect("it waits");
                if state == 0 {
                    trailers.insert("grpc-status", "5".parse().expect("a number"));
                    trailers.insert("grpc-message", "unknown service".parse().expect("text"));
                } else {
                    let answer = Bytes::from(vec![0, 0, 0, 0, 2, 8, state]);
                    stream.send_data(answer, false).expect("it waits");
                    trailers.insert("grpc-status", "0".parse().expect("a number"));
                }
                stream.send_trailers(trailers).expect("it waits");
            });
        }
    }

    async fn closed() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("bound")
    }

    #[tokio::test]
    async fn a_service_that_serves_passes() {
        let address = server().await;
        for (service, status, end) in [
            ("", Health::Passing, ": success"),
            ("/good", Health::Passing, ": success"),
            ("/bad", Health::Critical, "gRPC bad serving status: NOT_SERVING"),
            ("/none", Health::Critical, "rpc error: code = NotFound desc = unknown service"),
        ] {
            let outcome = health(&format!("{address}{service}"), None, LONG).await;
            assert_eq!(outcome.status, status, "{}", outcome.output);
            assert!(outcome.output.ends_with(end), "{}", outcome.output);
        }
        let outcome = health(&closed().await.to_string(), None, LONG).await;
        assert!(
            outcome.output.contains(
                "code = Unavailable desc = connection error: desc = \"transport: Error while dialing dial tcp"
            ),
            "{}",
            outcome.output
        );
    }

    #[tokio::test]
    async fn a_ping_is_answered_by_whoever_speaks_http2() {
        let outcome = ping(&server().await.to_string(), None, LONG).await;
        assert_eq!((outcome.status, outcome.output.as_str()), (Health::Passing, "HTTP2 ping was successful"));
        let outcome = ping(&closed().await.to_string(), None, LONG).await;
        assert_eq!(outcome.status, Health::Critical);
        assert!(outcome.output.contains("connection refused"), "{}", outcome.output);
    }

    #[tokio::test]
    async fn both_are_spoken_over_tls() {
        let address = tls::tests::serving(tls::H2, serve).await.to_string();
        let trusting = Tls { skip_verify: true, server_name: Default::default() };
        assert_eq!(
            health(&format!("{address}/good"), Some((&trusting).into()), LONG).await.status,
            Health::Passing
        );
        assert_eq!(ping(&address, Some((&trusting).into()), LONG).await.status, Health::Passing);
        let outcome = ping(&address, Some((&Tls::default()).into()), LONG).await;
        assert_eq!(outcome.status, Health::Critical);
        assert!(outcome.output.ends_with("certificate signed by unknown authority"), "{}", outcome.output);
    }

    #[test]
    fn damaged_answers_are_told_from_states() {
        assert_eq!(state(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(state(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        for bad in [&[][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 8], &[0, 0, 0, 0, 1, 8], &[0, 0, 0, 0, 1, 9]]
        {
            assert_eq!(state(bad), None, "{bad:?}");
        }
    }
}
