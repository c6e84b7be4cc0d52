//! What readers on other threads see: the state, who this agent is, and for how long it may answer alone.

use std::sync::Arc;

use super::Cluster;
use crate::Text;
use crate::agent::AgentView;
use crate::format::Formats;
use crate::gossip::Gauges;
use crate::ids::{LogIndex, ServerId, Term};
use crate::raft::Membership;
use crate::store::View;
use crate::time::Mono;

/// A consistent picture of the node, replaced as a whole.
#[derive(Clone, Debug)]
pub struct Published {
    /// The replicated state.
    pub view: View,
    /// Role and read lease.
    pub lease: Lease,
    /// Members of the Raft group.
    pub membership: Arc<Membership>,
    /// The agent's own services and checks.
    pub agent: Arc<AgentView>,
    /// What gossip knows of the other agents.
    pub cluster: Arc<Cluster>,
    /// What keeps this agent from writing; `None` while all is well.
    pub alarm: Option<Text>,
    /// What never changes while the process runs.
    pub about: Arc<About>,
}

/// Role, read lease and age of the view at the moment of publication.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// Current term.
    pub term: Term,
    /// The leader, if one is known.
    pub leader: Option<ServerId>,
    /// Whether that is this server.
    pub is_leader: bool,
    /// Last entry that the view includes.
    pub applied: LogIndex,
    /// The entry that says who the members of the group are.
    pub membership_index: LogIndex,
    /// Until then default reads may be answered from the view without asking anybody. [`Mono::NEVER`] for a sole
    /// voter, zero when they may not.
    pub until: Mono,
    /// Everything that was committed then is in the view. `None` if that is not known since the start.
    pub as_of: Option<Mono>,
    /// Numbers for operators.
    pub figures: Figures,
}

/// Numbers about the log and the pools of gossip that decide nothing and are shown to operators.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Everything up to here is committed.
    pub commit: LogIndex,
    /// The end of the log, and the term of its last entry.
    pub last: (LogIndex, Term),
    /// The last entry that a checkpoint stands for, with its term; zero if there is none.
    pub checkpoint: (LogIndex, Term),
    /// The datacenter's pool.
    pub lan: Gauges,
    /// The pool of servers.
    pub wan: Gauges,
}

/// Identity and settings of the agent that clients may see.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Name of the node.
    pub node: Text,
    /// Identity of the agent.
    pub id: ServerId,
    /// Datacenter.
    pub datacenter: Text,
    /// Address that other nodes reach it by.
    pub address: Text,
    /// Version of the program.
    pub version: Text,
    /// Whether it is a server.
    pub server: bool,
    /// Whether it makes itself the first server.
    pub bootstrap: bool,
    /// Processors of the machine.
    pub processors: usize,
    /// Threads that the program has begun with.
    pub threads: usize,
    /// Development mode: answers are indented.
    pub dev: bool,
    /// DNS domain, without dots at the ends.
    pub domain: Text,
    /// Largest value of a key, in bytes.
    pub kv_max_value_size: u64,
    /// Largest body of a transaction, in bytes; never less than the largest value.
    pub txn_max_req_len: u64,
    /// Ports by name (`http`, `dns`, `server`, `serf_lan`, `serf_wan`, `grpc`); zero or less means off.
    pub ports: std::collections::BTreeMap<Text, i32>,
    /// The effective configuration as JSON, for `/v1/agent/self`.
    pub config_json: Text,
    /// Metadata of the node.
    pub node_meta: std::collections::BTreeMap<Text, Text>,
    /// Tagged addresses of the node.
    pub tagged_addresses: std::collections::BTreeMap<Text, Text>,
    /// Whether clients are refused network coordinates.
    pub disable_coordinates: bool,
    /// Rules of its HTTP interface.
    pub front: crate::api::Front,
    /// The formats that this agent reads and writes. All that the program knows, unless it plays an older one.
    pub formats: Formats,
}
