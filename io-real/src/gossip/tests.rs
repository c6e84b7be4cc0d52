use std::future::poll_fn;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::calls::{CALLERS_MAX, MESSAGE_BYTES_MAX, read_message, write_message};
use super::*;

const LONG: Duration = Duration::from_secs(60);

fn local() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn bound() -> (Sockets, SocketAddr) {
    let sockets = Sockets::bind(local(), None).expect("a free port");
    let address = sockets.local_address(Pool::Lan).expect("it was bound");
    (sockets, address)
}

async fn next(sockets: &mut Sockets) -> GossipEvent {
    poll_fn(|cx| sockets.poll_next(cx)).await
}

#[tokio::test]
async fn a_datagram_comes_with_its_pool_and_its_sender() {
    let (mut a, from) = bound();
    let mut b = Sockets::bind(local(), Some(local())).expect("free ports");
    for pool in [Pool::Lan, Pool::Wan] {
        a.send(Pool::Lan, b.local_address(pool).expect("bound"), Bytes::from_static(b"ping"));
        let expected = GossipEvent::Datagram { pool, from, bytes: Bytes::from_static(b"ping") };
        assert_eq!(next(&mut b).await, expected);
    }
}

#[tokio::test]
async fn a_call_is_answered() {
    let (mut a, _) = bound();
    let (mut b, to) = bound();
    let request = Bytes::from(vec![7; 300_000]);
    a.call(Pool::Lan, 41, to, request.clone(), LONG);
    let GossipEvent::Call { pool: Pool::Lan, caller, bytes, .. } = next(&mut b).await else {
        panic!("a call")
    };
    assert_eq!(bytes, request);
    b.answer(Pool::Lan, caller, Bytes::from_static(b"pong"));
    let result = Ok(Bytes::from_static(b"pong"));
    assert_eq!(next(&mut a).await, GossipEvent::Answer { pool: Pool::Lan, call: 41, result });
}

#[tokio::test]
async fn a_call_says_why_it_failed() {
    let (mut a, _) = bound();
    let nobody = bound().1;
    a.call(Pool::Lan, 1, nobody, Bytes::new(), LONG);
    let failed = |call, why| GossipEvent::Answer { pool: Pool::Lan, call, result: Err(why) };
    assert_eq!(next(&mut a).await, failed(1, CallError::Refused));

    let silent = tokio::net::TcpListener::bind(local()).await.expect("a free port");
    a.call(Pool::Lan, 2, silent.local_addr().expect("bound"), Bytes::new(), Duration::from_millis(1));
    assert_eq!(next(&mut a).await, failed(2, CallError::TimedOut));
    // The former call's connection comes first.
    drop(silent.accept().await.expect("connected"));
    a.call(Pool::Lan, 3, silent.local_addr().expect("bound"), Bytes::new(), LONG);
    drop(silent.accept().await.expect("connected"));
    assert_eq!(next(&mut a).await, failed(3, CallError::Closed));
}

#[tokio::test]
async fn an_answer_that_is_never_given_closes_the_call() {
    let (mut a, _) = bound();
    let (mut b, to) = bound();
    a.call(Pool::Lan, 1, to, Bytes::from_static(b"?"), LONG);
    assert!(matches!(next(&mut b).await, GossipEvent::Call { .. }));
    drop(b);
    let answer = GossipEvent::Answer { pool: Pool::Lan, call: 1, result: Err(CallError::Closed) };
    assert_eq!(next(&mut a).await, answer);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_read() {
    let (mut b, to) = bound();
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    let too_large = u32::try_from(MESSAGE_BYTES_MAX + 1).expect("it fits");
    stream.write_all(&too_large.to_be_bytes()).await.expect("written");
    let mut byte = [0];
    tokio::select! {
        event = next(&mut b) => panic!("{event:?}"),
        read = stream.read(&mut byte) => assert!(matches!(read, Ok(0) | Err(_))),
    }
}

#[tokio::test]
async fn callers_beyond_the_limit_are_turned_away_and_counted() {
    let (mut b, to) = bound();
    let losses = b.losses();
    let mut streams = Vec::new();
    for _ in 0..CALLERS_MAX {
        let mut stream = TcpStream::connect(to).await.expect("it listens");
        write_message(&mut stream, b"?").await.expect("written");
        streams.push(stream);
        assert!(matches!(next(&mut b).await, GossipEvent::Call { .. }));
    }
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
    assert_eq!(losses.calls.load(Ordering::Relaxed), 1);
    b.answer(Pool::Lan, 1, Bytes::from_static(b"!"));
    assert_eq!(read_message(&mut streams[0]).await.expect("an answer"), "!");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let (_a, taken) = bound();
    let error = Sockets::bind(taken, None).err().expect("taken").to_string();
    assert!(error.contains(&taken.to_string()) && error.contains("LAN"), "{error}");
    let error = Sockets::bind(local(), Some(taken)).err().expect("taken").to_string();
    assert!(error.contains("WAN"), "{error}");
}
