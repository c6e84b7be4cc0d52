//! Exchange of everything two members know, over a stream: repairs whatever broadcasts did not reach.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::broadcast::Queue;
use super::claims::{MEMBERS_MAX, Misfit};
use super::digest::{ALL, part_of};
use super::join::Purpose;
use super::keyring::Key;
use super::member::{MemberInfo, Millis, State};
use super::packet::{
    Alive, Answer, Event, Exchange, Request, Ring, Row, STREAM_BYTES_MAX, decode_whole, encode, label,
};
use super::types::{CallError, Effect};
use super::{Gossip, Timer};
use crate::Text;
use crate::cx::Cx;

/// A pool of so many members may be coming together just now.
const POOL_IN_THE_MAKING: usize = 64;

/// Why an exchange came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoExchange {
    #[error("connection refused")]
    Refused,
    #[error("i/o timeout")]
    TimedOut,
    #[error("connection closed")]
    Closed,
    #[error("the answer cannot be read: another version, another pool, or other encryption keys")]
    Unreadable,
    #[error("{0}")]
    Misfit(Text),
}

impl From<CallError> for NoExchange {
    fn from(error: CallError) -> NoExchange {
        match error {
            CallError::Refused => NoExchange::Refused,
            CallError::TimedOut => NoExchange::TimedOut,
            CallError::Closed => NoExchange::Closed,
        }
    }
}

impl Gossip {
    /// A request came over a stream. Answered by at most one [`Effect::Answer`].
    pub fn on_call(&mut self, cx: &mut Cx<'_, Effect>, caller: u64, from: SocketAddr, bytes: &[u8]) {
        if !self.listens_to(from) {
            return;
        }
        let Some((body, sealed)) = self.open(bytes, STREAM_BYTES_MAX) else {
            return;
        };
        let Some(request) = decode_whole::<Request<'_>>(&body[1..]) else {
            self.stats.dropped.malformed += 1;
            return;
        };
        match request {
            Request::Ping(target) => {
                let answer = if target == self.config.name { Answer::Pong } else { Answer::NotMe };
                self.answer(cx, caller, &answer, None);
            }
            Request::Exchange(exchange) => self.on_exchange_asked(cx, caller, ALL, &exchange, sealed),
            Request::Parts(parts, exchange) => self.on_exchange_asked(cx, caller, parts, &exchange, sealed),
            Request::Compare(digest) => {
                let key = self.shared_key(digest.ring.as_ref(), sealed);
                let answer = self.difference(&digest).map_or(Answer::Same, Answer::Differs);
                self.answer(cx, caller, &answer, key.as_ref());
            }
        }
    }

    fn on_exchange_asked(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        caller: u64,
        parts: u64,
        exchange: &Exchange<'_>,
        sealed: bool,
    ) {
        let key = self.shared_key(exchange.ring.as_ref(), sealed);
        match self.sender_misfit(cx, exchange) {
            Some(misfit) => {
                self.refuse(cx, &misfit);
                let reason = misfit.to_string();
                let answer = Answer::Refused { reason: &reason, taken_by: misfit.taken_by() };
                self.answer(cx, caller, &answer, key.as_ref());
            }
            None => {
                self.merge(cx, exchange, sealed);
                // After the merge, so that the asker finds its own row in the answer and can contradict it.
                let asker = exchange.from;
                let answer = |exchange: Exchange<'_>, body| encode(&Answer::Exchange(exchange), body);
                let body = self.state_of(cx, parts, asker, answer, false);
                self.answer_body(cx, caller, &body, key.as_ref());
            }
        }
    }

    /// The key that another member seals with, if we have it: an answer that is sealed with our own might not be
    /// readable for one that missed a change of keys.
    fn shared_key(&self, ring: Option<&Ring>, sealed: bool) -> Option<Key> {
        let theirs = ring?.keys.first().filter(|_| sealed)?;
        self.ring.keys().find(|ours| *ours == theirs).cloned()
    }

    /// A call that was made by [`Effect::Call`] ended.
    pub fn on_answer(&mut self, cx: &mut Cx<'_, Effect>, call: u64, result: Result<Bytes, CallError>) {
        let Some(purpose) = self.calls.remove(&call) else {
            return;
        };
        if let Purpose::Probe(seq) = purpose {
            let result = result.map(|bytes| {
                self.open(&bytes, STREAM_BYTES_MAX)
                    .is_some_and(|(body, _)| decode_whole(&body[1..]) == Some(Answer::Pong))
            });
            return self.on_ping_call(cx, seq, result);
        }
        if let Purpose::Compare { to } = purpose {
            return self.on_compared(cx, to, result);
        }
        let newcomer = self.events.is_newcomer();
        let outcome = self.on_exchange(cx, &purpose, newcomer, result);
        self.on_exchanged(cx, purpose, outcome);
    }

    pub(super) fn on_push_pull(&mut self, cx: &mut Cx<'_, Effect>) {
        let alive = self.table.alive();
        if alive <= 1 {
            return;
        }
        self.arm(cx, Timer::PushPull, cx.mono() + self.config.profile.push_pull_interval_for(alive));
        let me = self.me;
        let partner =
            self.table.random(&mut self.rng, 1, |slot, entry| slot != me && entry.state == State::Alive);
        if let Some(slot) = partner.first() {
            let to = self.table.at(*slot).info.address;
            self.compare(cx, to);
        }
    }

    /// Compares what is known with what a member knows that passes for alive, at once. For whoever has reason to doubt it:
    /// the member may have been replaced by another agent at its place, which the next regular comparison would tell.
    pub fn doubt(&mut self, cx: &mut Cx<'_, Effect>, name: &str) {
        let entry = self.table.find(name).map(|slot| self.table.at(slot)).filter(|it| it.state.is_alive());
        if let Some(to) = entry.map(|entry| entry.info.address) {
            self.compare(cx, to);
        }
    }

    fn compare(&mut self, cx: &mut Cx<'_, Effect>, to: SocketAddr) {
        let salt = self.rng.next_u64();
        let digest = self.digest(salt);
        let body = encode(&Request::Compare(digest), vec![label(self.pool)]);
        self.call(cx, to, &body, self.config.profile.call_timeout, Purpose::Compare { to });
    }

    /// Another member has compared what we know with what it knows.
    fn on_compared(&mut self, cx: &mut Cx<'_, Effect>, to: SocketAddr, result: Result<Bytes, CallError>) {
        let Ok(bytes) = result else {
            return;
        };
        let answer = self.open(&bytes, STREAM_BYTES_MAX);
        let parts = match answer.as_ref().and_then(|(body, _)| decode_whole::<Answer<'_>>(&body[1..])) {
            Some(Answer::Same) => return,
            Some(Answer::Differs(parts)) => parts,
            Some(_) | None => ALL,
        };
        let own = self.config.name.clone();
        let request = |exchange: Exchange<'_>, body| encode(&Request::Parts(parts, exchange), body);
        let body = self.state_of(cx, parts, &own, request, false);
        self.call(cx, to, &body, self.config.profile.call_timeout, Purpose::PushPull);
    }

    /// Sends everything to that address and asks for everything.
    pub(super) fn exchange(&mut self, cx: &mut Cx<'_, Effect>, to: SocketAddr, join: bool, purpose: Purpose) {
        let own = self.config.name.clone();
        let request = |exchange: Exchange<'_>, body| encode(&Request::Exchange(exchange), body);
        let body = self.state_of(cx, ALL, &own, request, join);
        self.call(cx, to, &body, self.config.profile.call_timeout, purpose);
    }

    /// Takes over what another member knows. Does the same whatever the order and the number of times.
    pub(super) fn merge(&mut self, cx: &mut Cx<'_, Effect>, exchange: &Exchange<'_>, sealed: bool) {
        self.stats.merges += 1;
        self.events.belong();
        if !(self.intents.clock.witness(exchange.member_time)
            && self.events.clock.witness(exchange.event_time)
            && self.queries.clock.witness(exchange.query_time))
        {
            self.stats.dropped.malformed += 1;
            return;
        }
        if let Some(ring) = exchange.ring.as_ref().filter(|_| sealed) {
            self.on_ring(cx, ring);
        }
        for row in &exchange.members {
            self.merge_row(cx, row);
        }
        for event in &exchange.events {
            self.on_event(cx, event);
        }
    }

    fn merge_row(&mut self, cx: &mut Cx<'_, Effect>, row: &Row<'_>) {
        let Alive { incarnation, name, .. } = row.alive;
        let known = self.table.find(name);
        match (known, row.state) {
            (_, State::Alive | State::Suspect) => {
                self.on_alive(cx, &row.alive);
                if row.state == State::Suspect {
                    // Not a voice of its own: the sender only passes on what it heard.
                    let own_name = self.config.name.clone();
                    self.on_suspect(cx, incarnation, name, &own_name, false);
                }
            }
            (Some(_), State::Left) => self.on_dead(cx, incarnation, name, name),
            // It may object: we believed it to be well.
            (Some(slot), State::Dead) => {
                let own_name = self.config.name.clone();
                if self.table.at(slot).state.is_alive() || slot == self.me {
                    self.on_suspect(cx, incarnation, name, &own_name, false);
                } else {
                    self.on_dead(cx, incarnation, name, &own_name);
                }
            }
            (None, State::Dead | State::Left) => self.merge_gone(cx, row),
        }
        if row.leaving {
            self.merge_leaving(cx, name, row.intent_time);
        } else if row.intent_time > 0 {
            self.on_join_intent(cx, row.intent_time, name);
        }
    }

    /// A member that failed or left before we heard of it: remembered for as long as by those who saw it.
    fn merge_gone(&mut self, cx: &mut Cx<'_, Effect>, row: &Row<'_>) {
        let Some(info) = MemberInfo::received(row.alive.name, row.alive.address, row.alive.meta) else {
            self.stats.dropped.malformed += 1;
            return;
        };
        let age = Duration::from_secs(u64::from(row.age));
        let kept = self.kept_for(&info, row.state == State::Left || row.leaving);
        let full = self.table.len() >= MEMBERS_MAX;
        if full
            || age >= kept
            || self.intents.was_pruned(row.alive.name, row.intent_time)
            || self.misfit(&info).is_some()
        {
            return;
        }
        let since = Millis::ago(cx.mono(), age);
        let slot = self.table.insert(std::sync::Arc::new(info), row.alive.incarnation, row.state, since);
        self.table.set_intent(slot, row.leaving, row.intent_time);
        self.tell(cx, slot);
        self.begin_reaping(cx);
    }

    fn on_exchange(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        purpose: &Purpose,
        newcomer: bool,
        result: Result<Bytes, CallError>,
    ) -> Result<Text, NoExchange> {
        let bytes = result?;
        let (body, sealed) = self.open(&bytes, STREAM_BYTES_MAX).ok_or(NoExchange::Unreadable)?;
        match decode_whole::<Answer<'_>>(&body[1..]) {
            Some(Answer::Exchange(exchange)) => {
                if let Some(misfit) = self.sender_misfit(cx, &exchange) {
                    self.refuse(cx, &misfit);
                    return Err(NoExchange::Misfit(misfit.to_string().into()));
                }
                if newcomer && purpose.is_join() {
                    // What happened before this member came is not its business.
                    self.events.skip(&exchange.events);
                }
                self.merge(cx, &exchange, sealed);
                if newcomer && purpose.is_join() && self.table.len() > POOL_IN_THE_MAKING {
                    // All of this was news to this member only. In a small pool others may be newcomers as well.
                    self.queue = Queue::default();
                }
                Ok(exchange.from.into())
            }
            Some(Answer::Refused { reason, taken_by }) => {
                if let Some(other) = taken_by.filter(|_| !purpose.is_join()) {
                    // Whoever is in a pool already does not just go away.
                    self.on_conflict(cx, other);
                }
                let reason: String = reason.chars().take(512).collect();
                Err(NoExchange::Misfit(reason.into()))
            }
            Some(Answer::Pong | Answer::NotMe | Answer::Same | Answer::Differs(_)) | None => {
                self.stats.dropped.malformed += 1;
                Err(NoExchange::Unreadable)
            }
        }
    }

    /// Why the sender of an exchange cannot be in one pool with us.
    fn sender_misfit(&self, cx: &Cx<'_, Effect>, exchange: &Exchange<'_>) -> Option<Misfit> {
        let row = exchange.members.iter().find(|row| row.alive.name == exchange.from);
        let described =
            row.and_then(|row| MemberInfo::received(row.alive.name, row.alive.address, row.alive.meta));
        let Some(info) = described else {
            return Some(Misfit::Nonsense(exchange.from.chars().take(64).collect()));
        };
        if let Some(slot) = self.table.find(&info.name) {
            let entry = self.table.at(slot);
            if !self.may_move(cx, entry, &info) {
                return Some(Misfit::Name(info.name.to_string(), info.address, entry.info.address));
            }
        }
        self.misfit(&info)
    }

    /// What this member knows, of members only those in these parts, itself and `asker`, as the body that `encode`
    /// makes of it. Costs time in proportion to the pool.
    fn state_of(
        &self,
        cx: &Cx<'_, Effect>,
        parts: u64,
        asker: &str,
        encode: impl FnOnce(Exchange<'_>, Vec<u8>) -> Vec<u8>,
        join: bool,
    ) -> Vec<u8> {
        let now = cx.mono();
        let asked = |name: &str| {
            parts == ALL
                || parts & (1 << part_of(name)) != 0
                || name == self.config.name.as_str()
                || name == asker
        };
        let told = self.table.iter().filter(|(_, entry)| asked(&entry.info.name));
        let members = told.map(|(_, entry)| {
            let info = &entry.info;
            let age = if entry.state.is_alive() { 0 } else { entry.since.age(now).as_secs() };
            Row {
                alive: Alive {
                    incarnation: entry.incarnation,
                    name: &info.name,
                    address: info.address,
                    meta: &info.meta,
                },
                state: entry.state,
                leaving: entry.leaving,
                intent_time: entry.intent_time,
                age: u32::try_from(age).unwrap_or(u32::MAX),
            }
        });
        let exchange = Exchange {
            join,
            from: &self.config.name,
            member_time: self.intents.clock.time(),
            event_time: self.events.clock.time(),
            query_time: self.queries.clock.time(),
            ring: self.ring_to_tell(),
            members: members.collect(),
            events: self.events.recent().map(Event::of).collect(),
        };
        encode(exchange, vec![label(self.pool)])
    }

    /// The ring, for another member. It does not leave unsealed.
    pub(super) fn ring_to_tell(&self) -> Option<Ring> {
        let sealed = !self.ring.is_empty() && self.config.verify_outgoing;
        sealed.then(|| Ring { time: self.ring_time, keys: self.ring.list() })
    }

    fn answer(&mut self, cx: &mut Cx<'_, Effect>, caller: u64, answer: &Answer<'_>, key: Option<&Key>) {
        let body = encode(answer, vec![label(self.pool)]);
        self.answer_body(cx, caller, &body, key);
    }

    fn answer_body(&mut self, cx: &mut Cx<'_, Effect>, caller: u64, body: &[u8], key: Option<&Key>) {
        let bytes = self.wrap(body, key);
        self.stats.streams_sent += 1;
        self.stats.stream_bytes_sent += bytes.len() as u64;
        cx.emit(Effect::Answer { caller, bytes });
    }
}
