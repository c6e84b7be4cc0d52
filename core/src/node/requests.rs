//! Requests: from a client or another server to their answer, through whatever they have to wait for.

use std::sync::Arc;
use std::time::Duration;

use super::forward::Guests;
use super::jobs::{Job, JobId, Origin, Stage, Work};
use super::peer::{Ask, PeerAnswer};
use super::{LocalWait, Node};
use crate::Text;
use crate::agent::CatalogState;
use crate::api::{
    self, Call, Consistency, Forwarded, HttpReply, QueryMeta, Read, Request, SessionSpec, Write,
};
use crate::format::Format;
use crate::gossip::Pool;
use crate::ids::{LogIndex, RequestId, ServerId, Uuid};
use crate::planted::{Bug, planted};
use crate::store::command::{Command, Response};
use crate::store::model::{ServiceCheck, Session};
use crate::store::query::Query;
use crate::store::{Executed, IntentionCommand, PreparedCommand, PreparedQuery, Restore, Rows};
use crate::time::{Mono, Now};

/// A blocking query waits up to so much of its wait longer, so that many do not give up at once.
pub(super) const WAIT_JITTER_DIVISOR: u32 = 16;

/// A former leader has so long to answer for what it was asked once another one is known.
const FORMER_LEADER_GRACE: Duration = Duration::from_millis(500);

impl Node {
    pub(super) fn on_request(&mut self, now: Now, id: RequestId, request: Request) {
        let origin = Origin::Client(id);
        let request = match request {
            Request { call: Call::Elsewhere(there), authorizer }
                if there.datacenter == self.about.datacenter =>
            {
                Request { call: there.request.into(), authorizer }
            }
            request => request,
        };
        let call = if self.about.server {
            request.call
        } else {
            match Forwarded::try_from(request.call) {
                Ok(forwarded) => return self.forward(now, id, forwarded),
                Err(Call::Elsewhere(there)) => return self.forward_elsewhere(now, id, there),
                Err(own) => own,
            }
        };
        match call {
            Call::Read(read) => self.begin(now, origin, Work::Read(Box::new(read), None)),
            Call::Write(Write::SessionRenew(session)) => {
                let mut read = Read::new(Query::Session(session));
                read.shape.pretty = self.about.dev;
                self.begin(now, origin, Work::Read(Box::new(read), Some(session)));
            }
            Call::Write(write) => {
                let command = self.command(&write);
                self.begin(now, origin, Work::Propose(Box::new(command), Some(Box::new(write))));
            }
            Call::Agent(call) => self.on_agent_call(now, id, call),
            Call::Cluster(call) => self.on_cluster_call(now, id, call),
            Call::Elsewhere(there) => self.ask_elsewhere(now, id, *there),
            Call::Dns(question, lent) => self.on_question(now, id, question, lent.as_deref()),
            Call::LocalService(read) => {
                let wait = read.wait + self.rng.duration_below(read.wait / WAIT_JITTER_DIVISOR);
                self.local_waits.push(LocalWait { id, read, until: now.mono + wait });
                self.answer_local_waits(now);
            }
        }
    }

    /// The command of a write; identifiers are drawn here.
    fn command(&mut self, write: &Write) -> Command {
        match write {
            Write::Kv(command) => Command::Kv(command.clone()),
            Write::Register(registration) => Command::Register(registration.clone()),
            Write::Deregister(deregistration) => Command::Deregister(deregistration.clone()),
            Write::SessionCreate(spec) => {
                let id = Uuid::random(&mut self.rng);
                Command::SessionCreate(Box::new(session(id, spec)))
            }
            Write::SessionDestroy(id) => Command::SessionDestroy { id: *id },
            Write::Autopilot { settings, cas } => {
                Command::AutopilotSet { settings: settings.clone(), cas: *cas }
            }
            Write::RestoreBegin => Command::Restore(Restore::Begin { id: Uuid::random(&mut self.rng) }),
            Write::ConfigSet { entry, cas } => Command::ConfigSet { entry: entry.clone(), cas: *cas },
            Write::ConfigDelete { kind, name, cas } => {
                Command::ConfigDelete { kind: *kind, name: name.clone(), cas: *cas }
            }
            Write::Restore(step) => Command::Restore(step.clone()),
            Write::Transaction(operations) => Command::Transaction(operations.clone()),
            Write::Prepared(PreparedCommand::Create(query)) => {
                let query = PreparedQuery { id: Uuid::random(&mut self.rng), ..PreparedQuery::clone(query) };
                Command::Prepared(PreparedCommand::Create(Box::new(query)))
            }
            Write::Prepared(command) => Command::Prepared(command.clone()),
            Write::Intention(IntentionCommand::Create { draft, .. }) => {
                let id = Uuid::random(&mut self.rng);
                Command::Intention(IntentionCommand::Create { id, draft: draft.clone() })
            }
            Write::Intention(command) => Command::Intention(command.clone()),
            Write::SessionRenew(_) => unreachable!("renewals are not replicated"),
        }
    }

    /// Proposes a command that no client waits for.
    pub(super) fn propose_for(&mut self, now: Now, origin: Origin, command: Command) {
        self.begin(now, origin, Work::Propose(Box::new(command), None));
    }

    pub(super) fn begin(&mut self, now: Now, origin: Origin, work: Work) {
        self.begin_until(now, origin, work, now.mono + self.config.hold_timeout);
    }

    pub(super) fn begin_until(&mut self, now: Now, origin: Origin, work: Work, give_up: Mono) {
        let id = self.jobs.id();
        self.advance(now, id, Job { origin, work, stage: Stage::Held, give_up });
    }

    /// Takes a job as far as it gets: to its answer, or to what it has to wait for next.
    pub(super) fn advance(&mut self, now: Now, id: JobId, job: Job) {
        if !self.about.server {
            return self.ask_a_server(now, id, job);
        }
        if let Work::Abroad(_) = &job.work {
            return self.ask_abroad(now, id, job);
        }
        if let Work::Read(read, None) = &job.work
            && self.is_fresh_enough(now, read)
        {
            return self.evaluate(now, job);
        }
        if self.is_leader() {
            return self.advance_on_leader(now, id, job);
        }
        match (&job.origin, self.raft.leader()) {
            (Origin::Peer(peer, asked), _) => self.answer_peer(*peer, *asked, PeerAnswer::NotLeader),
            // What a leader decides dies with its leadership: the next one's clocks began later.
            (Origin::Duty, _) => {}
            (_, Some(leader)) => self.ask(job, leader),
            (_, None) => self.jobs.put(id, Job { stage: Stage::Held, ..job }),
        }
    }

    fn advance_on_leader(&mut self, now: Now, id: JobId, job: Job) {
        match &job.work {
            Work::Propose(..) if self.room.lacks_log() => self.refuse_for_room(now, id, job),
            Work::Propose(command, _) => {
                let payload = command.encode(self.store.format());
                match self.raft(now, |raft, cx| raft.propose(cx, payload)) {
                    Ok(index) => self.jobs.put(id, Job { stage: Stage::Proposed(index), ..job }),
                    Err(_) => self.fall_back(job, id),
                }
            }
            Work::Lead(call) => {
                let reply = self.lead(now, call.clone());
                self.answer_reply(&job, reply);
            }
            Work::Serve(_) | Work::Abroad(_) => unreachable!("these go to others"),
            Work::Read(..) | Work::Confirm { .. } | Work::Catalog(_) | Work::Name(_) => {
                let consistent = match &job.work {
                    Work::Read(read, _) => read.consistency == Consistency::Consistent,
                    Work::Confirm { consistent, .. } => *consistent,
                    _ => false,
                };
                let leased = self.raft.lease_until().is_some_and(|until| now.mono < until);
                if leased && !consistent {
                    return self.confirmed(now, id, job, self.applied);
                }
                match self.raft(now, |raft, cx| raft.read_index(cx, id.0)) {
                    Ok(()) => self.jobs.put(id, Job { stage: Stage::Confirming, ..job }),
                    Err(_) => self.fall_back(job, id),
                }
            }
        }
    }

    /// This server leads no more, and nothing was done yet.
    fn fall_back(&mut self, job: Job, id: JobId) {
        match job.origin {
            Origin::Peer(peer, asked) => self.answer_peer(peer, asked, PeerAnswer::NotLeader),
            Origin::Client(_) | Origin::Guest(..) | Origin::Agent(_) => {
                self.jobs.put(id, Job { stage: Stage::Held, ..job });
            }
            // It leads yet, and hands over; the successor may never come.
            Origin::Duty if self.is_leader() => {
                self.jobs.put(id, Job { stage: Stage::Held, give_up: Mono::NEVER, ..job });
            }
            Origin::Duty => {}
        }
    }

    /// Reads of a state that includes `index` are linearizable.
    fn confirmed(&mut self, now: Now, id: JobId, job: Job, index: LogIndex) {
        if self.applied < index {
            return self.jobs.put(id, Job { stage: Stage::CatchingUp(index), ..job });
        }
        let renew = match &job.work {
            Work::Read(_, renew) | Work::Confirm { renew, .. } => *renew,
            _ => None,
        };
        let renewed = match renew {
            Some(session) if self.is_leader() => {
                let mut cx = crate::cx::Cx { now, timers: &mut self.timers, effects: &mut self.duty_effects };
                self.duties.renew(&mut cx, &self.store, session)
            }
            _ => true,
        };
        match &job.origin {
            Origin::Peer(peer, asked) => {
                let answer = PeerAnswer::ReadIndex { index: index.0, renewed };
                self.answer_peer(*peer, *asked, answer);
            }
            Origin::Client(request) if !renewed => self.reply(*request, unknown_session(renew)),
            Origin::Client(_) | Origin::Guest(..) | Origin::Agent(_) | Origin::Duty => {
                self.evaluate(now, job)
            }
        }
    }

    /// The leader has said from which index on a read is linearizable, and whether it renewed the session.
    pub(super) fn confirmed_elsewhere(
        &mut self,
        now: Now,
        id: JobId,
        job: Job,
        index: LogIndex,
        renewed: bool,
    ) {
        match (&job.origin, &job.work) {
            (Origin::Client(request), Work::Read(_, renew @ Some(_))) if !renewed => {
                self.reply(*request, unknown_session(*renew));
            }
            _ => self.confirmed(now, id, job, index),
        }
    }

    /// Reads what the catalog has of a node, for the agent. Not from a state that lacks what this server has not
    /// applied yet: what the agent would not see there it could not repair before the next time.
    pub(super) fn fetch_catalog(&mut self, now: Now, ticket: u64, node: Text) {
        self.begin(now, Origin::Agent(ticket), Work::Catalog(node));
    }

    fn catalog(&self, node: &str) -> CatalogState {
        CatalogState {
            node: self.store.node(node).map(|row| row.as_ref().clone()),
            services: self.store.node_services(node).iter().map(|row| row.as_ref().clone()).collect(),
            checks: self.store.node_checks(node).iter().map(|row| row.as_ref().clone()).collect(),
        }
    }

    /// Reads from the state as it is.
    fn evaluate(&mut self, now: Now, job: Job) {
        if let Work::Catalog(node) = &job.work {
            let catalog = self.catalog(node);
            return self.answer_catalog(now, &job.origin, Some(catalog));
        }
        let (request, read, renew) = match (job.origin, job.work) {
            (Origin::Client(request), Work::Read(read, renew)) => (request, read, renew),
            (Origin::Client(request), Work::Name(both)) => {
                return self.on_fresh_question(now, request, *both);
            }
            _ => return,
        };
        if read.query == Query::State && Guests::is_guest(request) {
            let meta = self.meta(now, self.store.newest_index());
            let reply = self.keep_to_save(now, meta);
            return self.reply(request, reply);
        }
        let found = read.evaluate(&self.store);
        if renew.is_some() && !found.exists {
            return self.reply(request, unknown_session(renew));
        }
        if let Rows::Executed(Ok(Executed { failover: Some(query), .. })) = &found.rows {
            let query = Arc::clone(query);
            return self.begin_failover(now, request, read, found, query);
        }
        if let Some(blocking) = read.blocking
            && found.index <= blocking.index
        {
            let wait = blocking.wait + self.rng.duration_below(blocking.wait / WAIT_JITTER_DIVISOR);
            return self.parked.park(request, &read, blocking.index, now.mono + wait, found.watch);
        }
        let meta = self.meta_of(now, &read, found.index);
        let reply = api::render_rows(&self.about, &read, &found, meta);
        self.reply(request, reply);
    }

    /// What the answer to a read says of its age.
    pub(super) fn meta_of(&self, now: Now, read: &Read, index: u64) -> QueryMeta {
        let mut meta = self.meta(now, index);
        if !self.is_fresh_enough(now, read) {
            // The leader has confirmed the state just now, so that it is as fresh as the leader's own. (Consul lets the
            // leader answer, and says the same.)
            meta.last_contact_ms = 0;
        }
        meta
    }

    /// Whether a read may be answered from the state as it is, whatever others have.
    fn is_fresh_enough(&self, now: Now, read: &Read) -> bool {
        let is_within = |max| {
            let as_of = self.raft.as_of(now.mono);
            self.raft.leader().is_some() && as_of.is_some_and(|as_of| now.mono.since(as_of) <= max)
        };
        read.consistency == Consistency::Stale && read.max_stale.is_none_or(is_within)
    }

    pub(super) fn meta(&self, now: Now, index: u64) -> QueryMeta {
        QueryMeta {
            index: index.max(1),
            known_leader: self.raft.leader().is_some(),
            last_contact_ms: QueryMeta::age_ms(self.raft.as_of(now.mono), now),
        }
    }

    /// Wakes the parked queries that this step's commits concern. Each group is rendered once.
    pub(super) fn wake_parked(&mut self, now: Now) {
        let touched = std::mem::take(&mut self.touched);
        if touched.is_empty() || self.parked.is_empty() {
            return;
        }
        for group in self.parked.concerned(&touched) {
            let read = self.parked.read(group);
            let found = read.evaluate(&self.store);
            let reply = api::render_rows(&self.about, read, &found, self.meta(now, found.index));
            for request in self.parked.wake(group, found.index, found.watch) {
                self.reply(request, reply.clone());
            }
        }
    }

    /// Waits that are over are answered with what there is, as fresh as the read demands.
    pub(super) fn on_waits_over(&mut self, now: Now) {
        while let Some((request, read)) = self.parked.take_expired(now.mono) {
            let read = Read { blocking: None, ..read };
            self.begin(now, Origin::Client(request), Work::Read(Box::new(read), None));
        }
        self.answer_local_waits(now);
        self.answer_event_waits(now.mono);
    }

    /// Answers those whose local service has changed, or whose time is up.
    pub(super) fn answer_local_waits(&mut self, now: Now) {
        let view = self.agent.view();
        let mut waiting = std::mem::take(&mut self.local_waits);
        waiting.retain(|wait| {
            let hash = view.services.get(&wait.read.id).map(|service| api::content_hash(service));
            let unchanged = hash.as_ref() == Some(&wait.read.hash);
            if unchanged && now.mono < wait.until {
                return true;
            }
            self.replies.push((wait.id, api::render_local_service(&view, &wait.read)));
            false
        });
        self.local_waits = waiting;
    }

    /// An entry was applied that may have been proposed here.
    pub(super) fn on_applied(&mut self, now: Now, index: LogIndex, response: Response) {
        let Some(job) = self.jobs.take_proposed(index) else { return };
        self.answer_write(now, job, Ok(response));
    }

    pub(super) fn answer_write(&mut self, now: Now, job: Job, outcome: Result<Response, &str>) {
        match job.origin {
            Origin::Client(request) => {
                let reply = match (&outcome, &job.work) {
                    (Ok(response), Work::Propose(_, Some(write))) => api::render_response(write, response),
                    (Ok(_), _) => HttpReply::text(200, ""),
                    (Err(error), _) => HttpReply::text(500, (*error).to_owned()),
                };
                self.reply(request, reply);
            }
            Origin::Peer(peer, asked) | Origin::Guest(peer, asked) => {
                let answer = match outcome {
                    Ok(response) => PeerAnswer::Applied(response),
                    Err(_) => PeerAnswer::Unknown,
                };
                self.answer_peer(peer, asked, answer);
            }
            Origin::Agent(ticket) => {
                let outcome = outcome.map_err(str::to_owned);
                self.agent(now, |agent, cx| agent.on_proposed(cx, ticket, outcome));
            }
            Origin::Duty => {
                if let (Ok(response), Work::Propose(command, _)) = (outcome, &job.work) {
                    self.duties(now, |duties, cx, facts| duties.on_done(cx, facts, command, &response));
                }
            }
        }
    }

    /// Raft has confirmed that this server led when the read came in, or could not.
    pub(super) fn on_read_index(&mut self, now: Now, ticket: u64, index: Option<LogIndex>) {
        let id = JobId(ticket);
        let Some(job) = self.jobs.take(id) else { return };
        match index {
            Some(index) => self.confirmed(now, id, job, index),
            None => self.fall_back(job, id),
        }
    }

    /// Jobs that waited for the state to catch up.
    pub(super) fn on_caught_up(&mut self, now: Now) {
        while let Some((_, job)) = self.jobs.take_caught_up(self.applied) {
            self.evaluate(now, job);
        }
    }

    /// The leader changed: jobs that wait for one go on, those that were proposed here cannot know their outcome.
    pub(super) fn on_leader_changed(&mut self, now: Now, lost_leadership: bool) {
        if lost_leadership {
            for id in self.jobs.those(|job| matches!(job.stage, Stage::Proposed(_))) {
                let job = self.jobs.take(id).expect("just listed");
                self.answer_write(now, job, Err("leadership lost while committing log"));
            }
            self.jobs.drop_idle(|origin| matches!(origin, Origin::Duty));
        }
        let leader = self.raft.leader();
        if leader.is_none() {
            return;
        }
        let retried = self.jobs.those(|job| match job.stage {
            // Other datacenters have leaders of their own.
            _ if matches!(job.work, Work::Abroad(_)) => false,
            Stage::Held => true,
            Stage::Asked(former) => Some(former) != leader,
            Stage::Proposed(_) | Stage::Confirming | Stage::CatchingUp(_) => false,
        });
        for id in retried {
            let job = self.jobs.take(id).expect("just listed");
            // A command that was sent to a former leader may have taken effect: it is never sent twice. The answer of one
            // that handed over may be on its way; one that died will not give any.
            if matches!(job.stage, Stage::Asked(_)) && !job.work.is_repeatable() {
                let give_up = job.give_up.min(now.mono + FORMER_LEADER_GRACE);
                self.jobs.put(id, Job { give_up, ..job });
            } else {
                self.advance(now, id, job);
            }
        }
    }

    /// The connection to another agent is gone, and with it the answers that were expected of it. `sent`: whether there
    /// was one at all; what was asked for while there was none has reached nobody.
    pub(super) fn on_peer_lost(&mut self, now: Now, peer: ServerId, sent: bool) {
        self.avoid(now, peer);
        self.abroad.avoid(peer, now.mono);
        for id in self.jobs.those(|job| job.stage == Stage::Asked(peer)) {
            let job = self.jobs.take(id).expect("just listed");
            if sent && !job.work.is_repeatable() && !planted(Bug::ForwardedAgain) {
                self.answer_lost(now, job, "connection lost");
            } else {
                self.ask_again(now, id, job, peer);
            }
        }
        self.drop_guest(peer);
    }

    /// A server has not answered. Others come first, and what is known of it is compared with what is known at its place:
    /// another agent may be there by now.
    fn avoid(&mut self, now: Now, server: ServerId) {
        if self.servers.avoid(server, now.mono)
            && let Some(name) = self.servers.get(server).map(|server| server.name.clone())
        {
            self.gossip(now, Pool::Lan, |gossip, cx| gossip.doubt(cx, &name));
        }
    }

    /// Whoever was asked has not done it. Asks the next one, or waits until there is another one to ask.
    pub(super) fn ask_again(&mut self, now: Now, id: JobId, job: Job, asked: ServerId) {
        if matches!(job.work, Work::Abroad(_)) {
            self.abroad.avoid(asked, now.mono);
            self.advance(now, id, job);
        } else if self.about.server && self.raft.leader().is_none_or(|leader| leader == asked) {
            self.jobs.put(id, Job { stage: Stage::Held, ..job });
        } else {
            self.advance(now, id, job);
        }
    }

    /// A server is not well any more. Those of its answers that may be given twice are asked of others.
    pub(super) fn ask_others(&mut self, now: Now, server: ServerId) {
        for id in self.jobs.those(|job| job.stage == Stage::Asked(server)) {
            let job = self.jobs.take(id).expect("just listed");
            if job.work.is_repeatable() {
                self.advance(now, id, job);
            } else {
                self.jobs.put(id, job);
            }
        }
    }

    /// Whoever was asked may have done it or not.
    fn answer_lost(&mut self, now: Now, job: Job, why: &str) {
        if matches!(job.work, Work::Propose(..)) {
            return self.answer_write(now, job, Err("rpc error: no answer from the leader, outcome unknown"));
        }
        self.answer_reply(&job, HttpReply::text(500, format!("rpc error: {why}, outcome unknown")));
    }

    /// A connection came up: what waits for somebody to ask may go on.
    pub(super) fn retry_held(&mut self, now: Now) {
        if self.about.server && self.raft.leader().is_none() {
            return;
        }
        for id in self.jobs.those(|job| job.stage == Stage::Held) {
            let job = self.jobs.take(id).expect("just listed");
            self.advance(now, id, job);
        }
    }

    pub(super) fn on_jobs_expired(&mut self, now: Now) {
        while let Some(job) = self.jobs.take_expired(now.mono) {
            if let Stage::Asked(silent) = job.stage {
                self.avoid(now, silent);
                self.abroad.avoid(silent, now.mono);
            }
            if matches!(job.stage, Stage::Asked(_)) && !job.work.is_repeatable() {
                self.answer_lost(now, job, "no answer in time");
            } else {
                let nobody = match &job.work {
                    Work::Abroad(_) => "rpc error: no server of that datacenter answers",
                    _ if self.about.server => "No cluster leader",
                    _ => "No known Consul servers",
                };
                self.fail(now, job, nobody);
            }
        }
        if self.about.server {
            self.retry_abroad(now);
        } else {
            self.retry_held(now);
        }
    }

    /// It was not done, and nobody tries any more.
    pub(super) fn fail(&mut self, now: Now, job: Job, why: &str) {
        match (&job.origin, &job.work) {
            (_, Work::Propose(..)) => self.answer_write(now, job, Err(why)),
            (_, Work::Abroad(_)) => self.failed_abroad(now, job, why),
            (_, Work::Catalog(_)) => self.answer_catalog(now, &job.origin, None),
            (_, Work::Name(both)) => {
                let body = both.0.failure().unwrap_or_default();
                self.answer_reply(&job, HttpReply { body, ..HttpReply::empty(200) });
            }
            (Origin::Peer(peer, asked), _) => self.answer_peer(*peer, *asked, PeerAnswer::NotLeader),
            (Origin::Client(_) | Origin::Guest(..) | Origin::Agent(_) | Origin::Duty, _) => {
                self.answer_reply(&job, HttpReply::text(500, why.to_owned()));
            }
        }
    }

    /// Tells whoever waits the reply to a request.
    pub(super) fn answer_reply(&mut self, job: &Job, reply: HttpReply) {
        match job.origin {
            Origin::Client(request) => self.reply(request, reply),
            Origin::Peer(peer, asked) | Origin::Guest(peer, asked) => {
                self.answer_peer(peer, asked, PeerAnswer::Reply(reply));
            }
            Origin::Agent(_) | Origin::Duty => {}
        }
    }

    pub(super) fn answer_catalog(&mut self, now: Now, origin: &Origin, catalog: Option<CatalogState>) {
        match (*origin, catalog) {
            (Origin::Agent(ticket), catalog) => {
                self.agent(now, |agent, cx| agent.on_catalog(cx, ticket, catalog));
            }
            (Origin::Guest(guest, asked), Some(catalog)) => {
                self.answer_peer(guest, asked, PeerAnswer::Catalog(Box::new(catalog)));
            }
            (Origin::Guest(guest, asked), None) => self.answer_peer(guest, asked, PeerAnswer::NotLeader),
            (Origin::Client(_) | Origin::Peer(..) | Origin::Duty, _) => {}
        }
    }

    /// Sends a job to the leader.
    fn ask(&mut self, job: Job, leader: ServerId) {
        let ask = match &job.work {
            Work::Propose(command, _) => Ask::Propose(command.encode(Format::FIRST)),
            Work::Read(read, renew) => {
                Ask::ReadIndex { consistent: read.consistency == Consistency::Consistent, renew: *renew }
            }
            Work::Confirm { consistent, renew } => Ask::ReadIndex { consistent: *consistent, renew: *renew },
            Work::Catalog(_) | Work::Name(_) => Ask::ReadIndex { consistent: false, renew: None },
            Work::Lead(call) => Ask::Lead(call.clone()),
            Work::Serve(_) | Work::Abroad(_) => unreachable!("these do not go to the leader"),
        };
        self.put_asked(job, leader, ask);
    }

    pub(super) fn reply(&mut self, request: RequestId, reply: HttpReply) {
        self.replies.push((request, reply));
    }
}

fn unknown_session(id: Option<Uuid>) -> HttpReply {
    api::render_renewed(id.unwrap_or_default(), None)
}

fn session(id: Uuid, spec: &SessionSpec) -> Session {
    let (ttl, ttl_parsed) = match &spec.ttl {
        // A TTL of zero is shown as it was written, and no clock runs for it.
        Some((text, ttl)) => (text.clone(), Some(*ttl).filter(|ttl| !ttl.is_zero())),
        None => (Text::default(), None),
    };
    Session {
        id,
        name: spec.name.clone(),
        node: spec.node.clone(),
        lock_delay: spec.lock_delay,
        behavior: spec.behavior,
        ttl,
        ttl_parsed,
        node_checks: spec.node_checks.clone(),
        service_checks: spec
            .service_checks
            .as_ref()
            .map(|checks| checks.iter().map(|id| ServiceCheck { id: id.clone() }).collect()),
        checks: spec.checks.clone(),
        create_index: 0,
        modify_index: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::SessionBehavior;

    #[test]
    fn a_ttl_of_zero_is_kept_as_written_and_runs_no_clock() {
        let mut spec = SessionSpec {
            name: Text::default(),
            node: "n".into(),
            lock_delay: Duration::ZERO,
            behavior: SessionBehavior::Release,
            ttl: Some(("0s".into(), Duration::ZERO)),
            node_checks: Vec::new(),
            service_checks: None,
            checks: Vec::new(),
        };
        let endless = session(Uuid::default(), &spec);
        assert_eq!((endless.ttl.as_str(), endless.ttl_parsed), ("0s", None));
        spec.ttl = Some(("10s".into(), Duration::from_secs(10)));
        assert_eq!(session(Uuid::default(), &spec).ttl_parsed, Some(Duration::from_secs(10)));
    }
}
