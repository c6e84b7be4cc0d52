//! The tail of the log that is held in memory, and the group's members at each point of it.

use std::collections::VecDeque;

use super::message::Position;
use super::types::{Entry, Membership, Payload, SnapshotMeta};
use crate::ids::{LogIndex, Term};

/// What an entry costs in memory and on the wire beyond its payload, roughly, in bytes.
const ENTRY_OVERHEAD: usize = 32;

/// The entries after a base that a checkpoint covers.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// The last entry that is not held. Committed; zero before the first entry.
    base: Position,
    /// Entries `base.index + 1 ..`, contiguous, terms never falling.
    entries: VecDeque<Entry>,
    /// Members from each index on, ascending. The first one is in force at the base; an empty group stands for a
    /// log without any membership.
    memberships: Vec<(LogIndex, Membership)>,
}

/// The size that an entry is counted with.
pub(super) fn size(entry: &Entry) -> usize {
    ENTRY_OVERHEAD
        + match &entry.payload {
            Payload::Noop => 0,
            Payload::Command(bytes) => bytes.len(),
            Payload::Membership(membership) => 64 * membership.servers.len(),
        }
}

impl Log {
    /// A log that holds nothing after a checkpoint.
    pub(super) fn after(snapshot: &SnapshotMeta) -> Log {
        Log {
            base: Position { index: snapshot.index, term: snapshot.term },
            entries: VecDeque::new(),
            memberships: vec![(snapshot.index, snapshot.membership.clone())],
        }
    }

    pub(super) fn base(&self) -> Position {
        self.base
    }

    pub(super) fn last(&self) -> Position {
        self.entries.back().map_or(self.base, |entry| Position { index: entry.index, term: entry.term })
    }

    /// The entry at an index; `None` if it is not held.
    pub(super) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// The term of the entry at an index; `None` if it is neither held nor the base.
    pub(super) fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            Some(self.base.term)
        } else {
            self.entry(index).map(|entry| entry.term)
        }
    }

    /// The last entry that is not after `limit.index` and not of a later term than `limit.term`. The base if none is
    /// held.
    pub(super) fn last_not_after(&self, limit: Position) -> Position {
        let held = limit.index.0.saturating_sub(self.base.index.0);
        let held = usize::try_from(held).unwrap_or(usize::MAX).min(self.entries.len());
        let of_term = self.entries.partition_point(|entry| entry.term <= limit.term);
        match held.min(of_term).checked_sub(1) {
            Some(at) => Position { index: self.entries[at].index, term: self.entries[at].term },
            None => self.base,
        }
    }

    /// Copies entries from `first` on, within limits, but always at least one if there is any.
    pub(super) fn copy(&self, first: LogIndex, entries_max: usize, bytes_max: usize) -> Vec<Entry> {
        let Some(offset) = first.0.checked_sub(self.base.index.0 + 1) else { return Vec::new() };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.entries.len());
        let mut bytes = 0;
        let fitting = self.entries.range(offset..).take(entries_max).take_while(|entry| {
            let first = bytes == 0;
            bytes += size(entry);
            first || bytes <= bytes_max
        });
        let mut copied = Vec::with_capacity((self.entries.len() - offset).min(entries_max).min(64));
        copied.extend(fitting.cloned());
        copied
    }

    /// Adds the next entry. A membership is in force at once (dissertation, section 4.1).
    pub(super) fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.index, last.index.next(), "entries follow each other");
        assert!(entry.term >= last.term, "terms in a log never fall");
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push((entry.index, membership.clone()));
        }
        self.entries.push_back(entry);
    }

    /// Lets every membership that the log knows of be this one, in what is held as in what is sent from it.
    pub(super) fn force_membership(&mut self, membership: &Membership) {
        for (_, known) in &mut self.memberships {
            known.clone_from(membership);
        }
        for entry in &mut self.entries {
            if let Payload::Membership(known) = &mut entry.payload {
                known.clone_from(membership);
            }
        }
    }

    /// Voids every entry at or after `from`; memberships made there are no longer in force.
    pub(super) fn truncate(&mut self, from: LogIndex) {
        assert!(from > self.base.index, "what a checkpoint covers is never voided");
        let keep =
            usize::try_from(from.0 - self.base.index.0 - 1).expect("held entries are counted by usize");
        self.entries.truncate(keep);
        self.memberships.retain(|(index, _)| *index < from);
        assert!(!self.memberships.is_empty(), "the base's membership stays");
    }

    /// Lets go of the entries up to `index`. Nothing happens if they are gone already.
    pub(super) fn compact(&mut self, index: LogIndex) {
        if index <= self.base.index {
            return;
        }
        let term = self.term(index).expect("only entries that are held can be let go");
        let drop = usize::try_from(index.0 - self.base.index.0).expect("held entries are counted by usize");
        self.entries.drain(..drop);
        self.base = Position { index, term };
        let in_force = self.memberships.partition_point(|(from, _)| *from <= index);
        self.memberships.drain(..in_force.saturating_sub(1));
    }

    /// The members in force at the end of the log.
    pub(super) fn membership(&self) -> &Membership {
        &self.memberships.last().expect("the base's membership stays").1
    }

    /// The members before the last change; those in force if the log holds no change.
    pub(super) fn membership_before(&self) -> &Membership {
        &self.memberships[self.memberships.len().saturating_sub(2)].1
    }

    /// Where the members in force were decided; the base or before it if a checkpoint says so.
    pub(super) fn membership_index(&self) -> LogIndex {
        self.memberships.last().expect("the base's membership stays").0
    }

    /// The members in force at an index that is held or the base.
    pub(super) fn membership_at(&self, index: LogIndex) -> &Membership {
        let in_force = self.memberships.partition_point(|(from, _)| *from <= index);
        &self.memberships[in_force.saturating_sub(1)].1
    }

    /// Every membership that was in force since the base.
    pub(super) fn memberships(&self) -> impl Iterator<Item = &Membership> {
        self.memberships.iter().map(|(_, membership)| membership)
    }

    /// Bytes of the entries after an index, as they are counted.
    pub(super) fn bytes_after(&self, index: LogIndex) -> usize {
        let offset = usize::try_from(index.0.saturating_sub(self.base.index.0)).unwrap_or(usize::MAX);
        self.entries.range(offset.min(self.entries.len())..).map(size).sum()
    }

    /// Checks what must always hold. Cheap: looks at ends, not at every entry.
    pub(super) fn invariants(&self) {
        if let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) {
            assert_eq!(first.index, self.base.index.next(), "no gap after the base");
            assert_eq!(last.index.0, self.base.index.0 + self.entries.len() as u64, "no gap inside");
            assert!(self.base.term <= first.term && first.term <= last.term, "terms never fall");
        }
        assert!(self.memberships.is_sorted_by(|a, b| a.0 < b.0), "memberships ascend");
        assert!(self.membership_index() <= self.last().index, "a membership is of the log");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::after(&SnapshotMeta::default());
        for (at, term) in terms.iter().enumerate() {
            let payload = Payload::Command(Bytes::from(vec![0; 68]));
            log.append(Entry { term: Term(*term), index: LogIndex(at as u64 + 1), payload });
        }
        log
    }

    fn at(index: u64, term: u64) -> Position {
        Position { index: LogIndex(index), term: Term(term) }
    }

    #[test]
    fn the_last_entry_not_after_a_position_is_found_by_index_and_term() {
        let log = log(&[1, 1, 3, 3, 5]);
        for (limit, found) in [
            (at(5, 5), at(5, 5)),
            (at(9, 9), at(5, 5)),
            (at(5, 4), at(4, 3)),
            (at(3, 3), at(3, 3)),
            (at(4, 2), at(2, 1)),
            (at(4, 0), at(0, 0)),
            (at(0, 5), at(0, 0)),
        ] {
            assert_eq!(log.last_not_after(limit), found, "{limit:?}");
        }
    }

    #[test]
    fn copies_stay_within_limits_but_always_hold_one_entry() {
        let log = log(&[1, 1, 1, 1]);
        assert_eq!(log.copy(LogIndex(2), 10, 10_000).len(), 3);
        assert_eq!(log.copy(LogIndex(2), 2, 10_000).len(), 2);
        assert_eq!(log.copy(LogIndex(2), 10, 200).len(), 2);
        assert_eq!(log.copy(LogIndex(2), 10, 1).len(), 1);
        assert_eq!(log.copy(LogIndex(5), 10, 10_000).len(), 0);
    }

    #[test]
    fn a_compacted_log_knows_its_base_and_its_membership() {
        let mut log = log(&[1, 2, 2]);
        let membership = Membership::default();
        log.append(Entry { term: Term(2), index: LogIndex(4), payload: Payload::Membership(membership) });
        log.compact(LogIndex(2));
        log.invariants();
        assert_eq!(log.base(), at(2, 2));
        assert_eq!(log.term(LogIndex(1)), None);
        assert_eq!(log.term(LogIndex(2)), Some(Term(2)));
        assert_eq!(log.membership_index(), LogIndex(4));
        log.truncate(LogIndex(4));
        log.invariants();
        assert_eq!(log.membership_index(), LogIndex(0));
        assert_eq!(log.last(), at(3, 2));
    }
}
