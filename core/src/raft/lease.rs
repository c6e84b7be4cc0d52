//! The leader's lease and the promise of voters that it rests on (dissertation, sections 4.2.3 and 6.4.1).
//!
//! A voter that hears a heartbeat promises to elect nobody else for `lease`, measured by its own clock from when it
//! heard. The leader counts from when it spoke, which is earlier, and counts less than `lease`, because its clock may
//! run slow and the voter's fast: with clocks off by at most d, `lease × (1 − d)/(1 + d) > lease × (1 − 2d)`. A quorum
//! of promises leaves no quorum for anybody else. After a restart a voter cannot know what it promised before, so
//! it behaves as if it had promised just then.

use std::time::Duration;

use super::message::TransferMark;
use super::types::Timing;
use crate::marks::Mark;
use crate::planted::{Bug, planted};
use crate::time::Mono;

/// A voter's promise to elect nobody but the leader that it heard from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Promise {
    /// In force before this time.
    until: Mono,
    /// To whom, and its latest round that asked for the promise. `None`: to whoever it was before a restart.
    to: Option<TransferMark>,
}

impl Promise {
    /// The promise that a voter may have made before it restarted.
    pub(super) fn before_restart(now: Mono, timing: &Timing) -> Promise {
        if planted(Bug::NoHoldOutAfterRestart) {
            return Promise::default();
        }
        Promise { until: now + timing.lease, to: None }
    }

    /// Promises anew. An older promise never ends earlier for that.
    pub(super) fn renew(&mut self, now: Mono, timing: &Timing, to: TransferMark) {
        let round = match self.to {
            Some(old) if old.leader == to.leader && old.term == to.term => old.round.max(to.round),
            Some(_) | None => to.round,
        };
        self.to = Some(TransferMark { round, ..to });
        self.until = self.until.max(now + timing.lease);
    }

    /// For how much longer a candidate with this mark must be refused. A leader that named its successor released
    /// its voters from what they promised up to the round of the mark; a later promise to it stands.
    pub(super) fn hold(&self, now: Mono, mark: Option<TransferMark>) -> Duration {
        let released = match (self.to, mark) {
            (Some(to), Some(mark)) => {
                to.leader == mark.leader && to.term == mark.term && to.round <= mark.round
            }
            (Some(_) | None, _) => false,
        };
        if released { Duration::ZERO } else { self.until.since(now) }
    }

    /// What a refusal because of it is called.
    pub(super) fn mark_of_refusal(&self) -> Mark {
        if self.to.is_none() && self.until > Mono(0) {
            Mark::VoteRefusedAfterRestart
        } else {
            Mark::VoteRefusedByPromise
        }
    }

    /// When it ends.
    pub(super) fn until(&self) -> Mono {
        self.until
    }
}

/// For how long a leader may rely on a quorum of promises, from when it asked for them.
pub(super) fn length(timing: &Timing) -> Duration {
    if planted(Bug::LeaseIgnoresDrift) {
        return timing.lease * 4;
    }
    let trusted = 1_000_000u128.saturating_sub(2 * u128::from(timing.drift_ppm));
    let nanos = timing.lease.as_nanos() * trusted / 1_000_000;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Term, Uuid};

    fn mark(leader: u128, round: u64) -> TransferMark {
        TransferMark { leader: Uuid(leader), term: Term(2), round }
    }

    #[test]
    fn a_lease_is_shorter_than_the_promise_under_any_allowed_drift() {
        for drift_ppm in [0, 1, 100, 10_000, 100_000, 400_000] {
            let timing = Timing { drift_ppm, ..Timing::default() };
            let (drift, lease) = (u128::from(drift_ppm), timing.lease.as_nanos());
            // In true time: the leader's clock at its slowest, the voter's at its fastest.
            let leader_ends = length(&timing).as_nanos() * 1_000_000 * (1_000_000 + drift);
            let voter_ends = lease * 1_000_000 * (1_000_000 - drift);
            assert!(leader_ends <= voter_ends, "{drift_ppm}");
        }
    }

    #[test]
    fn a_mark_releases_only_from_promises_to_its_leader_up_to_its_round() {
        let timing = Timing::default();
        let mut promise = Promise::default();
        promise.renew(Mono(0), &timing, mark(1, 7));
        assert_eq!(promise.hold(Mono(0), None), timing.lease);
        assert_eq!(promise.hold(Mono(0), Some(mark(1, 7))), Duration::ZERO);
        assert_eq!(promise.hold(Mono(0), Some(mark(1, 6))), timing.lease);
        assert_eq!(promise.hold(Mono(0), Some(mark(2, 9))), timing.lease);
        promise.renew(Mono(0), &timing, mark(1, 3));
        assert_eq!(promise.hold(Mono(0), Some(mark(1, 6))), timing.lease, "a late heartbeat changes nothing");
        let promise = Promise::before_restart(Mono(0), &timing);
        assert_eq!(promise.hold(Mono(0), Some(mark(1, 9))), timing.lease);
        assert_eq!(promise.hold(Mono(0) + timing.lease, None), Duration::ZERO);
    }
}
