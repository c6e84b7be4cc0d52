//! `/v1/agent/members`, `/v1/agent/join` and the like: the agent as a member of gossip's pools.

use super::cluster::ClusterCall;
use super::render::json::Json;
use super::render::written;
use super::route::{Context, Handled};
use super::{Call, HttpReply, filter};
use crate::Text;
use crate::gossip::{Member, Pool, tag};
use crate::node::Published;

/// Stands for all segments, of which there is one.
const ALL_SEGMENTS: &str = "_all";

/// Protocol versions of the gossip that Consul speaks, as clients expect them.
const PROTOCOL_VERSIONS: [(&str, u64); 6] = [
    ("ProtocolMin", 1),
    ("ProtocolMax", 5),
    ("ProtocolCur", 2),
    ("DelegateMin", 2),
    ("DelegateMax", 5),
    ("DelegateCur", 4),
];

pub(super) fn members(context: &Context<'_>) -> Handled {
    let segment = context.params.get("segment").unwrap_or("");
    let pool = pool(context);
    if !segment.is_empty() && segment != ALL_SEGMENTS {
        return Err(match pool {
            Pool::Wan => HttpReply::text(400, "Cannot provide a segment with wan=true"),
            Pool::Lan => HttpReply::text(500, "Network segments are not supported in this version of Consul"),
        });
    }
    let filter = context.filter(filter::MEMBER)?;
    let cluster = &context.published.cluster;
    let members = match pool {
        Pool::Lan => &cluster.lan,
        Pool::Wan => &cluster.wan,
    };
    let mut json = Json::with_capacity(members.len() * 400 + 2);
    json.open(b'[');
    for member in members.values() {
        let row = written(|json| write(json, member));
        if filter.as_ref().is_none_or(|filter| filter.keeps(&row)) {
            json.next();
            json.raw(&row);
        }
    }
    json.close(b']');
    Ok(context.json(200, json.into_bytes()).into())
}

pub(super) fn join(context: &Context<'_>) -> Handled {
    let pool = pool(context);
    if pool == Pool::Wan && !context.about().server {
        return Err(HttpReply::text(500, "Must be a server to join WAN cluster"));
    }
    Ok(context.ask(Call::Cluster(ClusterCall::Join { address: context.rest.into(), pool })))
}

pub(super) fn leave(context: &Context<'_>) -> Handled {
    Ok(context.ask(Call::Cluster(ClusterCall::Leave)))
}

pub(super) fn force_leave(context: &Context<'_>) -> Handled {
    let prune = context.params.has("prune");
    let pool = if context.params.has("wan") { Pool::Wan } else { Pool::Lan };
    let call = ClusterCall::ForceLeave { node: context.rest.into(), prune, pool };
    Ok(context.ask(Call::Cluster(call)))
}

/// The pool that a request is about; `?wan` without a value means nothing, as in Consul.
fn pool(context: &Context<'_>) -> Pool {
    if context.params.filled("wan").is_some() { Pool::Wan } else { Pool::Lan }
}

/// This agent's own row; `null` before it has told gossip its name.
pub(super) fn write_own(json: &mut Json, published: &Published) {
    match published.cluster.lan.get(&published.about.node) {
        Some(member) => write(json, member),
        None => json.raw(b"null"),
    }
}

/// How many servers are there to be asked.
pub(super) fn known_servers(published: &Published) -> usize {
    let alive = |member: &&Member| member.is_server() && member.status == crate::gossip::Status::Alive;
    published.cluster.lan.values().filter(alive).count()
}

/// How many datacenters are known, this one included.
pub(super) fn known_datacenters(published: &Published) -> usize {
    let mut names: Vec<&str> =
        published.cluster.wan.values().map(|member| member.tag(tag::DATACENTER)).collect();
    names.push(&published.about.datacenter);
    names.sort_unstable();
    names.dedup();
    names.len()
}

fn write(json: &mut Json, member: &Member) {
    json.open(b'{');
    json.key("Name");
    json.string(&member.name);
    json.key("Addr");
    json.string(&Text::from(member.ip().to_string()));
    json.key("Port");
    json.number(member.address.port().into());
    json.key("Tags");
    json.map(&*member.tags);
    json.key("Status");
    json.number(member.status as u64);
    for (key, value) in PROTOCOL_VERSIONS {
        json.key(key);
        json.number(value);
    }
    json.close(b'}');
}
