//! `/v1/status`

use super::HttpReply;
use super::cluster::{ClusterCall, answer_cluster};
use super::render::json::Json;
use super::route::{Context, Handled};
use crate::node::Published;

pub(super) fn leader(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    answer_cluster(context, ClusterCall::StatusLeader)
}

pub(super) fn peers(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    answer_cluster(context, ClusterCall::StatusPeers)
}

/// The leader's address; empty when none is known.
pub(super) fn render_leader(published: &Published) -> HttpReply {
    let leader = published.lease.leader.and_then(|id| published.membership.servers.get(&id));
    let mut json = Json::with_capacity(32);
    json.string(leader.map_or("", |member| &member.address));
    HttpReply::json(200, json.into_bytes())
}

/// The addresses of all members of the group.
pub(super) fn render_peers(published: &Published) -> HttpReply {
    let mut addresses: Vec<_> =
        published.membership.servers.values().map(|member| member.address.clone()).collect();
    addresses.sort();
    let mut json = Json::with_capacity(128);
    json.strings(addresses);
    HttpReply::json(200, json.into_bytes())
}
