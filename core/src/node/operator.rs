//! Calls about the cluster: gossip, events, the Raft group. Who may answer them is the call's own business
//! ([`ClusterCall::place`]).

use super::jobs::{Origin, Work};
use super::{EventWait, Node, autopilot, joining};
use crate::api::{self, ClusterCall, EventsRead, HttpReply, Place};
use crate::gossip::{Pool, UserEvent};
use crate::ids::{RequestId, Uuid};
use crate::raft::{ChangeError, Role};
use crate::time::{Mono, Now};

impl Node {
    /// A call of a client: on a client agent one that is about this agent, on servers any.
    pub(super) fn on_cluster_call(&mut self, now: Now, id: RequestId, call: ClusterCall) {
        match call.place() {
            Place::Agent => self.on_own_call(now, id, call),
            Place::Server => self.on_server_call(now, id, call),
            Place::Leader => self.begin(now, Origin::Client(id), Work::Lead(call)),
        }
    }

    /// What only this agent can answer.
    fn on_own_call(&mut self, now: Now, id: RequestId, call: ClusterCall) {
        match call {
            ClusterCall::Join { address, pool } => {
                let port = self.config.join.get(&pool).map_or(8301, |policy| policy.default_port);
                let steps = self.joining.client(pool, id.0, &address, port);
                self.perform_joining(now, steps);
            }
            ClusterCall::Leave => {
                self.leave_asked_by.push(id);
                self.begin_leave(now);
            }
            ClusterCall::ForceLeave { node, prune, pool } => {
                let known = self.gossip(now, pool, |gossip, cx| gossip.force_leave(cx, &node, prune));
                let reply = if known == Some(true) {
                    HttpReply::empty(200)
                } else {
                    HttpReply::text(500, format!("agent: No node found with name '{node}'"))
                };
                self.reply(id, reply);
            }
            ClusterCall::Fire(event) => self.fire(now, id, event),
            ClusterCall::Events(read) => self.on_events_read(now, id, read),
            other => unreachable!("{other:?} is not for an agent alone"),
        }
    }

    fn fire(&mut self, now: Now, id: RequestId, event: UserEvent) {
        let event = UserEvent { id: Uuid::random(&mut self.rng), ..event };
        let fired = event.clone();
        let reply = match self.gossip(now, Pool::Lan, |gossip, cx| gossip.fire(cx, fired)) {
            Some(Ok(_)) => api::render_event(&event),
            Some(Err(error)) => HttpReply::text(500, error.to_string()),
            None => unreachable!("every agent has a pool"),
        };
        self.reply(id, reply);
    }

    /// Answers a read of events, or lets it wait for one.
    fn on_events_read(&mut self, now: Now, id: RequestId, read: EventsRead) {
        let (index, reply) = api::render_events(&self.cluster.events, &read);
        if read.index != 0 && read.index == index {
            let jitter = self.rng.duration_below(read.wait / super::requests::WAIT_JITTER_DIVISOR);
            let until = now.mono + read.wait + jitter;
            return self.event_waits.push(EventWait { id, read, until });
        }
        self.reply(id, reply);
    }

    /// Answers those who waited for an event, when one has come or their time is up.
    pub(super) fn answer_event_waits(&mut self, now: Mono) {
        let events = &self.cluster.events;
        let mut over = Vec::new();
        self.event_waits.retain(|wait| {
            let (index, reply) = api::render_events(events, &wait.read);
            let waits = index == wait.read.index && now < wait.until;
            if !waits {
                over.push((wait.id, reply));
            }
            waits
        });
        for (id, reply) in over {
            self.reply(id, reply);
        }
    }

    /// What any server can answer.
    fn on_server_call(&mut self, now: Now, id: RequestId, call: ClusterCall) {
        match call {
            ClusterCall::Keys { change, local_only } => self.change_keys(now, id, &change, local_only),
            ClusterCall::Saved { id: saved, measure } => {
                let reply = self.fetch_saved(saved, measure);
                self.reply(id, reply);
            }
            call => {
                let published = self.published(now);
                self.reply(id, api::render_cluster(&published, &call));
            }
        }
    }

    /// What only the leader can do; it leads.
    pub(super) fn lead(&mut self, now: Now, call: ClusterCall) -> HttpReply {
        match call {
            ClusterCall::Coordinate { node, coordinate } => {
                self.duties(now, |duties, cx, _| duties.locate(cx, node, coordinate));
                HttpReply::empty(200)
            }
            ClusterCall::RemovePeer { id, address } => {
                self.remove_peer(now, id.as_deref(), address.as_deref())
            }
            ClusterCall::TransferLeader { id } => self.transfer_leader(now, id),
            ClusterCall::RaftConfiguration { .. } => {
                let state = self.duties(now, |duties, cx, facts| duties.autopilot(cx.now, facts));
                api::render_raft_configuration(&self.published(now), state.as_ref())
            }
            ClusterCall::AutopilotHealth => self.autopilot(now, api::render_autopilot_health),
            ClusterCall::AutopilotState => self.autopilot(now, api::render_autopilot_state),
            call => {
                let published = self.published(now);
                api::render_cluster(&published, &call)
            }
        }
    }

    fn autopilot(&mut self, now: Now, render: fn(&autopilot::State) -> HttpReply) -> HttpReply {
        match self.duties(now, |duties, cx, facts| duties.autopilot(cx.now, facts)) {
            Some(state) => render(&state),
            // It has just been elected and knows nothing of the others yet.
            None => HttpReply::text(500, "No cluster leader"),
        }
    }

    fn remove_peer(&mut self, now: Now, id: Option<&str>, address: Option<&str>) -> HttpReply {
        let change = match autopilot::peer_removal(self.raft.membership(), id, address) {
            Ok(change) => change,
            Err(why) => return HttpReply::text(500, why),
        };
        match self.raft(now, |raft, cx| raft.propose_membership(cx, change)) {
            Ok(_) => HttpReply::empty(200),
            Err(ChangeError::NotLeader(_)) => HttpReply::text(500, "No cluster leader"),
            Err(error) => HttpReply::text(500, error.to_string()),
        }
    }

    fn transfer_leader(&mut self, now: Now, id: Option<Uuid>) -> HttpReply {
        assert_eq!(self.raft.role(), Role::Leader, "asked on the leader");
        match self.raft(now, |raft, cx| raft.transfer_leadership(cx, id)) {
            Ok(_) => HttpReply::json(200, r#"{"Success":true}"#),
            Err(error) => HttpReply::text(500, error.to_string()),
        }
    }

    /// Carries out what the joiner decided.
    pub(super) fn perform_joining(&mut self, now: Now, steps: Vec<joining::Step>) {
        for step in steps {
            match step {
                joining::Step::Resolve { ticket, name } => self.resolve(ticket, name),
                joining::Step::Join { ticket, pool, addresses } => {
                    // To join is to change one's mind; an attempt that was waiting for its time must not do that.
                    let refusal = if self.leaving.is_under_way() {
                        Some("this agent is leaving")
                    } else {
                        let joined = self.gossip(now, pool, |gossip, cx| gossip.join(cx, addresses, ticket));
                        joined.is_none().then_some("no such pool here")
                    };
                    if refusal.is_some() {
                        let steps = self.joining.on_joined(now.mono, ticket, 0, refusal);
                        self.perform_joining(now, steps);
                    }
                }
                joining::Step::Answer { client, outcome } => {
                    let reply = match outcome {
                        Ok(_) => HttpReply::empty(200),
                        Err(error) => HttpReply::text(500, error),
                    };
                    self.reply(RequestId(client), reply);
                }
                joining::Step::Attempted(Pool::Lan) => {
                    self.form(now, |forming, cx, facts| forming.on_joined(cx, facts));
                }
                joining::Step::Attempted(Pool::Wan) => {}
                joining::Step::Wait(pool, at, why) => {
                    self.warn(why);
                    self.timers.set(crate::cx::Timer::Join(pool), at);
                }
                joining::Step::GiveUp(reason) => self.give_up = Some(reason),
            }
        }
    }
}
