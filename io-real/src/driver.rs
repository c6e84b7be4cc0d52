//! The one loop that drives a node, the same under tokio and in the simulator.
//!
//! It carries and never decides: inputs in the order of a documented priority, outputs to their lanes in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use proconsul_core::agent::Probe;
use proconsul_core::api::HttpReply;
use proconsul_core::boundary::{Input, Outbox, Output};
use proconsul_core::ids::{OpId, RequestId};
use proconsul_core::node::{Lease, Node, Published};
use proconsul_core::time::Now;
use proconsul_core::wal;
use tokio::sync::{mpsc, oneshot};

use crate::bulk::BulkJob;
use crate::gate::GateItem;
use crate::log_writer::Logged;
use crate::ports::{Clock, Prober, Spawn, Wire, WireEvent};

/// Sees every step; for auditors and traces. Production has none.
pub trait Observer: Send {
    /// A step is about to be taken.
    fn before(&mut self, now: Now, input: &Input);
    /// It was taken, and this is what came of it.
    fn after(&mut self, node: &Node, outputs: &[Output]);
}

/// Everything that the loop needs besides the node.
pub struct Lanes {
    /// Both clocks.
    pub clock: Arc<dyn Clock>,
    /// Other servers.
    pub wire: Box<dyn Wire>,
    /// Health checks.
    pub prober: Arc<dyn Prober>,
    /// Tasks for health checks.
    pub spawn: Arc<dyn Spawn>,
    /// The log's writer. It has one write at a time: the next is handed out when the former is done.
    pub log: mpsc::Sender<wal::Write>,
    /// Completions of the log's writer.
    pub logged: mpsc::Receiver<Logged>,
    /// The writer of checkpoints and local state.
    pub bulk: mpsc::UnboundedSender<BulkJob>,
    /// Completions of all other lanes.
    pub done: mpsc::UnboundedReceiver<Input>,
    /// Where probes report to: the other end of `done`.
    pub done_sender: mpsc::UnboundedSender<Input>,
    /// Requests of front-ends.
    pub gate: mpsc::UnboundedReceiver<GateItem>,
    /// What front-ends see.
    pub published: Arc<ArcSwap<Published>>,
    /// Fires when the process ends.
    pub stop: oneshot::Receiver<()>,
    /// Sees every step.
    pub observer: Option<Box<dyn Observer>>,
}

/// How a node's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to stop.
    Stopped,
    /// It could not go on without breaking a promise; one line for the operator.
    Halted(String),
}

/// Starts a node and drives it to its end.
pub async fn drive(mut node: Node, lanes: Lanes) -> End {
    let Lanes {
        clock,
        wire,
        prober,
        spawn,
        log,
        mut logged,
        bulk,
        mut done,
        done_sender,
        mut gate,
        published,
        mut stop,
        observer,
    } = lanes;
    let mut hands = Hands {
        wire,
        prober,
        spawn,
        log,
        bulk,
        done: done_sender,
        published,
        replies: BTreeMap::new(),
        probes: BTreeMap::new(),
    };
    let mut observer = observer;
    let mut outbox = Outbox::default();
    node.start(clock.now(), &mut outbox);
    if let Some(observer) = &mut observer {
        observer.after(&node, &outbox.0);
    }
    if let Some(end) = hands.perform(&mut outbox) {
        return end;
    }
    loop {
        let deadline = node.next_deadline().map(|(at, _)| at);
        let input = if deadline.is_some_and(|at| at <= clock.now().mono) {
            Input::Wake
        } else {
            let sleep = async {
                match deadline {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // In this order: what was done, what peers say, what clients want; a deadline that is due was seen above.
            tokio::select! {
                biased;
                Some((write, result)) = logged.recv() => Input::Logged { write, result },
                Some(completion) = done.recv() => completion,
                event = hands.wire.next() => match event {
                    WireEvent::Up(peer) => Input::PeerUp { peer },
                    WireEvent::Frame(peer, frame) => Input::PeerFrame { peer, frame },
                    WireEvent::Down(peer) => Input::PeerDown { peer },
                },
                _ = &mut stop => Input::Stop,
                Some(item) = gate.recv(), if node.admission().requests > 0 => match item {
                    GateItem::Request { id, request, reply } => {
                        hands.replies.insert(id, reply);
                        Input::Request { id, request }
                    }
                    GateItem::Abandon { id } => {
                        hands.replies.remove(&id);
                        Input::Abandon { id }
                    }
                },
                () = sleep => Input::Wake,
            }
        };
        let stopping = matches!(input, Input::Stop);
        let now = clock.now();
        if let Some(observer) = &mut observer {
            observer.before(now, &input);
        }
        node.step(now, input, &mut outbox);
        if let Some(observer) = &mut observer {
            observer.after(&node, &outbox.0);
        }
        if let Some(end) = hands.perform(&mut outbox) {
            return end;
        }
        if stopping {
            return End::Stopped;
        }
    }
}

/// Tells the operator of a change of leadership.
fn report_leader(before: &Lease, now: &Published) {
    if before.leader == now.lease.leader {
        return;
    }
    let term = now.lease.term.0;
    match now.lease.leader {
        Some(_) if now.lease.is_leader => tracing::info!(node = %now.about.node, term, "New leader elected"),
        Some(leader) => tracing::info!(id = %leader, term, "New leader elected"),
        None => tracing::warn!(term, "No leader is known"),
    }
}

/// Carries outputs to their lanes.
struct Hands {
    wire: Box<dyn Wire>,
    prober: Arc<dyn Prober>,
    spawn: Arc<dyn Spawn>,
    log: mpsc::Sender<wal::Write>,
    bulk: mpsc::UnboundedSender<BulkJob>,
    done: mpsc::UnboundedSender<Input>,
    published: Arc<ArcSwap<Published>>,
    replies: BTreeMap<RequestId, oneshot::Sender<HttpReply>>,
    probes: BTreeMap<OpId, oneshot::Sender<()>>,
}

impl Hands {
    fn perform(&mut self, outbox: &mut Outbox) -> Option<End> {
        for output in outbox.drain() {
            match output {
                Output::Log(write) => {
                    if self.log.try_send(write).is_err() {
                        return Some(End::Halted("the log's writer has stopped".to_owned()));
                    }
                }
                Output::Checkpoint { op, checkpoint } => {
                    if self.bulk.send(BulkJob::Checkpoint { op, checkpoint }).is_err() {
                        return Some(End::Halted("the writer of checkpoints has stopped".to_owned()));
                    }
                }
                Output::SaveLocal { op, changes } => {
                    if self.bulk.send(BulkJob::Local { op, changes }).is_err() {
                        return Some(End::Halted("the writer of local state has stopped".to_owned()));
                    }
                }
                Output::Probe { op, probe } => self.probe(op, probe),
                Output::Cancel { op } => {
                    self.probes.remove(&op);
                }
                Output::Peer { to, address, frame } => self.wire.send(to, &address, frame),
                Output::Publish(published) => {
                    report_leader(&self.published.load().lease, &published);
                    self.published.store(published);
                }
                Output::Reply { id, reply } => {
                    if let Some(waiting) = self.replies.remove(&id) {
                        // A client that went away meanwhile needs no answer.
                        let _ = waiting.send(reply);
                    }
                }
                Output::Datagram { .. }
                | Output::GossipCall { .. }
                | Output::GossipAnswer { .. }
                | Output::Resolve { .. }
                | Output::Left => {}
                Output::Halt { reason } => return Some(End::Halted(reason)),
            }
        }
        None
    }

    fn probe(&mut self, op: OpId, probe: Probe) {
        let (cancel, mut cancelled) = oneshot::channel();
        self.probes.retain(|_, probe| !probe.is_closed());
        self.probes.insert(op, cancel);
        let prober = Arc::clone(&self.prober);
        let done = self.done.clone();
        self.spawn.spawn(Box::pin(async move {
            tokio::select! {
                biased;
                _ = &mut cancelled => {}
                outcome = prober.probe(&probe) => {
                    // A node that has stopped needs no outcome.
                    let _ = done.send(Input::Probed { op, outcome });
                }
            }
        }));
    }
}
