//! What other agents ask of this one, and what they answer to what it asked.
//!
//! A frame may say anything: its sender may be of another version, may have been something else when it wrote, or may be
//! no agent at all. What does not fit is refused or ignored; it never changes what this agent is.

use bytes::Bytes;

use super::Node;
use super::jobs::{Job, JobId, Origin, Stage, Work};
use super::peer::{Ask, AskId, BadFrame, PeerAnswer, PeerMessage, Serve};
use crate::api::{Authorizer, Call, Forwarded, HttpReply, Place, Request};
use crate::ids::{LogIndex, ServerId};
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};
use crate::store::command::{Command, Refusal, Response};
use crate::time::Now;

/// How an agent refuses to do for others what is nobody's business but its own.
pub(super) const NOT_FOR_OTHERS: &str = "rpc error: this is not done for other agents";
/// How a request ends whose answer makes no sense.
const BAD_ANSWER: &str = "rpc error: the answer is not one to this request";

impl Node {
    /// Another agent spoke.
    pub(super) fn on_peer_message(&mut self, now: Now, peer: ServerId, message: PeerMessage) {
        match message {
            PeerMessage::Answer { id, answer } => self.on_answer(now, peer, id, answer),
            PeerMessage::Forget { id } => self.forget_guest(peer, id),
            PeerMessage::Greeting(formats) => self.on_greeting(peer, formats),
            // A client agent is no member of a group, even if it was one when it was a server: it keeps nothing, so it
            // must not take part in any decision.
            PeerMessage::Raft(_) if !self.about.server => {}
            PeerMessage::Ask { id, .. } if !self.about.server => {
                self.answer_peer(peer, id, PeerAnswer::NotLeader);
            }
            PeerMessage::Raft(message) => {
                if self.may_hear(peer) {
                    self.raft(now, |raft, cx| raft.on_message(cx, peer, message));
                }
            }
            PeerMessage::Ask { id, ask } => {
                // What comes twice is done and answered once, also if it was refused the first time: the asker may have
                // turned to somebody else meanwhile.
                if self.asked.is_new(peer, id) || planted(Bug::AskNotDeduped) {
                    self.on_ask(now, peer, id, ask);
                }
            }
        }
    }

    /// A frame that cannot be read is lost, as any frame may be. That others say what this agent does not understand
    /// must be seen all the same, once for each connection.
    pub(super) fn on_bad_frame(&mut self, peer: ServerId, bad: &BadFrame) {
        if self.misunderstood.insert(peer) {
            self.warn(format!("agent {peer} says what this agent cannot read, and is not heard: {bad}"));
        }
    }

    /// Another agent asks something of this server.
    fn on_ask(&mut self, now: Now, peer: ServerId, id: AskId, ask: Ask) {
        match ask {
            Ask::Propose(payload) => self.propose_encoded(now, Origin::Peer(peer, id), &payload),
            Ask::ReadIndex { consistent, renew } => {
                self.begin(now, Origin::Peer(peer, id), Work::Confirm { consistent, renew });
            }
            Ask::Lead(call) if call.place() == Place::Leader => {
                self.begin(now, Origin::Peer(peer, id), Work::Lead(call));
            }
            Ask::Lead(_) => self.refuse(peer, id, 400, NOT_FOR_OTHERS),
            Ask::Serve(serve) => self.serve(now, peer, id, serve),
        }
    }

    /// Does something for a client agent.
    pub(super) fn serve(&mut self, now: Now, guest: ServerId, asked: AskId, serve: Serve) {
        if self.admission().requests == 0 {
            let full = "rpc error: the server has too many requests under way, try again";
            return self.refuse(guest, asked, 503, full);
        }
        match serve {
            Serve::Request(forwarded)
                if !forwarded.is_allowed() && !self.is_allowed_to(guest, &forwarded) =>
            {
                self.refuse(guest, asked, 400, NOT_FOR_OTHERS);
            }
            Serve::Request(forwarded) => {
                let id = self.guests.admit(guest, asked);
                let request = Request { call: (*forwarded).into(), authorizer: Authorizer };
                self.on_request(now, id, request);
            }
            Serve::Elsewhere(there) if !there.request.is_allowed_elsewhere() => {
                self.refuse(guest, asked, 400, NOT_FOR_OTHERS);
            }
            Serve::Elsewhere(there) => {
                let id = self.guests.admit(guest, asked);
                self.on_request(now, id, Request { call: Call::Elsewhere(there), authorizer: Authorizer });
            }
            Serve::Command(payload) => self.propose_encoded(now, Origin::Guest(guest, asked), &payload),
            Serve::Catalog(node) => self.begin(now, Origin::Guest(guest, asked), Work::Catalog(node)),
        }
    }

    fn is_allowed_to(&self, peer: ServerId, request: &Forwarded) -> bool {
        self.foreign.contains_key(&peer) && request.is_allowed_elsewhere()
    }

    pub(super) fn refuse(&mut self, peer: ServerId, asked: AskId, status: u16, why: &'static str) {
        self.answer_peer(peer, asked, PeerAnswer::Reply(HttpReply::text(status, why)));
    }

    /// Proposes a command of another agent, which is told at once if this version does not understand it, or if it is
    /// none that agents propose.
    fn propose_encoded(&mut self, now: Now, origin: Origin, payload: &Bytes) {
        let bad = match self.decode(payload) {
            Ok(command) if is_duty(&command) => NOT_FOR_OTHERS.to_owned(),
            Ok(command) => return self.propose_for(now, origin, command),
            Err(bad) => bad.to_string(),
        };
        if let Origin::Peer(peer, asked) | Origin::Guest(peer, asked) = origin {
            let refused = Response::Refused(Refusal::Other(bad));
            self.answer_peer(peer, asked, PeerAnswer::Applied(refused));
        }
    }

    /// Whom this agent asked answers, or somebody pretends to.
    pub(super) fn on_answer(&mut self, now: Now, peer: ServerId, id: AskId, answer: PeerAnswer) {
        if self.servers.on_answer(peer) && !self.about.server {
            self.retry_held(now);
        }
        if self.abroad.on_answer(peer) {
            self.retry_abroad(now);
        }
        if id.life != self.life {
            return marks::hit(Mark::AnswerToFormerLife);
        }
        let id = JobId(id.number);
        let Some(job) = self.jobs.take(id) else { return };
        if job.stage != Stage::Asked(peer) {
            return self.jobs.put(id, job);
        }
        match (answer, &job.work) {
            (PeerAnswer::Applied(response), Work::Propose(..)) => self.answer_write(now, job, Ok(response)),
            (PeerAnswer::Unknown, Work::Propose(..)) => {
                self.answer_write(now, job, Err("leadership lost while committing log"));
            }
            (PeerAnswer::ReadIndex { index, renewed }, Work::Read(..) | Work::Catalog(_) | Work::Name(_))
                if self.about.server =>
            {
                self.confirmed_elsewhere(now, id, job, LogIndex(index), renewed);
            }
            (PeerAnswer::Reply(reply), Work::Lead(_) | Work::Serve(_)) => self.answer_reply(&job, reply),
            (PeerAnswer::Reply(reply), Work::Abroad(_)) => self.answered_abroad(now, job, reply),
            // A server that is too busy for the agent's own, say.
            (PeerAnswer::Reply(reply), _) => self.fail(now, job, &String::from_utf8_lossy(&reply.body)),
            (PeerAnswer::Catalog(catalog), Work::Catalog(_)) if !self.about.server => {
                self.answer_catalog(now, &job.origin, Some(*catalog));
            }
            // The server that a client agent asked has found no leader for as long as it waits for one.
            (PeerAnswer::NotLeader, _) if !self.about.server => self.fail(now, job, "No cluster leader"),
            (PeerAnswer::NotLeader, _) => self.ask_again(now, id, job, peer),
            (
                PeerAnswer::Applied(_)
                | PeerAnswer::Unknown
                | PeerAnswer::ReadIndex { .. }
                | PeerAnswer::Catalog(_),
                _,
            ) => self.fail(now, job, BAD_ANSWER),
        }
    }

    /// Asks another agent to do a job, under a number of its own: the job may have been asked of others, or of the same
    /// one, before.
    pub(super) fn put_asked(&mut self, job: Job, of: ServerId, ask: Ask) {
        let id = self.jobs.id();
        self.frames.push((of, PeerMessage::Ask { id: self.ask_id(id), ask }));
        self.jobs.put(id, Job { stage: Stage::Asked(of), ..job });
    }

    /// How others quote a job of this process.
    pub(super) fn ask_id(&self, id: JobId) -> AskId {
        AskId { life: self.life, number: id.0 }
    }

    /// Answers what another agent asked.
    pub(super) fn answer_peer(&mut self, peer: ServerId, id: AskId, answer: PeerAnswer) {
        self.frames.push((peer, PeerMessage::Answer { id, answer }));
    }
}

/// Whether only the leader itself may propose it: it says what the leader alone knows.
fn is_duty(command: &Command) -> bool {
    matches!(
        command,
        Command::LockDelayOver { .. }
            | Command::ReapTombstones { .. }
            | Command::GroupNamed { .. }
            | Command::Coordinates(_)
            | Command::FormatRaised { .. }
    )
}
