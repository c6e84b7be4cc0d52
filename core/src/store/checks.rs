//! Checks, by node and id.

use std::sync::Arc;

use imbl::OrdMap;

use super::model::Check;
use crate::Text;

/// Lower-case name of a node, and the lower-case id of something on it.
pub(super) type OnNode = (Text, Text);

/// All checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    rows: OrdMap<OnNode, Arc<Check>>,
}

impl Checks {
    pub(super) fn put(&mut self, key: OnNode, check: Arc<Check>) {
        self.rows.insert(key, check);
    }

    pub(super) fn remove(&mut self, key: &OnNode) -> Option<Arc<Check>> {
        self.rows.remove(key)
    }

    pub(super) fn get(&self, key: &OnNode) -> Option<&Arc<Check>> {
        self.rows.get(key)
    }

    /// All checks in the order of nodes and ids.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.rows.values()
    }

    pub(super) fn from(&self, from: OnNode) -> impl Iterator<Item = (&OnNode, &Arc<Check>)> {
        self.rows.range(from..)
    }

    /// The checks on a node in the order of their ids.
    pub(super) fn of_node(&self, node: &str) -> impl Iterator<Item = (&OnNode, &Arc<Check>)> {
        self.from((Text::new(node), Text::default())).take_while(move |(key, _)| key.0 == node)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}
