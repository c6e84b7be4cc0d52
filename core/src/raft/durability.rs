//! What is durable, what is on its way to the disk, and what must not be said before it got there.

use std::collections::VecDeque;

use super::effect::{Effect, PersistToken};
use super::message::Message;
use super::types::{Entry, HardState, Record};
use crate::ids::{LogIndex, ServerId};
use crate::marks::{self, Mark};

/// How many messages wait for the disk at most. A message beyond that is dropped, as a network may drop it.
pub(super) const WITHHELD_MAX: usize = 4_096;

/// The durable log as this server knows it.
#[derive(Clone, Debug)]
pub(super) struct Durability {
    /// The token of the next write.
    next: u64,
    /// Every write up to this token is durable.
    done: u64,
    /// Records for the next write.
    pending: Vec<Record>,
    /// The write that makes the present term and vote durable. No message leaves before it.
    hard: u64,
    /// Writes that are not done, with the last entry that each makes durable. Lowered when entries are voided, so
    /// that a write of voided entries never counts for their successors.
    entries: VecDeque<(u64, LogIndex)>,
    /// The last entry of the present log that is durable.
    durable: LogIndex,
    /// Messages that wait for a write.
    withheld: VecDeque<(u64, ServerId, Message)>,
}

impl Durability {
    /// After a restart: what was recovered is durable.
    pub(super) fn recovered(last: LogIndex) -> Durability {
        Durability {
            next: 1,
            done: 0,
            pending: Vec::new(),
            hard: 0,
            entries: VecDeque::new(),
            durable: last,
            withheld: VecDeque::new(),
        }
    }

    /// The last durable entry of the present log.
    pub(super) fn durable(&self) -> LogIndex {
        self.durable
    }

    /// Whether the present term and vote are durable.
    pub(super) fn hard_is_durable(&self) -> bool {
        self.hard <= self.done
    }

    pub(super) fn hard_state(&mut self, hard: HardState) {
        // A term that is still in the same write is superseded before anybody could learn of it.
        if let Some(Record::HardState(last)) = self.pending.last_mut() {
            *last = hard;
        } else {
            self.pending.push(Record::HardState(hard));
        }
        self.hard = self.next;
    }

    pub(super) fn entry(&mut self, entry: Entry) {
        let index = entry.index;
        self.pending.push(Record::Entry(entry));
        match self.entries.back_mut() {
            Some((token, last)) if *token == self.next => *last = index,
            Some(_) | None => self.entries.push_back((self.next, index)),
        }
    }

    /// Entries from here on are void.
    pub(super) fn truncate(&mut self, from: LogIndex) {
        self.pending.push(Record::Truncate(from));
        for (_, last) in &mut self.entries {
            *last = (*last).min(from.prev());
        }
        self.durable = self.durable.min(from.prev());
    }

    /// The log starts over after a durable checkpoint.
    pub(super) fn reset(&mut self, index: LogIndex, term: crate::ids::Term) {
        self.pending.push(Record::Reset { index, term });
        self.entries.clear();
        self.durable = index;
        // Whatever is said from here on presumes that the old log is gone.
        self.hard = self.next;
    }

    /// A durable checkpoint covers the log up to here.
    pub(super) fn covered(&mut self, index: LogIndex) {
        self.durable = self.durable.max(index);
    }

    /// Keeps a message back until the present term and vote are durable.
    pub(super) fn withhold(&mut self, to: ServerId, message: Message) {
        marks::hit(Mark::MessageWithheld);
        if self.withheld.len() < WITHHELD_MAX {
            self.withheld.push_back((self.hard, to, message));
        }
    }

    /// The next write, if there is anything to write.
    pub(super) fn flush(&mut self) -> Option<Effect> {
        if self.pending.is_empty() {
            return None;
        }
        let token = PersistToken(self.next);
        self.next += 1;
        Some(Effect::Persist { token, records: std::mem::take(&mut self.pending) })
    }

    /// Writes up to a token are done. Returns the messages that waited for them.
    pub(super) fn persisted(&mut self, token: PersistToken) -> Vec<(ServerId, Message)> {
        assert!(token.0 < self.next, "only what was written can be durable");
        self.done = self.done.max(token.0);
        while let Some((token, last)) = self.entries.front() {
            if *token > self.done {
                break;
            }
            self.durable = self.durable.max(*last);
            self.entries.pop_front();
        }
        let ready = self.withheld.iter().take_while(|(token, ..)| *token <= self.done).count();
        self.withheld.drain(..ready).map(|(_, to, message)| (to, message)).collect()
    }

    pub(super) fn invariants(&self, last: LogIndex) {
        assert!(self.done < self.next, "a write is done after it was made");
        assert!(self.durable <= last, "what is durable is in the log");
        assert!(self.withheld.len() <= WITHHELD_MAX, "bounded");
        assert!(self.withheld.iter().all(|(token, ..)| *token > self.done), "nothing waits in vain");
        assert!(self.entries.iter().all(|(_, index)| *index <= last), "writes are of this log");
    }
}
