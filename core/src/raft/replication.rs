//! The leader's side of replication: what followers have, and what is committed by that.

use super::effect::{Effect, NotLeader};
use super::message::{AppendReply, Verdict};
use super::{Raft, State};
use crate::cx::Cx;
use crate::ids::{LogIndex, ServerId};
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};

impl Raft {
    /// Whether new entries may be made here.
    pub(super) fn may_propose(&self) -> Result<(), NotLeader> {
        match &self.state {
            State::Leader(lead) if lead.handover.is_none() => Ok(()),
            State::Leader(_) => Err(NotLeader { leader: None }),
            State::Follower | State::PreCandidate(_) | State::Candidate(_) => {
                Err(NotLeader { leader: self.leader })
            }
        }
    }

    /// Sends to every follower what may be sent.
    pub(super) fn feed_all(&mut self) {
        let Some((lead, mut wire)) = self.leading() else { return };
        let stamp = lead.stamp();
        for (id, peer) in &mut lead.peers {
            peer.feed(*id, stamp, &mut wire);
        }
    }

    /// A connection came up: what was sent before may be lost, so ask what the follower has.
    pub(super) fn greet(&mut self, to: ServerId) {
        let Some((lead, mut wire)) = self.leading() else { return };
        let stamp = lead.stamp();
        if let Some(peer) = lead.peers.get_mut(&to) {
            peer.probe();
            peer.send_chunk(to, wire.term, wire.out);
            peer.feed(to, stamp, &mut wire);
        }
    }

    pub(super) fn on_append_reply(&mut self, cx: &mut Cx<'_, Effect>, from: ServerId, reply: AppendReply) {
        let (id, now) = (self.id, cx.now.mono);
        let Some((lead, mut wire)) = self.leading() else { return };
        let stamp = lead.stamp();
        let Some(peer) = lead.peers.get_mut(&from) else { return };
        let last = wire.log.last().index;
        let is_possible = reply.round <= stamp.round
            && match reply.verdict {
                Verdict::Accepted { matched, verified } => matched <= verified && verified <= last,
                Verdict::Rejected { prev, hint } => prev <= last && hint.index < prev,
            };
        if !is_possible {
            return;
        }
        peer.heard = now;
        peer.acked_round = peer.acked_round.max(reply.round);
        match reply.verdict {
            Verdict::Accepted { matched, verified } => peer.accepted(matched, verified, wire.log),
            Verdict::Rejected { prev, hint } => peer.rejected(prev, hint, wire.log),
        }
        peer.feed(from, stamp, &mut wire);
        lead.forget_rounds(id, wire.log.membership());
        self.advance(cx);
        if let Some((lead, mut wire)) = self.leading()
            && let Some(peer) = lead.peers.get_mut(&from)
        {
            peer.notice(from, &mut wire);
        }
    }

    /// Commits what a quorum has, and does what that or an answer made possible.
    pub(super) fn advance(&mut self, cx: &mut Cx<'_, Effect>) {
        let State::Leader(lead) = &self.state else { return };
        let (id, durable) = (self.id, self.durability.durable());
        let has = |voter| {
            if voter == id {
                durable
            } else {
                lead.peers.get(&voter).map_or(LogIndex(0), |peer| peer.matched)
            }
        };
        let agreed = self.log.membership().quorum_value(has).unwrap_or_default();
        // Entries of earlier terms are committed only together with one of this term (paper, section 5.4.2).
        let is_own = self.log.term(agreed) == Some(self.hard.term) || planted(Bug::CommitOldTermByCounting);
        if agreed > self.commit && is_own {
            self.commit = agreed;
            self.on_committed(cx);
        } else if agreed > self.commit {
            marks::hit(Mark::CommitWaitsForOwnTerm);
        }
        self.drive_handover(cx);
        self.drive_reads(cx);
    }

    /// The commit index rose: followers learn of it, and a membership may have become final.
    fn on_committed(&mut self, cx: &mut Cx<'_, Effect>) {
        let is_final = self.log.membership_index() <= self.commit;
        let Some((lead, mut wire)) = self.leading() else { return };
        let stamp = lead.stamp();
        for (id, peer) in &mut lead.peers {
            if is_final && !wire.log.membership().servers.contains_key(id) {
                // The last that a removed server hears is that it is removed.
                peer.heartbeat(*id, stamp, &mut wire);
            } else {
                peer.notice(*id, &mut wire);
            }
        }
        if !is_final {
            return;
        }
        if self.log.membership().is_voter(self.id) {
            let last = self.log.last().index;
            self.sync_peers(cx, last);
        } else {
            self.retire(cx);
        }
    }
}
