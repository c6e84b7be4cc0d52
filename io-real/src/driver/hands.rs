//! Carries outputs to their lanes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use proconsul_core::Text;
use proconsul_core::agent::Probe;
use proconsul_core::api::HttpReply;
use proconsul_core::boundary::{Input, Lane, Outbox, Output};
use proconsul_core::ids::{OpId, RequestId};
use proconsul_core::node::{Published, RemoteJob};
use tokio::sync::{mpsc, oneshot};

use super::{End, report};
use crate::bulk::BulkJob;
use crate::gate::GateItem;
use crate::log_writer::LogJob;
use crate::ports::{GossipPort, Prober, Resolver, Spawn, Wire};

/// Everything that acts, and who waits for what.
pub(super) struct Hands {
    pub(super) wire: Box<dyn Wire>,
    pub(super) gossip: Box<dyn GossipPort>,
    resolver: Arc<dyn Resolver>,
    prober: Arc<dyn Prober>,
    spawn: Arc<dyn Spawn>,
    log: mpsc::Sender<LogJob>,
    bulk: mpsc::Sender<BulkJob>,
    done: mpsc::UnboundedSender<Input>,
    published: Arc<ArcSwap<Published>>,
    jobs: mpsc::Sender<RemoteJob>,
    replies: BTreeMap<RequestId, oneshot::Sender<HttpReply>>,
    probes: BTreeMap<OpId, oneshot::Sender<()>>,
}

impl Hands {
    #[expect(clippy::too_many_arguments, reason = "one for each lane, and one caller")]
    pub(super) fn new(
        wire: Box<dyn Wire>,
        gossip: Box<dyn GossipPort>,
        resolver: Arc<dyn Resolver>,
        prober: Arc<dyn Prober>,
        spawn: Arc<dyn Spawn>,
        log: mpsc::Sender<LogJob>,
        bulk: mpsc::Sender<BulkJob>,
        done: mpsc::UnboundedSender<Input>,
        published: Arc<ArcSwap<Published>>,
        jobs: mpsc::Sender<RemoteJob>,
    ) -> Hands {
        let (replies, probes) = (BTreeMap::new(), BTreeMap::new());
        Hands { wire, gossip, resolver, prober, spawn, log, bulk, done, published, jobs, replies, probes }
    }

    /// Keeps what a front-end waits by, and gives the node's part of it.
    pub(super) fn admit(&mut self, item: GateItem) -> Input {
        match item {
            GateItem::Request { id, request, reply } => {
                self.replies.insert(id, reply);
                Input::Request { id, request }
            }
            GateItem::Abandon { id } => {
                self.replies.remove(&id);
                Input::Abandon { id }
            }
        }
    }

    /// Does all that one step has asked for; gives how the node's life ends, if it does.
    pub(super) fn perform(&mut self, outbox: &mut Outbox) -> Option<End> {
        let mut left = None;
        for output in outbox.drain() {
            match output {
                Output::Log(write) => {
                    if self.log.try_send(LogJob::Write(write)).is_err() {
                        return Some(End::Halted("the log's writer has stopped".to_owned()));
                    }
                }
                Output::Checkpoint { op, checkpoint } => {
                    if self.bulk.try_send(BulkJob::Checkpoint { op, checkpoint }).is_err() {
                        return Some(End::Halted("the writer of checkpoints has stopped".to_owned()));
                    }
                }
                Output::SaveLocal { op, changes } => {
                    if self.bulk.try_send(BulkJob::Local { op, changes }).is_err() {
                        return Some(End::Halted("the writer of local state has stopped".to_owned()));
                    }
                }
                // A lane that is busy or gone needs not be told.
                Output::TryAgain { lane: Lane::Log } => drop(self.log.try_send(LogJob::TryAgain)),
                Output::TryAgain { lane: Lane::State } => drop(self.bulk.try_send(BulkJob::TryAgain)),
                Output::Probe { op, probe } => self.probe(op, probe),
                Output::Cancel { op } => {
                    self.probes.remove(&op);
                }
                Output::Peer { to, address, datacenter, frame } => {
                    self.wire.send(to, &address, datacenter.as_ref(), frame);
                }
                Output::Datagram { pool, to, bytes } => self.gossip.send(pool, to, bytes),
                Output::GossipCall { pool, call, to, bytes, timeout } => {
                    self.gossip.call(pool, call, to, bytes, timeout);
                }
                Output::GossipAnswer { pool, caller, bytes } => self.gossip.answer(pool, caller, bytes),
                Output::Resolve { op, name } => self.resolve(op, name),
                Output::Publish(published) => {
                    report::changes(&self.published.load(), &published);
                    self.published.store(published);
                }
                Output::Reply { id, reply } => {
                    if let Some(waiting) = self.replies.remove(&id) {
                        // A client that went away meanwhile needs no answer.
                        let _ = waiting.send(reply);
                    }
                }
                // What else the last step wants is still done: somebody may wait for its reply.
                Output::Left => left = Some(End::Left),
                Output::Warn(text) => tracing::warn!("{text}"),
                Output::Execute(job) => {
                    if self.jobs.try_send(job).is_err() {
                        tracing::warn!("a job of exec was not run: too many come at a time");
                    }
                }
                Output::Halt { reason } => return Some(End::Halted(reason)),
            }
        }
        left
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

    fn resolve(&mut self, op: OpId, name: Text) {
        let resolver = Arc::clone(&self.resolver);
        let done = self.done.clone();
        self.spawn.spawn(Box::pin(async move {
            let result = resolver.resolve(&name).await.map_err(|error| error.to_string());
            // A node that has stopped needs no outcome.
            let _ = done.send(Input::Resolved { op, result });
        }));
    }
}
