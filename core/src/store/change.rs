//! What one applied command does besides changing rows: whom it wakes, which rows a checkpoint must write again.

use super::indexes::{Indexes, TableIndex};
use super::query::WatchKey;
use super::rows::RowKey;

/// Collects the consequences of one command while it is applied.
#[derive(Debug)]
pub(super) struct Change {
    /// Raft index of the command.
    pub(super) index: u64,
    /// What was touched; may name a key twice until [`Change::finish`].
    touched: Vec<WatchKey>,
    /// Rows that differ; may name a row twice until [`Change::finish`].
    dirty: Vec<RowKey>,
    /// The state as a whole was replaced.
    pub(super) replaced: bool,
}

impl Change {
    pub(super) fn new(index: u64) -> Change {
        Change { index, touched: Vec::new(), dirty: Vec::new(), replaced: false }
    }

    /// Something that a reader may have looked at is different.
    pub(super) fn touch(&mut self, key: WatchKey) {
        self.touched.push(key);
    }

    /// A row was written or removed.
    pub(super) fn dirty(&mut self, row: RowKey) {
        self.dirty.push(row);
    }

    /// A table's newest index is this command's.
    pub(super) fn raise(&mut self, indexes: &mut Indexes, table: TableIndex) {
        indexes.raise(table, self.index);
        self.dirty(RowKey::index(table));
    }

    /// Each key and each row once.
    pub(super) fn finish(mut self) -> (Vec<WatchKey>, Vec<RowKey>) {
        self.touched.sort_unstable();
        self.touched.dedup();
        self.dirty.sort_unstable();
        self.dirty.dedup();
        (self.touched, self.dirty)
    }
}
