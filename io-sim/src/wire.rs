//! Frames between agents, as the process at one end of the wire sees it.
//!
//! As a connection does it by default: in order, and lost only with the connection. A plan may have them travel as
//! datagrams instead, each for itself, lost, late or twice; agents must survive both.

use std::task::{Context, Poll};

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::ids::ServerId;
use proconsul_io_real::ports::{Wire, WireEvent};
use tokio::sync::mpsc;

use crate::net::{Fabric, HostId};

/// One agent's end of the wire. Belongs to one life of its process.
pub struct SimWire {
    fabric: Fabric,
    host: HostId,
    life: u64,
    inbox: mpsc::UnboundedReceiver<WireEvent>,
}

impl Fabric {
    /// The wire of the process that was started with this life's number.
    #[must_use]
    pub fn wire(&self, host: HostId, life: u64) -> SimWire {
        let (sender, inbox) = mpsc::unbounded_channel();
        self.lock().host_mut(host).inbox = Some(sender);
        SimWire { fabric: self.clone(), host, life, inbox }
    }
}

impl Wire for SimWire {
    /// All agents of a simulation are of one datacenter.
    fn send(&mut self, to: ServerId, address: &Text, _datacenter: Option<&Text>, frame: Bytes) {
        let mut state = self.fabric.lock();
        if state.is_alive(self.host, self.life) {
            state.send(self.host, to, address, frame);
            drop(state);
            self.fabric.due().notify_one();
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<WireEvent> {
        match self.inbox.poll_recv(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            // The host has no process any more.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use proconsul_core::ids::Uuid;
    use proconsul_core::rng::Rng;

    use super::*;
    use crate::clock::{ClockError, SimClock};
    use crate::host::Host;
    use crate::net::{Death, LinkQuality};
    use crate::testing::in_sim;
    use crate::time::{nanos, sim_now, sim_sleep, sim_sleep_until};
    use crate::trace::Trace;

    const A: HostId = HostId(1);
    const B: HostId = HostId(2);

    fn id(host: HostId) -> ServerId {
        Uuid(host.0.into())
    }

    struct World {
        fabric: Fabric,
        hosts: Vec<Host>,
    }

    impl World {
        fn new(quality: LinkQuality, datagrams: bool) -> World {
            let fabric = Fabric::new(Rng::from_seed(8), quality, datagrams, Trace::default());
            let hosts = [A, B].map(|host| {
                let clock = SimClock::new(ClockError::default());
                Host::new(host, "host", Some(id(host)), clock, fabric.clone())
            });
            World { fabric, hosts: hosts.into() }
        }

        fn start(&mut self, host: HostId) -> SimWire {
            let mut started = 0;
            self.hosts[host.0 as usize - 1].start(|life| {
                started = life;
                std::future::pending()
            });
            self.fabric.wire(host, started)
        }
    }

    fn send(wire: &mut SimWire, to: HostId, number: u32) {
        let address = Text::from(to.address(8300));
        wire.send(id(to), &address, None, Bytes::from(number.to_le_bytes().to_vec()));
    }

    /// What has come by now: numbers of frames, and words for the rest.
    async fn events(wire: &mut SimWire, wait: Duration) -> Vec<String> {
        let mut seen = Vec::new();
        let end = sim_now() + nanos(wait);
        loop {
            tokio::select! {
                biased;
                event = poll_fn(|cx| wire.poll_next(cx)) => seen.push(match event {
                    WireEvent::Up(..) => "up".to_owned(),
                    WireEvent::Down(_) => "down".to_owned(),
                    WireEvent::Frame(_, bytes) => {
                        u32::from_le_bytes(bytes.as_ref().try_into().unwrap()).to_string()
                    }
                }),
                () = sim_sleep_until(end) => return seen,
            }
        }
    }

    fn numbers(seen: &[String]) -> Vec<u32> {
        seen.iter().filter_map(|word| word.parse().ok()).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn frames_of_a_connection_keep_their_order_through_loss_and_a_short_cut() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality { loss_ppm: 200_000, ..LinkQuality::default() }, false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            for number in 0..50 {
                send(&mut a, B, number);
            }
            world.fabric.cut(A, B);
            sim_sleep(SECOND).await;
            world.fabric.mend(A, B);
            for number in 50..100 {
                send(&mut a, B, number);
            }
            let seen = events(&mut b, SECOND * 30).await;
            assert_eq!(seen[0], "up");
            assert_eq!(numbers(&seen), (0..100).collect::<Vec<_>>());
        });
    }

    #[test]
    fn datagrams_are_lost_doubled_and_reordered() {
        in_sim(1, || async {
            let quality = LinkQuality {
                loss_ppm: 100_000,
                duplicate_ppm: 500_000,
                reorder_ppm: 100_000,
                ..LinkQuality::default()
            };
            let mut world = World::new(quality, true);
            let (mut a, mut b) = (world.start(A), world.start(B));
            for number in 0..500 {
                send(&mut a, B, number);
            }
            let seen = numbers(&events(&mut b, SECOND).await);
            let mut distinct = seen.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert!(distinct.len() < 480, "some were lost: {}", distinct.len());
            assert!(seen.len() > distinct.len(), "some came twice");
            assert!(!seen.is_sorted(), "some were overtaken");
        });
    }

    #[test]
    fn a_killed_process_is_reported_and_its_successor_is_another_peer() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            send(&mut a, B, 1);
            assert_eq!(events(&mut b, SECOND).await, ["up", "1"]);
            world.hosts[1].kill(Death::Process);
            assert_eq!(events(&mut a, SECOND).await, ["up", "down"]);
            send(&mut a, B, 2);
            assert_eq!(events(&mut a, SECOND).await, ["down"], "refused");
            let mut b = world.start(B);
            send(&mut a, B, 3);
            assert_eq!(events(&mut b, SECOND).await, ["up", "3"]);
        });
    }

    #[test]
    fn a_process_that_does_not_listen_yet_refuses() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let mut a = world.start(A);
            let mut started = 0;
            world.hosts[1].start(|life| {
                started = life;
                std::future::pending()
            });
            send(&mut a, B, 1);
            assert_eq!(events(&mut a, SECOND).await, ["down"]);
            let mut b = world.fabric.wire(B, started);
            send(&mut a, B, 2);
            assert_eq!(events(&mut b, SECOND).await, ["up", "2"]);
        });
    }

    #[test]
    fn a_machine_that_loses_power_says_nothing() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            send(&mut a, B, 1);
            assert_eq!(events(&mut b, SECOND).await, ["up", "1"]);
            world.hosts[1].kill(Death::Power);
            send(&mut a, B, 2);
            assert_eq!(events(&mut a, SECOND * 5).await, ["up"]);
            let mut b = world.start(B);
            send(&mut a, B, 3);
            assert_eq!(events(&mut a, SECOND).await, ["down"], "the new process knows no such connection");
            assert_eq!(events(&mut b, SECOND).await, Vec::<String>::new());
            send(&mut a, B, 4);
            assert_eq!(events(&mut b, SECOND).await, ["up", "4"]);
            world.hosts[1].kill(Death::Power);
            assert_eq!(events(&mut a, SECOND * 10).await, ["up", "down"], "nothing is heard for too long");
        });
    }

    #[test]
    fn a_reset_is_told_to_both_ends_and_the_next_frame_connects_anew() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            send(&mut a, B, 1);
            sim_sleep(SECOND).await;
            world.fabric.reset_connections(B, A);
            send(&mut a, B, 2);
            assert_eq!(events(&mut a, SECOND).await, ["up", "down", "up"]);
            assert_eq!(events(&mut b, SECOND).await, ["up", "1", "down", "up", "2"]);
        });
    }

    #[test]
    fn either_end_of_a_connection_sends_and_two_connections_are_one_peer() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            b.send(id(A), &Text::default(), None, Bytes::from_static(b"lost"));
            send(&mut a, B, 1);
            assert_eq!(events(&mut b, SECOND).await, ["up", "1"]);
            b.send(id(A), &Text::default(), None, Bytes::from(2_u32.to_le_bytes().to_vec()));
            assert_eq!(events(&mut a, SECOND).await, ["up", "2"]);

            world.fabric.reset_connections(A, B);
            send(&mut a, B, 3);
            send(&mut b, A, 4);
            assert_eq!(events(&mut a, SECOND).await, ["down", "up", "4"]);
            assert_eq!(events(&mut b, SECOND).await, ["down", "up", "3"]);
            world.hosts[0].kill(Death::Process);
            assert_eq!(events(&mut b, SECOND).await, ["down"]);
        });
    }

    #[test]
    fn of_two_connections_the_loss_of_either_is_told_to_both_ends() {
        in_sim(1, || async {
            for either in 0..2 {
                let mut world = World::new(LinkQuality::default(), false);
                let (mut a, mut b) = (world.start(A), world.start(B));
                send(&mut a, B, 1);
                send(&mut b, A, 2);
                assert_eq!(events(&mut a, SECOND).await, ["up", "2"]);
                assert_eq!(events(&mut b, SECOND).await, ["up", "1"]);
                world.fabric.reset_one_connection(A, B, either);
                assert_eq!(events(&mut a, SECOND).await, ["down"]);
                assert_eq!(events(&mut b, SECOND).await, ["down"]);
                send(&mut a, B, 3);
                assert_eq!(events(&mut b, SECOND).await, ["up", "3"]);
            }
        });
    }

    #[test]
    fn another_agent_at_the_address_refuses_and_no_host_at_all_is_given_up() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            a.send(Uuid(77), &Text::from(B.address(8300)), None, Bytes::from_static(b"for another"));
            assert_eq!(events(&mut a, SECOND).await, ["down"]);
            assert_eq!(events(&mut b, SECOND).await, Vec::<String>::new());
            a.send(id(B), &Text::from("10.9.9.9:8300"), None, Bytes::from_static(b"to nobody"));
            assert_eq!(events(&mut a, SECOND).await, Vec::<String>::new());
            assert_eq!(events(&mut a, SECOND * 5).await, ["down"]);
        });
    }

    #[test]
    fn what_travels_alone_does_not_reach_another_agent_at_the_address_either() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), true);
            let (mut a, mut b) = (world.start(A), world.start(B));
            a.send(Uuid(77), &Text::from(B.address(8300)), None, Bytes::from_static(b"for another"));
            send(&mut a, B, 1);
            assert_eq!(numbers(&events(&mut b, SECOND).await), [1]);
        });
    }

    #[test]
    fn a_connection_over_a_link_that_stays_cut_is_given_up_by_both_ends() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            send(&mut a, B, 1);
            assert_eq!(events(&mut b, SECOND).await, ["up", "1"]);
            world.fabric.cut(A, B);
            send(&mut a, B, 2);
            assert_eq!(events(&mut a, SECOND * 5).await, ["up"]);
            assert_eq!(events(&mut a, SECOND * 5).await, ["down"]);
            assert_eq!(events(&mut b, SECOND).await, ["down"]);
            world.fabric.mend(A, B);
            assert_eq!(events(&mut b, SECOND).await, Vec::<String>::new(), "what waited is gone with it");
            send(&mut a, B, 3);
            assert_eq!(events(&mut b, SECOND).await, ["up", "3"]);
        });
    }

    #[test]
    fn a_one_way_cut_lets_the_other_way_through() {
        in_sim(1, || async {
            let mut world = World::new(LinkQuality::default(), false);
            let (mut a, mut b) = (world.start(A), world.start(B));
            send(&mut a, B, 1);
            send(&mut b, A, 1);
            sim_sleep(SECOND).await;
            world.fabric.cut(A, B);
            send(&mut a, B, 2);
            send(&mut b, A, 2);
            assert_eq!(numbers(&events(&mut b, SECOND).await), [1]);
            assert_eq!(numbers(&events(&mut a, SECOND).await), [1, 2]);
        });
    }
}
