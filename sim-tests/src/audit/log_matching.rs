//! «Log Matching: if two logs contain an entry with the same index and term, then the logs are identical in all entries
//! up through the given index.» (Raft paper, figure 3; section 5.3)
//!
//! It follows from two facts about single entries, which are what is watched: an index and a term name one content and
//! one predecessor, in whatever log they are seen.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use proconsul_core::ids::LogIndex;
use proconsul_core::raft::{Entry, Payload, Raft};

use super::Server;

#[derive(Default)]
pub(super) struct LogMatching {
    /// By index and term: the predecessor's term and a hash of the content.
    entries: BTreeMap<(u64, u64), (u64, u64)>,
    /// How far each server's log was looked at, with the term of the last entry seen.
    seen: BTreeMap<Server, (u64, u64)>,
}

impl LogMatching {
    pub(super) fn observe(&mut self, server: Server, raft: &Raft) -> Result<(), String> {
        if !raft.may_speak() {
            // A sole voter that dies now never was a leader of this term: nobody has heard of it, and it may become that
            // again with other entries.
            return Ok(());
        }
        let last = raft.last_index();
        let (from, term) = self.seen.get(&server).copied().unwrap_or_default();
        let grown_only = raft.entry_term(LogIndex(from)).is_some_and(|it| it.0 == term);
        let first = if grown_only { from + 1 } else { 0 };
        for index in first.max(raft.base_index().0 + 1)..=last.0 {
            self.look_at(server, raft, LogIndex(index))?;
        }
        let last_term = raft.entry_term(last).map_or(0, |term| term.0);
        self.seen.insert(server, (last.0, last_term));
        Ok(())
    }

    pub(super) fn forget(&mut self, server: Server) {
        self.seen.remove(&server);
    }

    fn look_at(&mut self, server: Server, raft: &Raft, index: LogIndex) -> Result<(), String> {
        let entry =
            raft.entry(index).ok_or_else(|| format!("server {server} has no entry {index} in its log"))?;
        let before = raft
            .entry_term(index.prev())
            .ok_or_else(|| format!("server {server} has no term for entry {}", index.prev()))?;
        let fact = (before.0, hash(entry));
        let known = *self.entries.entry((index.0, entry.term.0)).or_insert(fact);
        if known == fact {
            return Ok(());
        }
        let what = if known.0 == fact.0 { "another content" } else { "another predecessor" };
        Err(format!("entry {index} of term {} has {what} on server {server} than elsewhere", entry.term))
    }
}

fn hash(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &entry.payload {
        Payload::Noop => 0u8.hash(&mut hasher),
        Payload::Command(bytes) => (1u8, bytes).hash(&mut hasher),
        Payload::Membership(members) => (2u8, format!("{members:?}")).hash(&mut hasher),
    }
    hasher.finish()
}
