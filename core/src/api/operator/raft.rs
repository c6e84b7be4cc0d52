//! `/v1/operator/raft`

use crate::Text;
use crate::api::cluster::{ClusterCall, answer_cluster};
use crate::api::render::json::Json;
use crate::api::route::{Context, Handled};
use crate::api::{Call, HttpReply};
use crate::ids::{ServerId, Uuid};
use crate::node::Published;
use crate::node::autopilot::State;

/// Version of Raft's protocol that clients know: servers are known by their identity.
const PROTOCOL_VERSION: &str = "3";

pub(in crate::api) fn configuration(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    let stale = context.params.has("stale");
    let call = ClusterCall::RaftConfiguration { stale };
    // Only the leader's own machine knows how far the others are.
    if stale { answer_cluster(context, call) } else { Ok(context.ask(Call::Cluster(call))) }
}

pub(in crate::api) fn remove_peer(context: &Context<'_>) -> Handled {
    let value = |name| context.params.get(name).map(Text::from);
    let (id, address) = (value("id"), value("address"));
    let refused = match (&id, &address) {
        (None, None) => {
            "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove"
        }
        (Some(_), Some(_)) => "Must specify only one of ?id or ?address",
        (Some(_), None) | (None, Some(_)) => {
            context.params.check_datacenter()?;
            return Ok(context.ask(Call::Cluster(ClusterCall::RemovePeer { id, address })));
        }
    };
    Err(HttpReply::text(400, refused))
}

pub(in crate::api) fn transfer_leader(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    let id = match context.params.filled("id") {
        None => None,
        Some(text) => Some(Uuid::parse(text).ok_or_else(|| {
            HttpReply::text(500, format!("id {text:?} was not found in the Raft configuration"))
        })?),
    };
    Ok(context.ask(Call::Cluster(ClusterCall::TransferLeader { id })))
}

/// The members of the group, as this server knows them, and how far each of them is if autopilot says so.
#[must_use]
pub fn render_raft_configuration(published: &Published, state: Option<&State>) -> HttpReply {
    let last_index = |id: ServerId| {
        let server = state?.servers.iter().find(|server| server.id == id)?;
        Some(server.last_index.0)
    };
    let mut json = Json::with_capacity(1_024);
    json.open(b'{');
    json.key("Servers");
    json.open(b'[');
    for (id, server) in &published.membership.servers {
        json.next();
        json.open(b'{');
        json.key("ID");
        json.display(id);
        json.key("Node");
        json.string(&name(published, *id));
        json.key("Address");
        json.string(&server.address);
        json.key("Leader");
        json.flag(published.lease.leader == Some(*id));
        json.key("ProtocolVersion");
        json.string(PROTOCOL_VERSION);
        json.key("Voter");
        json.flag(server.voter);
        if let Some(index) = last_index(*id) {
            json.key("LastIndex");
            json.number(index);
        }
        json.close(b'}');
    }
    json.close(b']');
    json.key("Index");
    json.number(published.lease.membership_index.0);
    json.close(b'}');
    HttpReply::json(200, json.into_bytes())
}

/// The name of a server: what gossip says, else what the catalog remembers.
fn name(published: &Published, id: ServerId) -> Text {
    let member = published.cluster.by_id(id).map(|member| member.name.clone());
    member
        .or_else(|| published.view.node_by_id(id).map(|node| node.name.clone()))
        .unwrap_or(Text::new_static("(unknown)"))
}
