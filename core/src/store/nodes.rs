//! Nodes of the catalog.

use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use super::addresses::Addresses;
use super::change::Change;
use super::indexes::{Indexes, TableIndex};
use super::model::Node;
use super::query::WatchKey;
use super::rows::RowKey;
use super::sessions::folded;
use crate::Text;
use crate::ids::Uuid;

/// A node with the indexes of what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeEntry {
    pub(super) row: Arc<Node>,
    /// Newest change of the row or of a service on the node, removals included.
    pub(super) index: u64,
    /// Newest change of a check on the node, removals included.
    pub(super) checks_index: u64,
}

/// All nodes by lower-case name.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    by_name: OrdMap<Text, NodeEntry>,
    /// Lower-case names by identity. Derived.
    by_id: OrdMap<Uuid, Text>,
    /// Lower-case names by address. Derived.
    by_address: Addresses<Text>,
}

impl Nodes {
    /// Writes a node's row and says so.
    pub(super) fn write(&mut self, indexes: &mut Indexes, change: &mut Change, row: Node) {
        let name = folded(&row.name);
        let checks_index = self.by_name.get(&name).map_or(change.index, |old| old.checks_index);
        self.forget(&name);
        self.put(NodeEntry { row: Arc::new(row), index: change.index, checks_index });
        Self::touch(indexes, change, &name);
    }

    /// Takes a row, of a checkpoint or a new one.
    pub(super) fn put(&mut self, entry: NodeEntry) {
        let name = folded(&entry.row.name);
        if let Some(id) = entry.row.id {
            self.by_id.insert(id, name.clone());
        }
        self.by_address.insert(&entry.row.address, &name);
        self.by_name.insert(name, entry);
    }

    pub(super) fn remove(&mut self, indexes: &mut Indexes, change: &mut Change, name: &Text) {
        self.forget(name);
        if self.by_name.remove(name).is_some() {
            Self::touch(indexes, change, name);
        }
    }

    /// Takes a node out of what is derived.
    fn forget(&mut self, name: &Text) {
        let Some(entry) = self.by_name.get(name) else { return };
        if let Some(id) = entry.row.id {
            self.by_id.remove(&id);
        }
        self.by_address.remove(&entry.row.address, name);
    }

    fn touch(indexes: &mut Indexes, change: &mut Change, name: &Text) {
        change.touch(WatchKey::Nodes);
        change.touch(WatchKey::Node(name.clone()));
        change.dirty(RowKey::node(name));
        change.raise(indexes, TableIndex::Nodes);
    }

    /// A service on the node came, changed or went.
    pub(super) fn service_changed(&mut self, change: &mut Change, name: &Text) {
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.index = change.index;
            change.dirty(RowKey::node(name));
        }
        change.touch(WatchKey::Node(name.clone()));
    }

    /// A check on the node came, changed or went.
    pub(super) fn check_changed(&mut self, change: &mut Change, name: &Text) {
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.checks_index = change.index;
            change.dirty(RowKey::node(name));
        }
        change.touch(WatchKey::Node(name.clone()));
    }

    /// By lower-case name.
    pub(super) fn get(&self, name: &str) -> Option<&NodeEntry> {
        self.by_name.get(name)
    }

    pub(super) fn by_id(&self, id: Uuid) -> Option<&NodeEntry> {
        self.by_name.get(self.by_id.get(&id)?)
    }

    /// The first node with an address, in the order of lower-case names.
    pub(super) fn at(&self, address: IpAddr) -> Option<&NodeEntry> {
        self.by_name.get(self.by_address.first(address)?)
    }

    /// All nodes in the order of their lower-case names.
    pub(super) fn all(&self) -> impl Iterator<Item = &NodeEntry> {
        self.by_name.values()
    }

    pub(super) fn from<'a>(
        &'a self,
        from: &str,
    ) -> impl Iterator<Item = (&'a Text, &'a NodeEntry)> + use<'a> {
        self.by_name.range::<_, str>((Bound::Included(from), Bound::Unbounded))
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }
}

/// Whether metadata has all these pairs.
pub(super) fn has_meta(node: &Node, pairs: &[(Text, Text)]) -> bool {
    pairs.iter().all(|(key, value)| node.meta.get(key) == Some(value))
}
