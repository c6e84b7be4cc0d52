use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::super::tests::{Mirror, read};
use super::*;
use crate::tls::{Authorities, ClientTls, Pair, ServerTls, Version};

const NAME: &str = "dns.test";

/// A listener, and a client's trust in it.
struct World {
    address: SocketAddr,
    trust: ClientTls,
    _files: tempfile::TempDir,
}

async fn world(within: Within) -> World {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    let write = |name: &str, label: &str, der: &[u8]| {
        let text = STANDARD.encode(der);
        let path = dir.path().join(name);
        std::fs::write(&path, format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")).unwrap();
        path
    };
    let pair = Pair {
        certificate: write("cert.pem", "CERTIFICATE", certificate.der()),
        key: write("key.pem", "PRIVATE KEY", &key.serialize_der()),
    };
    let authorities = Authorities { files: vec![pair.certificate.clone()], directories: Vec::new() };
    let tls = ServerTls {
        pair,
        clients: None,
        version: Version::default(),
        cipher_suites: Vec::new(),
        protocols: within.protocols(),
    };
    let acceptor = Acceptor::new(&tls).unwrap();
    let listener =
        PrivateListener::bind("127.0.0.1:0".parse().unwrap(), within, acceptor, Duration::from_secs(30));
    let listener = listener.await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listener.serve(Mirror));
    World { address, trust: ClientTls { authorities, ..ClientTls::default() }, _files: dir }
}

impl World {
    async fn connect(&self, protocol: &[u8]) -> ClientStream<TcpStream> {
        let mut config = self.trust.config().unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

#[tokio::test]
async fn questions_within_tls_are_answered_in_order() {
    let world = world(Within::Stream).await;
    let mut stream = world.connect(b"dot").await;
    stream.write_all(b"\0\x03abc\0\x01?\0\x02xy").await.unwrap();
    for answer in [&b"tcba"[..], b"later", b"tyx"] {
        assert_eq!(read(&mut stream).await, answer);
    }
    // Somebody without TLS is not answered.
    let mut plain = TcpStream::connect(world.address).await.unwrap();
    plain.write_all(b"\0\x03abc").await.unwrap();
    plain.shutdown().await.unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard).await;
    assert!(!heard.ends_with(b"tcba"), "{heard:?}");
}

/// A question, and status and body of its answer.
type Exchange = (Request<Full<Bytes>>, StatusCode, &'static [u8]);

/// All kinds of questions.
fn questions() -> Vec<Exchange> {
    let get = |target: String| {
        Request::get(format!("https://{NAME}{target}")).header("host", NAME).body(Full::default()).unwrap()
    };
    let post = |kind: &str, body: Vec<u8>| {
        let request = Request::post(format!("https://{NAME}/dns-query")).header("host", NAME);
        request.header("content-type", kind).body(Full::from(body)).unwrap()
    };
    let encoded = |packet: &[u8]| format!("/dns-query?x=y&dns={}", URL_SAFE_NO_PAD.encode(packet));
    let message = "application/dns-message";
    vec![
        (get(encoded(b"abc")), StatusCode::OK, b"tcba"),
        (get(encoded(b"?")), StatusCode::OK, b"later"),
        (post(message, b"xyz".to_vec()), StatusCode::OK, b"tzyx"),
        (get(encoded(b"")), StatusCode::BAD_REQUEST, b""),
        (get("/dns-query?dns=***".to_owned()), StatusCode::BAD_REQUEST, b""),
        (get("/dns-query".to_owned()), StatusCode::BAD_REQUEST, b""),
        (get("/v1/status/leader".to_owned()), StatusCode::NOT_FOUND, b""),
        (post("application/json", b"{}".to_vec()), StatusCode::UNSUPPORTED_MEDIA_TYPE, b""),
        (post(message, vec![b'x'; 1 << 20]), StatusCode::PAYLOAD_TOO_LARGE, b""),
    ]
}

#[tokio::test]
async fn questions_over_https_are_answered_over_http_2() {
    let world = world(Within::Http).await;
    let stream = TokioIo::new(world.connect(b"h2").await);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for (request, status, body) in questions() {
        let about = format!("{request:?}");
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{about}");
        if status == StatusCode::OK {
            assert_eq!(response.headers()["content-type"], "application/dns-message");
            assert_eq!(response.headers()["cache-control"], "max-age=0");
        }
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body, "{about}");
    }
}

#[tokio::test]
async fn questions_over_https_are_answered_over_http_1() {
    let world = world(Within::Http).await;
    for (request, status, body) in questions() {
        // A body that is refused may cost the connection.
        let stream = TokioIo::new(world.connect(b"http/1.1").await);
        let (mut client, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let Ok(response) = client.send_request(request).await else {
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
            continue;
        };
        assert_eq!(response.status(), status);
        let heard = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(heard, body);
    }
}

#[tokio::test]
async fn silent_connections_are_closed() {
    for is_h2 in [false, true] {
        let (client, server) = tokio::io::duplex(1 << 10);
        let serving = https::connection(server, is_h2, Mirror, Duration::from_millis(5));
        let _ = timeout(Duration::from_secs(60), serving).await.expect("it ends");
        drop(client);
    }
}
