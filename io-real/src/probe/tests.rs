use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use proconsul_core::agent::Tls;

use super::*;

/// A peer that reads a request and answers by its path.
async fn peer() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 16384];
                let mut len = 0;
                while !request[..len].windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut request[len..]).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => len += read,
                    }
                }
                let request = String::from_utf8_lossy(&request[..len]).into_owned();
                let path = request.split(' ').nth(1).unwrap().to_owned();
                let reply = match path.as_str() {
                    "/echo" => {
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{request}", request.len())
                    }
                    "/429" => "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nbusy".into(),
                    "/500" => "HTTP/1.1 500 Own Words\r\nContent-Length: 0\r\n\r\n".into(),
                    "/redirect" => "HTTP/1.1 302 Found\r\nLocation: echo\r\nContent-Length: 0\r\n\r\n".into(),
                    "/loop" => "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n".into(),
                    "/long" => {
                        format!("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{}end", "x".repeat(59_997))
                    }
                    "/half" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".into(),
                    "/close" => return,
                    _ => String::new(),
                };
                let _ = stream.write_all(reply.as_bytes()).await;
                // Waits for the other side to close: whoever does not read the end must have a limit of time.
                let _ = stream.read(&mut [0; 1]).await;
            });
        }
    });
    address
}

fn get(address: SocketAddr, path: &str) -> Probe {
    let kind = ProbeKind::Http {
        url: format!("http://{address}{path}").into(),
        method: "GET".into(),
        headers: BTreeMap::new(),
        body: "".into(),
        follow_redirects: true,
        tls: Tls::default(),
    };
    Probe { kind, timeout: Duration::from_secs(20), output_max: 4096 }
}

async fn run(probe: Probe) -> (Health, String) {
    let outcome = SocketProber::default().probe(&probe).await;
    (outcome.status, outcome.output)
}

/// An address where nothing listens.
async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn an_http_check_speaks_as_consul_does() {
    let address = peer().await;
    let mut probe = get(address, "/echo");
    let ProbeKind::Http { method, headers, body, .. } = &mut probe.kind else { unreachable!() };
    *method = "PUT".into();
    headers.insert("X-Test".into(), vec!["one".into(), "two".into()]);
    *body = "hello".into();
    let (status, output) = run(probe).await;
    assert_eq!(status, Health::Passing);
    assert!(
        output.starts_with(&format!("HTTP PUT http://{address}/echo: 200 OK Output: PUT /echo HTTP/1.1\r\n"))
    );
    let lower = output.to_lowercase();
    for header in [
        format!("host: {address}"),
        "user-agent: consul health check".into(),
        "accept: text/plain, text/*, */*".into(),
        "x-test: one".into(),
        "x-test: two".into(),
        "content-length: 5".into(),
        "connection: close".into(),
    ] {
        assert!(lower.contains(&header), "{header} is not in {lower}");
    }
}

#[tokio::test]
async fn statuses_become_states() {
    let address = peer().await;
    let text = |rest: &str| format!("HTTP GET http://{address}/{rest}");
    let run = |path| run(get(address, path));
    assert_eq!(run("/429").await, (Health::Warning, text("429: 429 Too Many Requests Output: busy")));
    assert_eq!(run("/500").await, (Health::Critical, text("500: 500 Own Words Output: ")));
}

#[tokio::test]
async fn redirects_are_followed_unless_disabled_and_not_for_ever() {
    let address = peer().await;
    let (status, output) = run(get(address, "/redirect")).await;
    assert_eq!(status, Health::Passing);
    assert!(output.contains("/redirect: 200 OK Output: GET /echo HTTP/1.1"), "{output}");
    let (status, output) = run(get(address, "/loop")).await;
    assert_eq!(status, Health::Critical);
    assert!(output.ends_with("stopped after 10 redirects"), "{output}");
    let mut probe = get(address, "/redirect");
    let ProbeKind::Http { follow_redirects, .. } = &mut probe.kind else { unreachable!() };
    *follow_redirects = false;
    assert_eq!(run(probe).await.0, Health::Critical);
}

#[tokio::test]
async fn the_end_of_a_long_body_is_kept() {
    let address = peer().await;
    let (status, output) = run(get(address, "/long")).await;
    assert_eq!(status, Health::Passing);
    assert!(output.ends_with("xxend"));
    assert!(output.len() < 4096 + 100, "{}", output.len());
}

#[tokio::test]
async fn silence_and_broken_answers_are_critical() {
    let address = peer().await;
    let mut hang = get(address, "/hang");
    hang.timeout = Duration::from_millis(50);
    let (status, output) = run(hang).await;
    assert_eq!(status, Health::Critical);
    assert!(output.contains("context deadline exceeded"), "{output}");
    let (status, output) = run(get(address, "/close")).await;
    assert_eq!((status, output), (Health::Critical, format!("Get \"http://{address}/close\": EOF")));
    let mut half = get(address, "/half");
    half.timeout = Duration::from_millis(200);
    assert_eq!(
        run(half).await,
        (Health::Passing, format!("HTTP GET http://{address}/half: 200 OK Output: half"))
    );
}

#[tokio::test]
async fn unreachable_targets_are_critical_and_named() {
    let address = closed().await;
    let refused = format!("dial tcp {address}: connect: connection refused");
    let (status, output) = run(get(address, "/x")).await;
    assert_eq!((status, output), (Health::Critical, format!("Get \"http://{address}/x\": {refused}")));
    let mut https = get(address, "/");
    let ProbeKind::Http { url, .. } = &mut https.kind else { unreachable!() };
    *url = format!("https://user:secret@{address}/").into();
    let (_, output) = run(https).await;
    assert_eq!(output, format!("Get \"https://user:***@{address}/\": {refused}"));

    let tcp = |address: String| {
        run(Probe {
            kind: ProbeKind::Tcp { address: address.into(), tls: None },
            timeout: Duration::from_secs(5),
            output_max: 4096,
        })
    };
    assert_eq!(tcp(address.to_string()).await, (Health::Critical, refused));
    let expected = "dial tcp: address 127.0.0.1: missing port in address".to_owned();
    assert_eq!(tcp("127.0.0.1".into()).await, (Health::Critical, expected));
    let listening = peer().await;
    let expected = format!("TCP connect {listening}: Success");
    assert_eq!(tcp(listening.to_string()).await, (Health::Passing, expected));
}

#[tokio::test]
async fn a_dropped_probe_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probe = get(listener.local_addr().unwrap(), "/hang");
    let prober = Arc::new(SocketProber::default());
    let task = tokio::spawn(async move { prober.probe(&probe).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut buffer = [0; 1024];
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
    task.abort();
    while stream.read(&mut buffer).await.unwrap_or(0) > 0 {}
}

#[tokio::test]
async fn https_and_tcp_are_checked_over_tls() {
    let address = tls::tests::serving(b"http/1.1", |mut stream| async move {
        let mut request = vec![0; 16384];
        if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let https = |tls| {
        let mut probe = get(address, "/");
        let ProbeKind::Http { url, tls: of_probe, .. } = &mut probe.kind else { unreachable!() };
        (*url, *of_probe) = (format!("https://{address}/").into(), tls);
        run(probe)
    };
    let tcp = |tls| {
        let kind = ProbeKind::Tcp { address: address.to_string().into(), tls: Some(tls) };
        run(Probe { kind, timeout: Duration::from_secs(20), output_max: 4096 })
    };
    let trusting = || Tls { skip_verify: true, server_name: "self.test".into() };
    let ok = format!("HTTP GET https://{address}/: 200 OK Output: ok");
    assert_eq!(https(trusting()).await, (Health::Passing, ok));
    assert_eq!(tcp(trusting()).await, (Health::Passing, format!("TCP connect {address}: Success")));
    let unknown = "x509: certificate signed by unknown authority";
    for (status, output) in [https(Tls::default()).await, tcp(Tls::default()).await] {
        assert_eq!(status, Health::Critical);
        assert!(output.ends_with(unknown), "{output}");
    }
}
