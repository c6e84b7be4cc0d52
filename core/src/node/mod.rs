//! The node: routes inputs to its machines and their effects to the outbox, and decides nothing else.

mod abroad;
mod asked;
mod asks;
mod checkpointing;
mod cluster;
mod config;
mod duties;
mod effects;
mod events;
mod failover;
mod formats;
mod forming;
mod forward;
mod gossiping;
#[cfg(any(test, feature = "testing"))]
pub mod ground;
mod jobs;
mod joining;
mod leaving;
mod lifecycle;
mod locating;
mod operator;
mod parked;
mod peer;
mod published;
mod requests;
mod room;
mod saves;
mod seeking;
mod servers;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use cluster::{Cluster, EVENTS_KEPT};
pub use config::{BadStart, CheckpointPolicy, Config, FormingPolicy, Restored};
pub use duties::{DutyTimer, Facts, SERF_HEALTH, SERVICE, autopilot};
pub use events::RemoteJob;
pub use formats::NewerFormat;
pub use joining::JoinPolicy;
pub use peer::{Ask, AskId, BadFrame, PeerAnswer, PeerMessage, Serve};
pub use published::{About, Figures, Lease, Published};

use self::abroad::Abroad;
use self::asked::Asked;
use self::checkpointing::Checkpointing;
use self::duties::Duties;
use self::forming::Forming;
use self::forward::Guests;
use self::jobs::Jobs;
use self::joining::Joining;
use self::leaving::Leaving;
use self::locating::Locating;
use self::parked::Parked;
use self::seeking::Seeking;
use self::servers::Servers;
use crate::Text;
use crate::agent::Agent;
use crate::boundary::{Input, Lane, Outbox, Output};
use crate::cx::{Cx, Timer};
use crate::format::Format;
use crate::gossip::{Gossip, Pool};
use crate::ids::{LogIndex, OpId, RequestId, ServerId, Term, Uuid};
use crate::raft::{Membership, Raft, Role, SnapshotMeta};
use crate::rng::Rng;
use crate::store::Store;
use crate::store::query::WatchKey;
use crate::time::{Mono, Now};
use crate::timers::Timers;
use crate::wal::Wal;
use crate::{agent, api, gossip, raft};
use saves::Saves;

/// How much more the node takes, per class of input. An adapter stops reading a class that is at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Requests of clients.
    pub requests: usize,
}

/// A follower publishes how new its state is when that has moved on by so much: heartbeats alone change nothing else.
const SHOWN_AGE_STEP: Duration = Duration::from_millis(50);
/// So many requests may be under way, parked ones apart.
const JOBS_MAX: usize = 16_384;
/// So many queries may be parked.
const PARKED_MAX: usize = 300_000;

/// One agent: every decision that it takes.
#[derive(Debug)]
pub struct Node {
    config: Config,
    about: Arc<About>,
    cluster: Arc<Cluster>,
    rng: Rng,
    timers: Timers<Timer>,
    /// Tells this process from those before it in what it asks of others.
    life: u64,
    /// What others have asked of it.
    asked: Asked,
    raft: Raft,
    /// The group's members as they were published last.
    membership: Arc<Membership>,
    /// `None` in development mode: nothing is kept, everything counts as durable at once.
    wal: Option<Wal>,
    store: Store,
    /// Last entry that `store` includes.
    applied: LogIndex,
    agent: Agent,
    duties: Duties,
    jobs: Jobs,
    parked: Parked,
    checkpointing: Checkpointing,
    outgoing: transfer::Outgoing,
    incoming: transfer::Incoming,
    /// A snapshot whose rows are being made durable; it replaces the state when they are.
    installing: Option<(OpId, SnapshotMeta, Store)>,
    /// What the agent keeps for itself, on its way to the disk.
    saving: room::Saving,
    room: room::Room,
    /// The client whose reply waits for the save that the agent is about to ask for.
    awaiting_save: Option<(u64, RequestId, api::HttpReply)>,
    /// Clients that wait for a local service to differ from a hash.
    local_waits: Vec<LocalWait>,
    /// Clients that wait for a user event.
    event_waits: Vec<EventWait>,
    /// Client agents' requests that are under way here.
    guests: Guests,
    /// States that client agents are saving.
    saves: Saves,
    lan: Gossip,
    /// Servers only.
    wan: Option<Gossip>,
    servers: Servers,
    /// Those of other datacenters.
    abroad: Abroad,
    /// So many members of the datacenter's pool are well.
    alive: usize,
    /// Agents that a connection is up with.
    connected: BTreeSet<ServerId>,
    /// Those of them that are servers of other datacenters, with the names of these.
    foreign: BTreeMap<ServerId, Text>,
    /// Of those that have said so: the newest format that they know, too.
    peer_formats: BTreeMap<ServerId, Format>,
    /// Agents whose frames could not be read, since their connection came up.
    misunderstood: BTreeSet<ServerId>,
    joining: Joining,
    locating: Locating,
    seeking: Seeking,
    /// Names that are being looked up, with the attempt that waits for each.
    resolving: BTreeMap<OpId, (u64, Text)>,
    keys_waits: Vec<gossiping::KeysWait>,
    /// Clients that asked this agent to leave.
    leave_asked_by: Vec<RequestId>,
    forming: Forming,
    leaving: Leaving,
    /// So many pools have not been told yet.
    leaving_pools: u8,
    /// It has left.
    left: bool,
    /// The identity of the group that gossip was told.
    told_group: Option<Uuid>,
    next_op: u64,
    /// Who led when it was last looked at, and in which term.
    led: (Option<ServerId>, Term, bool),
    /// Whether leadership was being handed over when it was last looked at.
    handing_over: bool,
    halted: bool,

    // Collected within one step, empty between two.
    raft_effects: Vec<raft::Effect>,
    agent_effects: Vec<agent::Effect>,
    duty_effects: Vec<duties::Effect>,
    lan_effects: Vec<gossip::Effect>,
    wan_effects: Vec<gossip::Effect>,
    /// What needs no more thought.
    pending: Vec<Output>,
    /// Why the agent cannot go on.
    give_up: Option<String>,
    touched: Vec<WatchKey>,
    replies: Vec<(RequestId, api::HttpReply)>,
    frames: Vec<(ServerId, PeerMessage)>,
    publish: bool,
    /// As of when the published state has everything.
    shown_as_of: Option<Mono>,
}

/// A client that waits for a local service to change.
#[derive(Debug)]
struct LocalWait {
    id: RequestId,
    read: api::LocalServiceRead,
    until: Mono,
}

/// A client that waits for a user event.
#[derive(Debug)]
struct EventWait {
    id: RequestId,
    read: api::EventsRead,
    until: Mono,
}

impl Node {
    /// A node that begins with what a restart gave back. The seed must be unpredictable in production.
    ///
    /// # Errors
    /// What was kept does not fit together.
    pub fn new(mut config: Config, restored: Restored, seed: [u8; 32], now: Now) -> Result<Node, BadStart> {
        formats::tell(&mut config);
        formats::check(config.about.formats, restored.store.format())?;
        let rng = Rng::from_bytes(seed);
        let raft_config =
            raft::Config { id: config.about.id, timing: config.timing, limits: raft::Limits::default() };
        restored.raft.check()?;
        let applied = restored.raft.snapshot.index;
        let mut raft = Raft::new(raft_config, restored.raft, rng.fork(1), now);
        if let Some(membership) = config.recover.clone() {
            raft.force_membership(membership)?;
        }
        let agent = Agent::new(config.agent.clone(), &restored.local, rng.fork(2), now)?;
        let keeps_keys = config.keeps_keys;
        let pool = |pool, config: &gossip::Config, label| {
            let kept = gossiping::kept(pool, &restored.local)?;
            let mut config = config.clone();
            // What the ring has become in the running cluster counts, not what the configuration began with.
            let ring = kept.keys.filter(|ring| keeps_keys && !ring.is_empty());
            config.keys = ring.unwrap_or(config.keys);
            let mut gossip = Gossip::new(pool, config, kept.known, rng.fork(label), now);
            gossip.resume(kept.clocks);
            Ok::<_, BadStart>(gossip)
        };
        let lan = pool(Pool::Lan, &config.lan, 4)?;
        let wan = config.wan.as_ref().map(|config| pool(Pool::Wan, config, 5)).transpose()?;
        let joining = Joining::new(config.join.clone());
        let joins = joining.has_policy(Pool::Lan);
        Ok(Node {
            about: Arc::new(config.about.clone()),
            cluster: Arc::default(),
            rng: rng.fork(3),
            timers: Timers::default(),
            life: rng.fork(9).next_u64(),
            asked: Asked::default(),
            membership: Arc::new(raft.membership().clone()),
            raft,
            wal: restored.wal,
            store: restored.store,
            applied,
            agent,
            duties: Duties::new(config.tombstone_ttl, config.autopilot.clone(), rng.fork(8))
                .with_entries(config.config_entries.clone()),
            jobs: Jobs::default(),
            parked: Parked::default(),
            checkpointing: Checkpointing::new(config.checkpoints),
            outgoing: transfer::Outgoing::default(),
            incoming: transfer::Incoming::default(),
            installing: None,
            saving: room::Saving::default(),
            room: room::Room::default(),
            awaiting_save: None,
            local_waits: Vec::new(),
            event_waits: Vec::new(),
            guests: Guests::default(),
            saves: Saves::default(),
            lan,
            wan,
            servers: Servers::default(),
            abroad: Abroad::default(),
            alive: 0,
            connected: BTreeSet::new(),
            foreign: BTreeMap::new(),
            peer_formats: BTreeMap::new(),
            misunderstood: BTreeSet::new(),
            joining,
            locating: Locating::new(rng.fork(6)),
            seeking: Seeking::new(rng.fork(10)),
            resolving: BTreeMap::new(),
            keys_waits: Vec::new(),
            leave_asked_by: Vec::new(),
            forming: Forming::new(forming::Plan::of(&config.forming), joins, rng.fork(7)),
            leaving: Leaving::default(),
            leaving_pools: 0,
            left: false,
            told_group: None,
            next_op: 0,
            led: (None, Term(0), false),
            handing_over: false,
            halted: false,
            raft_effects: Vec::new(),
            agent_effects: Vec::new(),
            duty_effects: Vec::new(),
            lan_effects: Vec::new(),
            wan_effects: Vec::new(),
            pending: Vec::new(),
            give_up: None,
            touched: Vec::new(),
            replies: Vec::new(),
            frames: Vec::new(),
            publish: true,
            shown_as_of: None,
            config,
        })
    }

    /// What readers see before the first step.
    #[must_use]
    pub fn first_publication(&mut self, now: Now) -> Arc<Published> {
        Arc::new(self.published(now))
    }

    /// Takes one input and says what is to be done. The outbox is empty on entry and drained before the next step.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Outbox) {
        if self.halted {
            return;
        }
        match input {
            Input::Wake => {}
            Input::Request { id, request } => self.on_request(now, id, request),
            Input::Abandon { id } => self.abandon(id),
            Input::PeerUp { peer, datacenter: Some(datacenter) } => {
                self.connected.insert(peer);
                self.foreign.insert(peer, datacenter);
                self.misunderstood.remove(&peer);
                self.greet(peer);
            }
            Input::PeerUp { peer, datacenter: None } => {
                self.connected.insert(peer);
                self.foreign.remove(&peer);
                self.misunderstood.remove(&peer);
                self.greet(peer);
                self.raft(now, |raft, cx| raft.on_peer_up(cx, peer));
                if self.raft.leader() == Some(peer) {
                    self.retry_held(now);
                }
            }
            Input::PeerDown { peer } => {
                let sent = self.connected.remove(&peer);
                self.misunderstood.remove(&peer);
                self.peer_formats.remove(&peer);
                let is_foreign = self.foreign.remove(&peer).is_some() || self.abroad.get(peer).is_some();
                if !is_foreign {
                    self.raft(now, |raft, cx| raft.on_peer_down(cx, peer));
                }
                self.on_peer_lost(now, peer, sent);
            }
            Input::PeerFrame { peer, frame } => match PeerMessage::decode(&frame, self.about.formats) {
                Ok(message) if self.foreign.contains_key(&peer) => {
                    self.on_foreign_message(now, peer, message);
                }
                Ok(message) => self.on_peer_message(now, peer, message),
                Err(bad) => self.on_bad_frame(peer, &bad),
            },
            Input::Logged { write, result } => match result {
                Ok(()) => {
                    self.on_room(now, Lane::Log);
                    self.on_logged(now, write, out);
                }
                Err(error) => self.halt(format!("cannot write the log: {error}"), out),
            },
            Input::Saved { op, result } => match result {
                Ok(()) => {
                    self.on_room(now, Lane::State);
                    self.on_saved(now, op, out);
                }
                Err(error) => self.halt(format!("cannot write a checkpoint: {error}"), out),
            },
            Input::Full { lane, reason } => self.on_full(now, lane, &reason),
            Input::Probed { op, outcome } => self.agent(now, |agent, cx| agent.on_probed(cx, op, outcome)),
            Input::Datagram { pool, from, bytes } => {
                self.gossip(now, pool, |gossip, cx| gossip.on_datagram(cx, from, &bytes));
            }
            Input::GossipCall { pool, caller, from, bytes } => {
                self.gossip(now, pool, |gossip, cx| gossip.on_call(cx, caller, from, &bytes));
            }
            Input::GossipAnswer { pool, call, result } => {
                self.gossip(now, pool, |gossip, cx| gossip.on_answer(cx, call, result));
            }
            Input::Resolved { op, result } => self.on_resolved(now, op, result),
            Input::Leave => self.begin_leave(now),
            Input::Stop => {
                self.halted = true;
                return;
            }
        }
        self.fire_timers(now);
        self.settle(now, out);
    }

    /// When to come back at the latest, and for what.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Mono, Timer)> {
        self.timers.next().map(|(at, timer)| (at, timer.clone()))
    }

    /// How much more the node takes.
    #[must_use]
    pub fn admission(&self) -> Admission {
        let jobs = JOBS_MAX.saturating_sub(self.jobs.len());
        Admission { requests: jobs.min(PARKED_MAX.saturating_sub(self.parked.len())) }
    }

    /// The Raft machine, for auditors.
    #[must_use]
    pub fn raft_state(&self) -> &Raft {
        &self.raft
    }

    /// The replicated state and the last entry that it includes, for auditors.
    #[must_use]
    pub fn state(&self) -> (LogIndex, &Store) {
        (self.applied, &self.store)
    }

    fn fire_timers(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Raft(timer) => self.raft(now, |raft, cx| raft.on_timer(cx, timer)),
                Timer::Agent(timer) => self.agent(now, |agent, cx| agent.on_timer(cx, timer)),
                Timer::Duty(timer) => {
                    self.duties(now, |duties, cx, facts| duties.on_timer(cx, facts, &timer))
                }
                Timer::Gossip(pool, timer) => {
                    self.gossip(now, pool, |gossip, cx| gossip.on_timer(cx, timer));
                }
                Timer::Join(pool) => {
                    let steps = self.joining.attempt(pool);
                    self.perform_joining(now, steps);
                }
                Timer::Locate => self.locate(now),
                Timer::Seek => self.on_seek_timer(now),
                Timer::Forming => self.form(now, |forming, cx, facts| forming.on_timer(cx, facts)),
                Timer::Room => self.on_room_timer(now),
                Timer::Flood => self.flood(now),
                Timer::Leaving => self.leave(now, |leaving, cx, raft| leaving.on_timer(cx, raft)),
                Timer::Parked => self.on_waits_over(now),
                Timer::Hold => self.on_jobs_expired(now),
            }
        }
    }

    /// Carries out effects until there are none, wakes whom they concern, and writes the outbox: readers see a change
    /// before anybody is told of it.
    fn settle(&mut self, now: Now, out: &mut Outbox) {
        loop {
            if self.leaving.is_under_way() {
                self.leave(now, |leaving, cx, raft| leaving.follow(cx, raft));
            }
            let raft_effects = std::mem::take(&mut self.raft_effects);
            let agent_effects = std::mem::take(&mut self.agent_effects);
            let duty_effects = std::mem::take(&mut self.duty_effects);
            let lan_effects = std::mem::take(&mut self.lan_effects);
            let wan_effects = std::mem::take(&mut self.wan_effects);
            if raft_effects.is_empty()
                && agent_effects.is_empty()
                && duty_effects.is_empty()
                && lan_effects.is_empty()
                && wan_effects.is_empty()
            {
                break;
            }
            for effect in raft_effects {
                self.on_raft_effect(now, effect, out);
            }
            for effect in agent_effects {
                self.on_agent_effect(now, effect, out);
            }
            for effect in lan_effects {
                self.on_gossip_effect(now, Pool::Lan, effect, out);
            }
            for effect in wan_effects {
                self.on_gossip_effect(now, Pool::Wan, effect, out);
            }
            for effect in duty_effects {
                self.on_duty_effect(now, effect);
            }
            if self.halted {
                return;
            }
        }
        out.0.append(&mut self.pending);
        if let Some(reason) = self.give_up.take() {
            return self.halt(reason, out);
        }
        self.wake_parked(now);
        self.begin_checkpoint(out);
        self.write_state(out);
        self.arm_waits(now);
        if std::mem::take(&mut self.publish) || self.has_got_newer(now) {
            out.push(Output::Publish(Arc::new(self.published(now))));
        }
        for (id, reply) in std::mem::take(&mut self.replies) {
            match self.guests.take(id) {
                Some((guest, asked)) => self.answer_peer(guest, asked, PeerAnswer::Reply(reply)),
                // A guest that went away meanwhile needs no answer.
                None if Guests::is_guest(id) => {}
                None => out.push(Output::Reply { id, reply }),
            }
        }
        self.send_frames(out);
        if self.left {
            self.halted = true;
            out.push(Output::Left);
        }
    }

    fn arm_waits(&mut self, now: Now) {
        let local = self.local_waits.iter().map(|wait| wait.until).min();
        let event = self.event_waits.iter().map(|wait| wait.until).min();
        let penalty = if self.jobs.len() == 0 {
            None
        } else if self.about.server {
            self.abroad.next_deadline(now.mono)
        } else {
            self.servers.next_deadline(now.mono)
        };
        let deadlines = [
            (Timer::Parked, [self.parked.next_deadline(), local, event].into_iter().flatten().min()),
            (Timer::Hold, [self.jobs.next_deadline(), penalty].into_iter().flatten().min()),
        ];
        for (timer, at) in deadlines {
            match at {
                Some(at) if self.timers.deadline(&timer) != Some(at) => self.timers.set(timer, at),
                Some(_) => {}
                None => self.timers.cancel(&timer),
            }
        }
    }

    fn published(&mut self, now: Now) -> Published {
        self.shown_as_of = self.raft.as_of(now.mono);
        if *self.membership != *self.raft.membership() {
            self.membership = Arc::new(self.raft.membership().clone());
        }
        Published {
            view: self.store.clone(),
            lease: Lease {
                term: self.raft.term(),
                leader: self.raft.leader(),
                is_leader: self.is_leader(),
                applied: self.applied,
                membership_index: self.raft.membership_index(),
                until: self.raft.lease_until().unwrap_or(Mono(0)),
                as_of: self.shown_as_of,
                figures: self.figures(),
            },
            membership: Arc::clone(&self.membership),
            agent: self.agent.view(),
            cluster: Arc::clone(&self.cluster),
            alarm: self.room.alarm(),
            about: Arc::clone(&self.about),
        }
    }

    fn figures(&self) -> Figures {
        let place = |index: LogIndex| (index, self.raft.entry_term(index).unwrap_or_default());
        Figures {
            commit: self.raft.commit_index(),
            last: place(self.raft.last_index()),
            checkpoint: place(self.raft.base_index()),
            lan: self.lan.gauges(),
            wan: self.wan.as_ref().map(Gossip::gauges).unwrap_or_default(),
        }
    }

    /// Whether a follower knows its state to be much newer than readers see.
    fn has_got_newer(&self, now: Now) -> bool {
        let newer = self.raft.as_of(now.mono).filter(|_| !self.is_leader());
        newer.is_some_and(|newer| self.shown_as_of.is_none_or(|shown| newer >= shown + SHOWN_AGE_STEP))
    }

    fn is_leader(&self) -> bool {
        self.raft.role() == Role::Leader
    }

    fn halt(&mut self, reason: String, out: &mut Outbox) {
        self.halted = true;
        out.push(Output::Halt { reason });
    }

    /// Tells the operator, at the end of this step, that something is wrong.
    fn warn(&mut self, text: String) {
        self.pending.push(Output::Warn(Text::new(text)));
    }

    fn op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    fn raft<T>(&mut self, now: Now, act: impl FnOnce(&mut Raft, &mut Cx<'_, raft::Effect>) -> T) -> T {
        let mut cx = Cx { now, timers: &mut self.timers, effects: &mut self.raft_effects };
        act(&mut self.raft, &mut cx)
    }

    fn duties<T>(
        &mut self,
        now: Now,
        act: impl FnOnce(&mut Duties, &mut Cx<'_, duties::Effect>, &Facts<'_>) -> T,
    ) -> T {
        let mut cx = Cx { now, timers: &mut self.timers, effects: &mut self.duty_effects };
        let facts =
            Facts { store: &self.store, members: &self.cluster.lan, raft: &self.raft, about: &self.about };
        act(&mut self.duties, &mut cx, &facts)
    }

    fn agent<T>(&mut self, now: Now, act: impl FnOnce(&mut Agent, &mut Cx<'_, agent::Effect>) -> T) -> T {
        let mut cx = Cx { now, timers: &mut self.timers, effects: &mut self.agent_effects };
        act(&mut self.agent, &mut cx)
    }
}
