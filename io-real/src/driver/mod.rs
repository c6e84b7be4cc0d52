//! The one loop that drives a node, the same under tokio and in the simulator.
//!
//! It carries and never decides: inputs in the order of a documented priority, outputs to their lanes in order.

mod hands;
mod inputs;
mod report;

use std::sync::Arc;

use arc_swap::ArcSwap;
use proconsul_core::boundary::{Input, Outbox, Output};
use proconsul_core::node::{Node, Published, RemoteJob};
use proconsul_core::time::Now;
use tokio::sync::{mpsc, oneshot};

use crate::bulk::BulkJob;
use crate::gate::GateItem;
use crate::log_writer::LogJob;
use crate::ports::{Clock, GossipPort, Prober, Resolver, Spawn, Wire};

use self::hands::Hands;
use self::inputs::{Heard, Inputs, Ports};

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
    /// Other agents.
    pub wire: Box<dyn Wire>,
    /// Gossip.
    pub gossip: Box<dyn GossipPort>,
    /// Names of hosts.
    pub resolver: Arc<dyn Resolver>,
    /// Health checks.
    pub prober: Arc<dyn Prober>,
    /// Tasks for health checks and look-ups.
    pub spawn: Arc<dyn Spawn>,
    /// The log's writer. It has one write at a time: the next is handed out when the former is done.
    pub log: mpsc::Sender<LogJob>,
    /// Completions of the log's writer.
    pub logged: mpsc::Receiver<Input>,
    /// The writer of checkpoints and local state, with room for [`crate::bulk::JOBS_MAX`].
    pub bulk: mpsc::Sender<BulkJob>,
    /// Completions of all other lanes.
    pub done: mpsc::UnboundedReceiver<Input>,
    /// Where probes and look-ups report to: the other end of `done`.
    pub done_sender: mpsc::UnboundedSender<Input>,
    /// Requests of front-ends.
    pub gate: mpsc::UnboundedReceiver<GateItem>,
    /// What front-ends see.
    pub published: Arc<ArcSwap<Published>>,
    /// Takes commands that somebody wants this agent to run.
    pub jobs: mpsc::Sender<RemoteJob>,
    /// Asks the node to leave the cluster.
    pub leave: mpsc::Receiver<()>,
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
    /// It was asked to leave the cluster, and has left.
    Left,
    /// It could not go on without breaking a promise; one line for the operator.
    Halted(String),
}

/// Starts a node and drives it to its end.
pub async fn drive(mut node: Node, lanes: Lanes) -> End {
    let Lanes {
        clock,
        wire,
        gossip,
        resolver,
        prober,
        spawn,
        log,
        logged,
        bulk,
        done,
        done_sender,
        gate,
        published,
        jobs,
        leave,
        stop,
        mut observer,
    } = lanes;
    let mut hands =
        Hands::new(wire, gossip, resolver, prober, spawn, log, bulk, done_sender, published, jobs);
    let mut inputs = Inputs::new(Arc::clone(&clock), logged, done, gate, leave, stop);
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
        let ports = Ports { wire: &mut *hands.wire, gossip: &mut *hands.gossip };
        let input = match inputs.next(ports, deadline, node.admission().requests > 0).await {
            Heard::Input(input) => input,
            Heard::Gate(item) => hands.admit(item),
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
