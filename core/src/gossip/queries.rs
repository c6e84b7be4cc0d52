//! Questions to every member of the pool, answered to the asker directly. Internal: for keys and conflicts of names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::broadcast::Topic;
use super::lamport::Lamport;
use super::member::State;
use super::packet::{Ask, Message, Reply};
use super::types::Effect;
use super::{Gossip, Timer};
use crate::Text;
use crate::cx::Cx;
use crate::time::Mono;

/// Answers are asked for again this often.
const AGAIN: Duration = Duration::from_millis(700);
/// Questions of so many lamport times are remembered, so that each is acted upon once.
const TIMES_KEPT: u64 = 256;
/// So many questions are remembered.
const SEEN_MAX: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Queries {
    pub clock: Lamport,
    /// Questions that were answered, with the ring's error at that time: asked again, they are answered again without
    /// being acted upon again.
    seen: BTreeMap<(u64, u64), Option<Text>>,
    /// Our own.
    open: BTreeMap<u64, Open>,
}

/// A question of ours.
#[derive(Debug)]
struct Open {
    time: u64,
    until: Mono,
    ask: Ask<'static>,
    answered: BTreeSet<Text>,
}

/// A question that came.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    pub time: u64,
    pub id: u64,
    pub from: &'a str,
    pub address: SocketAddr,
    pub ask: Ask<'a>,
}

impl Gossip {
    /// Asks every member; [`Gossip::on_query_answer`] hears, [`Gossip::on_query_over`] ends it. Returns its number.
    pub(super) fn ask(&mut self, cx: &mut Cx<'_, Effect>, ask: Ask<'static>) -> u64 {
        let id = self.rng.next_u64();
        let time = self.queries.clock.tick();
        let now = cx.mono();
        let until = now + self.config.profile.query_timeout;
        let answered = BTreeSet::from([self.config.name.clone()]);
        self.queries.seen.insert((time, id), None);
        self.queries.open.insert(id, Open { time, until, ask: ask.clone(), answered });
        let (from, address) = (self.config.name.clone(), self.config.address);
        self.broadcast(cx, Topic::Query(id), &Message::Query { time, id, from: &from, address, ask });
        self.arm(cx, Timer::Query(id), (now + AGAIN).min(until));
        id
    }

    /// Whether every member that is there has answered.
    pub(super) fn all_answered(&self, id: u64) -> bool {
        self.queries.open.get(&id).is_some_and(|open| {
            // The asker counts as answered. Whoever answered and then failed does no harm.
            open.answered.len() >= self.table.alive()
                && self
                    .table
                    .iter()
                    .all(|(_, entry)| !entry.state.is_alive() || open.answered.contains(&entry.info.name))
        })
    }

    /// Ends a question of ours.
    pub(super) fn close_query(&mut self, cx: &mut Cx<'_, Effect>, id: u64) {
        self.queries.open.remove(&id);
        self.queue.cancel(Topic::Query(id));
        self.disarm(cx, Timer::Query(id));
    }

    /// Asks those again that did not answer, or ends the question.
    pub(super) fn on_query_timer(&mut self, cx: &mut Cx<'_, Effect>, id: u64) {
        let now = cx.mono();
        let Some(open) = self.queries.open.get(&id) else {
            return;
        };
        if now >= open.until || self.all_answered(id) {
            return self.on_query_over(cx, id);
        }
        let (time, until, ask) = (open.time, open.until, open.ask.clone());
        let missing: Vec<SocketAddr> = self
            .table
            .iter()
            .filter(|(_, entry)| entry.state == State::Alive && !open.answered.contains(&entry.info.name))
            .map(|(_, entry)| entry.info.address)
            .collect();
        let (from, address) = (self.config.name.clone(), self.config.address);
        for to in missing {
            self.send(cx, to, &Message::Query { time, id, from: &from, address, ask: ask.clone() });
        }
        self.arm(cx, Timer::Query(id), (now + AGAIN).min(until));
    }

    /// A question came, by broadcast or directly.
    pub(super) fn on_query(&mut self, cx: &mut Cx<'_, Effect>, question: Question<'_>, sealed: bool) {
        let Question { time, id, from, address, ask } = question;
        if !self.queries.clock.witness(time) {
            self.stats.dropped.malformed += 1;
            return;
        }
        if time + TIMES_KEPT <= self.queries.clock.time() || self.queries.open.contains_key(&id) {
            return;
        }
        let is_new = !self.queries.seen.contains_key(&(time, id));
        if is_new {
            let error = match &ask {
                Ask::Keys(change) => self.apply_keys_change(cx, change, time, sealed).err().map(Text::from),
                Ask::Where(_) => None,
            };
            self.queries.seen.insert((time, id), error);
            while self.queries.seen.len() > SEEN_MAX {
                self.queries.seen.pop_first();
            }
            let again = Message::Query { time, id, from, address, ask: ask.clone() };
            self.broadcast(cx, Topic::Query(id), &again);
        }
        let name = self.config.name.clone();
        match ask {
            Ask::Keys(_) if sealed => {
                let error = self.queries.seen.get(&(time, id)).cloned().flatten();
                let keys = self.ring.list();
                let reply = Reply::Keys { error: error.as_deref(), keys };
                self.send(cx, address, &Message::Answer { id, from: &name, reply });
            }
            // Rings are not told in the open.
            Ask::Keys(_) => {}
            // Whose name is in question does not judge.
            Ask::Where(asked) if asked == name.as_str() => {}
            Ask::Where(asked) => {
                let known = self.table.find(&asked).map(|slot| self.table.at(slot).info.address);
                self.send(cx, address, &Message::Answer { id, from: &name, reply: Reply::Where(known) });
            }
        }
    }

    /// A member answered a question of ours.
    pub(super) fn on_query_answer(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        id: u64,
        from: &str,
        reply: &Reply<'_>,
        sealed: bool,
    ) {
        let known = self.table.find(from).is_some();
        let Some(open) = self.queries.open.get_mut(&id).filter(|_| known) else {
            return;
        };
        if !open.answered.insert(from.into()) {
            return;
        }
        match reply {
            Reply::Keys { error, keys } if sealed => self.on_keys_answer(id, from, *error, keys),
            Reply::Keys { .. } => {}
            Reply::Where(address) => self.on_where_answer(id, *address),
        }
        if self.all_answered(id) {
            self.on_query_over(cx, id);
        }
    }

    fn on_query_over(&mut self, cx: &mut Cx<'_, Effect>, id: u64) {
        self.close_query(cx, id);
        self.on_keys_over(cx, id);
        self.on_where_over(cx, id);
    }
}
