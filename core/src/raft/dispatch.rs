//! Which message goes where, and what its term means (paper, section 5.1).

use super::effect::Effect;
use super::message::{Body, Message};
use super::types::HardState;
use super::{Raft, State};
use crate::cx::Cx;
use crate::ids::{LogIndex, ServerId, Term};

impl Raft {
    pub(super) fn receive(&mut self, cx: &mut Cx<'_, Effect>, from: ServerId, message: Message) {
        let Message { term, body } = message;
        if self.is_fresh() && presumes_vote(&body) {
            return self.out.others.push(Effect::Forgotten);
        }
        match body {
            Body::VoteRequest(request) => self.on_vote_request(cx, from, term, request),
            Body::VoteReply(reply) => self.on_vote_reply(cx, from, term, reply),
            Body::Append(append) => {
                if append.is_well_formed(term) && self.follow(cx, from, term) {
                    self.on_append(cx, from, append);
                }
            }
            Body::Chunk(chunk) => {
                if chunk.meta.term <= term && self.follow(cx, from, term) {
                    self.on_chunk(cx, from, chunk);
                }
            }
            Body::TimeoutNow(mark) => {
                if term >= self.hard.term && self.follow(cx, from, term) {
                    self.on_timeout_now(cx, from, mark);
                }
            }
            Body::AppendReply(reply) => {
                if self.answers_leader(cx, from, term) {
                    self.on_append_reply(cx, from, reply);
                }
            }
            Body::ChunkReply(reply) => {
                if self.answers_leader(cx, from, term) {
                    self.on_chunk_reply(cx, from, reply);
                }
            }
            Body::StaleTerm => {
                self.answers_leader(cx, from, term);
            }
            Body::FoundRequest => self.on_found_request(from, term),
            Body::FoundReply { asked, granted } => self.on_found_reply(cx, from, term, asked, granted),
            Body::FoundProbe => self.on_found_probe(from, term),
            Body::FoundRelease { up_to } => self.on_found_release(from, up_to),
        }
    }

    /// Whether this server has never been part of any group, as far as its disk knows.
    fn is_fresh(&self) -> bool {
        self.hard == HardState::default() && self.log.last().index == LogIndex(0) && !self.is_forced()
    }

    /// Recognizes the sender as the leader of its term. `false` if that term is over, which it is told.
    fn follow(&mut self, cx: &mut Cx<'_, Effect>, leader: ServerId, term: Term) -> bool {
        if term < self.hard.term {
            self.out.send(leader, Message { term: self.hard.term, body: Body::StaleTerm });
            return false;
        }
        if term > self.hard.term {
            self.enter_term(term, None);
        } else {
            assert!(!matches!(self.state, State::Leader(_)), "one leader in a term (paper, figure 3)");
            assert!(
                self.leader.is_none_or(|known| known == leader),
                "one leader in a term (paper, figure 3): {:?} and {leader}",
                self.leader
            );
        }
        self.become_follower(cx);
        self.leader = Some(leader);
        self.founding = None;
        self.hear(cx);
        true
    }

    /// Whether an answer is to this server as the leader of the present term. A member that knows of a later term
    /// ends this one; a stranger does not.
    fn answers_leader(&mut self, cx: &mut Cx<'_, Effect>, from: ServerId, term: Term) -> bool {
        let is_peer = match &self.state {
            State::Leader(lead) => lead.peers.contains_key(&from),
            State::Follower | State::PreCandidate(_) | State::Candidate(_) => {
                self.log.membership().servers.contains_key(&from)
            }
        };
        if is_peer && term > self.hard.term {
            self.step_down(cx, term);
        }
        is_peer && term == self.hard.term && matches!(self.state, State::Leader(_))
    }
}

/// Whether the sender counts on the receiver's vote. Those who found a group together have a term before any of them is
/// asked; a server that was added gets its vote after it has a part of the log ([`Raft::propose_membership`]).
fn presumes_vote(body: &Body) -> bool {
    match body {
        Body::VoteRequest(_) | Body::TimeoutNow(_) => true,
        Body::Append(append) => append.voter,
        Body::VoteReply(_)
        | Body::AppendReply(_)
        | Body::Chunk(_)
        | Body::ChunkReply(_)
        | Body::StaleTerm
        | Body::FoundRequest
        | Body::FoundReply { .. }
        | Body::FoundProbe
        | Body::FoundRelease { .. } => false,
    }
}
