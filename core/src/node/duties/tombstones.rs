//! Deletions are remembered, so that the index under a prefix never goes back, and forgotten after a while.

use std::collections::VecDeque;
use std::time::Duration;

use super::{DutyTimer, Effect};
use crate::cx::{Cx, Timer};
use crate::store::Store;
use crate::store::command::Command;
use crate::time::Mono;

/// Deletions are forgotten in bins of this length, as in Consul.
const BIN: Duration = Duration::from_secs(30);

/// Which deletions are how old.
#[derive(Debug)]
pub(super) struct Tombstones {
    ttl: Duration,
    /// Newest deletion at the end of each bin, oldest bin first.
    bins: VecDeque<(Mono, u64)>,
}

impl Tombstones {
    pub(super) fn new(ttl: Duration) -> Tombstones {
        Tombstones { ttl, bins: VecDeque::new() }
    }

    pub(super) fn forget(&mut self) {
        self.bins.clear();
    }

    /// Begins a bin when something was deleted that no bin holds.
    pub(super) fn follow(&mut self, cx: &mut Cx<'_, Effect>, store: &Store) {
        let timer = Timer::Duty(DutyTimer::Tombstones);
        if cx.timers.deadline(&timer).is_none() && store.newest_tombstone().is_some() {
            cx.timers.set(timer, cx.mono() + BIN);
        }
    }

    /// Closes a bin, and has the oldest ones forgotten whose time is up.
    pub(super) fn on_timer(&mut self, cx: &mut Cx<'_, Effect>, store: &Store) {
        let now = cx.mono();
        if let Some(newest) = store.newest_tombstone()
            && self.bins.back().is_none_or(|(_, index)| *index < newest)
        {
            self.bins.push_back((now, newest));
        }
        let mut reap = None;
        while let Some((closed, index)) = self.bins.front().copied() {
            if now.since(closed) < self.ttl {
                break;
            }
            self.bins.pop_front();
            reap = Some(index);
        }
        if let Some(up_to) = reap {
            cx.emit(Effect::Propose(Command::ReapTombstones { up_to }));
        }
        if store.newest_tombstone().is_some_and(|newest| reap.is_none_or(|up_to| up_to < newest)) {
            cx.timers.set(Timer::Duty(DutyTimer::Tombstones), now + BIN);
        }
    }
}
