//! In which order what happens reaches the node.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use proconsul_core::boundary::Input;
use proconsul_core::time::Mono;
use tokio::sync::{mpsc, oneshot};

use super::hands::Hands;
use crate::gate::GateItem;
use crate::log_writer::Logged;
use crate::ports::{Clock, GossipEvent, WireEvent};

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

/// Everything that the node can hear, apart from what its hands hold.
pub(super) struct Inputs {
    clock: Arc<dyn Clock>,
    logged: mpsc::Receiver<Logged>,
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
        logged: mpsc::Receiver<Logged>,
        done: mpsc::UnboundedReceiver<Input>,
        gate: mpsc::UnboundedReceiver<GateItem>,
        leave: mpsc::Receiver<()>,
        stop: oneshot::Receiver<()>,
    ) -> Inputs {
        Inputs { clock, logged, done, gate, leave, stop, turns: ROUND, alarm: None }
    }

    /// What happens next. In this order: a deadline that is due, what was done, what peers say, gossip, the process's
    /// end, what clients want; and nobody below waits for more than one round of those above.
    pub(super) async fn next(&mut self, hands: &mut Hands, deadline: Option<Mono>, admits: bool) -> Input {
        if deadline.is_some_and(|at| at <= self.clock.now().mono) {
            return Input::Wake;
        }
        poll_fn(|cx| {
            let heard = self.poll_heard(cx, hands, admits);
            if heard.is_pending() { self.poll_alarm(cx, deadline) } else { heard }
        })
        .await
    }

    fn poll_heard(&mut self, cx: &mut Context<'_>, hands: &mut Hands, admits: bool) -> Poll<Input> {
        if let Poll::Ready(Some((write, result))) = self.logged.poll_recv(cx) {
            return Poll::Ready(Input::Logged { write, result });
        }
        if let Poll::Ready(Some(completion)) = self.done.poll_recv(cx) {
            return Poll::Ready(completion);
        }
        let heard = self.poll_round(cx, hands, admits);
        if heard.is_pending() && self.turns.is_used_up() {
            // Nobody who still had a turn has anything to say.
            self.turns = ROUND;
            return self.poll_round(cx, hands, admits);
        }
        heard
    }

    fn poll_round(&mut self, cx: &mut Context<'_>, hands: &mut Hands, admits: bool) -> Poll<Input> {
        if self.turns.peers > 0
            && let Poll::Ready(event) = hands.wire.poll_next(cx)
        {
            self.turns.peers -= 1;
            return Poll::Ready(match event {
                WireEvent::Up(peer) => Input::PeerUp { peer },
                WireEvent::Frame(peer, frame) => Input::PeerFrame { peer, frame },
                WireEvent::Down(peer) => Input::PeerDown { peer },
            });
        }
        if self.turns.gossip > 0
            && let Poll::Ready(event) = hands.gossip.poll_next(cx)
        {
            self.turns.gossip -= 1;
            return Poll::Ready(match event {
                GossipEvent::Datagram { pool, from, bytes } => Input::Datagram { pool, from, bytes },
                GossipEvent::Call { pool, caller, from, bytes } => {
                    Input::GossipCall { pool, caller, from, bytes }
                }
                GossipEvent::Answer { pool, call, result } => Input::GossipAnswer { pool, call, result },
            });
        }
        if Pin::new(&mut self.stop).poll(cx).is_ready() {
            return Poll::Ready(Input::Stop);
        }
        if let Poll::Ready(Some(())) = self.leave.poll_recv(cx) {
            return Poll::Ready(Input::Leave);
        }
        if admits
            && self.turns.gate > 0
            && let Poll::Ready(Some(item)) = self.gate.poll_recv(cx)
        {
            self.turns.gate -= 1;
            return Poll::Ready(hands.admit(item));
        }
        Poll::Pending
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>, deadline: Option<Mono>) -> Poll<Input> {
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
                return Poll::Ready(Input::Wake);
            }
        }
    }
}
