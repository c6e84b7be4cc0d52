//! How front-ends reach the node: what it has published, and a queue for what only it can decide.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};
use proconsul_core::api::{HttpReply, Request};
use proconsul_core::ids::RequestId;
use proconsul_core::node::Published;
use proconsul_core::time::Now;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;
use crate::ports::Clock;
use crate::process::{NoProcess, Process};

/// So many requests may be with the node at a time, blocking queries included. Fewer than the node would park, so that
/// it never stops reading from the gate while all it has are parked queries that wait to be abandoned.
const IN_FLIGHT_MAX: usize = 262_144;

/// What the driver takes from front-ends.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are requests; a box would cost each an allocation")]
pub enum GateItem {
    /// A request, with where to send its answer.
    Request {
        /// Never reused.
        id: RequestId,
        /// What is asked.
        request: Request,
        /// Takes the answer.
        reply: oneshot::Sender<HttpReply>,
    },
    /// The client of a request went away.
    Abandon {
        /// The request.
        id: RequestId,
    },
}

/// A front-end's way to the node. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    published: Arc<ArcSwap<Published>>,
    items: mpsc::UnboundedSender<GateItem>,
    clock: Arc<dyn Clock>,
    next_id: Arc<AtomicU64>,
    in_flight: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    process: Arc<dyn Process>,
}

/// Why a request was not answered by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Too many requests are with the node already.
    #[error("this agent has too many requests under way, try again later or ask another one")]
    Full,
    /// The node has stopped.
    #[error("this agent is shutting down")]
    Stopped,
}

impl Gate {
    /// A gate, and the queue that the driver reads.
    #[must_use]
    pub fn new(
        published: Arc<ArcSwap<Published>>,
        clock: Arc<dyn Clock>,
    ) -> (Gate, mpsc::UnboundedReceiver<GateItem>) {
        let (items, queue) = mpsc::unbounded_channel();
        let gate = Gate {
            published,
            items,
            clock,
            next_id: Arc::new(AtomicU64::new(1)),
            in_flight: Arc::new(AtomicUsize::new(0)),
            metrics: Arc::default(),
            process: Arc::new(NoProcess),
        };
        (gate, queue)
    }

    /// The same way, of front-ends that may ask something of the process, too.
    #[must_use]
    pub fn with_process(self, process: Arc<dyn Process>) -> Gate {
        Gate { process, ..self }
    }

    /// What is measured.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The process around the node.
    #[must_use]
    pub fn process(&self) -> &dyn Process {
        &*self.process
    }

    /// What the node has published last.
    #[must_use]
    pub fn published(&self) -> Guard<Arc<Published>> {
        self.published.load()
    }

    /// Both clocks. A lease that is looked at must be compared with a time that was read after [`Gate::published`].
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Completes when the node has stopped.
    pub async fn closed(&self) {
        self.items.closed().await;
    }

    /// Asks the node and waits for the answer. Dropping the future abandons the request.
    ///
    /// # Errors
    /// The node is full or has stopped.
    pub async fn ask(&self, request: Request) -> Result<HttpReply, Refused> {
        let _waiting = self.metrics.asked(&request.call, &self.published());
        let mut ticket = Ticket::draw(self).inspect_err(|_| self.metrics.refused())?;
        let (reply, answer) = oneshot::channel();
        self.items.send(GateItem::Request { id: ticket.id, request, reply }).map_err(|_| Refused::Stopped)?;
        let answer = answer.await.map_err(|_| Refused::Stopped)?;
        ticket.answered = true;
        Ok(answer)
    }
}

impl Gate {
    /// Asks the node for something whose answer nobody needs.
    pub fn tell(&self, request: Request) {
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        // A node that has stopped does nothing any more.
        let _ = self.items.send(GateItem::Request { id, request, reply: oneshot::channel().0 });
    }
}

/// One place among the requests in flight; given back when dropped.
struct Ticket<'a> {
    gate: &'a Gate,
    id: RequestId,
    answered: bool,
}

impl<'a> Ticket<'a> {
    fn draw(gate: &'a Gate) -> Result<Ticket<'a>, Refused> {
        if gate.in_flight.fetch_add(1, Ordering::Relaxed) >= IN_FLIGHT_MAX {
            gate.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        let id = RequestId(gate.next_id.fetch_add(1, Ordering::Relaxed));
        Ok(Ticket { gate, id, answered: false })
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.gate.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            // A node that has stopped needs not be told.
            let _ = self.gate.items.send(GateItem::Abandon { id: self.id });
        }
    }
}
