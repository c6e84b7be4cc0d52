//! DNS over UDP and TCP: carries packets to a [`Responder`] and its answers back.

mod stream;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::api::{Authorizer, Call, Request};
use proconsul_core::dns::{self, DnsConfig, Served, Transport};
use proconsul_core::rng::Rng;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::gate::Gate;

/// Tasks that read one UDP socket. Answering takes microseconds; a few keep the kernel's queue short.
const UDP_TASKS: u64 = 4;
/// Longest question. Real ones have a few hundred bytes; what is longer arrives cut short and is refused.
const QUESTION_MAX: usize = 16 << 10;
/// So many datagrams per task may wait for a server's answer.
const LATER_MAX: usize = 4096;
/// Pause after an error of a socket, so that a lasting one does not burn a core.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Answers questions. Each task has its own, so that none waits for another.
pub trait Responder: Send + 'static {
    /// One more, for another task; different labels give different random numbers.
    fn fork(&self, label: u64) -> Self;

    /// Puts the answer to a packet into `out`, or says how else it is answered.
    fn answer(&mut self, packet: &[u8], transport: Transport, out: &mut Vec<u8>) -> Answered;
}

/// How a packet is answered.
pub enum Answered {
    /// With what was put out.
    Now,
    /// Not at all.
    Never,
    /// When somebody else has answered; `None`: not at all.
    Later(Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>),
}

/// Answers from what the node has published.
#[derive(Clone)]
pub struct NodeResponder {
    gate: Gate,
    config: Arc<DnsConfig>,
    rng: Rng,
}

impl NodeResponder {
    /// A responder with a generator that nobody else uses.
    #[must_use]
    pub fn new(gate: Gate, config: Arc<DnsConfig>, rng: Rng) -> NodeResponder {
        NodeResponder { gate, config, rng }
    }
}

impl NodeResponder {
    /// Has a server answer: a client agent has no state of its own, and other datacenters have others.
    fn ask(
        &self,
        packet: &[u8],
        transport: Transport,
    ) -> impl Future<Output = Option<Bytes>> + Send + 'static {
        let gate = self.gate.clone();
        let packet = Bytes::copy_from_slice(packet);
        let question = dns::Question { packet, transport, config: self.config.as_ref().clone() };
        async move {
            let failure = question.failure();
            let request = Request { call: Call::Dns(Box::new(question), None), authorizer: Authorizer };
            match gate.ask(request).await {
                Ok(reply) if reply.status == 200 => Some(reply.body).filter(|answer| !answer.is_empty()),
                Ok(_) | Err(_) => failure,
            }
        }
    }
}

impl Responder for NodeResponder {
    fn fork(&self, label: u64) -> Self {
        let mut rng = self.rng.clone();
        // A fork of a fork must differ from its siblings' forks.
        let salt = rng.next_u64();
        NodeResponder { rng: self.rng.fork(label ^ salt), ..self.clone() }
    }

    fn answer(&mut self, packet: &[u8], transport: Transport, out: &mut Vec<u8>) -> Answered {
        let published = self.gate.published();
        if !published.about.server {
            return Answered::Later(Box::pin(self.ask(packet, transport)));
        }
        let now = self.gate.now();
        let served = Served { published: &published, config: &self.config, lent: None, now };
        let answered = dns::answer(served, packet, transport, &mut self.rng, out);
        let time = self.gate.now().mono.since(served.now.mono);
        self.gate.metrics().dns_answered(is_reverse(packet), time);
        match answered {
            dns::Answered::Here => Answered::Now,
            dns::Answered::Never => Answered::Never,
            // The node knows the way to other datacenters.
            dns::Answered::Elsewhere(_) | dns::Answered::Further(_) => {
                Answered::Later(Box::pin(self.ask(packet, transport)))
            }
        }
    }
}

/// Whether the first question is about an address: its name ends with `arpa`.
fn is_reverse(packet: &[u8]) -> bool {
    packet.windows(6).any(|window| window.eq_ignore_ascii_case(b"\x04arpa\x00"))
}

/// A UDP and a TCP socket on the same address.
#[derive(Debug)]
pub struct DnsListener {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl DnsListener {
    /// Binds both sockets. Port zero takes a port that is free for both.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<DnsListener> {
        let mut attempts = if address.port() == 0 { 16 } else { 1 };
        loop {
            attempts -= 1;
            let tcp = TcpListener::bind(address).await?;
            match UdpSocket::bind(tcp.local_addr()?).await {
                Ok(udp) => return Ok(DnsListener { udp: Arc::new(udp), tcp }),
                Err(error) if attempts == 0 => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers until the future is dropped.
    pub async fn serve(self, responder: impl Responder) {
        let mut tasks = JoinSet::new();
        for label in 0..UDP_TASKS {
            tasks.spawn(serve_udp(Arc::clone(&self.udp), responder.fork(label)));
        }
        tasks.spawn(stream::serve(self.tcp, responder.fork(UDP_TASKS)));
        // They run for ever; one that panicked has said so, the others go on.
        while tasks.join_next().await.is_some() {}
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, mut responder: impl Responder) {
    let mut packet = vec![0; QUESTION_MAX];
    let mut out = Vec::with_capacity(1500);
    let free = Arc::new(Semaphore::new(LATER_MAX));
    loop {
        let (len, from) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "dns: receiving a datagram");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        match responder.answer(&packet[..len], Transport::Udp, &mut out) {
            Answered::Now => send(&socket, &out, from).await,
            Answered::Never => {}
            Answered::Later(answer) => {
                // Too many questions under way: this one is lost, as datagrams may be.
                let Ok(place) = Arc::clone(&free).try_acquire_owned() else { continue };
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    if let Some(answer) = answer.await {
                        send(&socket, &answer, from).await;
                    }
                    drop(place);
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%error, %to, "dns: sending an answer");
    }
}

#[cfg(test)]
mod tests;
