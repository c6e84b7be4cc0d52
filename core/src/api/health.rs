//! `/v1/health`

use super::route::{Context, Handled};
use super::{HttpReply, Read, params};
use crate::Text;
use crate::store::model::Health;
use crate::store::query::{Query, ServiceSelector};

pub(super) fn service(context: &Context<'_>) -> Handled {
    service_health(context, false)
}

pub(super) fn connect(context: &Context<'_>) -> Handled {
    service_health(context, true)
}

fn service_health(context: &Context<'_>, connect: bool) -> Handled {
    let select = selector(context, connect)?;
    let mut read = context.params.read(Query::ServiceHealth { select, passing: false }, context.about())?;
    if let Query::ServiceHealth { passing, .. } = &mut read.query {
        *passing = match context.params.get("passing") {
            None => false,
            Some("") => true,
            Some(word) => {
                params::parse_bool(word).ok_or_else(|| HttpReply::text(400, "Invalid value for ?passing"))?
            }
        };
    }
    context.read(read)
}

pub(super) fn checks(context: &Context<'_>) -> Handled {
    let service = context.name("Missing service name")?;
    read(context, Query::ServiceChecks { service, meta: context.params.node_meta() })
}

pub(super) fn node(context: &Context<'_>) -> Handled {
    read(context, Query::NodeChecks(context.name("Missing node name")?))
}

pub(super) fn state(context: &Context<'_>) -> Handled {
    let state = match context.rest {
        "" => return Err(HttpReply::text(400, "Missing check state")),
        "any" => None,
        word => match Health::parse(word) {
            Some(state) => Some(state),
            None => return no_such_state(context),
        },
    };
    read(context, Query::ChecksInState { state, meta: context.params.node_meta() })
}

/// No check is in a state that does not exist. The list of checks of no node is as empty, and has an index to wait on.
fn no_such_state(context: &Context<'_>) -> Handled {
    read(context, Query::NodeChecks(Text::default()))
}

fn read(context: &Context<'_>, query: Query) -> Handled {
    let read: Read = context.params.read(query, context.about())?;
    context.read(read)
}

/// Which instances the path and the parameters ask for.
pub(super) fn selector(context: &Context<'_>, connect: bool) -> Result<ServiceSelector, HttpReply> {
    Ok(ServiceSelector {
        service: context.name("Missing service name")?,
        tags: context.params.all("tag").map(Text::from).collect(),
        node_meta: context.params.node_meta(),
        connect,
    })
}
