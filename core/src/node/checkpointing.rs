//! When the state is checkpointed, and how much of the log is kept behind a checkpoint.

use std::collections::{BTreeSet, VecDeque};

use super::CheckpointPolicy;
use crate::boundary::Checkpoint;
use crate::ids::{LogIndex, OpId};
use crate::raft::SnapshotMeta;
use crate::store::{RowKey, Store};

/// Collects what changed since the last checkpoint. One checkpoint is under way at a time.
#[derive(Debug)]
pub struct Checkpointing {
    policy: CheckpointPolicy,
    /// Rows that may differ from the last checkpoint that was begun.
    dirty: BTreeSet<RowKey>,
    /// The state was restored since: all rows may differ.
    restored: bool,
    /// Applied since the last checkpoint was begun.
    entries: u64,
    /// Bytes of those.
    bytes: u64,
    /// Sizes of the newest applied entries, oldest first: what may trail behind a checkpoint.
    trailing: VecDeque<(LogIndex, u64)>,
    trailing_bytes: u64,
    under_way: Option<(OpId, SnapshotMeta)>,
}

impl Checkpointing {
    /// Nothing is dirty.
    #[must_use]
    pub fn new(policy: CheckpointPolicy) -> Checkpointing {
        Checkpointing {
            policy,
            dirty: BTreeSet::new(),
            restored: false,
            entries: 0,
            bytes: 0,
            trailing: VecDeque::new(),
            trailing_bytes: 0,
            under_way: None,
        }
    }

    /// An entry was applied.
    pub fn on_applied(&mut self, index: LogIndex, size: u64, dirty: Vec<RowKey>) {
        self.dirty.extend(dirty);
        self.entries += 1;
        self.bytes += size;
        self.trailing.push_back((index, size));
        self.trailing_bytes += size;
        while self.trailing.len() > self.policy.trailing_entries
            || self.trailing_bytes > self.policy.trailing_bytes
        {
            let Some((_, size)) = self.trailing.pop_front() else { break };
            self.trailing_bytes -= size;
        }
    }

    /// Whether a checkpoint should begin.
    #[must_use]
    pub fn due(&self) -> bool {
        self.under_way.is_none() && (self.entries >= self.policy.entries || self.bytes >= self.policy.bytes)
    }

    /// Begins a checkpoint of `store`, which includes everything up to `meta`.
    pub fn begin(&mut self, op: OpId, meta: SnapshotMeta, store: &Store) -> Checkpoint {
        assert!(self.under_way.is_none(), "one checkpoint at a time");
        self.entries = 0;
        self.bytes = 0;
        self.under_way = Some((op, meta.clone()));
        let dirty = std::mem::take(&mut self.dirty).into_iter().collect();
        let dirty = if std::mem::take(&mut self.restored) { None } else { Some(dirty) };
        Checkpoint { meta, store: store.clone(), dirty }
    }

    /// A checkpoint is durable. Answers with what it stands for and after which entry the log is kept;
    /// `None` when the operation is not the one under way.
    pub fn on_saved(&mut self, op: OpId) -> Option<(SnapshotMeta, LogIndex)> {
        let (_, meta) = self.under_way.take_if(|(under_way, _)| *under_way == op)?;
        let keep_after = self.keep_after(meta.index);
        Some((meta, keep_after))
    }

    /// A command has replaced the whole state: the next checkpoint writes all of it.
    pub fn on_restored(&mut self) {
        self.dirty.clear();
        self.restored = true;
    }

    /// The state was replaced as a whole by a snapshot that is durable already.
    pub fn on_replaced(&mut self) {
        let policy = self.policy;
        *self = Checkpointing { under_way: self.under_way.take(), ..Checkpointing::new(policy) };
    }

    /// After which entry the log is kept when everything up to `index` is in a checkpoint.
    #[must_use]
    pub fn keep_after(&self, index: LogIndex) -> LogIndex {
        self.trailing.front().map_or(index, |(oldest, _)| oldest.prev().min(index))
    }
}
