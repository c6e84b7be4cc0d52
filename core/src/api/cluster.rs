//! What can be asked about the cluster, where each of it is answered, and what travels from agent to agent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::operator::{autopilot, raft, usage};
use super::params::WAIT_LIMIT;
use super::render::indented;
use super::route::{Context, Handled};
use super::{Call, HttpReply, Read, Write, catalog, coordinate, status};
use crate::Text;
use crate::coordinate::Coordinate;
use crate::gossip::{KeysChange, Pool, UserEvent};
use crate::ids::Uuid;
use crate::node::Published;
use crate::store::PreparedQuery;

/// What can be asked about the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClusterCall {
    /// `/v1/agent/join/:address`: any of the forms that `-join` takes.
    Join {
        /// Host, with or without a port.
        address: Text,
        /// The pool of servers instead of the datacenter's.
        pool: Pool,
    },
    /// `/v1/agent/leave`
    Leave,
    /// `/v1/agent/force-leave/:node`
    ForceLeave {
        /// Name of the member.
        node: Text,
        /// Forget it at once.
        prune: bool,
        /// The pool of servers instead of the datacenter's.
        pool: Pool,
    },
    /// `/v1/event/fire/:name`; its id is drawn by the node, its lamport time is ignored.
    Fire(UserEvent),
    /// `/v1/event/list`, when it has to wait for an event.
    Events(EventsRead),
    /// `/v1/operator/keyring`, of both pools where the answering agent is a server.
    Keys {
        /// What to do.
        change: KeysChange,
        /// Ask only the datacenter's pool.
        local_only: bool,
    },
    /// `/v1/coordinate/update`: what an agent says about itself; batched by the leader.
    Coordinate {
        /// Name of the node.
        node: Text,
        /// Where it is.
        coordinate: Coordinate,
    },
    /// `/v1/status/leader`
    StatusLeader,
    /// `/v1/status/peers`
    StatusPeers,
    /// `/v1/operator/raft/configuration`
    RaftConfiguration {
        /// Any server's view of it is good enough.
        stale: bool,
    },
    /// `/v1/operator/usage`
    Usage {
        /// Any server's view of it is good enough.
        stale: bool,
    },
    /// `/v1/operator/raft/peer`: removes a server from the group. By identity or by address, never both.
    RemovePeer {
        /// Identity, as it was written: what is no UUID is nobody's.
        id: Option<Text>,
        /// `host:port`.
        address: Option<Text>,
    },
    /// `/v1/operator/raft/transfer-leader`
    TransferLeader {
        /// To whom; `None`: to whom the leader likes.
        id: Option<Uuid>,
    },
    /// `/v1/operator/autopilot/configuration`
    AutopilotConfiguration {
        /// Any server's view of it is good enough.
        stale: bool,
    },
    /// `/v1/operator/autopilot/health`; answered by the leader.
    AutopilotHealth,
    /// `/v1/operator/autopilot/state`; answered by the leader.
    AutopilotState,
    /// `/v1/coordinate/datacenters`
    CoordinateDatacenters,
    /// `/v1/snapshot` through a client agent: the next of a state that the server keeps for it.
    Saved {
        /// Which state.
        id: Uuid,
        /// Only how long it is.
        measure: bool,
    },
    /// `/v1/catalog/datacenters`
    Datacenters,
}

/// Who can answer a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The agent that was asked, and no other.
    Agent,
    /// Any server.
    Server,
    /// The leader.
    Leader,
}

impl ClusterCall {
    /// Whether being done twice makes no difference.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        !matches!(
            self,
            ClusterCall::Keys { .. }
                | ClusterCall::RemovePeer { .. }
                | ClusterCall::TransferLeader { .. }
                | ClusterCall::Saved { .. }
                | ClusterCall::Fire(_)
        )
    }

    /// Who can answer it.
    #[must_use]
    pub fn place(&self) -> Place {
        match self {
            ClusterCall::Join { .. }
            | ClusterCall::Leave
            | ClusterCall::ForceLeave { .. }
            | ClusterCall::Fire(_)
            | ClusterCall::Events(_) => Place::Agent,
            ClusterCall::Keys { .. }
            | ClusterCall::CoordinateDatacenters
            | ClusterCall::Datacenters
            | ClusterCall::Saved { .. }
            | ClusterCall::StatusLeader
            | ClusterCall::StatusPeers
            | ClusterCall::RaftConfiguration { stale: true }
            | ClusterCall::Usage { stale: true }
            | ClusterCall::AutopilotConfiguration { stale: true } => Place::Server,
            ClusterCall::Coordinate { .. }
            | ClusterCall::RaftConfiguration { stale: false }
            | ClusterCall::Usage { stale: false }
            | ClusterCall::RemovePeer { .. }
            | ClusterCall::TransferLeader { .. }
            | ClusterCall::AutopilotConfiguration { stale: false }
            | ClusterCall::AutopilotHealth
            | ClusterCall::AutopilotState => Place::Leader,
        }
    }
}

/// Answers a read from what is published, if this agent may, or asks the node.
pub(super) fn answer_cluster(context: &Context<'_>, call: ClusterCall) -> Handled {
    let published = context.published;
    let here = match call.place() {
        Place::Agent => true,
        Place::Server => published.about.server,
        Place::Leader => published.about.server && published.lease.is_leader,
    };
    if !here || context.params.elsewhere().is_some() {
        return Ok(context.ask(Call::Cluster(call)));
    }
    answer_here(context, call)
}

/// Like [`answer_cluster`], for what is the same in every datacenter.
pub(super) fn answer_everywhere(context: &Context<'_>, call: ClusterCall) -> Handled {
    if !context.about().server {
        return Ok(context.ask_here(Call::Cluster(call)));
    }
    answer_here(context, call)
}

fn answer_here(context: &Context<'_>, call: ClusterCall) -> Handled {
    let published = context.published;
    let reply = render_cluster(published, &call);
    Ok(if context.params.pretty(context.about()) { indented(reply) } else { reply }.into())
}

/// The reply of a server to a call that only reads; who may answer it is for [`ClusterCall::place`] to say.
///
/// # Panics
/// For calls that do something, or that wait.
#[must_use]
pub fn render_cluster(published: &Published, call: &ClusterCall) -> HttpReply {
    match call {
        ClusterCall::StatusLeader => status::render_leader(published),
        ClusterCall::StatusPeers => status::render_peers(published),
        ClusterCall::RaftConfiguration { .. } => raft::render_raft_configuration(published, None),
        ClusterCall::Usage { stale } => usage::render(published, *stale),
        ClusterCall::AutopilotConfiguration { .. } => autopilot::render_configuration(published),
        ClusterCall::CoordinateDatacenters => coordinate::render_datacenters(published),
        ClusterCall::Datacenters => catalog::render_datacenters(published),
        ClusterCall::Join { .. }
        | ClusterCall::Leave
        | ClusterCall::ForceLeave { .. }
        | ClusterCall::Fire(_)
        | ClusterCall::Events(_)
        | ClusterCall::Keys { .. }
        | ClusterCall::Coordinate { .. }
        | ClusterCall::RemovePeer { .. }
        | ClusterCall::TransferLeader { .. }
        | ClusterCall::AutopilotHealth
        | ClusterCall::Saved { .. }
        | ClusterCall::AutopilotState => unreachable!("{call:?} is no read of what is published"),
    }
}

/// A read of the user events that this agent has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsRead {
    /// Only events of this name; empty: all.
    pub name: Text,
    /// Wait for the index to differ from this; zero: do not wait.
    pub index: u64,
    /// For so long at most.
    pub wait: Duration,
}

/// A call that another agent may answer. Names that stand for the asking agent have been resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Forwarded {
    /// A read of the replicated state.
    Read(Read),
    /// A change of it.
    Write(Write),
    /// About the cluster.
    Cluster(ClusterCall),
    /// A DNS question.
    Dns(Box<crate::dns::Question>),
    /// What a prepared query of another datacenter, of which a DNS question is, finds here.
    DnsLent(Box<(crate::dns::Question, PreparedQuery)>),
}

impl Forwarded {
    /// Whether being done twice makes no difference.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Forwarded::Read(_) | Forwarded::Dns(_) | Forwarded::DnsLent(_) => true,
            Forwarded::Write(_) => false,
            Forwarded::Cluster(call) => call.is_repeatable(),
        }
    }

    /// Whether it is an agent's to have done by others, for no longer than a client may wait. What
    /// [`Forwarded::try_from`] made is; what came over the network need not be.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        let is_own = matches!(self, Forwarded::Cluster(call) if call.place() == Place::Agent);
        !is_own && self.wait() <= WAIT_LIMIT
    }

    /// Whether it may come from another datacenter: what others may ask, and what any agent of a datacenter does for those
    /// who ask from elsewhere.
    #[must_use]
    pub fn is_allowed_elsewhere(&self) -> bool {
        matches!(self, Forwarded::Cluster(ClusterCall::Fire(_))) || self.is_allowed()
    }

    /// For how long the answer may keep waiting for a change.
    #[must_use]
    pub fn wait(&self) -> Duration {
        match self {
            Forwarded::Read(read) => read.blocking.map_or(Duration::ZERO, |blocking| blocking.wait),
            Forwarded::Write(_) | Forwarded::Cluster(_) | Forwarded::Dns(_) | Forwarded::DnsLent(_) => {
                Duration::ZERO
            }
        }
    }
}

impl TryFrom<Call> for Forwarded {
    /// The call, which is about the agent that was asked.
    type Error = Call;

    fn try_from(call: Call) -> Result<Forwarded, Call> {
        match call {
            Call::Read(read) => Ok(Forwarded::Read(read)),
            Call::Write(write) => Ok(Forwarded::Write(write)),
            Call::Cluster(cluster) if cluster.place() != Place::Agent => Ok(Forwarded::Cluster(cluster)),
            Call::Dns(question, None) => Ok(Forwarded::Dns(question)),
            Call::Dns(question, Some(query)) => Ok(Forwarded::DnsLent(Box::new((*question, *query)))),
            Call::Cluster(_) | Call::Agent(_) | Call::LocalService(_) | Call::Elsewhere(_) => Err(call),
        }
    }
}

impl From<Forwarded> for Call {
    fn from(forwarded: Forwarded) -> Call {
        match forwarded {
            Forwarded::Read(read) => Call::Read(read),
            Forwarded::Write(write) => Call::Write(write),
            Forwarded::Cluster(cluster) => Call::Cluster(cluster),
            Forwarded::Dns(question) => Call::Dns(question, None),
            Forwarded::DnsLent(both) => {
                let (question, query) = *both;
                Call::Dns(Box::new(question), Some(Box::new(query)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::query::Query;

    #[test]
    fn what_is_forwarded_arrives_as_it_was() {
        let calls = [
            Call::Read(Read::new(Query::Kv("a".into()))),
            Call::Write(Write::SessionDestroy(Uuid(7))),
            Call::Cluster(ClusterCall::StatusPeers),
            Call::Cluster(ClusterCall::RemovePeer { id: None, address: Some("10.0.0.1:8300".into()) }),
        ];
        for call in calls {
            let forwarded = Forwarded::try_from(call.clone()).expect("not about the agent");
            let frame = postcard::to_allocvec(&forwarded).unwrap();
            let arrived: Forwarded = postcard::from_bytes(&frame).unwrap();
            assert_eq!(format!("{:?}", Call::from(arrived)), format!("{call:?}"));
        }
    }

    #[test]
    fn what_is_about_the_agent_stays_with_it() {
        let join = ClusterCall::Join { address: "10.0.0.1".into(), pool: Pool::Lan };
        for call in [join, ClusterCall::Leave] {
            assert!(Forwarded::try_from(Call::Cluster(call)).is_err());
        }
    }
}
