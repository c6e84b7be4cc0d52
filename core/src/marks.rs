//! Coverage marks: rare branches say that they were taken, so that a sweep of the simulation can show which of them it
//! never reaches.
//!
//! A mark stands where a branch matters to correctness and is not taken in every run. Code calls [`hit`] there; a build
//! without the feature `planted` contains nothing of it. What was hit is kept per thread, because every simulated world
//! runs on a thread of its own.

/// Defines the marks, each with what it means, and the list of them all.
macro_rules! marks {
    ($($(#[$meaning:meta])* $name:ident,)*) => {
        /// A branch that is worth reaching.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Mark {
            $($(#[$meaning])* $name,)*
        }

        impl Mark {
            /// Every mark.
            pub const ALL: &[Mark] = &[$(Mark::$name,)*];
        }
    };
}

// One line for each, in the group of its module; add yours at the end of its group.
marks! {
    // Raft.
    /// Raft: a candidate was refused by so many that it cannot win any more.
    SplitVote,
    /// Raft: a vote was refused because of a promise to a leader.
    VoteRefusedByPromise,
    /// Raft: a voter that has restarted refuses, since it may have promised something before.
    VoteRefusedAfterRestart,
    /// Raft: a vote was refused because the candidate's log is behind.
    VoteRefusedLogBehind,
    /// Raft: a server stands for election that has lost its vote by a change which is not committed.
    CandidateWithoutVote,
    /// Raft: a leader gives up, because it has not heard from a quorum.
    LeaderWithoutQuorum,
    /// Raft: a quorum has an entry of an earlier term, which waits for one of the present term.
    CommitWaitsForOwnTerm,
    /// Raft: a follower's log disagrees with the leader's.
    AppendRejected,
    /// Raft: a follower voids entries that conflict with the leader's.
    EntriesVoided,
    /// Raft: entries came while a snapshot was being installed, and were dropped.
    AppendDuringInstallation,
    /// Raft: a message waits until term and vote are durable.
    MessageWithheld,
    /// Raft: reads that waited for a quorum fail, because their leader leads no more.
    ReadsFailed,
    /// Raft: a read waits for the first entry of its leader's term.
    ReadWaitsForOwnTerm,
    /// Raft: a snapshot took the place of the log.
    SnapshotReplacesLog,
    /// Raft: a snapshot arrived that the log agrees with; what follows in the log stays.
    SnapshotKeepsTail,
    /// Raft: a newer checkpoint took the place of the one that was being sent.
    SnapshotOvertaken,
    /// Raft: a piece of a snapshot is sent again.
    ChunkResent,
    /// Raft: a successor stands for election because the leader told it to.
    HandoverTaken,
    /// Raft: a hand-over took too long.
    HandoverAbandoned,
    /// Raft: a leader that is not a voter any more makes room.
    LeaderRetires,
    /// Raft: a change of members was refused because the former one is not committed.
    ChangeRefusedWhileOpen,

    // The log on disk.
    /// Log: recovery cuts a torn frame.
    TornTailCut,
    /// Log: a checkpoint is beyond the log, which starts over behind it.
    LogRestartedBehindCheckpoint,
    /// Log: a segment is removed.
    SegmentRemoved,
    /// Log: records that were gathered are too many for one frame.
    FrameSplit,

    // The store.
    /// Store: a lock is refused for its lock-delay.
    LockRefusedByDelay,
    /// Store: a lock is refused because another session holds it.
    LockRefusedByHolder,
    /// Store: the end of a session deletes what it held.
    SessionDeletesKeys,
    /// Store: marks of deletions are forgotten.
    TombstonesForgotten,

    // Between agents.
    /// Node: another agent's question came twice.
    AskRepeated,
    /// Node: word came that nobody waits for an answer before the question did.
    AskForgottenFirst,
    /// Node: an answer came to what the process before this one had asked.
    AnswerToFormerLife,
}

/// The marks that were hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits([u64; 4]);

const _: () = assert!(Mark::ALL.len() <= 256, "every mark has a bit");

impl Hits {
    /// Whether a mark was hit.
    #[must_use]
    pub fn contains(&self, mark: Mark) -> bool {
        let at = mark as usize;
        self.0[at / 64] & 1 << (at % 64) != 0
    }

    /// The marks that were hit, in the order of their definition.
    pub fn iter(&self) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.contains(*mark))
    }

    /// Adds what was hit elsewhere.
    pub fn extend(&mut self, other: &Hits) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// Adds a mark.
    pub fn insert(&mut self, mark: Mark) {
        let at = mark as usize;
        self.0[at / 64] |= 1 << (at % 64);
    }
}

#[cfg(feature = "planted")]
mod tally {
    use std::cell::Cell;

    use super::{Hits, Mark};

    thread_local! {
        static HITS: Cell<Hits> = const { Cell::new(Hits([0; 4])) };
    }

    /// Notes that this branch was taken on this thread.
    pub fn hit(mark: Mark) {
        let mut hits = HITS.get();
        hits.insert(mark);
        HITS.set(hits);
    }

    /// What was hit on this thread since it was last asked.
    #[must_use]
    pub fn take() -> Hits {
        HITS.take()
    }
}

#[cfg(feature = "planted")]
pub use tally::{hit, take};

/// Notes that this branch was taken: nothing, in a build without the feature `planted`.
#[cfg(not(feature = "planted"))]
pub const fn hit(_: Mark) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_has_a_bit_of_its_own() {
        let mut hits = Hits::default();
        for (at, mark) in Mark::ALL.iter().enumerate() {
            assert!(!hits.contains(*mark));
            hits.insert(*mark);
            assert_eq!(hits.iter().count(), at + 1);
        }
    }

    #[cfg(feature = "planted")]
    #[test]
    fn what_was_hit_is_told_once() {
        hit(Mark::SplitVote);
        assert_eq!(take().iter().collect::<Vec<_>>(), [Mark::SplitVote]);
        assert_eq!(take(), Hits::default());
    }
}
