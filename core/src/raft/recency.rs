//! As of when a server's state is whole: since when it may lack what was committed.
//!
//! That a follower has heard its leader says nothing about what it has applied: it may lack entries that were lost, wait
//! for a snapshot, or just have been started. So it counts from the newest message whose commit index it has reached; and
//! only if that entry is of the leader's own term, because before that is committed a new leader does not know what
//! earlier ones have acknowledged (paper, section 8). A message counts from when it came. How long it was on its way the
//! follower cannot know.
//!
//! A leader counts from when it asked what a quorum has answered: at that time nobody else can have led (dissertation,
//! section 6.4). While it has a lease, that is now.

use super::{Raft, Role, State};
use crate::ids::LogIndex;
use crate::planted::{Bug, planted};
use crate::time::Mono;

/// What a server knows about how old its state is, apart from what it knows as a leader.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recency {
    /// Everything that was committed then is applied. Never goes back.
    as_of: Option<Mono>,
    /// The earliest message of the present term that told a commit index which is not reached yet, and that index.
    /// Later ones are left out: once this one is reached, the next message is the next one to count.
    awaited: Option<(Mono, LogIndex)>,
}

impl Recency {
    fn reach(&mut self, at: Mono) {
        self.as_of = self.as_of.max(Some(at));
    }

    /// Another term begins: what the former leader told is of no use any more.
    pub(super) fn forget_leader(&mut self) {
        self.awaited = None;
    }
}

impl Raft {
    /// The leader of the present term has said how far it has committed.
    pub(super) fn on_told(&mut self, now: Mono, commit: LogIndex) {
        if planted(Bug::StaleAgeIgnoresApplied) {
            return self.recency.reach(now);
        }
        // What tells of less than is known was overtaken on its way.
        if commit >= self.commit && self.recency.awaited.is_none() {
            self.recency.awaited = Some((now, commit));
        }
    }

    /// What is committed here may be what was awaited.
    pub(super) fn settle_recency(&mut self) {
        if let Some((at, index)) = self.recency.awaited
            && index <= self.commit
        {
            self.recency.awaited = None;
            if self.log.term(index) == Some(self.hard.term) {
                self.recency.reach(at);
            }
        }
    }

    /// A leader is going to be one no more: what it knows about how old its state is.
    pub(super) fn keep_recency(&mut self) {
        if let Some(at) = self.confirmed_at() {
            self.recency.reach(at);
        }
    }

    /// When the latest round began that a quorum answered, if this server leads and knows everything that was committed
    /// before its term.
    fn confirmed_at(&self) -> Option<Mono> {
        match &self.state {
            State::Leader(lead) if self.ready() => lead.quorum_round_sent(self.id, self.log.membership()),
            State::Leader(_) | State::Follower | State::PreCandidate(_) | State::Candidate(_) => None,
        }
    }

    /// The latest time as of which this server's state is known to have everything that was committed. `None` if that is
    /// not known since its start.
    #[must_use]
    pub fn as_of(&self, now: Mono) -> Option<Mono> {
        match self.lease_until() {
            Some(until) if now < until => Some(now),
            Some(_) | None if self.role() == Role::Leader => self.recency.as_of.max(self.confirmed_at()),
            Some(_) | None => self.recency.as_of,
        }
    }
}
