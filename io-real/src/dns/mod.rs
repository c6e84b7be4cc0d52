//! DNS over UDP and TCP: carries packets to a [`Responder`] and its answers back.

mod batch;
mod datagrams;
mod https;
mod names;
mod private;
mod recursor;
mod settings;
mod stream;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::api::{Authorizer, Call, Request};
use proconsul_core::dns::kept::{Look, Looked, Subject};
use proconsul_core::dns::{self, Recursion, Served, Transport};
use proconsul_core::rng::Rng;
use tokio::net::TcpListener;

use self::names::{Had, Names};
pub use self::private::{PrivateListener, Within};
pub use self::settings::Settings;
use crate::gate::Gate;

/// Longest question. Real ones have a few hundred bytes; what is longer arrives cut short and is refused.
const QUESTION_MAX: usize = 16 << 10;
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

/// Answers from what the node has published, and on a client agent from what it keeps of what servers have said.
#[derive(Clone)]
pub struct NodeResponder {
    gate: Gate,
    settings: Settings,
    rng: Rng,
    names: Names,
}

/// What comes of a question to a client agent.
enum Looks {
    Answered(dns::Answered),
    /// This is to be had first.
    Missing(Vec<Subject>),
}

/// How often a question may find that something is missing: an alias may lead to an alias.
const ROUNDS_MAX: usize = 6;

impl NodeResponder {
    /// A responder with a generator that nobody else uses.
    #[must_use]
    pub fn new(gate: Gate, settings: Settings, rng: Rng) -> NodeResponder {
        let names = Names::new(gate.clone(), settings.clone());
        NodeResponder { gate, settings, rng, names }
    }

    /// One more, which shares what is kept; its generator is its own.
    fn another(&mut self) -> NodeResponder {
        let label = self.rng.next_u64();
        NodeResponder { rng: self.rng.fork(label), ..self.clone() }
    }

    /// Has a server answer: a client agent has no state of its own, and other datacenters have others. Then recursors say
    /// what they know about it.
    fn ask(
        &mut self,
        packet: &[u8],
        transport: Transport,
    ) -> impl Future<Output = Option<Bytes>> + Send + 'static {
        let gate = self.gate.clone();
        let config = self.settings.snapshot();
        let packet = Bytes::copy_from_slice(packet);
        let question = self.question(&packet, transport);
        let mut rng = self.another().rng;
        async move {
            let failure = question.failure();
            let request = Request { call: Call::Dns(Box::new(question), None), authorizer: Authorizer };
            let answer = match gate.ask(request).await {
                Ok(reply) if reply.status == 200 => Some(reply.body).filter(|answer| !answer.is_empty()),
                Ok(_) | Err(_) => failure,
            }?;
            match Recursion::of_answer(&config, &packet, transport, &answer, &mut rng) {
                Some(recursion) => Some(recursor::carry(recursion, config).await),
                None => {
                    let mut answer = Vec::from(answer);
                    dns::mark(&config, &mut answer);
                    Some(answer.into())
                }
            }
        }
    }

    fn question(&self, packet: &Bytes, transport: Transport) -> dns::Question {
        let config = self.settings.snapshot().as_ref().clone();
        dns::Question { packet: packet.clone(), transport, config }
    }

    fn recurse(&self, recursion: Option<Recursion>) -> Option<Answered> {
        let config = self.settings.snapshot();
        recursion.map(|recursion| {
            Answered::Later(Box::pin(async move { Some(recursor::carry(recursion, config).await) }))
        })
    }

    /// Answers from what is kept. [`dns::Answered::Elsewhere`] means: a server.
    fn answer_kept(&mut self, packet: &[u8], transport: Transport, out: &mut Vec<u8>) -> Looks {
        let (published, config) = (self.gate.published(), self.settings.get());
        let looking = self.names.look();
        let now = self.gate.now();
        let look = Look::new(looking.kept(), now.mono, config.max_stale);
        let served = Served { published: &published, config: &config, lent: None, look: Some(&look), now };
        let answered = dns::answer(served, packet, transport, &mut self.rng, out);
        match look.outcome() {
            Looked::Enough => {
                let time = self.gate.now().mono.since(now.mono);
                self.gate.metrics().dns_answered(is_reverse(packet), time);
                Looks::Answered(answered)
            }
            Looked::Missing(subjects) => Looks::Missing(subjects),
            Looked::Beyond => Looks::Answered(dns::Answered::Elsewhere(Text::default())),
        }
    }

    /// Has what is missing asked for, and answers then.
    fn answer_later(
        &mut self,
        packet: &[u8],
        transport: Transport,
        mut missing: Vec<Subject>,
    ) -> impl Future<Output = Option<Bytes>> + Send + 'static {
        let mut again = self.another();
        let packet = Bytes::copy_from_slice(packet);
        async move {
            let mut out = Vec::new();
            for _ in 0..ROUNDS_MAX {
                match again.names.have(&missing).await {
                    Had::All => {}
                    Had::TooMuch => break,
                    Had::NoServer => return again.question(&packet, transport).failure(),
                }
                match again.answer_kept(&packet, transport, &mut out) {
                    Looks::Answered(answered) => {
                        return match again.finish(answered, &packet, transport, &out) {
                            Answered::Now => Some(Bytes::from(out)),
                            Answered::Never => None,
                            Answered::Later(answer) => answer.await,
                        };
                    }
                    Looks::Missing(more) => missing = more,
                }
            }
            again.ask(&packet, transport).await
        }
    }

    /// What is to be done when the core has answered.
    fn finish(
        &mut self,
        answered: dns::Answered,
        packet: &[u8],
        transport: Transport,
        out: &[u8],
    ) -> Answered {
        match answered {
            dns::Answered::Here => Answered::Now,
            dns::Answered::Never => Answered::Never,
            dns::Answered::Open => {
                let config = self.settings.get();
                let further = Recursion::of_answer(&config, packet, transport, out, &mut self.rng);
                self.recurse(further).unwrap_or(Answered::Now)
            }
            // The node knows the way to the leader, to servers and to other datacenters.
            dns::Answered::Stale | dns::Answered::Elsewhere(_) | dns::Answered::Further(_) => {
                Answered::Later(Box::pin(self.ask(packet, transport)))
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
        let answered = if published.about.server {
            let (config, now) = (self.settings.get(), self.gate.now());
            let served = Served { published: &published, config: &config, lent: None, look: None, now };
            let answered = dns::answer(served, packet, transport, &mut self.rng, out);
            let time = self.gate.now().mono.since(now.mono);
            self.gate.metrics().dns_answered(is_reverse(packet), time);
            answered
        } else if self.settings.get().allow_stale {
            match self.answer_kept(packet, transport, out) {
                Looks::Answered(answered) => answered,
                Looks::Missing(subjects) => {
                    return Answered::Later(Box::pin(self.answer_later(packet, transport, subjects)));
                }
            }
        } else {
            let config = self.settings.get();
            let other = Recursion::of_other_domain(&config, packet, transport, &mut self.rng);
            if let Some(answered) = self.recurse(other) {
                return answered;
            }
            dns::Answered::Elsewhere(Text::default())
        };
        self.finish(answered, packet, transport, out)
    }
}

/// Whether the question is about an address: its name ends with `arpa`.
fn is_reverse(packet: &[u8]) -> bool {
    let mut last: &[u8] = &[];
    let mut rest = packet.get(12..).unwrap_or_default();
    while let [len @ 1..=63, after @ ..] = rest
        && let Some((label, after)) = after.split_at_checked(usize::from(*len))
    {
        (last, rest) = (label, after);
    }
    last.eq_ignore_ascii_case(b"arpa")
}

/// UDP sockets and a TCP socket on the same address.
#[derive(Debug)]
pub struct DnsListener {
    udp: Vec<UdpSocket>,
    tcp: TcpListener,
}

impl DnsListener {
    /// Binds the sockets. Port zero takes a port that is free for all.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<DnsListener> {
        let mut attempts = if address.port() == 0 { 16 } else { 1 };
        loop {
            attempts -= 1;
            // This one is never shared: it keeps two agents from taking the same address.
            let tcp = TcpListener::bind(address).await?;
            match datagrams::bind(tcp.local_addr()?) {
                Ok(udp) => return Ok(DnsListener { udp, tcp }),
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

    /// Answers until the future is dropped. Must be called within a runtime.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn serve(self, responder: impl Responder) -> io::Result<impl Future<Output = ()> + Send + 'static> {
        let mut label = 0;
        let mut serving = Vec::new();
        for socket in self.udp {
            serving.push(datagrams::serve(socket, responder.fork(label))?);
            label += 1;
        }
        Ok(async move {
            stream::serve(self.tcp, responder.fork(label)).await;
            drop(serving);
        })
    }
}

#[cfg(test)]
mod tests;
