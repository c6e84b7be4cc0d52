//! In which order what happens reaches the node.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use proconsul_core::boundary::Input;
use proconsul_core::time::Mono;
use tokio::sync::{mpsc, oneshot};

use crate::gate::GateItem;
use crate::ports::{Clock, GossipEvent, GossipPort, Wire, WireEvent};

/// How many inputs of a class are taken before the classes below it have their turn. Completions have no limit: there
/// are never more than the node has asked for.
#[derive(Clone, Copy)]
struct Turns {
    peers: u32,
    gossip: u32,
    gate: u32,
}

const ROUND: Turns = Turns { peers: 64, gossip: 32, gate: 64 };

impl Turns {
    fn is_used_up(&self) -> bool {
        self.peers == 0 || self.gossip == 0 || self.gate == 0
    }
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What was heard.
#[derive(Debug)]
pub(super) enum Heard {
    /// Something for the node.
    Input(Input),
    /// Something of a front-end's, who waits for what comes of it.
    Gate(GateItem),
}

/// The two ports that are spoken into as well.
pub(super) struct Ports<'a> {
    pub(super) wire: &'a mut dyn Wire,
    pub(super) gossip: &'a mut dyn GossipPort,
}

/// Everything else that the node can hear.
pub(super) struct Inputs {
    clock: Arc<dyn Clock>,
    logged: mpsc::Receiver<Input>,
    done: mpsc::UnboundedReceiver<Input>,
    gate: mpsc::UnboundedReceiver<GateItem>,
    leave: mpsc::Receiver<()>,
    stop: oneshot::Receiver<()>,
    turns: Turns,
    /// An alarm that is set, and for when: never later than the node's deadline. Deadlines move much more often than
    /// they come, mostly to later, and setting an alarm costs more than letting one ring too early.
    alarm: Option<(Mono, Sleep)>,
}

impl Inputs {
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        logged: mpsc::Receiver<Input>,
        done: mpsc::UnboundedReceiver<Input>,
        gate: mpsc::UnboundedReceiver<GateItem>,
        leave: mpsc::Receiver<()>,
        stop: oneshot::Receiver<()>,
    ) -> Inputs {
        Inputs { clock, logged, done, gate, leave, stop, turns: ROUND, alarm: None }
    }

    /// What happens next. In this order: a deadline that is due, what was done, what peers say, gossip, the process's
    /// end, what clients want; and nobody below waits for more than one round of those above.
    pub(super) async fn next(&mut self, mut ports: Ports<'_>, deadline: Option<Mono>, admits: bool) -> Heard {
        if deadline.is_some_and(|at| at <= self.clock.now().mono) {
            return Heard::Input(Input::Wake);
        }
        poll_fn(|cx| {
            let heard = self.poll_heard(cx, &mut ports, admits);
            if heard.is_pending() { self.poll_alarm(cx, deadline) } else { heard }
        })
        .await
    }

    fn poll_heard(&mut self, cx: &mut Context<'_>, ports: &mut Ports<'_>, admits: bool) -> Poll<Heard> {
        if let Poll::Ready(Some(completion)) = self.logged.poll_recv(cx) {
            return Poll::Ready(Heard::Input(completion));
        }
        if let Poll::Ready(Some(completion)) = self.done.poll_recv(cx) {
            return Poll::Ready(Heard::Input(completion));
        }
        let heard = self.poll_round(cx, ports, admits);
        if heard.is_pending() && self.turns.is_used_up() {
            // Nobody who still had a turn has anything to say.
            self.turns = ROUND;
            return self.poll_round(cx, ports, admits);
        }
        heard
    }

    fn poll_round(&mut self, cx: &mut Context<'_>, ports: &mut Ports<'_>, admits: bool) -> Poll<Heard> {
        if self.turns.peers > 0
            && let Poll::Ready(event) = ports.wire.poll_next(cx)
        {
            self.turns.peers -= 1;
            return Poll::Ready(Heard::Input(match event {
                WireEvent::Up(peer, datacenter) => Input::PeerUp { peer, datacenter },
                WireEvent::Frame(peer, frame) => Input::PeerFrame { peer, frame },
                WireEvent::Down(peer) => Input::PeerDown { peer },
            }));
        }
        if self.turns.gossip > 0
            && let Poll::Ready(event) = ports.gossip.poll_next(cx)
        {
            self.turns.gossip -= 1;
            return Poll::Ready(Heard::Input(match event {
                GossipEvent::Datagram { pool, from, bytes } => Input::Datagram { pool, from, bytes },
                GossipEvent::Call { pool, caller, from, bytes } => {
                    Input::GossipCall { pool, caller, from, bytes }
                }
                GossipEvent::Answer { pool, call, result } => Input::GossipAnswer { pool, call, result },
            }));
        }
        if Pin::new(&mut self.stop).poll(cx).is_ready() {
            return Poll::Ready(Heard::Input(Input::Stop));
        }
        if let Poll::Ready(Some(())) = self.leave.poll_recv(cx) {
            return Poll::Ready(Heard::Input(Input::Leave));
        }
        if admits
            && self.turns.gate > 0
            && let Poll::Ready(Some(item)) = self.gate.poll_recv(cx)
        {
            self.turns.gate -= 1;
            return Poll::Ready(Heard::Gate(item));
        }
        Poll::Pending
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>, deadline: Option<Mono>) -> Poll<Heard> {
        let Some(deadline) = deadline else {
            self.alarm = None;
            return Poll::Pending;
        };
        loop {
            if self.alarm.as_ref().is_none_or(|(at, _)| *at > deadline) {
                let clock = Arc::clone(&self.clock);
                self.alarm = Some((deadline, Box::pin(async move { clock.sleep_until(deadline).await })));
            }
            let Some((at, sleep)) = &mut self.alarm else { return Poll::Pending };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let rang_at = *at;
            self.alarm = None;
            if rang_at == deadline {
                return Poll::Ready(Heard::Input(Input::Wake));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use bytes::Bytes;
    use proconsul_core::Text;
    use proconsul_core::gossip::Pool;
    use proconsul_core::ids::{RequestId, ServerId};

    use super::*;
    use crate::clock::RealClock;

    /// A peer, and gossip, that always have something to say.
    struct Flood;

    impl Wire for Flood {
        fn send(&mut self, _to: ServerId, _address: &Text, _datacenter: Option<&Text>, _frame: Bytes) {}

        fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<WireEvent> {
            Poll::Ready(WireEvent::Frame(ServerId::default(), Bytes::new()))
        }
    }

    impl GossipPort for Flood {
        fn send(&mut self, _pool: Pool, _to: SocketAddr, _bytes: Bytes) {}

        fn call(&mut self, _pool: Pool, _call: u64, _to: SocketAddr, _bytes: Bytes, _timeout: Duration) {}

        fn answer(&mut self, _pool: Pool, _caller: u64, _bytes: Bytes) {}

        fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<GossipEvent> {
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            Poll::Ready(GossipEvent::Datagram { pool: Pool::Lan, from, bytes: Bytes::new() })
        }
    }

    /// The other ends of everything.
    struct Lanes {
        logged: mpsc::Sender<Input>,
        gate: mpsc::UnboundedSender<GateItem>,
        leave: mpsc::Sender<()>,
        _done: mpsc::UnboundedSender<Input>,
        _stop: oneshot::Sender<()>,
    }

    fn inputs() -> (Inputs, Lanes) {
        let (to_logged, logged) = mpsc::channel(1);
        let (to_done, done) = mpsc::unbounded_channel();
        let (to_gate, gate) = mpsc::unbounded_channel();
        let (to_leave, leave) = mpsc::channel(1);
        let (to_stop, stop) = oneshot::channel();
        let inputs = Inputs::new(Arc::new(RealClock::new()), logged, done, gate, leave, stop);
        (inputs, Lanes { logged: to_logged, gate: to_gate, leave: to_leave, _done: to_done, _stop: to_stop })
    }

    async fn under_flood(inputs: &mut Inputs) -> Heard {
        let (mut wire, mut gossip) = (Flood, Flood);
        let ports = Ports { wire: &mut wire, gossip: &mut gossip };
        // These ports, unlike real ones, know nothing of tokio's budget for a task that never waits.
        tokio::task::unconstrained(inputs.next(ports, Some(Mono::NEVER), true)).await
    }

    #[tokio::test]
    async fn a_flood_leaves_everybody_their_turn() {
        let (mut inputs, lanes) = inputs();
        lanes.leave.try_send(()).expect("room for one");
        let (mut peers, mut gossip, mut gate, mut leaves) = (0, 0, 0, 0);
        for number in 0..1_600 {
            lanes.gate.send(GateItem::Abandon { id: RequestId(number) }).expect("it is read");
            match under_flood(&mut inputs).await {
                Heard::Input(Input::PeerFrame { .. }) => peers += 1,
                Heard::Input(Input::Datagram { .. }) => gossip += 1,
                Heard::Input(Input::Leave) => leaves += 1,
                Heard::Gate(_) => gate += 1,
                Heard::Input(other) => panic!("{other:?}"),
            }
        }
        assert!(gossip >= 300 && gate >= 600 && peers >= 600, "{peers} {gossip} {gate}");
        assert_eq!(leaves, 1);
    }

    #[tokio::test]
    async fn completions_and_deadlines_come_before_any_flood() {
        let (mut inputs, lanes) = inputs();
        for write in 0..200 {
            lanes.logged.try_send(Input::Logged { write, result: Ok(()) }).expect("room for one");
            let heard = under_flood(&mut inputs).await;
            assert!(matches!(heard, Heard::Input(Input::Logged { write: it, .. }) if it == write));
        }
        let (mut wire, mut gossip) = (Flood, Flood);
        let ports = Ports { wire: &mut wire, gossip: &mut gossip };
        assert!(matches!(inputs.next(ports, Some(Mono(0)), true).await, Heard::Input(Input::Wake)));
    }

    #[tokio::test]
    async fn an_alarm_that_is_earlier_than_the_deadline_wakes_nobody() {
        let (mut inputs, _lanes) = inputs();
        let (mut wire, mut gossip) = (crate::wire::NoWire, crate::gossip::NoGossip);
        let now = inputs.clock.now().mono;
        let at = |ms: u64| Some(Mono(now.0 + ms * 1_000_000));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(inputs.poll_alarm(&mut cx, at(1)).is_pending());
        let heard = inputs.next(Ports { wire: &mut wire, gossip: &mut gossip }, at(30), true).await;
        assert!(matches!(heard, Heard::Input(Input::Wake)));
        assert!(inputs.clock.now().mono.0 >= now.0 + 30_000_000);
    }
}
