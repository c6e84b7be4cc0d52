//! Endpoints of Consul for what does not exist here: they refuse in its own words, as if it were switched off.

use super::HttpReply;
use super::route::{Context, Handled};

/// Access rules are off.
pub(super) fn acl(_context: &Context<'_>) -> Handled {
    Err(HttpReply::text(401, "ACL support disabled"))
}

/// The mesh has no certificate authority.
pub(super) fn connect(_context: &Context<'_>) -> Handled {
    Err(HttpReply::text(500, "Connect must be enabled in order to use this endpoint"))
}

/// Clusters do not peer.
pub(super) fn peering(_context: &Context<'_>) -> Handled {
    Err(HttpReply::text(500, "peering is disabled: peering.enabled must be set to use this endpoint"))
}
