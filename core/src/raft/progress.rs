//! What a leader knows about one follower, and how it feeds it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::log::{Log, size};
use super::message::{Append, Body, Chunk, Message, Position};
use super::types::SnapshotMeta;
use super::{Limits, Out};
use crate::ids::{LogIndex, ServerId, Term};
use crate::time::Mono;

/// A follower as its leader sees it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The follower's log is durable and agrees with the leader's up to here. Never falls within a term.
    pub(super) matched: LogIndex,
    /// The next entry to send; always after `matched`.
    pub(super) next: LogIndex,
    /// How it is fed.
    pub(super) mode: Mode,
    /// The last entry and the bytes of each message that is not acknowledged, in order. Empty unless replicating.
    inflight: VecDeque<(LogIndex, usize)>,
    /// Bytes of all of them.
    inflight_bytes: usize,
    /// The latest round of heartbeats that it answered; zero if none.
    pub(super) acked_round: u64,
    /// When it last answered anything in this term; when the term began if it did not.
    pub(super) heard: Mono,
    /// The highest commit index that was sent to it.
    commit_sent: LogIndex,
}

/// How a follower is fed.
#[derive(Clone, Debug)]
pub(super) enum Mode {
    /// Where the logs agree is not known. One message at a time; `waiting` for its answer or the next heartbeat.
    /// Entered at the start of a term and after a rejection; left by an acceptance or for `Snapshot`.
    Probe { waiting: bool },
    /// Messages are sent without waiting for the answer to the one before. Entered by an acceptance; left by a
    /// rejection, or when an entry to send is held no more.
    Replicate,
    /// The follower needs entries that are held no more. Left when it has what the checkpoint covers.
    Snapshot(Transfer),
}

/// A snapshot on its way to a follower: one piece at a time, each acknowledged.
#[derive(Clone, Debug, Default)]
pub(super) struct Transfer {
    /// Which snapshot; known from its first piece on.
    pub(super) meta: Option<SnapshotMeta>,
    /// The piece that is being read or was sent.
    pub(super) seq: u64,
    /// The piece that was sent, until the next one is wanted.
    pub(super) sent: Option<(Bytes, bool)>,
    /// When to send it again.
    pub(super) resend_at: Mono,
    /// How often it was sent again.
    pub(super) resends: u32,
}

/// What sending needs to know of the leader.
pub(super) struct Wire<'a> {
    pub(super) log: &'a Log,
    pub(super) term: Term,
    pub(super) commit: LogIndex,
    pub(super) limits: &'a Limits,
    pub(super) out: &'a mut Out,
}

/// The round that a message carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) round: u64,
    pub(super) promise: bool,
}

impl Peer {
    /// A follower about which nothing is known, of a leader whose log ends with `last`.
    pub(super) fn new(last: LogIndex, now: Mono) -> Peer {
        Peer {
            matched: LogIndex(0),
            next: last.next(),
            mode: Mode::Probe { waiting: false },
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            acked_round: 0,
            heard: now,
            commit_sent: LogIndex(0),
        }
    }

    /// Sends what may be sent: entries, or the first request for a snapshot.
    pub(super) fn feed(&mut self, to: ServerId, stamp: Stamp, wire: &mut Wire<'_>) {
        loop {
            let is_on_its_way = match &self.mode {
                // A snapshot that the follower has, and that is not enough any more, gives way to a newer one.
                Mode::Snapshot(Transfer { meta, .. }) => {
                    meta.as_ref().is_none_or(|meta| meta.index > self.matched)
                }
                Mode::Probe { .. } | Mode::Replicate => false,
            };
            if self.next <= wire.log.base().index && !is_on_its_way {
                self.set_mode(Mode::Snapshot(Transfer::default()));
                wire.out.ask_snapshot(to, 0);
            }
            match &mut self.mode {
                Mode::Snapshot(_) | Mode::Probe { waiting: true } => return,
                Mode::Probe { waiting } => {
                    *waiting = true;
                    self.append(to, stamp, wire);
                    return;
                }
                Mode::Replicate => {
                    if self.next > wire.log.last().index || self.is_full(wire.limits) {
                        return;
                    }
                    self.append(to, stamp, wire);
                }
            }
        }
    }

    /// Whether no further message may be sent before one is acknowledged.
    fn is_full(&self, limits: &Limits) -> bool {
        self.inflight.len() >= limits.inflight_max || self.inflight_bytes >= limits.inflight_bytes_max
    }

    /// Sends the next entries; none if all were sent.
    fn append(&mut self, to: ServerId, stamp: Stamp, wire: &mut Wire<'_>) {
        let entries = wire.log.copy(self.next, wire.limits.append_entries_max, wire.limits.append_bytes_max);
        let prev = self.prev(wire.log);
        if let (Some(last), Mode::Replicate) = (entries.last(), &self.mode) {
            let bytes = entries.iter().map(size).sum();
            self.next = last.index.next();
            self.inflight.push_back((last.index, bytes));
            self.inflight_bytes += bytes;
        }
        self.send(to, prev, entries, stamp, wire);
    }

    /// Sends a heartbeat. It tells the follower where its log should have got to, so that a lost message is noticed.
    pub(super) fn heartbeat(&mut self, to: ServerId, stamp: Stamp, wire: &mut Wire<'_>) {
        let prev = match self.mode {
            Mode::Snapshot(_) => Position::default(),
            Mode::Probe { .. } | Mode::Replicate => self.prev(wire.log),
        };
        self.send(to, prev, Vec::new(), stamp, wire);
    }

    /// Tells a follower of a higher commit index, unless something under way will.
    pub(super) fn notice(&mut self, to: ServerId, wire: &mut Wire<'_>) {
        if self.commit_sent < wire.commit && self.inflight.is_empty() && matches!(self.mode, Mode::Replicate)
        {
            self.heartbeat(to, Stamp { round: 0, promise: false }, wire);
        }
    }

    fn prev(&self, log: &Log) -> Position {
        let index = self.next.prev();
        // Less than the base only until the next `feed` turns to a snapshot; position zero agrees with every log.
        log.term(index).map_or(Position::default(), |term| Position { index, term })
    }

    fn send(
        &mut self,
        to: ServerId,
        prev: Position,
        entries: Vec<super::Entry>,
        stamp: Stamp,
        wire: &mut Wire<'_>,
    ) {
        self.commit_sent = wire.commit;
        let body = Body::Append(Append {
            prev,
            entries,
            commit: wire.commit,
            round: stamp.round,
            promise: stamp.promise,
            voter: wire.log.membership().is_voter(to),
        });
        wire.out.send(to, Message { term: wire.term, body });
    }

    /// The follower has this much.
    pub(super) fn accepted(&mut self, matched: LogIndex, verified: LogIndex, log: &Log) {
        self.matched = self.matched.max(matched);
        while let Some((last, bytes)) = self.inflight.front() {
            if *last > self.matched {
                break;
            }
            self.inflight_bytes -= bytes;
            self.inflight.pop_front();
        }
        let agreed = self.matched.max(verified.min(log.last().index));
        match &self.mode {
            Mode::Probe { .. } => {
                self.set_mode(Mode::Replicate);
                self.next = agreed.next();
            }
            Mode::Replicate => self.next = self.next.max(agreed.next()),
            Mode::Snapshot(_) if self.matched >= log.base().index => {
                self.set_mode(Mode::Replicate);
                self.next = agreed.next();
            }
            Mode::Snapshot(_) => self.next = self.next.max(self.matched.next()),
        }
    }

    /// The follower's log does not agree with the leader's at `prev`. Old news are ignored.
    pub(super) fn rejected(&mut self, prev: LogIndex, hint: Position, log: &Log) {
        if prev <= self.matched {
            return;
        }
        match self.mode {
            Mode::Snapshot(_) => return,
            Mode::Probe { .. } if prev != self.next.prev() => return,
            Mode::Probe { .. } | Mode::Replicate => {}
        }
        // Neither log can agree with the other after the last entry that is not later than the hint; skipping to
        // there costs one message per term in conflict (paper, end of section 5.3).
        let hint = Position { index: hint.index.min(prev.prev()), term: hint.term };
        let agreed = if hint.index < log.base().index { hint.index } else { log.last_not_after(hint).index };
        self.set_mode(Mode::Probe { waiting: false });
        self.next = agreed.max(self.matched).next();
    }

    /// What was sent may be lost: find out where the logs agree.
    pub(super) fn probe(&mut self) {
        if matches!(self.mode, Mode::Probe { .. } | Mode::Replicate) {
            self.set_mode(Mode::Probe { waiting: false });
        }
    }

    fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// Sends the piece of a snapshot that the follower waits for.
    pub(super) fn send_chunk(&mut self, to: ServerId, term: Term, out: &mut Out) {
        let Mode::Snapshot(Transfer { meta: Some(meta), seq, sent: Some((data, last)), .. }) = &self.mode
        else {
            return;
        };
        let chunk = Chunk { meta: meta.clone(), seq: *seq, data: data.clone(), last: *last };
        out.send(to, Message { term, body: Body::Chunk(chunk) });
    }

    pub(super) fn invariants(&self, last: LogIndex, limits: &Limits) {
        assert!(self.matched < self.next, "what agrees is not sent again");
        assert!(self.next <= last.next(), "only what exists is sent");
        assert!(self.inflight.len() <= limits.inflight_max, "bounded");
        assert!(
            self.inflight.is_empty() || matches!(self.mode, Mode::Replicate),
            "only replication pipelines"
        );
        assert_eq!(self.inflight_bytes, self.inflight.iter().map(|(_, bytes)| bytes).sum::<usize>());
    }
}
