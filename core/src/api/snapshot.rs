//! `/v1/snapshot`: the whole replicated state as an archive. The front-end reads and writes the bytes; what may be done,
//! and from which state, is decided here.

use super::route::{Context, Handled};
use super::{Authorizer, Call, HttpReply, Request, Routed};
use crate::Text;
use crate::ids::Uuid;
use crate::store::query::Query;

pub(super) fn handle(context: &Context<'_>) -> Handled {
    if context.request.method == "PUT" {
        if context.params.has("stale") {
            return Err(HttpReply::text(500, "stale not allowed for restore"));
        }
        context.params.check_datacenter(context.about())?;
        return Ok(Routed::Restore);
    }
    // A read that finds nothing, as fresh as the archive is to be: what is published after it is fresh enough.
    let mut read = context.params.read(Query::Session(Uuid::default()), context.about())?;
    read.blocking = None;
    read.filter = Text::default();
    read.near = Text::default();
    Ok(Routed::Save(Request { call: Call::Read(read), authorizer: Authorizer }))
}
