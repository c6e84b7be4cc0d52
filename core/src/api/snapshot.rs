//! `/v1/snapshot`: the whole replicated state as an archive. The front-end reads and writes the bytes; what may be done,
//! and from which state, is decided here.

use serde::{Deserialize, Serialize};

use super::route::{Context, Handled};
use super::{Authorizer, Call, HttpReply, Request, Routed};
use crate::Text;
use crate::ids::Uuid;
use crate::store::query::Query;

/// A state that a server keeps for a client agent to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// Names it in [`super::ClusterCall::Saved`].
    pub id: Uuid,
    /// Index of its newest change.
    pub index: u64,
    /// Raft term in which it was kept.
    pub term: u64,
}

pub(super) fn handle(context: &Context<'_>) -> Handled {
    if context.request.method == "PUT" {
        if context.params.has("stale") {
            return Err(HttpReply::text(500, "stale not allowed for restore"));
        }
        context.params.check_datacenter()?;
        return Ok(Routed::Restore { datacenter: context.params.elsewhere().cloned() });
    }
    // On a server what is published after this read is fresh enough; for a client agent a server keeps the state.
    let mut read = context.params.read(Query::State, context.about())?;
    read.blocking = None;
    read.filter = Text::default();
    read.near = Text::default();
    let datacenter = context.params.elsewhere().cloned();
    let call = Call::Read(read).aimed_at(datacenter.as_ref());
    Ok(Routed::Save { barrier: Request { call, authorizer: Authorizer }, datacenter })
}
