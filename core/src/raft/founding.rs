//! Founding a group of several servers that find each other, each with its own view of who is there.
//!
//! A founder founds only with the consent of every server that it wants in the group; a server gives its consent to
//! one founder at a time, durably, and to another one only after the first has withdrawn, which it does durably
//! too. So of two groups that are founded no server belongs to both: where fewer than twice as many servers are started
//! as a group is to have, there is one group, whatever each of them sees, and whoever crashes when.
//!
//! Consent is a vote in a term of its own: the founder enters a new term and asks for it; whoever consents moves to that
//! term with its vote for the founder. When all have, the founder's log begins with the membership as an entry of
//! that term, and an ordinary election follows, in which all the others take part with empty logs. A founder that is
//! refused, or restarts, goes on to the next term and releases those who consented; who is bound to a founder and asked
//! by another one asks the first whether it is still at it. Nobody is released by waiting: a founder that is gone for ever
//! in the very moment of founding leaves servers that must be started afresh, with nothing in them.
//!
//! What Consul does (all servers found on their own what each of them sees) is safe only if all see the same.

use std::collections::BTreeSet;

use super::effect::{BootstrapError, Effect};
use super::message::{Body, Message};
use super::types::{HardState, Membership, Payload};
use super::{Raft, State};
use crate::cx::Cx;
use crate::ids::{LogIndex, ServerId, Term};
use crate::planted::{Bug, planted};

/// A group that is being founded, in the present term.
#[derive(Clone, Debug)]
pub(super) struct Founding {
    /// All of it.
    membership: Membership,
    /// Who consents; the founder included.
    granted: BTreeSet<ServerId>,
}

impl Raft {
    /// Asks the others of a membership for their consent to found it, anew if that was asked before. The group is
    /// founded when all consent, and nothing happens if one refuses: then, or when answers are lost, try again later.
    ///
    /// # Errors
    /// If this server belongs to a group, hears a leader, or has given its consent to another founder; if the group would
    /// not have its vote.
    pub fn found(&mut self, cx: &mut Cx<'_, Effect>, membership: Membership) -> Result<(), BootstrapError> {
        if !self.is_blank() {
            return Err(BootstrapError::NotEmpty);
        }
        if !membership.is_voter(self.id) {
            return Err(BootstrapError::NoVoter);
        }
        if let Some(founder) = self.bound_to() {
            self.probe_founder(founder);
            self.finish(cx);
            return Err(BootstrapError::Bound);
        }
        self.enter_term(self.hard.term.next(), Some(self.id));
        for id in membership.servers.keys().filter(|id| **id != self.id) {
            self.out.send(*id, Message { term: self.hard.term, body: Body::FoundRequest });
        }
        self.founding = Some(Founding { membership, granted: BTreeSet::from([self.id]) });
        self.found_if_all_consent(cx);
        self.finish(cx);
        Ok(())
    }

    /// Whether this server has asked others to found a group with it, and not all have consented yet.
    #[must_use]
    pub fn is_founding(&self) -> bool {
        self.founding.is_some()
    }

    /// Makes room for another founder: those who have consented are released. Whoever stops asking has to say so, or
    /// they are bound for as long as this server runs.
    pub fn stop_founding(&mut self, cx: &mut Cx<'_, Effect>) {
        self.withdraw(self.hard.term.next(), None);
        self.finish(cx);
    }

    /// Whether this server belongs to no group and has not heard of any.
    fn is_blank(&self) -> bool {
        self.log.last().index == LogIndex(0) && self.leader.is_none()
    }

    /// The founder that has this server's consent.
    fn bound_to(&self) -> Option<ServerId> {
        self.hard.vote.filter(|founder| *founder != self.id && self.is_blank())
    }

    fn probe_founder(&mut self, founder: ServerId) {
        self.out.send(founder, Message { term: self.hard.term, body: Body::FoundProbe });
    }

    fn found_if_all_consent(&mut self, cx: &mut Cx<'_, Effect>) {
        let Some(founding) = &self.founding else { return };
        let all = founding.membership.servers.keys().all(|id| founding.granted.contains(id));
        let enough = planted(Bug::FoundsWithMajority) && founding.membership.is_quorum(&founding.granted);
        if !all && !enough {
            return;
        }
        assert!(self.is_blank(), "a group begins with an empty log");
        assert_eq!(self.hard.vote, Some(self.id), "a founder consents to itself");
        let Some(Founding { membership, .. }) = self.founding.take() else { return };
        self.append(Payload::Membership(membership));
        // All of them were here a moment ago: nothing is gained by waiting.
        self.on_election_timeout(cx);
    }

    /// Never founds in the present term, and tells those who may have consented.
    fn withdraw(&mut self, next: Term, vote: Option<ServerId>) {
        let Some(Founding { membership, .. }) = self.founding.take() else { return };
        let term = self.hard.term;
        self.enter_term(next, vote);
        for id in membership.servers.keys().filter(|id| **id != self.id) {
            self.out.send(*id, Message { term: next, body: Body::FoundRelease { up_to: term } });
        }
    }

    pub(super) fn on_found_request(&mut self, from: ServerId, term: Term) {
        let own = self.hard;
        let is_free = match (&self.founding, self.bound_to()) {
            // Two founders that want each other: the one with the lower identity goes on.
            (Some(_), _) => from < self.id && term > own.term,
            (None, Some(founder)) if founder != from => {
                self.probe_founder(founder);
                false
            }
            (None, Some(_) | None) => true,
        };
        let is_new = term > own.term || term == own.term && own.vote.is_none_or(|vote| vote == from);
        let granted = self.is_blank() && is_free && is_new;
        if granted {
            if self.founding.is_some() {
                self.withdraw(term, Some(from));
            } else if term > own.term {
                self.enter_term(term, Some(from));
            } else {
                self.set_hard(HardState { term, vote: Some(from) });
            }
        }
        let body = Body::FoundReply { asked: term, granted };
        self.out.send(from, Message { term: self.hard.term, body });
    }

    pub(super) fn on_found_reply(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        from: ServerId,
        term: Term,
        asked: Term,
        granted: bool,
    ) {
        if !self.is_blank() || asked != self.hard.term {
            return;
        }
        let Some(founding) = &mut self.founding else { return };
        if !founding.membership.servers.contains_key(&from) {
            return;
        }
        if granted {
            founding.granted.insert(from);
            self.found_if_all_consent(cx);
        } else {
            // The next attempt must be in a later term than any of them is in.
            self.withdraw(term.max(self.hard.term.next()), None);
        }
    }

    /// Somebody is bound to this server by a consent of `term`. A founder that is not at it any more never will be.
    pub(super) fn on_found_probe(&mut self, from: ServerId, term: Term) {
        let is_at_it = self.founding.is_some() && self.hard.term == term;
        if self.is_blank() && !is_at_it && self.hard.term >= term {
            if self.hard.term == term {
                // What was asked for in this term may yet be granted; it must not count.
                assert!(self.founding.is_none(), "not at it");
            }
            self.out.send(from, Message { term: self.hard.term, body: Body::FoundRelease { up_to: term } });
        }
    }

    pub(super) fn on_found_release(&mut self, from: ServerId, up_to: Term) {
        if self.bound_to() == Some(from) && self.hard.term <= up_to {
            assert!(matches!(self.state, State::Follower), "without a log nobody stands for election");
            self.enter_term(self.hard.term.next(), None);
        }
    }
}
