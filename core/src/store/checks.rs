//! Checks, by node and id.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::model::Check;
use super::sessions::folded;
use crate::Text;

/// Lower-case name of a node, and the lower-case id of something on it.
pub(super) type OnNode = (Text, Text);

/// All checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    rows: OrdMap<OnNode, Arc<Check>>,
    /// The same by what they are about: node, instance (empty: the node itself), and their own id. Without it, each change
    /// of one of a node's instances would cost as much as all checks of the node.
    by_instance: OrdSet<(Text, Text, Text)>,
}

impl Checks {
    pub(super) fn put(&mut self, key: OnNode, check: Arc<Check>) {
        let instance = folded(&check.service_id);
        if let Some(former) = self.rows.insert(key.clone(), check) {
            let former = folded(&former.service_id);
            if former == instance {
                return;
            }
            self.by_instance.remove(&(key.0.clone(), former, key.1.clone()));
        }
        self.by_instance.insert((key.0, instance, key.1));
    }

    pub(super) fn remove(&mut self, key: &OnNode) -> Option<Arc<Check>> {
        let check = self.rows.remove(key)?;
        self.by_instance.remove(&(key.0.clone(), folded(&check.service_id), key.1.clone()));
        Some(check)
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

    /// The checks of an instance, or of the node itself if the instance is empty, in the order of their ids.
    pub(super) fn of_instance(
        &self,
        (node, instance): &OnNode,
    ) -> impl Iterator<Item = (OnNode, &Arc<Check>)> {
        self.by_instance
            .range((node.clone(), instance.clone(), Text::default())..)
            .take_while(move |(on, of, _)| on == node && of == instance)
            .map(|(node, _, id)| {
                let key = (node.clone(), id.clone());
                let check = self.rows.get(&key).expect("both change together");
                (key, check)
            })
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}
