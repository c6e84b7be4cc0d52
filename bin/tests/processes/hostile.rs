//! What strangers may send to an agent's ports. Whatever it is, the agent stays up, keeps what it has, answers others,
//! and takes no memory to speak of.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use proconsul_core::testing::fuzz::hostile;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::support::{Agent, wait_for};

/// Nothing here is expected to answer; this bounds how long it is listened to.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// So much more memory may be resident at any moment of it. One body of 100 MB that is kept would be seen.
const GROWTH_MAX_KIB: u64 = 64 << 10;

/// What clients of all ports begin with; the fuzz damages it.
fn greetings() -> impl Strategy<Value = Vec<u8>> {
    let samples: Vec<&[u8]> = vec![
        b"GET /v1/kv/a?recurse&index=7 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT /v1/agent/service/register HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{\"Name\":\"web\"}",
        b"PUT /v1/kv/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06consul\x07service\x06consul\x00\x00\x01\x00\x01",
        b"\x00\x26\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06consul\x07service\x06consul\x00\x00\x21\x00\x01",
        b"pcRP\x01\x00\x10................\x00\x00\x00\x08........",
        b"\x01\x00....L\x05\x01n1",
        b"\x00\x00\x00\x09\x01\x00....L\x01\x00",
    ];
    prop::sample::select(samples).prop_map(<[u8]>::to_vec)
}

fn drawn(cases: u32) -> impl Iterator<Item = Vec<u8>> {
    drawn_from(hostile(greetings(), 400), cases)
}

/// The same ones in every run.
fn drawn_from(strategy: impl Strategy<Value = Vec<u8>>, cases: u32) -> impl Iterator<Item = Vec<u8>> {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    (0..cases).map(move |_| strategy.new_tree(&mut runner).expect("no filters").current())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the agent listens");
    stream.set_read_timeout(Some(ANSWER_MAX)).expect("a socket");
    stream.set_write_timeout(Some(ANSWER_MAX)).expect("a socket");
    stream
}

/// Sends as much as the agent takes, and returns what it answers until it closes.
fn exchange(address: SocketAddr, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut stream = connect(address);
    for piece in pieces {
        // An agent that has heard enough closes.
        if stream.write_all(piece.as_ref()).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("neither an answer nor an end: {error}"),
        }
        let text = String::from_utf8_lossy(&answer);
        if text.contains("\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> Option<u16> {
    answer.split(' ').nth(1)?.parse().ok()
}

/// What a process has in memory at most so far.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn hostile_bytes_on_every_port_leave_the_agent_as_it_was() {
    let agent = Agent::dev();
    let mut http = agent.http();
    http.put("/v1/kv/kept", "as it was");
    let before = peak_kib(agent.pid());
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ports = agent.ports();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    for bytes in drawn(400) {
        for port in [ports.dns, ports.serf_lan, ports.serf_wan] {
            udp.send_to(&bytes, at(port)).expect("room");
        }
    }
    for bytes in drawn(60) {
        for port in [ports.http, ports.dns, ports.server, ports.serf_lan, ports.serf_wan] {
            // Gone before it is answered, as port scanners are.
            let _closed_early = connect(at(port)).write_all(&bytes);
        }
    }
    assert_eq!(http.ok("GET", "/v1/kv/kept?raw", "").body.as_ref(), b"as it was");
    let members = http.get("/v1/agent/members");
    assert_eq!(members.as_array().map(Vec::len), Some(1), "{members}");
    let grown = peak_kib(agent.pid()).saturating_sub(before);
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB more");
}

#[test]
fn hostile_requests_get_a_clear_refusal_and_bounded_memory() {
    let agent = Agent::dev();
    let before = peak_kib(agent.pid());
    let address = agent.address();
    let mut open = Vec::new();
    for _ in 0..100 {
        // A slow client keeps its connection and nobody else's.
        let mut slow = connect(address);
        slow.write_all(b"GET /v1/kv/a HTTP/1.1\r\nHost: ").expect("room");
        open.push(slow);
    }
    let many_headers = std::iter::once("GET /v1/status/leader HTTP/1.1\r\n".to_owned())
        .chain((0..10_000).map(|n| format!("X-{n}: {n}\r\n")))
        .chain(["\r\n".to_owned()]);
    let answer = exchange(address, many_headers);
    assert_eq!(status(&answer), Some(431), "many headers: {answer:?}");
    let long = format!("GET /v1/kv/{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1 << 20));
    let answer = exchange(address, [long]);
    assert!(matches!(status(&answer), Some(400..=499)), "a long path: {answer:?}");
    let announced = b"PUT /v1/kv/x HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n".to_vec();
    let answer = exchange(address, [announced]);
    assert_eq!(status(&answer), Some(413), "{answer:?}");
    let announced = b"PUT /v1/txn HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n".to_vec();
    let answer =
        exchange(address, std::iter::once(announced).chain(std::iter::repeat_n(vec![b'x'; 1 << 20], 100)));
    assert!(answer.is_empty() || status(&answer) == Some(413), "a transaction of 100 MiB: {answer:?}");
    let chunk = [b"100000\r\n".to_vec(), vec![b'x'; 1 << 20], b"\r\n".to_vec()].concat();
    for (path, refusal) in [("/v1/catalog/register", 413), ("/v1/kv/x", 413), ("/v1/snapshot", 500)] {
        let head =
            format!("PUT {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
        let body = std::iter::repeat_n(chunk.clone(), 100);
        let answer = exchange(address, std::iter::once(head).chain(body));
        // Whoever goes on sending may lose the answer with the connection.
        assert!(answer.is_empty() || status(&answer) == Some(refusal), "100 MiB to {path}: {answer:?}");
    }
    for (name, body) in [
        ("deep", "[".repeat(100_000).into_bytes()),
        ("deep objects", b"{\"Service\":".repeat(50_000)),
        ("not UTF-8", b"{\"Name\":\"\xff\xfe\"}".to_vec()),
        ("no JSON", b"hello".to_vec()),
    ] {
        let head = format!(
            "PUT /v1/agent/service/register HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = exchange(address, [head.into_bytes(), body]);
        assert_eq!(status(&answer), Some(400), "{name}: {answer:?}");
    }
    let answer =
        exchange(address, [b"GET /v1/kv/%ff%fe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec()]);
    assert!(matches!(status(&answer), Some(400..=499)), "a path that is not UTF-8: {answer:?}");
    let mut http = agent.http();
    http.put("/v1/kv/after", "all of it");
    assert_eq!(http.ok("GET", "/v1/kv/after?raw", "").body.as_ref(), b"all of it");
    let grown = peak_kib(agent.pid()).saturating_sub(before);
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB more");
    drop(open);
}

#[test]
fn slow_clients_are_cut_off_and_hold_up_nobody() {
    let mut agent = Agent::new(&["-dev", "-config-dir", "conf"]);
    agent.configure("http.json", r#"{"http_config":{"idle_timeout":"2s"}}"#);
    agent.start();
    let mut http = agent.http();
    let mut open: Vec<TcpStream> = (0..120).map(|_| connect(agent.address())).collect();
    // Half of them have not sent all headers, the others not all of a body.
    for (number, stream) in open.iter_mut().enumerate() {
        let heads =
            ["GET /v1/kv/a HTTP/1.1\r\nX-Slow: ", "PUT /v1/kv/a HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"];
        stream.write_all(heads[number % 2].as_bytes()).expect("room");
    }
    for stream in &open {
        stream.set_nonblocking(true).expect("a socket");
    }
    wait_for("slow clients are cut off", || {
        // Cut off is whoever can send no more, or hears something.
        open.retain_mut(|stream| {
            let sent = stream.write_all(b"a");
            let heard = stream.read(&mut [0; 512]);
            sent.is_ok() && heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
        http.put("/v1/kv/meanwhile", "others");
        assert_eq!(http.ok("GET", "/v1/kv/meanwhile?raw", "").body.as_ref(), b"others");
        // Never two seconds without a byte.
        std::thread::sleep(Duration::from_millis(200));
        if open.is_empty() { Ok(()) } else { Err(format!("{} are still connected", open.len())) }
    });
}

/// Requests that clients send; the fuzz damages them.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let request = |line: &str, body: &str| {
        format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let samples = vec![
        request("GET /v1/kv/a?recurse&keys&separator=/", ""),
        request("PUT /v1/kv/a%20b?flags=7&cas=0", "value"),
        request("DELETE /v1/kv/b?recurse&cas=1", ""),
        request("GET /v1/catalog/nodes?filter=Node+matches+%22^n%22+and+Meta.a+!%3D+b&near=_agent", ""),
        request("GET /v1/health/service/consul?passing&tag=a&node-meta=a:b&stale&max_stale=1s", ""),
        request(
            "PUT /v1/txn",
            r#"[{"KV":{"Verb":"set","Key":"t","Value":"MQ=="}},{"KV":{"Verb":"get","Key":"t"}}]"#,
        ),
        request(
            "PUT /v1/catalog/register",
            r#"{"Node":"x","Address":"10.1.1.1","Service":{"Service":"w","Port":1}}"#,
        ),
        request(
            "PUT /v1/agent/service/register",
            r#"{"Name":"web","Check":{"TTL":"10s"},"Weights":{"Passing":3}}"#,
        ),
        request("PUT /v1/session/create", r#"{"Name":"s","TTL":"10s","LockDelay":"1s","Behavior":"delete"}"#),
        request("POST /v1/query", r#"{"Name":"q","Service":{"Service":"web","Near":"_agent"}}"#),
        request("PUT /v1/config", r#"{"Kind":"service-defaults","Name":"web","Protocol":"http"}"#),
        request(
            "PUT /v1/coordinate/update",
            r#"{"Node":"n1","Coord":{"Vec":[0,0,0,0,0,0,0,0],"Error":1,"Height":1}}"#,
        ),
        request("PUT /v1/event/fire/deploy?node=n&service=s&tag=t", "payload"),
        request("PUT /v1/snapshot", "\u{1f}\u{8b}"),
    ];
    prop::sample::select(samples)
}

#[test]
fn after_any_request_the_next_good_one_is_answered() {
    let agent = Agent::dev();
    let mut http = agent.http();
    let before = peak_kib(agent.pid());
    for (number, bytes) in drawn_from(hostile(requests(), 400), 600).enumerate() {
        let mut stream = connect(agent.address());
        let _refused_early = stream.write_all(&bytes);
        let _gone = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                panic!("request {number}: neither an answer nor an end: {error}: {}", bytes.escape_ascii())
            }
            _ => {}
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || matches!(status(&answer), Some(200..=599)),
            "request {number}: {answer}"
        );
        if number % 20 == 0 {
            assert_eq!(http.put("/v1/kv/good", &number.to_string()), true);
            assert_eq!(http.ok("GET", "/v1/kv/good?raw", "").body, number.to_string());
        }
    }
    let grown = peak_kib(agent.pid()).saturating_sub(before);
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB more");
}
