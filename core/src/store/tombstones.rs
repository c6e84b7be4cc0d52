//! Deletions that prefix readers have not forgotten yet.
//!
//! The index of a prefix is the newest change below it. A deletion is a change, but leaves no row behind; its tombstone
//! is that row, for as long as a reader may reasonably still wait with the index from before.

use std::ops::Bound;

use imbl::{OrdMap, OrdSet};

use crate::Text;
use crate::marks::{self, Mark};

/// Deleted keys with the Raft index of their deletion.
#[derive(Clone, Debug, Default)]
pub(super) struct Tombstones {
    by_key: OrdMap<Text, u64>,
    /// The same, oldest first.
    by_index: OrdSet<(u64, Text)>,
}

impl Tombstones {
    pub(super) fn insert(&mut self, key: Text, index: u64) {
        if let Some(older) = self.by_key.insert(key.clone(), index) {
            self.by_index.remove(&(older, key.clone()));
        }
        self.by_index.insert((index, key));
    }

    /// Forgets the deletions at or below an index; answers which.
    pub(super) fn reap(&mut self, up_to: u64) -> Vec<(u64, Text)> {
        let old: Vec<(u64, Text)> =
            self.by_index.iter().take_while(|(index, _)| *index <= up_to).cloned().collect();
        for entry in &old {
            marks::hit(Mark::TombstonesForgotten);
            self.by_index.remove(entry);
            self.by_key.remove(&entry.1);
        }
        old
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        self.by_key.get(key).copied()
    }

    /// Keys at or after `from`, in byte order.
    pub(super) fn from<'a>(&'a self, from: &str) -> impl Iterator<Item = (&'a Text, u64)> + use<'a> {
        self.by_key
            .range::<_, str>((Bound::Included(from), Bound::Unbounded))
            .map(|(key, index)| (key, *index))
    }

    /// The newest deletion below a prefix.
    pub(super) fn newest_under(&self, prefix: &str) -> Option<u64> {
        self.from(prefix).take_while(|(key, _)| key.starts_with(prefix)).map(|(_, index)| index).max()
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.by_index.get_min().map(|(index, _)| *index)
    }

    pub(super) fn newest(&self) -> Option<u64> {
        self.by_index.get_max().map(|(index, _)| *index)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}
