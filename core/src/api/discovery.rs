//! `/v1/discovery-chain`, and what gateways are for: `/v1/catalog/gateway-services`, `/v1/health/ingress`.

use super::route::{Context, Handled};
use super::{HttpReply, config, params};
use crate::Text;
use crate::config_entry::Overrides;
use crate::store::query::Query;

/// Compiles the chain of a service; POST may override what entries say.
pub(super) fn chain(context: &Context<'_>) -> Handled {
    let service = context.name("Missing chain name")?;
    let overrides = if context.request.method == "POST" {
        let body = config::parse(&context.request.body)?;
        let overrides = Overrides::parse(&body)
            .map_err(|why| HttpReply::text(400, format!("Request decoding failed: {why}")))?;
        if !matches!(overrides.mesh_gateway.as_str(), "" | "none" | "local" | "remote") {
            return Err(HttpReply::text(400, "Invalid OverrideMeshGateway.Mode parameter"));
        }
        overrides
    } else {
        Overrides::default()
    };
    let datacenter = context.params.filled("compile-dc").unwrap_or(context.datacenter());
    let query =
        Query::DiscoveryChain { service, datacenter: Text::new(datacenter), overrides: Box::new(overrides) };
    unfiltered(context, query)
}

fn unfiltered(context: &Context<'_>, query: Query) -> Handled {
    let mut read = context.params.read(query, context.about())?;
    read.filter = Text::default();
    context.read(read)
}

/// The services that a gateway is for.
pub(super) fn gateway_services(context: &Context<'_>) -> Handled {
    unfiltered(context, Query::GatewayServices(context.name("Missing gateway name")?))
}

/// The instances of gateways that let traffic in for a service.
pub(super) fn ingress(context: &Context<'_>) -> Handled {
    let service = context.name("Missing service name")?;
    let passing = match context.params.get("passing") {
        None => false,
        Some("") => true,
        Some(word) => {
            params::parse_bool(word).ok_or_else(|| HttpReply::text(400, "Invalid value for ?passing"))?
        }
    };
    let read = context.params.read(Query::IngressHealth { service, passing }, context.about())?;
    context.read(read)
}
