//! `/v1/internal`: what Consul's user interface asks for. Its shapes are promised to nobody and follow the newest ones.

use super::HttpReply;
use super::route::{Context, Handled};
use crate::store::query::Query;

pub(super) fn nodes(context: &Context<'_>) -> Handled {
    read(context, Query::UiNodes(None))
}

pub(super) fn node(context: &Context<'_>) -> Handled {
    read(context, Query::UiNodes(Some(context.name("Missing node name")?)))
}

pub(super) fn services(context: &Context<'_>) -> Handled {
    read(context, Query::UiServices)
}

pub(super) fn catalog_overview(context: &Context<'_>) -> Handled {
    read(context, Query::UiOverview)
}

pub(super) fn gateway_services(context: &Context<'_>) -> Handled {
    read(context, Query::UiGateway(context.name("Missing gateway name")?))
}

pub(super) fn topology(context: &Context<'_>) -> Handled {
    read(context, Query::UiTopology(context.name("Missing service name")?))
}

pub(super) fn gateway_intentions(context: &Context<'_>) -> Handled {
    read(context, Query::UiGatewayIntentions(context.name("Missing gateway name")?))
}

fn read(context: &Context<'_>, query: Query) -> Handled {
    context.read(context.params.read(query, context.about())?)
}

/// Services that are exported to other clusters: there are none without peering.
pub(super) fn nothing(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    Ok(context.json(200, b"[]".to_vec()).into())
}

/// A proxy for the metrics of the user interface, which none is configured for.
pub(super) fn metrics_proxy(_context: &Context<'_>) -> Handled {
    Err(HttpReply::text(404, "Metrics proxy is not enabled"))
}

/// What datacenters tell each other about their mesh gateways; this one has no others.
pub(super) fn federation_state(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    if context.rest.is_empty() {
        return Err(HttpReply::text(400, "Missing datacenter name"));
    }
    Err(HttpReply::empty(404))
}

/// The mesh gateways of all datacenters.
pub(super) fn federation_gateways(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    Ok(context.json(200, b"{}".to_vec()).into())
}
