//! `?near=`: the nearest first, by network coordinates (Consul: «Network coordinates»).

use std::sync::Arc;

use super::Read;
use crate::store::{Found, InstanceList, Rows, Store};

impl Read {
    /// What the read finds, in the order that it asks for.
    #[must_use]
    pub fn evaluate(&self, store: &Store) -> Found {
        let mut found = store.evaluate(&self.query);
        if !self.near.is_empty() {
            sort(store, &self.near, &mut found.rows);
        }
        found
    }
}

/// Sorts rows by the distance of their nodes from a node. Those whose distance is unknown come last; rows that are
/// equally near keep their order, and all do if nobody knows where the node is.
fn sort(store: &Store, near: &str, rows: &mut Rows) {
    if store.coordinate(near).is_none() {
        return;
    }
    match rows {
        Rows::Nodes(nodes) => *nodes = store.nearest_first(near, nodes, |node| &node.name),
        Rows::Checks(checks) => *checks = store.nearest_first(near, checks, |check| &check.node),
        Rows::Instances(list) => {
            let items = store.nearest_first(near, &list.items, |instance| &instance.node.name);
            *list = Arc::new(InstanceList::new(list.index, items));
        }
        // No list of what is on nodes.
        Rows::Kv(_)
        | Rows::KvTree(_)
        | Rows::KvKeys(_)
        | Rows::Sessions(_)
        | Rows::Services(_)
        | Rows::Node(_)
        | Rows::Coordinates(_)
        | Rows::ConfigEntries(_)
        | Rows::Chain(_)
        | Rows::GatewayServices(_)
        | Rows::UiNodes(_)
        | Rows::UiServices(_)
        | Rows::UiOverview(..)
        | Rows::UiGateway(_)
        | Rows::UiTopology(_)
        | Rows::Intentions(_)
        | Rows::MatchIntentions(_)
        | Rows::CheckIntention(_)
        | Rows::Transaction(_)
        | Rows::Prepared(_)
        | Rows::Explained(_)
        | Rows::Executed(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Text;
    use crate::coordinate::Coordinate;
    use crate::store::command::{Command, Registration};
    use crate::store::model::{Check, Service};
    use crate::store::query::{Query, ServiceSelector};

    /// Nodes `a` to `e` with a service and a check each, of which only `b`, `c` and `e` are known to be somewhere.
    fn store() -> Store {
        let mut store = Store::new();
        for (index, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            let service = Service { id: "web".into(), service: "web".into(), ..Service::default() };
            let checks = vec![Check { id: "c".into(), service_id: "web".into(), ..Check::default() }];
            let registration = Registration {
                node: name.into(),
                address: "10.0.0.1".into(),
                service: Some(service),
                checks,
                ..Registration::default()
            };
            store.apply(index as u64 + 2, &Command::Register(Box::new(registration)));
        }
        let located = [("b", 0.5), ("c", 0.1), ("e", 0.3)].map(|(node, x)| {
            let mut coordinate = Coordinate::default();
            coordinate.vec[0] = x;
            (Text::new(node), coordinate)
        });
        store.apply(9, &Command::Coordinates(located.into()));
        store
    }

    fn order(store: &Store, query: Query, near: &str) -> String {
        let found = Read { near: near.into(), ..Read::new(query) }.evaluate(store);
        match &found.rows {
            Rows::Nodes(nodes) => nodes.iter().map(|node| node.name.as_str()).collect(),
            Rows::Checks(checks) => checks.iter().map(|check| check.node.as_str()).collect(),
            Rows::Instances(list) => list.items.iter().map(|item| item.node.name.as_str()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_nearest_come_first_and_the_unknown_last_in_their_order() {
        let store = store();
        let select = ServiceSelector { service: "web".into(), ..ServiceSelector::default() };
        for query in [
            Query::Nodes { meta: Vec::new() },
            Query::ServiceNodes(select.clone()),
            Query::ServiceHealth { select, passing: false },
            Query::ServiceChecks { service: "web".into(), meta: Vec::new() },
            Query::ChecksInState { state: None, meta: Vec::new() },
        ] {
            assert_eq!(order(&store, query.clone(), "C"), "cebad", "{query:?}");
            assert_eq!(order(&store, query.clone(), "b"), "becad", "{query:?}");
            for unknown in ["", "a", "nobody"] {
                assert_eq!(order(&store, query.clone(), unknown), "abcde", "{query:?}");
            }
        }
    }

    #[test]
    fn an_order_is_not_kept_for_those_who_ask_without() {
        let store = store();
        let select = ServiceSelector { service: "web".into(), ..ServiceSelector::default() };
        let query = Query::ServiceNodes(select);
        let plain = store.evaluate(&query);
        let near = Read { near: "c".into(), ..Read::new(query.clone()) }.evaluate(&store);
        assert_eq!((near.index, &near.watch), (plain.index, &plain.watch));
        assert_ne!(near.rows, plain.rows);
        assert_eq!(store.evaluate(&query), plain);
    }
}
