//! The agent's own services and checks, and how the catalog is repaired towards them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::Text;
use crate::store::model::{Check, Health, Service};

/// Deadlines of the agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A check is due to run, by check id.
    Run(Text),
    /// A TTL runs out, by check id.
    Ttl(Text),
    /// The next full synchronisation with the catalog.
    FullSync,
}

/// A change of the agent's own state.
#[derive(Clone, Debug)]
pub enum Call {
    /// Removes a service and its checks.
    DeregisterService {
        /// Service id.
        id: Text,
    },
}

/// Something to find out about the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// How.
    pub kind: ProbeKind,
    /// Limit of one run.
    pub timeout: Duration,
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
        /// Whether certificates are not verified.
        tls_skip_verify: bool,
    },
    /// A TCP connection.
    Tcp {
        /// `host:port`
        address: Text,
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
