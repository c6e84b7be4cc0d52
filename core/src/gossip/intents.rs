//! Who means to be in the pool and who means to leave it, in the order of a lamport clock.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::time::Duration;

use fnv::FnvHasher;

use super::Gossip;
use super::broadcast::Topic;
use super::lamport::Lamport;
use super::packet::Message;
use super::table::Slot;
use super::types::{Effect, Status};
use crate::Text;
use crate::cx::Cx;
use crate::time::Mono;

/// Intents about members that are not known are kept this long.
const RECENT: Duration = Duration::from_secs(300);
/// So many of them at most.
const RECENT_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Intents {
    pub clock: Lamport,
    /// About members that are not known, or were pruned: the intent may come before the member.
    recent: BTreeMap<Text, Intent>,
}

#[derive(Clone, Copy, Debug)]
struct Intent {
    time: u64,
    leave: bool,
    prune: bool,
    heard: Mono,
}

impl Intents {
    /// Keeps an intent about an unknown member. False: a newer one is known, or there are too many.
    fn keep(&mut self, name: &str, intent: Intent) -> bool {
        if self.recent.get(name).is_some_and(|known| known.time >= intent.time) {
            return false;
        }
        if self.recent.len() >= RECENT_MAX {
            self.recent.retain(|_, known| intent.heard.since(known.heard) < RECENT);
        }
        // What is not kept is not passed on either: it would go round for ever.
        let room = self.recent.len() < RECENT_MAX || self.recent.contains_key(name);
        if room {
            self.recent.insert(name.into(), intent);
        }
        room
    }

    /// Whether an operator had the member forgotten after that time.
    pub fn was_pruned(&self, name: &str, time: u64) -> bool {
        self.recent.get(name).is_some_and(|intent| intent.prune && intent.time >= time)
    }
}

impl Gossip {
    pub(super) fn on_join_intent(&mut self, cx: &mut Cx<'_, Effect>, time: u64, name: &str) {
        if !self.intents.clock.witness(time) {
            self.stats.dropped.malformed += 1;
            return;
        }
        let news = match self.table.find(name) {
            None => self.intents.keep(name, Intent { time, leave: false, prune: false, heard: cx.mono() }),
            Some(slot) if time > self.table.at(slot).intent_time => {
                let entry = self.table.at(slot);
                let before = entry.status();
                // Whoever is gone does not come back by an intent, but by being alive.
                let leaving = entry.leaving && !entry.state.is_alive();
                self.table.set_intent(slot, leaving, time);
                if self.table.at(slot).status() != before {
                    self.tell(cx, slot);
                }
                true
            }
            Some(_) => false,
        };
        if news {
            self.broadcast(cx, Topic::Intent(hash(name)), &Message::Join { time, name });
        }
    }

    pub(super) fn on_leave_intent(&mut self, cx: &mut Cx<'_, Effect>, time: u64, name: &str, prune: bool) {
        if !self.intents.clock.witness(time) {
            self.stats.dropped.malformed += 1;
            return;
        }
        let intent = Intent { time, leave: true, prune, heard: cx.mono() };
        let news = match self.table.find(name) {
            None => self.intents.keep(name, intent),
            Some(slot) if time <= self.table.at(slot).intent_time => false,
            Some(slot) if slot == self.me && self.leaving.is_no() => {
                // Somebody says that we leave, and we do not.
                let time = self.intents.clock.tick();
                return self.on_join_intent(cx, time, name);
            }
            Some(slot) => {
                self.take_leave_intent(cx, slot, time);
                if prune && self.table.at(slot).status() == Status::Left {
                    self.intents.keep(name, intent);
                    self.forget(cx, slot);
                }
                true
            }
        };
        if news {
            self.broadcast(cx, Topic::Intent(hash(name)), &Message::Leave { time, name, prune });
        }
    }

    /// An exchange of state says that a member is leaving, or left.
    pub(super) fn merge_leaving(&mut self, cx: &mut Cx<'_, Effect>, name: &str, time: u64) {
        self.on_leave_intent(cx, time, name, false);
    }

    /// Declares a failed member to have left; with `prune` it is forgotten. False: there is no such member.
    ///
    /// A member that is there contradicts.
    pub fn force_leave(&mut self, cx: &mut Cx<'_, Effect>, name: &str, prune: bool) -> bool {
        if self.table.find(name).is_none() {
            return false;
        }
        let time = self.intents.clock.tick();
        self.on_leave_intent(cx, time, name, prune);
        true
    }

    /// A member has become known: what was heard of it before applies.
    pub(super) fn recall_intent(&mut self, slot: Slot) {
        let name = self.table.at(slot).info.name.clone();
        if let Some(intent) = self.intents.recent.remove(&name) {
            // A pruned member that is back is in a new life; its own intent to join will say so.
            self.table.set_intent(slot, intent.leave && !intent.prune, intent.time);
        }
    }

    fn take_leave_intent(&mut self, cx: &mut Cx<'_, Effect>, slot: Slot, time: u64) {
        let before = self.table.at(slot).status();
        self.table.set_intent(slot, true, time);
        if self.table.at(slot).status() != before {
            self.tell(cx, slot);
        }
    }
}

/// Names a topic without keeping its name.
pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}
