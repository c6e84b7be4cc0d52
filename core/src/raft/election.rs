//! Elections: pre-vote, vote, and voters that stay with a leader they hear.

use std::collections::BTreeSet;
use std::time::Duration;

use super::effect::Effect;
use super::message::{Body, Message, Position, TransferMark, VoteReply, VoteRequest};
use super::types::{HardState, Timer};
use super::{Raft, State};
use crate::cx::Cx;
use crate::ids::{ServerId, Term};
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};

/// When the leader's connection closes, followers ask for votes after a random part of this, so that one of them is
/// usually elected before the next one asks.
const SUSPICION_SPREAD: Duration = Duration::from_millis(50);
/// After a split vote candidates try again within this part of the election timeout.
const SPLIT_SPREAD_DIVISOR: u32 = 4;

/// Votes for a candidate so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Ballot {
    /// Who votes for it, or would; itself included.
    granted: BTreeSet<ServerId>,
    /// Who does not.
    refused: BTreeSet<ServerId>,
}

/// Whether a planted defect lets this message leave before the vote it depends on is durable.
pub(super) fn leaves_early(message: &Message) -> bool {
    planted(Bug::VoteNotPersisted) && matches!(message.body, Body::VoteReply(_))
}

impl Raft {
    /// Becomes active as a member: waits for a leader, or leads if there is nobody to ask.
    pub(super) fn begin(&mut self, cx: &mut Cx<'_, Effect>) {
        if self.is_sole_voter() {
            self.on_election_timeout(cx);
        } else {
            self.arm_election(cx);
        }
    }

    pub(super) fn is_sole_voter(&self) -> bool {
        self.log.membership().sole_voter() == Some(self.id)
    }

    /// Whether this server may stand for election. Not while a snapshot is being installed: its log is about to be
    /// replaced. Not while the log takes no writes: its own vote would never count.
    pub(super) fn is_electable(&self) -> bool {
        self.has_stake() && !self.is_installing() && !self.stuck
    }

    /// Whether this server votes, or did before a change that may not be committed. In that case the group may need
    /// its log to go on, although its own vote does not count (dissertation, section 4.2.2).
    fn has_stake(&self) -> bool {
        let is_open = self.log.membership_index() > self.commit;
        self.log.membership().is_voter(self.id) || is_open && self.log.membership_before().is_voter(self.id)
    }

    /// Waits for one to two election timeouts (paper, section 5.2). A server that neither votes nor has a leader to
    /// lose has nothing to wait for.
    pub(super) fn arm_election(&mut self, cx: &mut Cx<'_, Effect>) {
        let key = Raft::timer(Timer::Election);
        if self.has_stake() || self.leader.is_some() {
            let wait = self.timing.election + self.rng.duration_below(self.timing.election);
            cx.timers.set(key, cx.now.mono + wait);
        } else {
            cx.timers.cancel(&key);
        }
    }

    /// Waits no longer than this.
    fn hasten_election(&mut self, cx: &mut Cx<'_, Effect>, wait: Duration) {
        let key = Raft::timer(Timer::Election);
        let at = cx.now.mono + wait;
        let at = cx.timers.deadline(&key).map_or(at, |armed| armed.min(at));
        cx.timers.set(key, at);
    }

    /// The leader is probably gone: ask for votes when the promises to it have run out. This server's own promise
    /// tells about when that is.
    pub(super) fn suspect_leader(&mut self, cx: &mut Cx<'_, Effect>) {
        if self.is_electable() {
            self.suspect = true;
            let bound = self.promise.until().since(cx.now.mono);
            let spread = self.rng.duration_below(SUSPICION_SPREAD);
            self.hasten_election(cx, bound + spread);
        }
    }

    pub(super) fn on_election_timeout(&mut self, cx: &mut Cx<'_, Effect>) {
        assert!(!matches!(self.state, State::Leader(_)), "a leader waits for no election");
        self.leader = None;
        self.state = State::Follower;
        self.arm_election(cx);
        if !self.is_electable() {
            return;
        }
        // A candidate votes for itself, so its own promise binds it like any voter.
        let hold = self.promise.hold(cx.now.mono, None);
        if hold > Duration::ZERO {
            let spread =
                if self.is_sole_voter() { Duration::ZERO } else { self.rng.duration_below(SUSPICION_SPREAD) };
            self.hasten_election(cx, hold + spread);
        } else if self.is_sole_voter() {
            self.campaign(cx, None);
        } else {
            self.state = State::PreCandidate(self.own_ballot());
            self.request_votes(true, self.hard.term.next(), None);
        }
    }

    fn own_ballot(&self) -> Ballot {
        Ballot { granted: BTreeSet::from([self.id]), refused: BTreeSet::new() }
    }

    /// Stands for election (paper, section 5.2). Counts its own vote at once: whatever it may say for that waits for
    /// the vote to be durable.
    pub(super) fn campaign(&mut self, cx: &mut Cx<'_, Effect>, mark: Option<TransferMark>) {
        assert!(self.is_electable(), "only who has a stake stands for election");
        assert_eq!(
            self.promise.hold(cx.now.mono, mark),
            Duration::ZERO,
            "a candidate is free to vote for itself"
        );
        if !self.log.membership().is_voter(self.id) {
            marks::hit(Mark::CandidateWithoutVote);
        }
        self.enter_term(self.hard.term.next(), Some(self.id));
        self.state = State::Candidate(self.own_ballot());
        self.arm_election(cx);
        self.request_votes(false, self.hard.term, mark);
        self.count_votes(cx);
    }

    /// Moves to a later term.
    pub(super) fn enter_term(&mut self, term: Term, vote: Option<ServerId>) {
        assert!(term > self.hard.term, "terms never fall");
        self.set_hard(HardState { term, vote });
        self.leader = None;
        self.founding = None;
        self.recency.forget_leader();
        self.verified = self.commit;
        self.owed = None;
    }

    fn request_votes(&mut self, pre: bool, election: Term, mark: Option<TransferMark>) {
        let request = VoteRequest { pre, election, last: self.log.last(), mark };
        let message = Message { term: self.hard.term, body: Body::VoteRequest(request) };
        for voter in self.log.membership().voters().filter(|voter| *voter != self.id) {
            self.out.send(voter, message.clone());
        }
    }

    pub(super) fn on_vote_request(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        from: ServerId,
        term: Term,
        request: VoteRequest,
    ) {
        let VoteRequest { pre, election, last, mark } = request;
        let hold = self.hold(cx, mark);
        // A voter that hears a leader does not even take note of the candidate's term, or a server that was removed
        // or cut off could disturb the group (dissertation, section 4.2.3).
        let is_free = hold == Duration::ZERO;
        if !pre && is_free && term > self.hard.term {
            self.step_down(cx, term);
        }
        let is_up_to_date = {
            let own: Position = self.log.last();
            (last.term, last.index) >= (own.term, own.index)
        };
        if !is_free {
            marks::hit(self.promise.mark_of_refusal());
        } else if !is_up_to_date {
            marks::hit(Mark::VoteRefusedLogBehind);
        }
        let granted = if pre {
            is_free && election > self.hard.term && is_up_to_date
        } else {
            let is_unbound = self.hard.vote.is_none() || self.hard.vote == Some(from);
            is_free
                && election == self.hard.term
                && term == election
                && is_up_to_date
                && ((is_unbound && self.leader.is_none()) || planted(Bug::VoteTwiceInTerm))
        };
        if granted && !pre {
            self.set_hard(HardState { term: self.hard.term, vote: Some(from) });
            self.arm_election(cx);
        }
        let reply = VoteReply { pre, election, granted, hold };
        self.out.send(from, Message { term: self.hard.term, body: Body::VoteReply(reply) });
    }

    /// For how long votes must be refused. A leader that hears from a quorum stays with itself.
    fn hold(&self, cx: &Cx<'_, Effect>, mark: Option<TransferMark>) -> Duration {
        match &self.state {
            State::Leader(lead) => {
                if lead.names(mark) {
                    return Duration::ZERO;
                }
                let voters = self.log.membership();
                if self.is_sole_voter() {
                    return self.timing.lease;
                }
                let answered = lead.quorum_round_sent(self.id, voters);
                let stays =
                    answered.map_or(Duration::ZERO, |sent| (sent + self.timing.lease).since(cx.now.mono));
                stays.max(self.promise.hold(cx.now.mono, mark))
            }
            State::Follower | State::PreCandidate(_) | State::Candidate(_) => {
                self.promise.hold(cx.now.mono, mark)
            }
        }
    }

    pub(super) fn on_vote_reply(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        from: ServerId,
        term: Term,
        reply: VoteReply,
    ) {
        if !self.log.membership().is_voter(from) {
            return;
        }
        if term > self.hard.term {
            self.step_down(cx, term);
            return;
        }
        let VoteReply { pre, election, granted, hold } = reply;
        let ballot = match &mut self.state {
            State::PreCandidate(ballot) if pre && election == self.hard.term.next() => ballot,
            State::Candidate(ballot) if !pre && election == self.hard.term => ballot,
            State::Follower | State::PreCandidate(_) | State::Candidate(_) | State::Leader(_) => return,
        };
        if granted {
            ballot.refused.remove(&from);
            ballot.granted.insert(from);
            self.count_votes(cx);
            return;
        }
        ballot.refused.insert(from);
        let is_lost = self.log.membership().is_quorum(&ballot.refused);
        if hold > Duration::ZERO && self.suspect {
            let spread = self.rng.duration_below(SUSPICION_SPREAD);
            self.hasten_election(cx, hold.min(self.timing.lease) + spread);
        } else if matches!(self.state, State::Candidate(_)) {
            // The vote was split, or this log is behind. Somebody will have to try again; waiting for a whole
            // timeout decides nothing, some randomness does. Of three servers, one of them dead, a single refusal
            // is a split vote already, though it may still be won: such a candidate waits a little first.
            let spread = self.rng.duration_below(self.timing.election / SPLIT_SPREAD_DIVISOR);
            if is_lost {
                marks::hit(Mark::SplitVote);
            }
            let first = if is_lost { Duration::ZERO } else { SUSPICION_SPREAD };
            self.hasten_election(cx, first + spread);
        }
    }

    fn count_votes(&mut self, cx: &mut Cx<'_, Effect>) {
        let membership = self.log.membership();
        match &self.state {
            State::PreCandidate(ballot) if membership.is_quorum(&ballot.granted) => self.campaign(cx, None),
            State::Candidate(ballot) if membership.is_quorum(&ballot.granted) => self.lead(cx),
            State::Follower | State::PreCandidate(_) | State::Candidate(_) | State::Leader(_) => {}
        }
    }

    /// Follows whoever may lead in a later term.
    pub(super) fn step_down(&mut self, cx: &mut Cx<'_, Effect>, term: Term) {
        self.enter_term(term, None);
        self.become_follower(cx);
    }
}
