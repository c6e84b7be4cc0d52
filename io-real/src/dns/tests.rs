use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::*;

/// Answers with the packet turned around, behind a byte for the transport; is silent about empty packets.
pub(super) struct Mirror;

impl Responder for Mirror {
    fn fork(&self, _: u64) -> Self {
        Mirror
    }

    fn answer(&mut self, packet: &[u8], transport: Transport, out: &mut Vec<u8>) -> Answered {
        out.clear();
        out.push(if transport == Transport::Tcp { b't' } else { b'u' });
        out.extend(packet.iter().rev());
        match packet {
            [] => Answered::Never,
            [b'?', ..] => Answered::Later(Box::pin(std::future::ready(Some(Bytes::from_static(b"later"))))),
            _ => Answered::Now,
        }
    }
}

async fn start() -> SocketAddr {
    let listener = DnsListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listener.serve(Mirror).unwrap());
    address
}

pub(super) async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let length = stream.read_u16().await.unwrap();
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.unwrap();
    message
}

#[tokio::test]
async fn datagrams_are_answered_and_silence_is_kept() {
    let address = start().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"", address).await.unwrap();
    socket.send_to(b"abc", address).await.unwrap();
    let mut reply = [0; 16];
    let (len, from) = socket.recv_from(&mut reply).await.unwrap();
    assert_eq!((&reply[..len], from), (&b"ucba"[..], address));
}

#[tokio::test]
async fn an_answer_of_somebody_else_is_passed_on() {
    let address = start().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"?", address).await.unwrap();
    let mut reply = [0; 16];
    let (len, _) = socket.recv_from(&mut reply).await.unwrap();
    assert_eq!(&reply[..len], b"later");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"\0\x01?\0\x01a").await.unwrap();
    assert_eq!(read(&mut stream).await, b"later");
    assert_eq!(read(&mut stream).await, b"ta");
}

#[tokio::test]
async fn questions_on_one_connection_are_answered_in_order() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    // Several at once, one cut in two, one that is not answered.
    stream.write_all(b"\0\x03abc\0\x00\0\x02xy\0\x04lo").await.unwrap();
    assert_eq!(read(&mut stream).await, b"tcba");
    assert_eq!(read(&mut stream).await, b"tyx");
    stream.write_all(b"ng").await.unwrap();
    assert_eq!(read(&mut stream).await, b"tgnol");
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn many_answers_pass_through_a_narrow_stream() {
    let (mut client, server) = tokio::io::duplex(64);
    let serving = tokio::spawn(stream::connection(server, Mirror, Duration::from_secs(60)));
    let (mut reader, mut writer) = tokio::io::split(&mut client);
    let write = async {
        for at in 0..2000u16 {
            writer.write_all(&[0, 2]).await.unwrap();
            writer.write_all(&at.to_be_bytes()).await.unwrap();
        }
    };
    let check = async {
        for at in 0..2000u16 {
            let [high, low] = at.to_be_bytes();
            assert_eq!(read(&mut reader).await, [b't', low, high]);
        }
    };
    tokio::join!(write, check);
    drop(client);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    for sent in [&b""[..], &b"\0"[..], &b"\0\x09abc"[..]] {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(sent).await.unwrap();
        let serving = stream::connection(server, Mirror, Duration::from_millis(5));
        timeout(Duration::from_secs(60), serving).await.unwrap().unwrap();
    }
}

/// A connection that is served, however often it has to be tried.
async fn served(address: SocketAddr) -> TcpStream {
    loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(b"\0\x02ab").await;
        let mut answer = [0; 5];
        if stream.read_exact(&mut answer).await.is_ok() {
            assert_eq!(&answer, b"\0\x03tba");
            return stream;
        }
    }
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_places_come_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = |stream, responder| stream::connection(stream, responder, Duration::from_secs(600));
    tokio::spawn(stream::accept(listener, 3, Mirror, serve));
    for _ in 0..3 {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(served(address).await);
        }
        for _ in 0..10 {
            let mut further = TcpStream::connect(address).await.unwrap();
            assert_eq!(further.read(&mut [0; 1]).await.unwrap(), 0);
        }
        for stream in &mut held {
            stream.write_all(b"\0\x02xy").await.unwrap();
            assert_eq!(read(stream).await, b"tyx");
        }
    }
}

#[tokio::test]
async fn a_listener_that_is_dropped_lets_go_of_its_address() {
    let listener = DnsListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(listener.serve(Mirror).unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"abc", address).await.unwrap();
    socket.recv_from(&mut [0; 16]).await.unwrap();
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    // Only when all sockets are gone can somebody who does not share have it.
    let alone = || std::net::UdpSocket::bind(address);
    while alone().is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
