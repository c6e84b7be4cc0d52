//! What must hold over a whole group at every moment. Each check quotes the property that it is about.

use std::collections::BTreeMap;
use std::hash::Hasher as _;

use fnv::FnvHasher;

use crate::ids::{LogIndex, ServerId, Term};
use crate::raft::{Entry, Membership, Payload, Raft, Role, SnapshotMeta};

/// What the group as a whole has done so far.
#[derive(Debug, Default)]
pub(crate) struct Auditor {
    leaders: BTreeMap<Term, ServerId>,
    /// By index and term: the payload's fingerprint and the term of the entry before.
    entries: BTreeMap<(LogIndex, Term), (u64, Option<Term>)>,
    /// Committed entries from index 1 on: term, and the state machine's fingerprint after it.
    committed: Vec<(Term, u64)>,
    /// In which term each of them was committed.
    committed_in: Vec<Term>,
    /// Committed memberships by the index of their entry.
    memberships: BTreeMap<LogIndex, Membership>,
}

/// A fingerprint that depends on everything before.
pub(crate) fn mix(state: u64, bytes: &[u8]) -> u64 {
    let mut hasher = FnvHasher::with_key(state ^ FnvHasher::default().finish());
    hasher.write(bytes);
    hasher.finish()
}

/// What one entry does to the state machine.
pub(crate) fn apply(state: u64, entry: &Entry) -> u64 {
    mix(
        mix(mix(state, &entry.index.0.to_le_bytes()), &entry.term.0.to_le_bytes()),
        // Who the members are does not concern the state machine, and an operator may change it.
        &match &entry.payload {
            Payload::Membership(_) => vec![1],
            payload @ (Payload::Noop | Payload::Command(_)) => fingerprint(payload),
        },
    )
}

fn fingerprint(payload: &Payload) -> Vec<u8> {
    match payload {
        Payload::Noop => vec![0],
        Payload::Command(bytes) => bytes.to_vec(),
        Payload::Membership(membership) => format!("{membership:?}").into_bytes(),
    }
}

impl Auditor {
    /// The last index that any server committed.
    pub(crate) fn committed(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// The state machine's fingerprint after an index.
    pub(crate) fn state_at(&self, index: LogIndex) -> u64 {
        match index.0 {
            0 => 0,
            at => self.committed[usize::try_from(at).unwrap() - 1].1,
        }
    }

    /// What a checkpoint says of the members must be what was committed of them up to its end.
    pub(crate) fn checkpoints(&self, meta: &SnapshotMeta) {
        if let Some((_, members)) = self.memberships.range(..=meta.index).next_back() {
            assert_eq!(&meta.membership, members, "a checkpoint up to {} has its members", meta.index);
        }
    }

    /// "Election Safety: at most one leader can be elected in a given term." (paper, figure 3)
    /// "Leader Completeness: if a log entry is committed in a given term, then that entry will be present in the logs
    /// of the leaders for all higher-numbered terms."
    pub(crate) fn leads(&mut self, raft: &Raft) {
        assert_eq!(raft.role(), Role::Leader);
        if *self.leaders.entry(raft.term()).or_insert(raft.id()) != raft.id() {
            panic!("election safety: {} and {:?} in term {}", raft.id(), self.leaders, raft.term());
        }
        for (at, (term, _)) in self.committed.iter().enumerate() {
            let index = LogIndex(at as u64 + 1);
            // A quorum's votes may arrive so late that others have moved on.
            if index >= raft.base_index() && self.committed_in[at] < raft.term() {
                assert_eq!(
                    raft.entry_term(index),
                    Some(*term),
                    "leader completeness: {index} at {}",
                    raft.id()
                );
            }
        }
    }

    /// "Log Matching: if two logs contain an entry with the same index and term, then the logs are identical in all
    /// entries up through the given index."
    pub(crate) fn logs(&mut self, entry: &Entry, before: Option<Term>) {
        let fingerprint = mix(0, &fingerprint(&entry.payload));
        let known = self.entries.entry((entry.index, entry.term)).or_insert((fingerprint, before));
        assert_eq!(known.0, fingerprint, "log matching: entry {} of term {}", entry.index, entry.term);
        match (known.1, before) {
            (Some(known), Some(before)) => {
                assert_eq!(
                    known, before,
                    "log matching: before entry {} of term {}",
                    entry.index, entry.term
                );
            }
            (None, before) => known.1 = before,
            (Some(_), None) => {}
        }
    }

    /// "State Machine Safety: if a server has applied a log entry at a given index to its state machine, no other
    /// server will ever apply a different log entry for the same index."
    pub(crate) fn applies(&mut self, entry: &Entry, state: u64, in_term: Term) {
        let at = usize::try_from(entry.index.0).unwrap() - 1;
        if at == self.committed.len() {
            self.committed.push((entry.term, state));
            self.committed_in.push(in_term);
            if let Payload::Membership(membership) = &entry.payload {
                self.memberships.insert(entry.index, membership.clone());
            }
        }
        assert_eq!(
            self.committed.get(at),
            Some(&(entry.term, state)),
            "state machine safety: {}",
            entry.index
        );
    }
}
