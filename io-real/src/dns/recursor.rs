//! Carries questions to other resolvers, and what they answer back. What is asked, of whom, and what counts is decided by
//! [`Recursion`].

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use proconsul_core::dns::{Ask, Asking, DnsConfig, Heard, Recursion, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

/// Room for an answer over UDP, whatever the question allowed.
const DATAGRAM_MAX: usize = 64 << 10;

/// The answer to a question that other resolvers have to do with.
pub(super) async fn carry(mut recursion: Recursion, config: Arc<DnsConfig>) -> Bytes {
    let answers = join_all(recursion.askings().iter_mut().map(answer_to)).await;
    recursion.conclude(&config, &answers)
}

/// Puts a question to one resolver after the other, until one answers.
async fn answer_to(asking: &mut Asking) -> Option<Bytes> {
    while let Some(ask) = asking.next_ask() {
        let (to, limit) = (ask.to, ask.timeout);
        let tried = match ask.transport {
            Transport::Udp => over_udp(asking, ask).await,
            Transport::Tcp => over_tcp(asking, ask).await,
        };
        match tried {
            Ok(Some(answer)) => return Some(answer),
            Ok(None) => tracing::debug!(%to, "dns: a recursor has no answer"),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                tracing::debug!(%to, ?limit, "dns: a recursor did not answer in time");
            }
            Err(error) => tracing::debug!(%to, %error, "dns: asking a recursor"),
        }
    }
    None
}

/// Each question has a socket of its own, whose port the system draws. It is bound to the resolver, so that nobody else is heard.
async fn over_udp(asking: &mut Asking, ask: Ask) -> io::Result<Option<Bytes>> {
    let local: SocketAddr = match ask.to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(ask.to).await?;
    socket.send(&ask.packet).await?;
    let deadline = Instant::now() + ask.timeout;
    let mut packet = BytesMut::with_capacity(DATAGRAM_MAX);
    loop {
        packet.clear();
        packet.reserve(DATAGRAM_MAX);
        let received = timeout_at(deadline, socket.recv_buf(&mut packet));
        received.await.map_err(|_| io::ErrorKind::TimedOut)??;
        match asking.hear(packet.split().freeze()) {
            Heard::Nothing => {}
            Heard::Failure => return Ok(None),
            Heard::Answer(answer) => return Ok(Some(answer)),
            Heard::OverTcp(ask) => return over_tcp(asking, ask).await,
        }
    }
}

async fn over_tcp(asking: &mut Asking, ask: Ask) -> io::Result<Option<Bytes>> {
    within(ask.timeout, async {
        let mut stream = TcpStream::connect(ask.to).await?;
        let mut framed = BytesMut::with_capacity(2 + ask.packet.len());
        let length = u16::try_from(ask.packet.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&ask.packet);
        stream.write_all(&framed).await?;
        loop {
            let length = stream.read_u16().await?;
            let mut packet = vec![0; length.into()];
            stream.read_exact(&mut packet).await?;
            match asking.hear(packet.into()) {
                Heard::Nothing => {}
                Heard::Failure | Heard::OverTcp(_) => return Ok(None),
                Heard::Answer(answer) => return Ok(Some(answer)),
            }
        }
    })
    .await
}

async fn within<T>(limit: std::time::Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use proconsul_core::dns::Recursors;
    use proconsul_core::rng::Rng;
    use std::time::Duration;
    use tokio::net::TcpListener;

    use super::*;

    /// `www.example. A`, with the number 0x1234.
    const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";

    fn config(addresses: Vec<SocketAddr>) -> Arc<DnsConfig> {
        let recursors = Recursors { addresses, timeout: Duration::from_millis(200), ..Recursors::default() };
        Arc::new(DnsConfig { recursors, ..DnsConfig::default() })
    }

    async fn ask(addresses: Vec<SocketAddr>, transport: Transport) -> Bytes {
        let config = config(addresses);
        let mut rng = Rng::from_seed(1);
        let recursion = Recursion::of_other_domain(&config, QUESTION, transport, &mut rng).unwrap();
        carry(recursion, config).await
    }

    /// A resolver that answers each datagram with what `reply` makes of it.
    async fn resolver(reply: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut packet).await.unwrap();
                for answer in reply(&packet[..length]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        address
    }

    fn empty(packet: &[u8], code: u8) -> Vec<u8> {
        let mut answer = packet.to_vec();
        answer[2] |= 0x80;
        answer[3] = 0x80 | code;
        answer
    }

    #[tokio::test]
    async fn the_first_answer_that_counts_is_passed_on() {
        let wrong = resolver(|packet| {
            let mut spoof = empty(packet, 0);
            spoof[0] ^= 1;
            vec![spoof, empty(packet, 2)]
        })
        .await;
        let right = resolver(|packet| vec![b"noise".to_vec(), empty(packet, 3)]).await;
        let answer = ask(vec![wrong, right], Transport::Udp).await;
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x83]);
    }

    #[tokio::test]
    async fn who_is_silent_or_not_there_is_passed_over() {
        let silent = resolver(|_| Vec::new()).await;
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let right = resolver(|packet| vec![empty(packet, 0)]).await;
        let answer = ask(vec![silent, gone, right], Transport::Udp).await;
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x80]);
        let answer = ask(vec![silent, gone], Transport::Udp).await;
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x82]);
    }

    #[tokio::test]
    async fn what_came_over_tcp_goes_on_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut packet = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut packet).await.unwrap();
            let answer = empty(&packet, 0);
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        });
        let answer = ask(vec![address], Transport::Tcp).await;
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x80]);
    }
}
