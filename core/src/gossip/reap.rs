//! Forgetting: failed members when they have been tried for long enough, those that left when everybody knows.

use std::time::Duration;

use super::broadcast::Topic;
use super::member::MemberInfo;
use super::table::Slot;
use super::types::{Effect, MemberChange, Status, tag};
use super::{Gossip, Timer};
use crate::cx::Cx;

impl Gossip {
    /// Arms what is needed as long as somebody is failed or left.
    pub(super) fn begin_reaping(&mut self, cx: &mut Cx<'_, Effect>) {
        if self.deadline(cx, Timer::Reap).is_none() {
            self.arm(cx, Timer::Reap, cx.mono() + self.config.profile.reap_interval);
        }
        if self.deadline(cx, Timer::Reconnect).is_none() {
            // At its own time, so that not all members try at the same moment.
            let interval = self.config.profile.reconnect_interval;
            let delay = interval / 2 + self.rng.duration_below(interval / 2);
            self.arm(cx, Timer::Reconnect, cx.mono() + delay);
        }
    }

    pub(super) fn on_reap(&mut self, cx: &mut Cx<'_, Effect>) {
        let now = cx.mono();
        let over: Vec<Slot> = self
            .table
            .gone()
            .filter(|slot| {
                let entry = self.table.at(*slot);
                let kept = self.kept_for(&entry.info, entry.status() == Status::Left);
                *slot != self.me && entry.since.age(now) >= kept
            })
            .collect();
        for slot in over {
            self.forget(cx, slot);
        }
        if self.table.gone().next().is_some() {
            self.arm(cx, Timer::Reap, now + self.config.profile.reap_interval);
        }
    }

    /// How long a member is remembered after it failed or left.
    pub(super) fn kept_for(&self, info: &MemberInfo, left: bool) -> Duration {
        if left {
            return self.config.tombstone_timeout;
        }
        let own = info.tag(tag::RECONNECT_TIMEOUT).parse().ok().map(Duration::from_secs);
        own.unwrap_or(self.config.reconnect_timeout)
    }

    pub(super) fn forget(&mut self, cx: &mut Cx<'_, Effect>, slot: Slot) {
        assert!(slot != self.me, "a member does not forget itself");
        self.drop_suspicion(cx, slot);
        self.queue.cancel(Topic::Member(slot));
        if let Some(entry) = self.table.remove(slot) {
            self.vivaldi.forget(&entry.info.name);
            self.located.remove(&entry.info.name);
            cx.emit(Effect::Member(MemberChange::Reaped(entry.member())));
        }
    }
}
