//! The agent's own services and checks, and how the catalog is repaired towards them.

mod checks;
pub(crate) mod decode;
pub mod definition;
mod kinds;
mod local;
mod machine;
pub(crate) mod persist;
pub(crate) mod proxy;
mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use definition::{CheckDefinition, CheckKind, ServiceDefinition};
pub use kinds::Tls;
pub use machine::{Agent, BadStart, Config, Scripts};

use crate::Text;
use crate::ids::OpId;
use crate::store::command::Command;
use crate::store::model::{Check, Health, Node, Service};

/// Deadlines of the agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A check is due to run, by check id.
    Run(Text),
    /// A TTL runs out, by check id.
    Ttl(Text),
    /// The next full synchronisation with the catalog.
    FullSync,
    /// Something could not be synchronised; time to try again.
    Retry,
    /// A check's output that changed without its state is due to be written, by check id.
    Output(Text),
    /// A service has been critical for too long, by check id.
    Deregister(Text),
}

/// A change of the agent's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Registers a service with its checks, or replaces what is registered under its id.
    RegisterService {
        /// What to register.
        definition: Box<ServiceDefinition>,
        /// Whether checks of the service that the definition does not have are removed.
        replace_existing_checks: bool,
    },
    /// Removes a service and its checks.
    DeregisterService {
        /// Service id.
        id: Text,
    },
    /// Registers a check, or replaces the one with its id.
    RegisterCheck {
        /// What to register; it has a name.
        definition: Box<CheckDefinition>,
    },
    /// Removes a check.
    DeregisterCheck {
        /// Check id.
        id: Text,
    },
    /// Reports the state of a TTL check.
    UpdateTtl {
        /// Check id.
        id: Text,
        /// The state.
        status: Health,
        /// What to show.
        output: Text,
    },
    /// Puts these definitions of configuration files in the place of those that are known. What is defined again keeps
    /// the state of its checks.
    Reload {
        /// Services, in order.
        services: Vec<ServiceDefinition>,
        /// Checks.
        checks: Vec<CheckDefinition>,
        /// Other settings that take effect with them.
        settings: Reloaded,
    },
    /// Turns maintenance mode of the node on or off.
    NodeMaintenance {
        /// On or off.
        enable: bool,
        /// Why; empty for a standard text.
        reason: Text,
    },
    /// Turns maintenance mode of a service on or off.
    ServiceMaintenance {
        /// Service id.
        id: Text,
        /// On or off.
        enable: bool,
        /// Why; empty for a standard text.
        reason: Text,
    },
}

/// Settings that may change while the agent runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Metadata of the node (Consul: `node_meta`).
    pub node_meta: BTreeMap<Text, Text>,
    /// Keep no output of checks (Consul: `discard_check_output`).
    pub discard_check_output: bool,
    /// For how long output alone may wait before it is written (Consul: `check_update_interval`).
    pub check_update_interval: Duration,
    /// How old answers to reads may be that do not say how fresh they must be (Consul: `discovery_max_stale`).
    pub discovery_max_stale: Duration,
}

/// Why a call was refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CallError {
    /// HTTP status.
    pub status: u16,
    /// The body of the answer.
    pub text: String,
}

impl CallError {
    /// A refusal with this status and text.
    #[must_use]
    pub fn new(status: u16, text: impl Into<String>) -> CallError {
        CallError { status, text: text.into() }
    }
}

/// When a call may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallDone {
    /// At once.
    Now,
    /// When what [`Effect::Persist`] with this ticket carries is durable.
    WhenPersisted(u64),
}

/// What the agent wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Run a health check; report with [`Agent::on_probed`]. Ids are above [`OP_BASE`], unlike those of other machines.
    Probe {
        /// The operation.
        op: OpId,
        /// What to run.
        probe: Probe,
    },
    /// The outcome of a probe is no longer wanted.
    Cancel {
        /// The operation.
        op: OpId,
    },
    /// Change the catalog; report with [`Agent::on_proposed`]. Commands must reach the log in the order of their
    /// tickets, or not at all.
    Propose {
        /// Quoted by the report.
        ticket: u64,
        /// The change.
        command: Command,
    },
    /// Read what the catalog has of this node; report with [`Agent::on_catalog`].
    FetchCatalog {
        /// Quoted by the report.
        ticket: u64,
    },
    /// Read what the catalog has of another node; report with [`Agent::on_catalog`].
    FetchNode {
        /// Quoted by the report.
        ticket: u64,
        /// Its name.
        node: Text,
    },
    /// Make these changes of the agent's own state durable; failure halts the node.
    Persist {
        /// Quoted by [`CallDone::WhenPersisted`].
        ticket: u64,
        /// Keys with their new values; `None` removes.
        changes: Vec<(Text, Option<Bytes>)>,
    },
    /// [`Agent::view`] gives something new.
    Changed,
}

/// Operations of the agent have ids from here on.
pub const OP_BASE: u64 = 1 << 62;

/// What the catalog has of a node, read by whoever carries out [`Effect::FetchCatalog`] and [`Effect::FetchNode`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogState {
    /// The node's row.
    pub node: Option<Node>,
    /// All its services.
    pub services: Vec<Service>,
    /// All its checks.
    pub checks: Vec<Check>,
}

/// Something to find out about the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// How.
    pub kind: ProbeKind,
    /// Limit of one run.
    pub timeout: Duration,
    /// Limit of what a peer's answer contributes to the output, in bytes.
    pub output_max: usize,
}

/// Kinds of health checks that are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// An HTTP request.
    Http {
        /// URL.
        url: Text,
        /// Method.
        method: Text,
        /// Headers.
        headers: BTreeMap<Text, Vec<Text>>,
        /// Body.
        body: Text,
        /// Whether redirects are followed.
        follow_redirects: bool,
        /// How `https` is spoken.
        tls: Tls,
    },
    /// A TCP connection.
    Tcp {
        /// `host:port`
        address: Text,
        /// With a handshake of TLS.
        tls: Option<Tls>,
    },
    /// A datagram.
    Udp {
        /// `host:port`
        address: Text,
    },
    /// A program.
    Script {
        /// The program and its arguments; never empty.
        args: Vec<Text>,
    },
    /// A program inside a Docker container.
    Docker {
        /// The container.
        container: Text,
        /// What runs the arguments; empty: they are run as they are.
        shell: Text,
        /// The program and its arguments; never empty.
        args: Vec<Text>,
    },
    /// gRPC's health protocol.
    Grpc {
        /// `host:port`, with `/service` behind it if it is about one service.
        target: Text,
        /// Over TLS.
        tls: Option<Tls>,
    },
    /// A ping of HTTP/2.
    H2Ping {
        /// `host:port`
        address: Text,
        /// Over TLS.
        tls: Option<Tls>,
    },
    /// A service of the operating system.
    OsService {
        /// Its name.
        name: Text,
    },
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// The state it speaks for, before thresholds.
    pub status: Health,
    /// What to show.
    pub output: String,
}

/// What readers see of the agent's own state.
#[derive(Clone, Debug, Default)]
pub struct AgentView {
    /// Services by id.
    pub services: imbl::OrdMap<Text, Arc<Service>>,
    /// Checks by id.
    pub checks: imbl::OrdMap<Text, Arc<Check>>,
}
