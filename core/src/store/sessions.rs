//! Sessions, and the delays that their ends put on the locks they held.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::indexes::{Indexes, TableIndex};
use super::model::Session;
use super::query::WatchKey;
use super::rows::RowKey;
use crate::Text;
use crate::ids::Uuid;

/// A key that cannot be locked for a while, because the session that held it was invalidated (Chubby, section 2.4).
///
/// The row says when the delay began in the replicated order, not in time: the leader waits it out and says so with a
/// command. A new leader waits again in full, so that a delay may last longer than asked for, never shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockDelay {
    /// Raft index at which the delay began.
    pub begun: u64,
    /// How long it lasts.
    pub delay: Duration,
}

/// All sessions and lock-delays.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    by_id: OrdMap<Uuid, Arc<Session>>,
    /// The same by lower-case node name. Derived.
    by_node: OrdMap<Text, OrdSet<Uuid>>,
    delays: OrdMap<Text, LockDelay>,
}

impl Sessions {
    /// Adds a session whose conditions were checked.
    pub(super) fn insert(&mut self, indexes: &mut Indexes, change: &mut Change, mut session: Session) {
        session.create_index = change.index;
        session.modify_index = change.index;
        self.touch(indexes, change, &session);
        self.put(Arc::new(session));
    }

    /// Takes a row of a checkpoint.
    pub(super) fn put(&mut self, session: Arc<Session>) {
        self.by_node.entry(folded(&session.node)).or_default().insert(session.id);
        self.by_id.insert(session.id, session);
    }

    /// Removes a session; its locks are the caller's business.
    pub(super) fn remove(
        &mut self,
        indexes: &mut Indexes,
        change: &mut Change,
        id: Uuid,
    ) -> Option<Arc<Session>> {
        let session = self.by_id.remove(&id)?;
        let node = folded(&session.node);
        if let Some(ids) = self.by_node.get_mut(&node) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_node.remove(&node);
            }
        }
        self.touch(indexes, change, &session);
        Some(session)
    }

    fn touch(&self, indexes: &mut Indexes, change: &mut Change, session: &Session) {
        change.touch(WatchKey::Session(session.id));
        change.touch(WatchKey::NodeSessions(folded(&session.node)));
        change.touch(WatchKey::Sessions);
        change.dirty(RowKey::session(session.id));
        change.raise(indexes, TableIndex::Sessions);
    }

    /// Begins a lock-delay on a key.
    pub(super) fn begin_delay(&mut self, change: &mut Change, key: Text, delay: Duration) {
        change.dirty(RowKey::lock_delay(&key));
        self.delays.insert(key, LockDelay { begun: change.index, delay });
    }

    /// Takes a lock-delay of a checkpoint.
    pub(super) fn put_delay(&mut self, key: Text, delay: LockDelay) {
        self.delays.insert(key, delay);
    }

    /// Ends a lock-delay, if it still is the one that began at this index.
    pub(super) fn end_delay(&mut self, change: &mut Change, key: &Text, begun: u64) {
        if self.delays.get(key).is_some_and(|delay| delay.begun == begun) {
            self.delays.remove(key);
            change.dirty(RowKey::lock_delay(key));
        }
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&Arc<Session>> {
        self.by_id.get(&id)
    }

    pub(super) fn lock_delay(&self, key: &str) -> Option<LockDelay> {
        self.delays.get(key).copied()
    }

    pub(super) fn delays(&self) -> impl Iterator<Item = (&Text, &LockDelay)> {
        self.delays.iter()
    }

    pub(super) fn delays_from<'a>(
        &'a self,
        from: &str,
    ) -> impl Iterator<Item = (&'a Text, &'a LockDelay)> + use<'a> {
        self.delays.range::<_, str>((Bound::Included(from), Bound::Unbounded))
    }

    /// All sessions in the order of their ids.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.by_id.values()
    }

    pub(super) fn all_from(&self, from: Uuid) -> impl Iterator<Item = &Arc<Session>> {
        self.by_id.range(from..).map(|(_, session)| session)
    }

    /// The sessions of a node (lower-case name) in the order of their ids.
    pub(super) fn of_node(&self, node: &str) -> impl Iterator<Item = &Arc<Session>> {
        self.by_node.get(node).into_iter().flatten().filter_map(|id| self.by_id.get(id))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

/// The form in which names of nodes and services, and ids of instances and checks, are looked up.
pub(super) fn folded(name: &str) -> Text {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Text::new(name.to_ascii_lowercase())
    } else {
        Text::new(name)
    }
}
