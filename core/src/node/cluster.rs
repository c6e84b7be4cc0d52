//! What this agent knows of the cluster around it, as readers see it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::Text;
use crate::coordinate::Coordinate;
use crate::gossip::{Member, Status, UserEvent, tag};
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

    /// Whether servers of this datacenter are known, well or not.
    #[must_use]
    pub fn has_datacenter(&self, name: &str) -> bool {
        self.wan.values().any(|member| belongs(member) && member.tag(tag::DATACENTER) == name)
    }

    /// The datacenter that this name means without regard to letter case, as DNS writes names.
    #[must_use]
    pub fn datacenter_like(&self, name: &str) -> Option<Text> {
        let is_meant =
            |member: &&Member| belongs(member) && member.tag(tag::DATACENTER).eq_ignore_ascii_case(name);
        self.wan.values().find(is_meant).map(|member| member.tag(tag::DATACENTER).into())
    }

    /// All datacenters: the own one, then the others by the median of the round-trip times to their servers as this server
    /// estimates them, those of which nothing is known at the end (Consul: «List Datacenters»).
    #[must_use]
    pub fn datacenters_by_distance(&self, node: &str, own: &Text) -> Vec<Text> {
        let here = self.wan_coordinates.get(format!("{node}.{own}").as_str());
        let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
        for member in self.wan.values().filter(|member| belongs(member)) {
            let datacenter = member.tag(tag::DATACENTER);
            if datacenter.is_empty() || datacenter == own.as_str() {
                continue;
            }
            let there = self.wan_coordinates.get(&member.name);
            let time = here.zip(there).map(|(here, there)| here.distance_to(there));
            times.entry(datacenter).or_default().extend(time);
        }
        let mut others: Vec<(Duration, &str)> = times
            .into_iter()
            .map(|(datacenter, mut times)| {
                times.sort_unstable();
                (times.get(times.len() / 2).copied().unwrap_or(Duration::MAX), datacenter)
            })
            .collect();
        others.sort_unstable();
        std::iter::once(own.clone()).chain(others.into_iter().map(|(_, name)| name.into())).collect()
    }
}

/// Whether a member counts as a server of its datacenter: whoever left does not.
fn belongs(member: &Member) -> bool {
    member.status != Status::Left
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster with these servers: name, datacenter, status, height of its coordinate.
    fn cluster(servers: &[(&str, &str, Status, Option<f64>)]) -> Cluster {
        let mut cluster = Cluster::default();
        for (name, datacenter, status, height) in servers {
            let name = Text::new(format!("{name}.{datacenter}"));
            let member = Member {
                name: name.clone(),
                address: ([10, 0, 0, 1], 8302).into(),
                tags: Arc::new([(tag::DATACENTER.into(), Text::new(*datacenter))].into()),
                status: *status,
            };
            cluster.wan.insert(name.clone(), member);
            if let Some(height) = *height {
                cluster.wan_coordinates.insert(name, Coordinate { height, ..Coordinate::default() });
            }
        }
        cluster
    }

    #[test]
    fn datacenters_are_ordered_by_the_median_distance_of_their_servers() {
        use Status::{Alive, Failed, Left};
        let cluster = cluster(&[
            ("a", "home", Alive, Some(0.001)),
            ("a", "far", Alive, Some(0.3)),
            ("b", "far", Failed, Some(0.3)),
            ("c", "far", Alive, Some(0.001)),
            ("a", "near", Alive, Some(0.1)),
            ("a", "afloat", Alive, None),
            ("a", "gone", Left, Some(0.1)),
        ]);
        let order = cluster.datacenters_by_distance("a", &"home".into());
        assert_eq!(order, ["home", "near", "far", "afloat"]);
        assert!(cluster.has_datacenter("afloat") && !cluster.has_datacenter("gone"));
        assert_eq!(cluster.datacenter_like("NEAR").as_deref(), Some("near"));
        assert_eq!(Cluster::default().datacenters_by_distance("a", &"home".into()), ["home"]);
    }
}
