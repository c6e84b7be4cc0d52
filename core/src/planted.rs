//! Deliberate defects. A checker that finds nothing proves nothing: the simulation must find each of these.
//!
//! Without the feature `planted` every question is answered `false` at compile time, and no trace of a defect is left
//! in the program.

/// Defines the defects, each with what it is, and the list of them all. Their numbers begin with 1.
macro_rules! defects {
    ($first:ident: $meaning:literal, $($name:ident: $meanings:literal,)*) => {
        /// A defect that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Bug {
            #[doc = $meaning]
            $first = 1,
            $(#[doc = $meanings] $name,)*
        }

        impl Bug {
            /// Every defect, for a sweep over all of them.
            pub const ALL: &[Bug] = &[Bug::$first, $(Bug::$name,)*];
        }
    };
}

defects! {
    // The log on disk.
    TornTailKept: "Log: recovery keeps what it can decode of a frame whose checksum is wrong.",
    SyncSkipped: "Log: a write is reported durable although nothing was synced.",
    TruncateForgotten: "Log: it does not record that a follower's conflicting entries are void.",
    SegmentRemovedEarly: "Log: a segment is removed although its entries are in no checkpoint yet.",

    // Raft: elections.
    VoteNotPersisted: "Raft: a vote leaves before it is durable, so that a crash may let it be cast again.",
    VoteTwiceInTerm: "Raft: a server votes for everybody who asks, also a second time in the same term.",
    FoundsWithMajority: "Raft: a founder needs the consent of a majority only.",

    // Raft: replication.
    CommitOldTermByCounting: "Raft: a leader commits entries of earlier terms by counting copies (paper, figure 8).",
    AckBeforeDurable: "Raft: a follower acknowledges entries that are not durable yet.",
    AcceptWithoutLogMatch: "Raft: a follower takes entries without checking that its log agrees before them.",

    // Raft: leases and read index.
    LeaseIgnoresDrift: "Raft: a leader believes in its lease for four times as long as voters promised it.",
    NoHoldOutAfterRestart: "Raft: a voter that restarts forgets that it may have promised a lease.",
    LeaseDuringHandover: "Raft: a leader keeps its lease while it hands over, which releases the voters.",
    ReadIndexWithoutQuorum: "Raft: a leader confirms a read index without asking anybody.",
    ReadIndexBeforeOwnTerm: "Raft: a new leader confirms reads before it knows what earlier terms committed.",
    StaleAgeIgnoresApplied: "Raft: a follower that hears the leader takes its state for new, whatever it lacks.",

    // Raft: members and snapshots.
    ChangeWhileOpen: "Raft: members may change while the former change is not committed.",
    ChangeBeforeReady: "Raft: a new leader may change members before it has committed an entry of its term.",
    SnapshotTakesOpenMembership: "Raft: a checkpoint says the members of the log's end, committed or not.",
    SnapshotPieceTwice: "Raft: a follower takes pieces of a snapshot as they come, also twice.",

    // The store.
    LockDelaySkipped: "Store: the end of a session starts no lock-delay.",
    SessionSurvivesNode: "Store: a session ends and its locks stay.",
    AcquireIgnoresHolder: "Store: a lock is given although another session holds it.",
    ReleaseIgnoresHolder: "Store: a session releases a lock that another one holds.",
    LockIndexStandsStill: "Store: a lock is given without counting its acquisition.",
    CasIgnoresIndex: "Store: a check-and-set does not check.",
    ModifyIndexStandsStill: "Store: a write to a key that exists does not raise its modify index.",
    WatchMissesDelete: "Store: a deletion wakes nobody.",
    WatchMissesPrefix: "Store: a change wakes those who wait for the key, and not those who wait for its prefix.",
    IndexGoesBack: "Store: the index of a prefix ignores deletions.",

    // The leader's duties.
    RenewalIgnored: "Duties: the renewal of a session is acknowledged and does not put its end off.",
    LockDelayOverAtOnce: "Duties: a lock-delay is over as soon as it has begun.",

    // Requests.
    FollowerAnswersDefaultReads: "Requests: a follower answers default reads from its own state.",
    ForwardedAgain: "Requests: a write whose answer was lost with the connection is asked for once more.",
    AskNotDeduped: "Requests: what another agent asks is done as often as its frame comes.",

    // Anti-entropy.
    DeregistrationStaysLocal: "Anti-entropy: the catalog is not told that a service is gone.",
    FullSyncBlind: "Anti-entropy: a full synchronisation does not see what the catalog has and the agent has not.",

    // Gossip.
    RefutationSkipped: "Gossip: a member that is suspected says nothing.",
    RefutationKeepsIncarnation: "Gossip: a member objects to a suspicion in the same incarnation.",
    SuspicionNeverOver: "Gossip: a suspect that does not object is never taken for failed.",
    EventToldTwice: "Gossip: an event that comes again is delivered again.",
    EventNotExchanged: "Gossip: those who missed an event are not told of it in an exchange of state.",

    // DNS.
    DnsServesCritical: "DNS: critical instances are answered, too.",
    DnsIgnoresBound: "DNS: any state is new enough, whatever is asked for.",
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
