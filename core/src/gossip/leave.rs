//! Leaving in good order: the intent and the farewell are spread before the process ends, so that nobody takes the
//! silence for a failure.

use super::broadcast::Topic;
use super::member::{Millis, State};
use super::packet::Message;
use super::types::Effect;
use super::{Gossip, Timer};
use crate::cx::Cx;

/// Whether this member is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It stays.
    No,
    /// Its farewell is being told. Left when it was told often enough, or too much time has passed.
    Telling,
    /// Everything was said; the process may end.
    Done,
}

impl Leaving {
    pub fn is_no(self) -> bool {
        self == Leaving::No
    }
}

impl Gossip {
    /// Leaves the pool in good order; ends with [`Effect::Left`], soon, and at once when nobody else is there.
    pub fn leave(&mut self, cx: &mut Cx<'_, Effect>) {
        if !self.leaving.is_no() {
            return;
        }
        self.leaving = Leaving::Telling;
        self.disarm(cx, Timer::SaveKnown);
        if !self.config.rejoin_after_leave {
            cx.emit(Effect::SaveKnown(Vec::new()));
        }
        let time = self.intents.clock.tick();
        let (name, incarnation) = (self.config.name.clone(), self.incarnation());
        self.table.set_intent(self.me, true, time);
        cx.emit(Effect::SaveClocks(self.clocks()));
        let others = self.table.alive() > 1;
        self.table.set_state(self.me, State::Left, incarnation, Millis::at(cx.mono()));
        self.tell(cx, self.me);
        if !others {
            return self.on_leave_over(cx);
        }
        self.broadcast(
            cx,
            Topic::Intent(super::intents::hash(&name)),
            &Message::Leave { time, name: &name, prune: false },
        );
        self.broadcast(cx, Topic::Member(self.me), &Message::Dead { incarnation, name: &name, from: &name });
        self.arm(cx, Timer::Leave, cx.mono() + self.config.profile.leave_timeout);
    }

    /// The farewell was told often enough, or too much time has passed.
    pub(super) fn on_leave_over(&mut self, cx: &mut Cx<'_, Effect>) {
        if self.leaving == Leaving::Telling {
            self.leaving = Leaving::Done;
            self.disarm(cx, Timer::Leave);
            cx.emit(Effect::Left);
        }
    }

    /// Looks whether the farewell is still being told.
    pub(super) fn check_left(&mut self, cx: &mut Cx<'_, Effect>) {
        if self.leaving == Leaving::Telling && !self.queue.contains(Topic::Member(self.me)) {
            self.on_leave_over(cx);
        }
    }
}
