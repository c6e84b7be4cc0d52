//! What this agent knows of the cluster around it, as readers see it.

use std::collections::VecDeque;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::Text;
use crate::coordinate::Coordinate;
use crate::gossip::{Member, UserEvent};
use crate::ids::ServerId;

/// So many user events are remembered (Consul: «Event», list).
pub const EVENTS_KEPT: usize = 256;

/// Gossip's knowledge, events and coordinates; a cheap clone.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Members of the datacenter's pool by name.
    pub lan: OrdMap<Text, Member>,
    /// Members of the pool of servers; empty on client agents.
    pub wan: OrdMap<Text, Member>,
    /// This agent's own coordinate in the datacenter.
    pub coordinate: Coordinate,
    /// Where servers are among all datacenters, by their names in that pool; those of which it is known.
    pub wan_coordinates: OrdMap<Text, Coordinate>,
    /// The newest user events that this agent acted on, oldest first.
    pub events: Arc<VecDeque<UserEvent>>,
}

impl Cluster {
    /// Members that came, changed or went since `before`: what was known of each, and what is known now.
    pub fn changes_since<'a>(
        &'a self,
        before: &'a Cluster,
    ) -> impl Iterator<Item = (Option<&'a Member>, Option<&'a Member>)> {
        before.lan.diff(&self.lan).chain(before.wan.diff(&self.wan)).map(|change| match change {
            DiffItem::Add(_, now) => (None, Some(now)),
            DiffItem::Update { old: (_, before), new: (_, now) } => (Some(before), Some(now)),
            DiffItem::Remove(_, before) => (Some(before), None),
        })
    }

    /// The live or former member of the datacenter's pool that has this identity.
    #[must_use]
    pub fn by_id(&self, id: ServerId) -> Option<&Member> {
        self.lan.values().find(|member| member.id() == Some(id))
    }
}
