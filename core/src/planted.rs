//! Deliberate defects. A checker that finds nothing proves nothing: the simulation must find each of these.
//!
//! Without the feature `planted` every question is answered `false` at compile time, and no trace of a defect is left
//! in the program.

/// A defect that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Bug {
    /// Recovery of the log keeps what it can decode of a frame whose checksum is wrong.
    TornTailKept = 1,
    /// A log write is reported durable although nothing was synced.
    SyncSkipped,
    /// The log does not record that a follower's conflicting entries are void.
    TruncateForgotten,
    /// Raft: a vote leaves before it is durable, so that a crash may let it be cast again.
    VoteNotPersisted,
    /// Raft: a leader commits entries of earlier terms by counting copies (paper, figure 8).
    CommitOldTermByCounting,
    /// Raft: a leader believes in its lease for four times as long as voters promised it.
    LeaseIgnoresDrift,
    /// Raft: a leader confirms a read index without asking anybody.
    ReadIndexWithoutQuorum,
    /// Raft: a server votes for everybody who asks, also a second time in the same term.
    VoteTwiceInTerm,
    /// Raft: a follower acknowledges entries that are not durable yet.
    AckBeforeDurable,
    /// Raft: a follower takes entries without checking that its log agrees with the leader's before them.
    AcceptWithoutLogMatch,
    /// Raft: a voter that restarts forgets that it may have promised a lease.
    NoHoldOutAfterRestart,
    /// Store: the end of a session starts no lock-delay.
    LockDelaySkipped,
    /// Store: a session ends and its locks stay.
    SessionSurvivesNode,
    /// Store: a deletion wakes nobody.
    WatchMissesDelete,
    /// Store: the index of a prefix ignores deletions.
    IndexGoesBack,
    /// Store: a lock is given although another session holds it.
    AcquireIgnoresHolder,
}

impl Bug {
    /// Every defect, for a sweep over all of them.
    pub const ALL: &[Bug] = &[
        Bug::TornTailKept,
        Bug::SyncSkipped,
        Bug::TruncateForgotten,
        Bug::VoteNotPersisted,
        Bug::CommitOldTermByCounting,
        Bug::LeaseIgnoresDrift,
        Bug::ReadIndexWithoutQuorum,
        Bug::VoteTwiceInTerm,
        Bug::AckBeforeDurable,
        Bug::AcceptWithoutLogMatch,
        Bug::NoHoldOutAfterRestart,
        Bug::LockDelaySkipped,
        Bug::SessionSurvivesNode,
        Bug::WatchMissesDelete,
        Bug::IndexGoesBack,
        Bug::AcquireIgnoresHolder,
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        // Every simulated world runs on one thread of its own, so that worlds with different defects run side by side.
        static PLANTED: Cell<u32> = const { Cell::new(0) };
    }

    /// Plants one defect in everything that runs on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug.map_or(0, |bug| bug as u32));
    }

    /// Whether this defect is planted on this thread.
    #[must_use]
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == bug as u32
    }
}

#[cfg(feature = "planted")]
pub use switch::{plant, planted};

/// Whether this defect is planted: never, in a build without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn planted(_: Bug) -> bool {
    false
}
