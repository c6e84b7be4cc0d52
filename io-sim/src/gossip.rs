//! Datagrams and calls between agents.
//!
//! Datagrams meet every fault that a link's quality names. A call is a connection: it waits for a cut link to come
//! back, is refused where no process listens, and hears nothing from a machine without power.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::gossip::{CallError, Pool};
use proconsul_io_real::ports::{GossipEvent, GossipPort};
use tokio::sync::{mpsc, oneshot};

use crate::net::{Fabric, HostId, State};
use crate::time::sim_sleep;

/// So many datagrams may wait for a process, as in production.
const DATAGRAMS_WAITING_MAX: usize = 4_096;
/// A call that is not answered is closed after this long, as in production.
const CALLER_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a packet without content.
const EMPTY_PACKET: usize = 60;

/// An agent's gossip ports. Belongs to one life of its process.
pub struct SimGossip {
    fabric: Fabric,
    host: HostId,
    life: u64,
    ports: BTreeMap<Pool, u16>,
    datagrams: mpsc::Receiver<GossipEvent>,
    streamed: mpsc::UnboundedReceiver<Streamed>,
    callers: BTreeMap<u64, oneshot::Sender<Bytes>>,
    next_caller: u64,
}

/// Where the network puts what comes for a process.
pub(crate) struct GossipInbox {
    ports: BTreeMap<u16, Pool>,
    datagrams: mpsc::Sender<GossipEvent>,
    streamed: mpsc::UnboundedSender<Streamed>,
}

/// What comes over streams.
enum Streamed {
    Call { pool: Pool, from: SocketAddr, bytes: Bytes, answer: oneshot::Sender<Bytes> },
    Answer { pool: Pool, call: u64, result: Result<Bytes, CallError> },
}

impl Fabric {
    /// The gossip ports of the process that was started with this life's number.
    #[must_use]
    pub fn gossip(&self, host: HostId, life: u64, lan: u16, wan: Option<u16>) -> SimGossip {
        let (to_datagrams, datagrams) = mpsc::channel(DATAGRAMS_WAITING_MAX);
        let (to_streamed, streamed) = mpsc::unbounded_channel();
        let ports: BTreeMap<_, _> = [(Pool::Lan, Some(lan)), (Pool::Wan, wan)]
            .into_iter()
            .filter_map(|(pool, port)| Some((pool, port?)))
            .collect();
        let inbox = GossipInbox {
            ports: ports.iter().map(|(pool, port)| (*port, *pool)).collect(),
            datagrams: to_datagrams,
            streamed: to_streamed,
        };
        self.lock().host_mut(host).gossip = Some(inbox);
        SimGossip {
            fabric: self.clone(),
            host,
            life,
            ports,
            datagrams,
            streamed,
            callers: BTreeMap::new(),
            next_caller: 1,
        }
    }

    /// Carries a request to whoever has an address, and the answer back.
    async fn exchange(
        &self,
        from: HostId,
        source: SocketAddr,
        to: SocketAddr,
        bytes: Bytes,
    ) -> Result<Bytes, CallError> {
        let Some(target) = self.lock().host_of_ip(to.ip()) else { return std::future::pending().await };
        self.cross(from, target, EMPTY_PACKET).await;
        self.wait_until(|state| state.host(target).powered).await;
        let power_losses = {
            let state = self.lock();
            let listens = state.gossip_pool(target, to.port()).is_some();
            listens.then(|| state.host(target).power_losses)
        };
        self.cross(target, from, EMPTY_PACKET).await;
        let power_losses = power_losses.ok_or(CallError::Refused)?;
        self.cross(from, target, bytes.len()).await;
        self.trace().record("call", target, &bytes);
        let (answer, answered) = oneshot::channel();
        {
            let state = self.lock();
            if let Some(pool) = state.gossip_pool(target, to.port())
                && let Some(inbox) = &state.host(target).gossip
            {
                // A process that has ended drops the call; so does this, by dropping where its answer would go.
                let _ = inbox.streamed.send(Streamed::Call { pool, from: source, bytes, answer });
            }
        }
        let answer = tokio::select! {
            biased;
            answer = answered => answer.ok(),
            () = sim_sleep(CALLER_LIMIT) => None,
        };
        if self.lock().host(target).power_losses != power_losses {
            // A machine without power closes nothing.
            return std::future::pending().await;
        }
        self.cross(target, from, answer.as_ref().map_or(EMPTY_PACKET, Bytes::len)).await;
        let answer = answer.ok_or(CallError::Closed)?;
        self.trace().record("answer", from, &answer);
        Ok(answer)
    }
}

impl State {
    fn gossip_pool(&self, host: HostId, port: u16) -> Option<Pool> {
        self.host(host).gossip.as_ref()?.ports.get(&port).copied()
    }

    /// A datagram arrives.
    pub(crate) fn deliver_gossip(&mut self, from: HostId, to: HostId, ports: (u16, u16), bytes: Bytes) {
        let from = SocketAddr::new(IpAddr::V4(self.host(from).ip), ports.0);
        let Some(pool) = self.gossip_pool(to, ports.1) else { return };
        if let Some(inbox) = &self.host(to).gossip {
            // A full queue loses it, and so does a process that has ended.
            let _ = inbox.datagrams.try_send(GossipEvent::Datagram { pool, from, bytes });
        }
    }
}

impl GossipPort for SimGossip {
    fn send(&mut self, pool: Pool, to: SocketAddr, bytes: Bytes) {
        let Some(port) = self.ports.get(&pool) else { return };
        let mut state = self.fabric.lock();
        if state.is_alive(self.host, self.life)
            && let Some(target) = state.host_of_ip(to.ip())
        {
            state.send_gossip((self.host, *port), (target, to.port()), bytes);
            drop(state);
            self.fabric.due().notify_one();
        }
    }

    fn call(&mut self, pool: Pool, call: u64, to: SocketAddr, bytes: Bytes, timeout: Duration) {
        let (host, life) = (self.host, self.life);
        let source = {
            let state = self.fabric.lock();
            if !state.is_alive(host, life) {
                return;
            }
            // A connection comes from a port of its own.
            SocketAddr::new(
                IpAddr::V4(state.host(host).ip),
                40_000 + u16::try_from(call % 20_000).unwrap_or(0),
            )
        };
        let fabric = self.fabric.clone();
        self.fabric.spawn(async move {
            let result = tokio::select! {
                biased;
                result = fabric.exchange(host, source, to, bytes) => result,
                () = sim_sleep(timeout) => Err(CallError::TimedOut),
            };
            let state = fabric.lock();
            if state.is_alive(host, life)
                && let Some(inbox) = &state.host(host).gossip
            {
                // The process may have ended without having been told so.
                let _ = inbox.streamed.send(Streamed::Answer { pool, call, result });
            }
        });
    }

    fn answer(&mut self, _pool: Pool, caller: u64, bytes: Bytes) {
        if let Some(waiting) = self.callers.remove(&caller) {
            // Who gave up meanwhile needs no answer.
            let _ = waiting.send(bytes);
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<GossipEvent> {
        if let Poll::Ready(Some(streamed)) = self.streamed.poll_recv(cx) {
            return Poll::Ready(match streamed {
                Streamed::Call { pool, from, bytes, answer } => {
                    let caller = self.next_caller;
                    self.next_caller += 1;
                    self.callers.retain(|_, waiting| !waiting.is_closed());
                    self.callers.insert(caller, answer);
                    GossipEvent::Call { pool, caller, from, bytes }
                }
                Streamed::Answer { pool, call, result } => GossipEvent::Answer { pool, call, result },
            });
        }
        match self.datagrams.poll_recv(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            // The host has no process any more.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proconsul_core::rng::Rng;

    use super::*;
    use crate::clock::{ClockError, SimClock};
    use crate::host::Host;
    use crate::net::{Death, LinkQuality};
    use crate::testing::in_sim;
    use crate::time::{nanos, sim_now, sim_sleep_until};
    use crate::trace::Trace;

    const A: HostId = HostId(1);
    const B: HostId = HostId(2);
    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        fabric: Fabric,
        hosts: Vec<Host>,
    }

    fn world(quality: LinkQuality) -> World {
        let fabric = Fabric::new(Rng::from_seed(8), quality, false, Trace::default());
        let host = |id| Host::new(id, "host", None, SimClock::new(ClockError::default()), fabric.clone());
        World { hosts: [A, B].map(host).into(), fabric }
    }

    impl World {
        fn start(&mut self, host: HostId) -> SimGossip {
            let mut started = 0;
            self.hosts[host.0 as usize - 1].start(|life| {
                started = life;
                std::future::pending()
            });
            self.fabric.gossip(host, started, 8301, None)
        }
    }

    fn address(host: HostId) -> SocketAddr {
        host.address(8301).parse().expect("an address")
    }

    async fn events(port: &mut SimGossip, wait: Duration) -> Vec<GossipEvent> {
        let mut seen = Vec::new();
        let end = sim_now() + nanos(wait);
        loop {
            tokio::select! {
                biased;
                event = poll_fn(|cx| port.poll_next(cx)) => seen.push(event),
                () = sim_sleep_until(end) => return seen,
            }
        }
    }

    fn failed(call: u64, why: CallError) -> Vec<GossipEvent> {
        vec![GossipEvent::Answer { pool: Pool::Lan, call, result: Err(why) }]
    }

    #[test]
    fn datagrams_are_lost_repeated_and_reordered_and_do_not_wait_for_a_cut_link() {
        in_sim(1, || async {
            let quality = LinkQuality {
                loss_ppm: 100_000,
                duplicate_ppm: 100_000,
                reorder_ppm: 100_000,
                ..LinkQuality::default()
            };
            let mut world = world(quality);
            let (mut a, mut b) = (world.start(A), world.start(B));
            for number in 0..500_u32 {
                a.send(Pool::Lan, address(B), Bytes::from(number.to_be_bytes().to_vec()));
            }
            let seen: Vec<u32> = events(&mut b, SECOND)
                .await
                .into_iter()
                .map(|event| match event {
                    GossipEvent::Datagram { pool: Pool::Lan, from, bytes } if from == address(A) => {
                        u32::from_be_bytes(bytes.as_ref().try_into().expect("four bytes"))
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            let mut distinct = seen.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert!((400..490).contains(&distinct.len()), "some were lost: {}", distinct.len());
            assert!(seen.len() > distinct.len(), "some came twice");
            assert!(!seen.is_sorted(), "some were overtaken");

            world.fabric.cut(A, B);
            a.send(Pool::Lan, address(B), Bytes::from_static(b"lost"));
            sim_sleep(SECOND).await;
            world.fabric.mend(A, B);
            assert_eq!(events(&mut b, SECOND).await, []);
        });
    }

    #[test]
    fn a_call_is_answered_even_over_a_link_that_was_cut_for_a_moment() {
        in_sim(1, || async {
            let mut world = world(LinkQuality::default());
            let (mut a, mut b) = (world.start(A), world.start(B));
            a.call(Pool::Lan, 7, address(B), Bytes::from_static(b"?"), SECOND * 10);
            world.fabric.cut(A, B);
            sim_sleep(SECOND).await;
            world.fabric.mend(A, B);
            let [GossipEvent::Call { caller, bytes, .. }] = &events(&mut b, SECOND).await[..] else {
                panic!("one call")
            };
            assert_eq!(bytes, "?");
            b.answer(Pool::Lan, *caller, Bytes::from_static(b"!"));
            let result = Ok(Bytes::from_static(b"!"));
            let answer = GossipEvent::Answer { pool: Pool::Lan, call: 7, result };
            assert_eq!(events(&mut a, SECOND).await, [answer]);
        });
    }

    #[test]
    fn a_call_that_fails_says_why() {
        in_sim(1, || async {
            let mut world = world(LinkQuality::default());
            let mut a = world.start(A);
            a.call(Pool::Lan, 1, address(B), Bytes::new(), SECOND * 5);
            assert_eq!(events(&mut a, SECOND).await, failed(1, CallError::Refused), "no process");
            let _b = world.start(B);
            a.call(Pool::Lan, 2, "10.0.0.2:9".parse().expect("an address"), Bytes::new(), SECOND * 5);
            assert_eq!(events(&mut a, SECOND).await, failed(2, CallError::Refused), "no such port");
            a.call(Pool::Lan, 3, "10.0.9.9:8301".parse().expect("an address"), Bytes::new(), SECOND);
            assert_eq!(events(&mut a, SECOND * 2).await, failed(3, CallError::TimedOut), "no such host");
            a.call(Pool::Lan, 4, address(B), Bytes::new(), SECOND * 60);
            sim_sleep(SECOND).await;
            world.hosts[1].kill(Death::Process);
            drop(_b);
            assert_eq!(events(&mut a, SECOND).await, failed(4, CallError::Closed), "killed");
            let _b = world.start(B);
            a.call(Pool::Lan, 5, address(B), Bytes::new(), SECOND * 60);
            sim_sleep(SECOND).await;
            world.hosts[1].kill(Death::Power);
            drop(_b);
            assert_eq!(events(&mut a, SECOND * 50).await, [], "no power");
            assert_eq!(events(&mut a, SECOND * 20).await, failed(5, CallError::TimedOut));
        });
    }

    #[test]
    fn a_host_with_a_new_address_is_found_there_and_nowhere_else() {
        in_sim(1, || async {
            let mut world = world(LinkQuality::default());
            let mut a = world.start(A);
            world.fabric.readdress(B, [10, 0, 7, 7].into());
            let mut b = world.start(B);
            a.send(Pool::Lan, address(B), Bytes::from_static(b"old"));
            a.send(Pool::Lan, "10.0.7.7:8301".parse().expect("an address"), Bytes::from_static(b"new"));
            let from = address(A);
            let datagram = GossipEvent::Datagram { pool: Pool::Lan, from, bytes: Bytes::from_static(b"new") };
            assert_eq!(events(&mut b, SECOND).await, [datagram]);
        });
    }
}
