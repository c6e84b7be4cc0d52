//! Where nodes are in the space of network coordinates.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::Store;
use super::change::Change;
use super::indexes::{Indexes, TableIndex};
use super::query::WatchKey;
use super::rows::RowKey;
use crate::Text;
use crate::coordinate::Coordinate;

/// A node's coordinate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCoordinate {
    /// The node's name.
    pub node: Text,
    /// Where it is.
    pub coordinate: Coordinate,
    /// Raft index of the last change.
    pub modify_index: u64,
}

/// All coordinates by lower-case name of the node. Every one of these nodes is registered.
#[derive(Clone, Debug, Default)]
pub(super) struct Coordinates {
    by_node: OrdMap<Text, Arc<NodeCoordinate>>,
}

impl Coordinates {
    /// Writes the coordinate of a registered node, unless it is there already.
    pub(super) fn write(
        &mut self,
        indexes: &mut Indexes,
        change: &mut Change,
        (key, node): (&Text, &Text),
        coordinate: &Coordinate,
    ) {
        if self.by_node.get(key).is_some_and(|old| old.coordinate == *coordinate) {
            return;
        }
        let row =
            NodeCoordinate { node: node.clone(), coordinate: coordinate.clone(), modify_index: change.index };
        self.put(key.clone(), Arc::new(row));
        Self::touch(indexes, change, key);
    }

    /// The node is gone.
    pub(super) fn remove(&mut self, indexes: &mut Indexes, change: &mut Change, key: &Text) {
        if self.by_node.remove(key).is_some() {
            Self::touch(indexes, change, key);
        }
    }

    fn touch(indexes: &mut Indexes, change: &mut Change, key: &Text) {
        change.touch(WatchKey::Coordinates);
        change.touch(WatchKey::NodeCoordinates(key.clone()));
        change.dirty(RowKey::coordinate(key));
        change.raise(indexes, TableIndex::Coordinates);
    }

    /// Takes a row, of a checkpoint or a new one.
    pub(super) fn put(&mut self, key: Text, row: Arc<NodeCoordinate>) {
        self.by_node.insert(key, row);
    }

    /// By lower-case name.
    pub(super) fn get(&self, key: &str) -> Option<&Arc<NodeCoordinate>> {
        self.by_node.get(key)
    }

    /// All of them in the order of their nodes' lower-case names.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<NodeCoordinate>> {
        self.by_node.values()
    }

    pub(super) fn from<'a>(
        &'a self,
        from: &str,
    ) -> impl Iterator<Item = (&'a Text, &'a Arc<NodeCoordinate>)> + use<'a> {
        self.by_node.range::<_, str>((Bound::Included(from), Bound::Unbounded))
    }

    pub(super) fn len(&self) -> usize {
        self.by_node.len()
    }
}

impl Store {
    /// Rows by the distance of their nodes from a node. Those whose distance is unknown come last; rows that are equally
    /// near keep their order, and all do if nobody knows where the node is.
    pub fn nearest_first<T>(&self, near: &str, rows: &[Arc<T>], node: impl Fn(&T) -> &str) -> Vec<Arc<T>> {
        let Some(from) = self.coordinate(near).map(|row| &row.coordinate) else { return rows.to_vec() };
        let distance =
            |row: &T| self.coordinate(node(row)).map_or(f64::INFINITY, |to| from.distance(&to.coordinate));
        let mut far: Vec<(f64, &Arc<T>)> = rows.iter().map(|row| (distance(row), row)).collect();
        far.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        far.into_iter().map(|(_, row)| Arc::clone(row)).collect()
    }
}
