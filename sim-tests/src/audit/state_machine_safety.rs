//! «State Machine Safety: if a server has applied a log entry at a given index to its state machine, no other server will
//! ever apply a different log entry for the same index.» (Raft paper, figure 3; section 5.4.3)
//!
//! And what it rests upon: a server's commit index never falls while it runs.

use std::collections::BTreeMap;

use proconsul_core::ids::LogIndex;
use proconsul_core::raft::Raft;

use super::Server;

#[derive(Default)]
pub(super) struct StateMachineSafety {
    /// Terms of committed entries by index, with who was seen to commit them first.
    committed: BTreeMap<u64, (u64, Server)>,
    seen: BTreeMap<Server, u64>,
}

impl StateMachineSafety {
    pub(super) fn observe(&mut self, server: Server, raft: &Raft) -> Result<(), String> {
        let commit = raft.commit_index().0;
        let seen = self.seen.insert(server, commit).unwrap_or(0);
        if commit < seen {
            return Err(format!("the commit index of server {server} fell from {seen} to {commit}"));
        }
        for index in seen.max(raft.base_index().0) + 1..=commit {
            let Some(term) = raft.entry_term(LogIndex(index)) else { continue };
            let (known, by) = *self.committed.entry(index).or_insert((term.0, server));
            if known != term.0 {
                return Err(format!(
                    "server {server} committed entry {index} of term {term}, server {by} had committed one of term {known}"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, server: Server) {
        self.seen.remove(&server);
    }
}
