//! `/v1/status`

use super::render::json::Json;
use super::route::{Context, Handled};

pub(super) fn leader(context: &Context<'_>) -> Handled {
    context.params.check_datacenter(context.about())?;
    let published = context.published;
    let leader = published.lease.leader.and_then(|id| published.membership.servers.get(&id));
    let mut json = Json::with_capacity(32);
    json.string(leader.map_or("", |member| &member.address));
    Ok(context.json(200, json.into_bytes()).into())
}

pub(super) fn peers(context: &Context<'_>) -> Handled {
    context.params.check_datacenter(context.about())?;
    let mut addresses: Vec<_> =
        context.published.membership.servers.values().map(|member| member.address.clone()).collect();
    addresses.sort();
    let mut json = Json::with_capacity(128);
    json.strings(addresses);
    Ok(context.json(200, json.into_bytes()).into())
}
