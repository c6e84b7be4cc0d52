//! One server alone: what does it do, given this state and this input?

use std::time::Duration;

use bytes::Bytes;

use super::cluster::{id, members};
use crate::cx::{self, Cx};
use crate::ids::{LogIndex, Term};
use crate::raft::{
    Append, AppendReply, Body, Config, Effect, Entry, HardState, Limits, Membership, Message, Payload,
    PersistToken, Position, Raft, Record, Recovered, SnapshotMeta, Timer, Timing, TransferMark, Verdict,
    VoteReply, VoteRequest,
};
use crate::rng::Rng;
use crate::time::{Mono, Now, Wall};
use crate::timers::Timers;

/// Server zero of a group, with its surroundings.
pub(super) struct Bench {
    pub(super) raft: Raft,
    pub(super) timers: Timers<cx::Timer>,
    pub(super) now: Mono,
    /// What happened since it was last asked for.
    effects: Vec<Effect>,
    token: PersistToken,
}

pub(super) fn entry(index: u64, term: u64) -> Entry {
    Entry { term: Term(term), index: LogIndex(index), payload: Payload::Command(Bytes::from_static(b"x")) }
}

pub(super) fn at(index: u64, term: u64) -> Position {
    Position { index: LogIndex(index), term: Term(term) }
}

/// Entries of these terms from index 1 on; the first one makes the group.
pub(super) fn log(group: Membership, terms: &[u64]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = (1..).zip(terms).map(|(index, term)| entry(index, *term)).collect();
    if let Some(first) = entries.first_mut() {
        first.payload = Payload::Membership(group);
    }
    entries
}

impl Bench {
    /// A server of three that restarted long ago with a log of these terms, in the last one's term.
    pub(super) fn of_three(terms: &[u64]) -> Bench {
        let mut bench = Bench::recovered(Recovered {
            hard: HardState { term: Term(*terms.last().unwrap()), vote: None },
            snapshot: SnapshotMeta::default(),
            entries: log(members(0..3), terms),
        });
        bench.wait(bench.timing().lease);
        bench
    }

    /// A server that was started just now.
    pub(super) fn recovered(recovered: Recovered) -> Bench {
        let config = Config { id: id(0), timing: Timing::default(), limits: Limits::default() };
        let now = Mono(5_000_000_000);
        let raft = Raft::new(config, recovered, Rng::from_seed(1), Now { mono: now, wall: Wall(0) });
        let mut bench =
            Bench { raft, timers: Timers::default(), now, effects: Vec::new(), token: PersistToken(0) };
        bench.call(|raft, cx| raft.start(cx));
        bench
    }

    /// The leader of three, in the term after the log's; its term's first entry is not durable anywhere.
    pub(super) fn leader_of_three(terms: &[u64]) -> Bench {
        let mut bench = Bench::of_three(terms);
        bench.elect();
        bench.take();
        bench
    }

    /// Lets it win an election with the vote of server one.
    pub(super) fn elect(&mut self) {
        self.wait(self.timing().election * 2);
        self.fire();
        for pre in [true, false] {
            self.persist();
            let (election, term) = match pre {
                true => (self.raft.term().next(), self.raft.term()),
                false => (self.raft.term(), self.raft.term()),
            };
            let reply = VoteReply { pre, election, granted: true, hold: Duration::ZERO };
            self.hear(1, term.0, Body::VoteReply(reply));
        }
    }

    pub(super) fn timing(&self) -> Timing {
        Timing::default()
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    pub(super) fn call<T>(&mut self, f: impl FnOnce(&mut Raft, &mut Cx<'_, Effect>) -> T) -> T {
        let now = Now { mono: self.now, wall: Wall(0) };
        let before = self.effects.len();
        let result = f(&mut self.raft, &mut Cx { now, timers: &mut self.timers, effects: &mut self.effects });
        for effect in &self.effects[before..] {
            if let Effect::Persist { token, .. } = effect {
                self.token = *token;
            }
        }
        result
    }

    /// A message arrives.
    pub(super) fn hear(&mut self, from: usize, term: u64, body: Body) {
        let message = Message { term: Term(term), body };
        self.call(|raft, cx| raft.on_message(cx, id(from), message));
    }

    /// Entries or a heartbeat from a leader arrive.
    pub(super) fn append(&mut self, from: usize, term: u64, prev: Position, terms: &[u64], commit: u64) {
        let entries = (prev.index.0 + 1..).zip(terms).map(|(index, term)| entry(index, *term)).collect();
        let commit = LogIndex(commit);
        self.hear(
            from,
            term,
            Body::Append(Append { prev, entries, commit, round: 1, promise: true, voter: false }),
        );
    }

    /// A candidate asks for a vote.
    pub(super) fn ask(&mut self, from: usize, term: u64, last: Position, mark: Option<TransferMark>) {
        let request = VoteRequest { pre: false, election: Term(term), last, mark };
        self.hear(from, term, Body::VoteRequest(request));
    }

    /// A follower has this much.
    pub(super) fn accept(&mut self, from: usize, round: u64, matched: u64) {
        let matched = LogIndex(matched);
        let verdict = Verdict::Accepted { matched, verified: matched };
        let term = self.raft.term().0;
        self.hear(from, term, Body::AppendReply(AppendReply { round, verdict }));
    }

    /// Every write is done.
    pub(super) fn persist(&mut self) {
        let token = self.token;
        self.call(|raft, cx| raft.on_persisted(cx, token));
    }

    /// Every timer that is due fires.
    pub(super) fn fire(&mut self) {
        while let Some(cx::Timer::Raft(timer)) = self.timers.pop_due(self.now) {
            self.call(|raft, cx| raft.on_timer(cx, timer));
        }
    }

    pub(super) fn is_armed(&self, timer: Timer) -> bool {
        self.timers.deadline(&cx::Timer::Raft(timer)).is_some()
    }

    /// What happened since the last time.
    pub(super) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// What was said since the last time.
    pub(super) fn said(&mut self) -> Vec<(usize, Body)> {
        let sent = |effect| match effect {
            Effect::Send { to, message } => Some((usize::try_from(to.0).unwrap() - 1, message.body)),
            _ => None,
        };
        self.take().into_iter().filter_map(sent).collect()
    }

    /// The answers to votes since the last time.
    pub(super) fn votes(&mut self) -> Vec<(usize, bool)> {
        let vote = |(to, body)| match body {
            Body::VoteReply(reply) => Some((to, reply.granted)),
            _ => None,
        };
        self.said().into_iter().filter_map(vote).collect()
    }

    /// What was written since the last time.
    pub(super) fn written(&mut self) -> Vec<Record> {
        let records = |effect| match effect {
            Effect::Persist { records, .. } => Some(records),
            _ => None,
        };
        self.take().into_iter().filter_map(records).flatten().collect()
    }

    /// The verdicts that were sent since the last time.
    pub(super) fn verdicts(&mut self) -> Vec<Verdict> {
        let verdict = |(_, body)| match body {
            Body::AppendReply(reply) => Some(reply.verdict),
            _ => None,
        };
        self.said().into_iter().filter_map(verdict).collect()
    }
}
