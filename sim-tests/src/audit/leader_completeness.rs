//! «Leader Completeness: if a log entry is committed in a given term, then that entry will be present in the logs of the
//! leaders for all higher-numbered terms.» (Raft paper, figure 3; section 5.4)

use std::collections::BTreeMap;

use proconsul_core::ids::LogIndex;
use proconsul_core::raft::{Raft, Role};

use super::Server;

#[derive(Default)]
pub(super) struct LeaderCompleteness {
    /// Entries that some server held committed: their own term, and the first term in which one was seen to be so.
    committed: BTreeMap<u64, (u64, u64)>,
    /// How far each server's commit index was looked at.
    seen: BTreeMap<Server, u64>,
    /// In which term each server was last examined as a leader.
    examined: BTreeMap<Server, u64>,
}

impl LeaderCompleteness {
    pub(super) fn observe(&mut self, server: Server, raft: &Raft) -> Result<(), String> {
        let (commit, term) = (raft.commit_index().0, raft.term().0);
        let seen = self.seen.insert(server, commit).unwrap_or(0);
        for index in seen.max(raft.base_index().0) + 1..=commit {
            if let Some(entry_term) = raft.entry_term(LogIndex(index)) {
                self.committed.entry(index).or_insert((entry_term.0, term));
            }
        }
        if raft.role() != Role::Leader || self.examined.insert(server, term) == Some(term) {
            return Ok(());
        }
        for (index, (entry_term, committed_in)) in self.committed.range(raft.base_index().0 + 1..) {
            let has = raft.entry_term(LogIndex(*index)).map(|it| it.0);
            if *committed_in < term && has != Some(*entry_term) {
                return Err(format!(
                    "server {server} leads in term {term} without entry {index} of term {entry_term}, which was \
                     committed in term {committed_in}; it has there {has:?}"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, server: Server) {
        self.seen.remove(&server);
        self.examined.remove(&server);
    }
}
