//! Leading: beginning and end of a leader's term, rounds of heartbeats, the quorum's silence.

use std::collections::{BTreeMap, VecDeque};

use super::effect::Effect;
use super::lease;
use super::message::TransferMark;
use super::progress::{Mode, Peer, Stamp, Wire};
use super::read_index::Reads;
use super::transfer::Handover;
use super::types::{Membership, Payload, Timer, Timing};
use super::{Limits, PeerStatus, Raft, State};
use crate::cx::Cx;
use crate::ids::{LogIndex, ServerId};
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};
use crate::time::Mono;

/// How many rounds that no quorum answered are remembered. A leader steps down long before.
const ROUNDS_MAX: usize = 1_024;

/// What belongs to a leader's term.
#[derive(Clone, Debug)]
pub(super) struct Leadership {
    /// All others in the membership in force, and those whose removal is not committed.
    pub(super) peers: BTreeMap<ServerId, Peer>,
    /// The term's first entry. Once it is committed, so is everything before it.
    pub(super) first: LogIndex,
    /// The latest round of heartbeats; the first one is 1. Every message carries it, its answer echoes it.
    pub(super) round: u64,
    /// When rounds began, ascending, from the last one on that a quorum answered.
    rounds: VecDeque<(u64, Mono)>,
    /// Promises to rounds up to this one do not count: a successor was named meanwhile.
    pub(super) void_rounds: u64,
    /// Leadership is being handed over.
    pub(super) handover: Option<Handover>,
    /// Reads that wait for a quorum.
    pub(super) reads: Reads,
}

impl Leadership {
    /// Begins a round.
    pub(super) fn open_round(&mut self, now: Mono) {
        self.round += 1;
        if self.rounds.len() == ROUNDS_MAX {
            self.rounds.pop_front();
        }
        self.rounds.push_back((self.round, now));
    }

    /// What messages carry now. While a successor is being named nobody is asked for a promise.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { round: self.round, promise: self.handover.is_none() }
    }

    /// The latest round that a quorum of voters answered; zero if none. `u64::MAX` for a sole voter.
    pub(super) fn quorum_round(&self, own: ServerId, membership: &Membership) -> u64 {
        let answered = |voter| {
            if voter == own { u64::MAX } else { self.peers.get(&voter).map_or(0, |peer| peer.acked_round) }
        };
        membership.quorum_value(answered).unwrap_or(0)
    }

    /// When the latest round began that a quorum of voters answered.
    pub(super) fn quorum_round_sent(&self, own: ServerId, membership: &Membership) -> Option<Mono> {
        let round = self.quorum_round(own, membership);
        let at = self.rounds.binary_search_by_key(&round, |(round, _)| *round).ok()?;
        Some(self.rounds[at].1)
    }

    pub(super) fn lease_until(
        &self,
        own: ServerId,
        membership: &Membership,
        timing: &Timing,
    ) -> Option<Mono> {
        if self.handover.is_some() && !planted(Bug::LeaseDuringHandover) {
            return None;
        }
        let round = self.quorum_round(own, membership);
        if round == u64::MAX {
            return Some(Mono::NEVER);
        }
        if round <= self.void_rounds {
            return None;
        }
        self.quorum_round_sent(own, membership).map(|sent| sent + lease::length(timing))
    }

    /// Forgets when rounds began that no lease can rest on any more.
    pub(super) fn forget_rounds(&mut self, own: ServerId, membership: &Membership) {
        let answered = self.quorum_round(own, membership);
        while self.rounds.front().is_some_and(|(round, _)| *round < answered.min(self.round)) {
            self.rounds.pop_front();
        }
    }

    /// Whether this is the mark of the successor that is being named.
    pub(super) fn names(&self, mark: Option<TransferMark>) -> bool {
        mark.is_some() && self.handover.as_ref().map(|handover| handover.mark) == mark
    }

    pub(super) fn status(&self, now: Mono) -> Vec<PeerStatus> {
        let status = |(id, peer): (&ServerId, &Peer)| PeerStatus {
            id: *id,
            matched: peer.matched,
            last_contact: now.since(peer.heard),
            in_snapshot: matches!(peer.mode, Mode::Snapshot(_)),
        };
        self.peers.iter().map(status).collect()
    }

    pub(super) fn invariants(&self, last: LogIndex, limits: &Limits) {
        assert!(self.first <= last, "a leader's term begins with an entry");
        assert!(self.rounds.len() <= ROUNDS_MAX, "bounded");
        assert!(self.void_rounds <= self.round, "only past rounds are void");
        self.peers.values().for_each(|peer| {
            peer.invariants(last, limits);
            assert!(peer.acked_round <= self.round, "only what was asked is answered");
        });
    }
}

impl Raft {
    /// Begins to lead. The first entry of the term lets what earlier terms left be committed (paper, section 5.4.2,
    /// and section 8).
    pub(super) fn lead(&mut self, cx: &mut Cx<'_, Effect>) {
        assert!(matches!(self.state, State::Candidate(_)), "only a candidate is elected");
        assert!(self.leader.is_none(), "one leader in a term");
        let last = self.log.last().index;
        let first = self.forced.take().map_or(Payload::Noop, Payload::Membership);
        self.append(first);
        self.state = State::Leader(Box::new(Leadership {
            peers: BTreeMap::new(),
            first: last.next(),
            round: 0,
            rounds: VecDeque::new(),
            void_rounds: 0,
            handover: None,
            reads: Reads::default(),
        }));
        self.leader = Some(self.id);
        self.suspect = false;
        self.incoming = None;
        cx.timers.cancel(&Raft::timer(Timer::Election));
        self.sync_peers(cx, last);
        if let State::Leader(lead) = &mut self.state {
            lead.open_round(cx.now.mono);
        }
        self.feed_all();
    }

    /// Leads no more, or stands for election no more.
    pub(super) fn become_follower(&mut self, cx: &mut Cx<'_, Effect>) {
        self.keep_recency();
        if let State::Leader(lead) = std::mem::replace(&mut self.state, State::Follower) {
            for ticket in lead.reads.tickets() {
                marks::hit(Mark::ReadsFailed);
                self.out.reads.push(Effect::ReadFailed { ticket });
            }
            if self.leader == Some(self.id) {
                self.leader = None;
            }
            cx.timers.cancel(&Raft::timer(Timer::Heartbeat));
            cx.timers.cancel(&Raft::timer(Timer::CheckQuorum));
            self.arm_election(cx);
        }
    }

    /// Adds and drops peers as the membership in force and the last committed one say, and arms what having peers
    /// calls for. A new peer is first told of the entries after `last`.
    pub(super) fn sync_peers(&mut self, cx: &mut Cx<'_, Effect>, last: LogIndex) {
        let State::Leader(lead) = &mut self.state else { return };
        let in_force = self.log.membership();
        let leaving = self.log.membership_at(self.commit);
        let is_wanted = |id: &ServerId| in_force.servers.contains_key(id) || leaving.servers.contains_key(id);
        lead.peers.retain(|id, _| is_wanted(id));
        for id in in_force.servers.keys().chain(leaving.servers.keys()).filter(|id| **id != self.id) {
            lead.peers.entry(*id).or_insert_with(|| Peer::new(last, cx.now.mono));
        }
        let heartbeat = Raft::timer(Timer::Heartbeat);
        if lead.peers.is_empty() {
            cx.timers.cancel(&heartbeat);
        } else if cx.timers.deadline(&heartbeat).is_none() {
            cx.timers.set(heartbeat, cx.now.mono + self.timing.heartbeat);
        }
        self.check_quorum(cx);
    }

    pub(super) fn on_heartbeat_due(&mut self, cx: &mut Cx<'_, Effect>) {
        let now = cx.now.mono;
        self.repeat_handover();
        self.drive_handover(cx);
        let timing = self.timing;
        let Some((lead, mut wire)) = self.leading() else { return };
        if lead.peers.is_empty() {
            return;
        }
        lead.open_round(now);
        let stamp = lead.stamp();
        for (id, peer) in &mut lead.peers {
            peer.heartbeat(*id, stamp, &mut wire);
            peer.resend_chunk(*id, now, &timing, &mut wire);
        }
        cx.timers.set(Raft::timer(Timer::Heartbeat), now + timing.heartbeat);
    }

    /// Steps down if no quorum was heard from within an election timeout (dissertation, section 6.2); otherwise looks
    /// again when that could be the case.
    pub(super) fn check_quorum(&mut self, cx: &mut Cx<'_, Effect>) {
        let State::Leader(lead) = &self.state else { return };
        let (id, key) = (self.id, Raft::timer(Timer::CheckQuorum));
        let heard = |voter| {
            if voter == id { Mono::NEVER } else { lead.peers.get(&voter).map_or(Mono(0), |peer| peer.heard) }
        };
        match self.log.membership().quorum_value(heard) {
            Some(Mono::NEVER) | None => cx.timers.cancel(&key),
            Some(heard) if heard + self.timing.election <= cx.now.mono => {
                marks::hit(Mark::LeaderWithoutQuorum);
                self.become_follower(cx);
            }
            Some(heard) => cx.timers.set(key, heard + self.timing.election),
        }
    }

    /// The leader's state together with what sending needs.
    pub(super) fn leading(&mut self) -> Option<(&mut Leadership, Wire<'_>)> {
        let State::Leader(lead) = &mut self.state else { return None };
        let wire = Wire {
            log: &self.log,
            term: self.hard.term,
            commit: self.commit,
            limits: &self.limits,
            out: &mut self.out,
        };
        Some((lead, wire))
    }
}
