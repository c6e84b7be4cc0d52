//! Every server that has applied the same entries has the same state: «each state machine processes the same series of
//! commands and thus produces the same series of results» (Raft paper, section 2). What a command does must therefore
//! depend on the state, its index and its content alone, and a checkpoint or snapshot must restore all of it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use proconsul_core::store::Store;

use super::Server;

#[derive(Default)]
pub(super) struct StateEquality {
    /// Hash of all rows by applied index, with who was seen to have them first.
    states: BTreeMap<u64, (u64, Server)>,
    applied: BTreeMap<Server, u64>,
}

impl StateEquality {
    pub(super) fn observe(&mut self, server: Server, applied: u64, store: &Store) -> Result<(), String> {
        let before = self.applied.insert(server, applied);
        if before == Some(applied) {
            return Ok(());
        }
        if let Some(before) = before
            && before > applied
        {
            return Err(format!("the applied index of server {server} fell from {before} to {applied}"));
        }
        let hash = hash(store);
        let (known, by) = *self.states.entry(applied).or_insert((hash, server));
        if known == hash {
            return Ok(());
        }
        Err(format!("at index {applied}, the rows of server {server} are not those of server {by}"))
    }

    pub(super) fn forget(&mut self, server: Server) {
        self.applied.remove(&server);
    }

    pub(super) fn applied(&self) -> &BTreeMap<Server, u64> {
        &self.applied
    }
}

fn hash(store: &Store) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (key, value) in store.rows_after(None, usize::MAX).0 {
        (key.as_bytes(), value).hash(&mut hasher);
    }
    hasher.finish()
}
