//! The one way in and the one way out of the core.
//!
//! An adapter keeps six rules: it steps with a clock that never goes back; it drains the outbox before the next step;
//! it keeps order within a lane; it completes each operation exactly once; it calls a write done only when it is
//! durable; and a crash loses what was not performed and nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::Text;
use crate::agent::{Probe, ProbeOutcome};
use crate::api::{HttpReply, Request};
use crate::gossip::{self, Pool};
use crate::ids::{OpId, RequestId, ServerId};
use crate::node::{Published, RemoteJob};
use crate::raft::SnapshotMeta;
use crate::store::{RowKey, Store};
use crate::wal;

/// What happens to the node.
#[derive(Debug)]
pub enum Input {
    /// The deadline that the node asked for has come, or may have.
    Wake,
    /// A client's request. Answered by exactly one [`Output::Reply`], unless it is abandoned first.
    Request {
        /// Drawn by the adapter, never reused.
        id: RequestId,
        /// What is asked.
        request: Request,
    },
    /// The client went away; its reply would reach nobody.
    Abandon {
        /// The request.
        id: RequestId,
    },
    /// A connection to another agent came up.
    PeerUp {
        /// Which agent.
        peer: ServerId,
        /// Where it is, if it is a server of another datacenter.
        datacenter: Option<Text>,
    },
    /// Another server sent a frame.
    PeerFrame {
        /// Which server.
        peer: ServerId,
        /// A versioned [`crate::node::PeerMessage`].
        frame: Bytes,
    },
    /// The connection to another server was closed or refused: a hint, no proof, of its death.
    PeerDown {
        /// Which server.
        peer: ServerId,
    },
    /// A datagram came to the gossip port of a pool.
    Datagram {
        /// Which pool.
        pool: Pool,
        /// Who sent it.
        from: SocketAddr,
        /// As it came; may be anything.
        bytes: Bytes,
    },
    /// A request came over a stream to the gossip port of a pool. Answered by at most one
    /// [`Output::GossipAnswer`]; without one, the adapter closes the stream after a while.
    GossipCall {
        /// Which pool.
        pool: Pool,
        /// Drawn by the adapter, never reused.
        caller: u64,
        /// Who sent it.
        from: SocketAddr,
        /// As it came; may be anything.
        bytes: Bytes,
    },
    /// A call over a stream has its answer, or has failed.
    GossipAnswer {
        /// Which pool.
        pool: Pool,
        /// The node's number of the call.
        call: u64,
        /// The answer as it came; may be anything.
        result: Result<Bytes, gossip::CallError>,
    },
    /// A name was looked up.
    Resolved {
        /// The operation.
        op: OpId,
        /// Its addresses, or the environment's words.
        result: Result<Vec<IpAddr>, String>,
    },
    /// The operator asks the agent to leave the cluster in good order; ends with [`Output::Left`].
    Leave,
    /// Log writes are durable, or failed. Completions come in the order of the writes.
    Logged {
        /// [`wal::Write::id`]
        write: u64,
        /// The environment's words when it failed; the node halts then.
        result: Result<(), String>,
    },
    /// A checkpoint or an installation is durable, or failed.
    Saved {
        /// The operation.
        op: OpId,
        /// The environment's words when it failed.
        result: Result<(), String>,
    },
    /// The oldest operation of a lane has found no room on its disk. It is not done; whoever performs it keeps it, and
    /// what follows in the lane waits, until [`Output::TryAgain`].
    Full {
        /// Which lane.
        lane: Lane,
        /// The environment's words.
        reason: String,
    },
    /// A probe ended.
    Probed {
        /// The operation.
        op: OpId,
        /// What it found.
        outcome: ProbeOutcome,
    },
    /// The operator, or the process's end, asks the node to stop serving.
    Stop,
}

/// A lane that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// The Raft log.
    Log,
    /// Checkpoints and local state.
    State,
}

/// What the node wants done. Lanes: log, checkpoints, local state, peers (one each),
/// gossip, look-ups, probes, publications and replies.
#[derive(Debug)]
pub enum Output {
    /// Perform these writes in order, then complete with [`Input::Logged`].
    Log(wal::Write),
    /// Make a checkpoint durable, atomically; complete with [`Input::Saved`].
    Checkpoint {
        /// The operation.
        op: OpId,
        /// What to save.
        checkpoint: Box<Checkpoint>,
    },
    /// Change the agent's local state, atomically and durably; complete with [`Input::Saved`].
    SaveLocal {
        /// The operation.
        op: OpId,
        /// Keys with their new values; `None` removes.
        changes: Vec<(Text, Option<Bytes>)>,
    },
    /// Perform again what [`Input::Full`] was said of, and go on from there. Nothing to do if nothing waits.
    TryAgain {
        /// Which lane.
        lane: Lane,
    },
    /// Run a health check; complete with [`Input::Probed`].
    Probe {
        /// The operation.
        op: OpId,
        /// What to run, with its limit of time.
        probe: Probe,
    },
    /// The outcome of an operation is no longer wanted; it may still be completed.
    Cancel {
        /// The operation.
        op: OpId,
    },
    /// Send a frame to another server, or lose it.
    Peer {
        /// Which server.
        to: ServerId,
        /// Where it is, as `host:port`.
        address: Text,
        /// Its datacenter, unless it is this one.
        datacenter: Option<Text>,
        /// A versioned [`crate::node::PeerMessage`].
        frame: Bytes,
    },
    /// Send a datagram from the gossip port of a pool, or lose it.
    Datagram {
        /// Which pool.
        pool: Pool,
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Bytes,
    },
    /// Send a request over a stream to the gossip port of another agent; complete with [`Input::GossipAnswer`].
    GossipCall {
        /// Which pool.
        pool: Pool,
        /// The node's number of the call.
        call: u64,
        /// To whom.
        to: SocketAddr,
        /// The request.
        bytes: Bytes,
        /// To be given up after this long.
        timeout: Duration,
    },
    /// Answer a request that came over a stream.
    GossipAnswer {
        /// Which pool.
        pool: Pool,
        /// The adapter's number of the request.
        caller: u64,
        /// The answer.
        bytes: Bytes,
    },
    /// Look up the addresses of a host; complete with [`Input::Resolved`].
    Resolve {
        /// The operation.
        op: OpId,
        /// The name.
        name: Text,
    },
    /// The agent has left the cluster; the process may end.
    Left,
    /// One line for the operator: something is wrong, and the agent goes on.
    Warn(Text),
    /// Run a command that somebody wants agents to run (Consul: `exec`). It answers by keys, not by an input.
    Execute(RemoteJob),
    /// Let readers see this from here on.
    Publish(Arc<Published>),
    /// Answer a request.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        reply: HttpReply,
    },
    /// Stop at once, without any further write: going on could break a promise.
    Halt {
        /// One line for the operator: what happened, where, and what to do.
        reason: String,
    },
}

/// A state of the store to make durable.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What it stands for; saved together with the rows.
    pub meta: SnapshotMeta,
    /// The state. A cheap clone; rows are encoded from it outside the core's thread.
    pub store: Store,
    /// Which rows may differ from the former checkpoint; `None`: replace everything, also rows not mentioned here.
    pub dirty: Option<Vec<RowKey>>,
}

/// Where one step's outputs are collected. Empty when a step begins.
#[derive(Debug, Default)]
pub struct Outbox(pub Vec<Output>);

impl Outbox {
    /// Adds an output.
    pub fn push(&mut self, output: Output) {
        self.0.push(output);
    }

    /// Takes all outputs in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Output> {
        self.0.drain(..)
    }
}
