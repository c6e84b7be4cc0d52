//! Handing leadership over (dissertation, section 3.10), and a leader's own removal (section 4.2.2).

use super::effect::{Effect, NotLeader, TransferError};
use super::message::{Body, Message, TransferMark};
use super::{Raft, State};
use crate::cx::Cx;
use crate::ids::ServerId;
use crate::marks::{self, Mark};
use crate::time::Mono;

/// A hand-over that is under way. The leader has no lease, asks for no promises and takes no proposals meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    /// The successor.
    pub(super) to: ServerId,
    /// What releases voters from their promise.
    pub(super) mark: TransferMark,
    /// When it is abandoned.
    until: Mono,
    /// Whether the successor was told.
    told: bool,
}

impl Raft {
    /// Hands leadership to a voter, or to the one that is furthest ahead. Gives up the lease first, brings the
    /// successor up to date, then asks it to stand for election. Abandoned after an election timeout. Returns the
    /// successor.
    ///
    /// # Errors
    /// If this server does not lead, is handing over already, or there is no such voter.
    pub fn transfer_leadership(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        to: Option<ServerId>,
    ) -> Result<ServerId, TransferError> {
        let State::Leader(lead) = &mut self.state else {
            return Err(TransferError::NotLeader(NotLeader { leader: self.leader }));
        };
        if lead.handover.is_some() {
            return Err(TransferError::InProgress);
        }
        let voters = self.log.membership();
        let furthest = || {
            let others = lead.peers.iter().filter(|(id, _)| voters.is_voter(**id));
            others.max_by_key(|(_, peer)| (peer.matched, peer.acked_round)).map(|(id, _)| *id)
        };
        let to = to.or_else(furthest).ok_or(TransferError::NoTarget)?;
        if to == self.id || !voters.is_voter(to) {
            return Err(TransferError::NoTarget);
        }
        let mark = TransferMark { leader: self.id, term: self.hard.term, round: lead.round };
        let until = cx.now.mono + self.timing.election;
        lead.handover = Some(Handover { to, mark, until, told: false });
        self.drive_handover(cx);
        self.finish(cx);
        Ok(to)
    }

    /// Tells the successor once it has the whole log; gives up when it took too long.
    pub(super) fn drive_handover(&mut self, cx: &mut Cx<'_, Effect>) {
        let now = cx.now.mono;
        let Some((lead, wire)) = self.leading() else { return };
        let Some(handover) = &mut lead.handover else { return };
        if handover.until <= now {
            marks::hit(Mark::HandoverAbandoned);
            // Whoever is told late still carries the old mark; only promises to later rounds stand against it.
            lead.handover = None;
            lead.void_rounds = lead.round;
            return;
        }
        let has_all = lead.peers.get(&handover.to).is_some_and(|peer| peer.matched == wire.log.last().index);
        if has_all && !handover.told {
            handover.told = true;
            let message = Message { term: wire.term, body: Body::TimeoutNow(handover.mark) };
            wire.out.send(handover.to, message);
        }
    }

    /// Says again what may have been lost.
    pub(super) fn repeat_handover(&mut self) {
        if let State::Leader(lead) = &mut self.state
            && let Some(handover) = &mut lead.handover
        {
            handover.told = false;
        }
    }

    /// The leader asks this server to take over.
    pub(super) fn on_timeout_now(&mut self, cx: &mut Cx<'_, Effect>, from: ServerId, mark: TransferMark) {
        let is_of_leader = mark.leader == from && mark.term == self.hard.term;
        if is_of_leader && self.is_electable() && self.promise.hold(cx.now.mono, Some(mark)).is_zero() {
            marks::hit(Mark::HandoverTaken);
            self.campaign(cx, Some(mark));
        }
    }

    /// A leader that is no voter any more, by a committed change, makes room for a successor.
    pub(super) fn retire(&mut self, cx: &mut Cx<'_, Effect>) {
        let State::Leader(lead) = &self.state else { return };
        marks::hit(Mark::LeaderRetires);
        let voters = self.log.membership();
        let others = lead.peers.iter().filter(|(id, _)| voters.is_voter(**id));
        let successor = others.max_by_key(|(_, peer)| (peer.matched, peer.acked_round)).map(|(id, _)| *id);
        let mark = TransferMark { leader: self.id, term: self.hard.term, round: lead.round };
        self.become_follower(cx);
        if let Some(successor) = successor {
            let message = Message { term: self.hard.term, body: Body::TimeoutNow(mark) };
            self.out.send(successor, message);
        }
    }
}
