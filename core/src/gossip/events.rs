//! User events: told to every member once, in no particular order.

use std::collections::BTreeMap;

use super::Gossip;
use super::broadcast::Topic;
use super::intents::hash;
use super::lamport::Lamport;
use super::packet::{self, Message, encode};
use super::types::{EVENT_BYTES_MAX, EVENT_ENCODED_BYTES_MAX, Effect, EventTooBig, UserEvent};
use crate::cx::Cx;
use crate::planted::{Bug, planted};

/// Events are remembered for so many lamport times, so that each is delivered once.
const TIMES_KEPT: u64 = 512;
/// So many events of one lamport time: more have never been fired at once, so they are forged.
const PER_TIME_MAX: usize = 64;
/// So many of the latest travel with an exchange of state.
const EXCHANGED_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Events {
    pub clock: Lamport,
    /// Times up to this one are over for this member.
    ignored: u64,
    seen: BTreeMap<u64, Vec<UserEvent>>,
    /// Whether this member has exchanged state with another one.
    belongs: bool,
}

impl Events {
    /// Whether this member knows nothing of the pool's past yet. What it hears by the way may be old; with the first
    /// exchange of state it learns which events are none of its business.
    pub fn is_newcomer(&self) -> bool {
        !self.belongs
    }

    /// This member has exchanged state with another one, or knew the pool from the start.
    pub fn belong(&mut self) {
        self.belongs = true;
    }

    /// Events up to this time were none of this member's business.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// These latest events happened before this member came, and are none of its business. Nor are those before them,
    /// which nobody tells of. Any other may be fired at an earlier time by somebody whose clock is behind, and is news.
    pub fn skip(&mut self, events: &[packet::Event<'_>]) {
        if events.len() >= EXCHANGED_MAX {
            let oldest = events.iter().map(|event| event.time).min().unwrap_or_default();
            self.ignored = self.ignored.max(oldest.saturating_sub(1));
        }
        for event in events.iter().filter(|event| is_sane(event)).take(EXCHANGED_MAX) {
            if self.clock.witness(event.time) {
                self.take(event);
            }
        }
    }

    /// The latest events, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &UserEvent> {
        let total: usize = self.seen.values().map(Vec::len).sum();
        let total = if planted(Bug::EventNotExchanged) { usize::MAX } else { total };
        self.seen.values().flatten().skip(total.saturating_sub(EXCHANGED_MAX))
    }

    /// Whether it is new, and remembers it.
    fn take(&mut self, event: &packet::Event<'_>) -> bool {
        if event.time <= self.ignored || event.time + TIMES_KEPT <= self.clock.time() {
            return false;
        }
        let known = self.seen.entry(event.time).or_default();
        let seen = |known: &UserEvent| {
            known.id == event.id && known.name == event.name && known.payload.as_ref() == event.payload
        };
        let is_known = known.iter().any(seen) && !planted(Bug::EventToldTwice);
        if is_known || known.len() >= PER_TIME_MAX {
            return false;
        }
        known.push(event.owned());
        while self.seen.first_key_value().is_some_and(|(time, _)| time + TIMES_KEPT <= self.clock.time()) {
            self.seen.pop_first();
        }
        true
    }
}

/// Whether it may have been fired by an agent like this one.
fn is_sane(event: &packet::Event<'_>) -> bool {
    let filters = [event.node_filter, event.service_filter, event.tag_filter];
    event.name.len() + event.payload.len() <= EVENT_BYTES_MAX
        && filters.iter().map(|filter| filter.len()).sum::<usize>() <= EVENT_ENCODED_BYTES_MAX
}

impl Gossip {
    /// Tells an event to every member, this one included; its lamport time is drawn here and returned.
    ///
    /// # Errors
    /// Name and payload are too big; nothing was sent.
    pub fn fire(&mut self, cx: &mut Cx<'_, Effect>, mut event: UserEvent) -> Result<u64, EventTooBig> {
        if event.name.len() + event.payload.len() > EVENT_BYTES_MAX {
            return Err(EventTooBig::Raw);
        }
        event.ltime = self.events.clock.time() + 1;
        if encode(&packet::Event::of(&event), Vec::new()).len() > EVENT_ENCODED_BYTES_MAX {
            return Err(EventTooBig::Encoded);
        }
        self.events.clock.tick();
        self.on_event(cx, &packet::Event::of(&event));
        Ok(event.ltime)
    }

    /// An event was heard of by broadcast.
    pub(super) fn on_event_told(&mut self, cx: &mut Cx<'_, Effect>, event: &packet::Event<'_>) {
        if !self.events.is_newcomer() {
            self.on_event(cx, event);
        }
    }

    /// An event was fired here, or heard of.
    pub(super) fn on_event(&mut self, cx: &mut Cx<'_, Effect>, event: &packet::Event<'_>) {
        if !is_sane(event) || !self.events.clock.witness(event.time) {
            self.stats.dropped.malformed += 1;
            return;
        }
        if self.events.take(event) {
            cx.emit(Effect::UserEvent(event.owned()));
            self.known_changed(cx);
            let topic = Topic::Event(event.time, hash(event.name) ^ event.id.0 as u64);
            self.broadcast(cx, topic, &Message::Event(event.clone()));
        }
    }
}
