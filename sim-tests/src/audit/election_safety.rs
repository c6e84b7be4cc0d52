//! «Election Safety: at most one leader can be elected in a given term.» (Raft paper, figure 3; section 5.2)

use std::collections::BTreeMap;

use proconsul_core::raft::{Raft, Role};

use super::Server;

/// Remembers who led in which term. It does not forget with a restart: that is how a vote that was not persisted shows.
#[derive(Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<u64, Server>,
}

impl ElectionSafety {
    pub(super) fn observe(&mut self, server: Server, raft: &Raft) -> Result<(), String> {
        if raft.role() != Role::Leader {
            return Ok(());
        }
        let term = raft.term().0;
        let first = *self.leaders.entry(term).or_insert(server);
        if first == server {
            Ok(())
        } else {
            Err(format!("servers {first} and {server} both lead in term {term}"))
        }
    }
}
