//! Lock-delays: for how long a key cannot be locked after its holder's session was invalidated (Chubby, section 2.4).
//!
//! That a delay runs is replicated; its length is waited out here, by the leader's monotonic clock, and its end is
//! replicated again. So it survives fail-over and restart, and no two servers disagree about it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{DutyTimer, Effect};
use crate::Text;
use crate::cx::{Cx, Timer};
use crate::planted::{Bug, planted};
use crate::store::Store;
use crate::store::command::Command;
use crate::store::query::WatchKey;
use crate::time::Mono;

/// Delays that run, by key: the index at which each began, and when it ends.
#[derive(Debug, Default)]
pub(super) struct LockDelays {
    ends: BTreeMap<Text, (u64, Mono)>,
    /// The store's newest delay that was taken over.
    seen: u64,
}

impl LockDelays {
    pub(super) fn begin(&mut self, cx: &mut Cx<'_, Effect>, store: &Store) {
        self.take_over(cx, store);
    }

    /// Delays begin when a session ends: only then is there something to take over.
    pub(super) fn follow(&mut self, cx: &mut Cx<'_, Effect>, store: &Store, touched: &[WatchKey]) {
        if touched.iter().any(|key| matches!(key, WatchKey::Session(_))) {
            self.take_over(cx, store);
        }
    }

    fn take_over(&mut self, cx: &mut Cx<'_, Effect>, store: &Store) {
        let mut newest = self.seen;
        for (key, begun, delay) in store.lock_delays() {
            if begun > self.seen {
                let delay = if planted(Bug::LockDelayOverAtOnce) { Duration::ZERO } else { delay };
                self.ends.insert(key.clone(), (begun, cx.mono() + delay));
                newest = newest.max(begun);
            }
        }
        self.seen = newest;
        self.arm(cx);
    }

    pub(super) fn on_timer(&mut self, cx: &mut Cx<'_, Effect>) {
        let now = cx.mono();
        let over: Vec<(Text, u64)> = self
            .ends
            .iter()
            .filter(|(_, (_, end))| *end <= now)
            .map(|(key, (begun, _))| (key.clone(), *begun))
            .collect();
        for (key, _) in &over {
            self.ends.remove(key);
        }
        if !over.is_empty() {
            cx.emit(Effect::Propose(Command::LockDelayOver { keys: over }));
        }
        self.arm(cx);
    }

    fn arm(&self, cx: &mut Cx<'_, Effect>) {
        match self.ends.values().map(|(_, end)| *end).min() {
            Some(at) => cx.timers.set(Timer::Duty(DutyTimer::LockDelay), at),
            None => cx.timers.cancel(&Timer::Duty(DutyTimer::LockDelay)),
        }
    }
}
