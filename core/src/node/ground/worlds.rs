//! Random worlds: servers and client agents under loss, repetition, cuts, deaths and restarts, and what must hold of
//! them while that lasts and once it is over. Servers come back with what their disks have kept, client agents with nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::world::{Plan, World, founders, name};
use crate::agent::Call as AgentCall;
use crate::agent::definition::service_from_request;
use crate::api::{Call, ClusterCall, SessionSpec, Write};
use crate::gossip::{Status, UserEvent};
use crate::ids::Uuid;
use crate::rng::Rng;
use crate::store::command::{KvCommand, KvVerb};
use crate::store::model::{Health, SessionBehavior};

const SERVERS: usize = 3;
const CLIENTS: usize = 4;
/// Time in which faults happen.
const FAULTS: Duration = Duration::from_secs(90);
/// Within this long after the last fault everything must be in order: members that were cut off are tried every 30 s, the
/// catalog is compared with gossip every 60 s and removes what is unknown at the second look.
const HEALING: Duration = Duration::from_secs(200);

/// A dead agent is taken for failed within this: three agents probe each second, and a suspicion lasts a few seconds.
const DETECTION: Duration = Duration::from_secs(30);

/// A client counts up to this.
const COUNT: u64 = 8;

/// A run and what is known of it.
struct Run {
    world: World,
    plan: Plan,
    rng: Rng,
    /// Who leads in each term, as far as it was seen.
    leaders: BTreeMap<u64, usize>,
    /// Ids of services by client agent.
    services: BTreeMap<usize, BTreeSet<Text>>,
    /// Events that must come to all who are to see them, as long as anybody lives who has.
    fired: Vec<Fired>,
    /// Sessions that were created.
    sessions: BTreeMap<Uuid, Session>,
    /// What clients counted up to, by key.
    counts: BTreeMap<Text, u64>,
    next: u64,
}

/// An event that was fired.
struct Fired {
    name: Text,
    /// Agents that belonged to the pool then, and whose processes have lived since: those that were there from the beginning,
    /// cut off or not, and those that had come back, as they and the one who fired it saw it.
    due: BTreeSet<usize>,
}

/// A session without a TTL, which depends on nothing but an agent.
struct Session {
    /// Which one.
    of: usize,
    /// Its create index, once it was seen.
    created: Option<u64>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let forming = FormingPolicy::Found(founders(SERVERS));
        let plan = Plan { servers: SERVERS, clients: CLIENTS, forming };
        let mut world = World::with_disks(&plan, &Rng::from_seed(seed).fork(0xd15c));
        let all = SERVERS + CLIENTS;
        world.until("all see all", Duration::from_secs(60), |world| {
            world.leader().is_some() && (0..all).all(|agent| world.published(agent).cluster.lan.len() == all)
        });
        world.lose(seed ^ 0x5eed, 0.02);
        world.double(seed ^ 0xd0b1e, 0.05);
        let services = (SERVERS..all).map(|agent| (agent, BTreeSet::new())).collect();
        Run {
            world,
            plan,
            rng: Rng::from_seed(seed),
            leaders: BTreeMap::new(),
            services,
            fired: Vec::new(),
            sessions: BTreeMap::new(),
            counts: BTreeMap::new(),
            next: 0,
        }
    }

    fn name(&mut self, what: &str) -> Text {
        self.next += 1;
        Text::new(format!("{what}-{}", self.next))
    }

    /// What must hold at every moment.
    fn audit(&mut self) {
        for server in (0..SERVERS).filter(|server| self.world.is_alive(*server)) {
            let lease = &self.world.published(server).lease;
            if lease.is_leader {
                let known = *self.leaders.entry(lease.term.0).or_insert(server);
                assert_eq!(known, server, "two leaders in term {}", lease.term.0);
            }
        }
        for agent in 0..SERVERS + CLIENTS {
            let events = &self.world.published(agent).cluster.events;
            let ids: BTreeSet<Uuid> = events.iter().map(|event| event.id).collect();
            assert_eq!(ids.len(), events.len(), "agent {agent} has seen an event twice");
        }
        assert!(self.world.halted.is_empty(), "{:?}", self.world.halted);
        self.audit_sessions();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.world.now.mono + time;
        while self.world.now.mono < end {
            self.world.pass(Duration::from_millis(100));
            self.audit();
        }
    }

    fn register(&mut self, agent: usize) {
        let service = self.name("web");
        let body = format!(r#"{{ "ID": "{service}", "Name": "web", "Port": 80 }}"#);
        let definition = Box::new(service_from_request(body.as_bytes()).expect("a definition"));
        let call = AgentCall::RegisterService { definition, replace_existing_checks: false };
        assert_eq!(self.world.ask(agent, Call::Agent(call)).status, 200);
        self.services.get_mut(&agent).expect("a client agent").insert(service);
    }

    fn deregister(&mut self, agent: usize) {
        let Some(service) = self.services.get_mut(&agent).and_then(BTreeSet::pop_first) else { return };
        let call = AgentCall::DeregisterService { id: service };
        assert_eq!(self.world.ask(agent, Call::Agent(call)).status, 200);
    }

    /// Creates a session that lasts as long as an agent is well; whether that works under faults is open.
    fn session(&mut self, through: usize, of: usize) -> Option<Uuid> {
        let spec = SessionSpec {
            name: Text::default(),
            node: name(of),
            lock_delay: Duration::ZERO,
            behavior: SessionBehavior::Release,
            ttl: None,
            node_checks: vec![Text::new_static(SERF_HEALTH)],
            service_checks: None,
            checks: Vec::new(),
        };
        let reply = self.world.ask(through, Call::Write(Write::SessionCreate(spec)));
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        let id = body.split('"').find_map(Uuid::parse)?;
        self.sessions.insert(id, Session { of, created: None });
        Some(id)
    }

    /// Sessions end only when the check that they depend on has changed.
    fn audit_sessions(&mut self) {
        for server in (0..SERVERS).filter(|server| self.world.is_alive(*server)) {
            let published = self.world.published(server);
            for (id, session) in &mut self.sessions {
                if let Some(row) = published.view.session(*id) {
                    session.created = Some(row.create_index);
                    continue;
                }
                let Some(created) = session.created.filter(|created| *created <= published.lease.applied.0)
                else {
                    continue;
                };
                let check = published.view.check(&name(session.of), SERF_HEALTH);
                assert!(
                    check.is_none_or(|check| check.modify_index > created),
                    "server {server} has no session {id:?} of {}, which was never found to be unwell: {check:?}",
                    session.of
                );
            }
        }
    }

    /// Writes to a key that nobody else writes to, one number after the other, as long as each is acknowledged.
    fn count(&mut self, agent: usize) {
        let key = self.name("count");
        for number in 1..=COUNT {
            let value = Bytes::from(number.to_string());
            let command = KvCommand { verb: KvVerb::Set, key: key.clone(), value, flags: 0 };
            let reply = self.world.ask(agent, Call::Write(Write::Kv(command)));
            if reply.status != 200 {
                return;
            }
        }
        self.counts.insert(key, COUNT);
    }

    fn fire(&mut self, agent: usize) {
        let event = UserEvent {
            id: Uuid::default(),
            name: self.name("deploy"),
            payload: Bytes::new(),
            node_filter: Text::default(),
            service_filter: Text::default(),
            tag_filter: Text::default(),
            ltime: 0,
        };
        let sees = |a: usize, b: usize| {
            let member = self.world.published(a).cluster.lan.get(&name(b));
            member.is_some_and(|member| member.status == Status::Alive)
        };
        let belongs = |other: &usize| {
            self.world.is_alive(*other)
                && (self.world.is_first_process(*other) || sees(agent, *other) && sees(*other, agent))
        };
        let due = (0..SERVERS + CLIENTS).filter(belongs).collect();
        self.fired.push(Fired { name: event.name.clone(), due });
        assert_eq!(self.world.ask(agent, Call::Cluster(ClusterCall::Fire(event))).status, 200);
    }

    /// Whether an agent's process has seen an event.
    fn has_seen(&self, agent: usize, event: &Text) -> bool {
        self.world.published(agent).cluster.events.iter().any(|known| known.name == *event)
    }

    /// Ends an agent's process. What nobody else has heard of is gone with it.
    fn kill(&mut self, agent: usize) {
        self.world.kill(agent);
        let mut fired = std::mem::take(&mut self.fired);
        for event in &mut fired {
            event.due.remove(&agent);
        }
        let living: Vec<usize> = (0..SERVERS + CLIENTS).filter(|it| self.world.is_alive(*it)).collect();
        fired.retain(|event| living.iter().any(|agent| self.has_seen(*agent, &event.name)));
        self.fired = fired;
    }

    /// Something happens.
    fn act(&mut self) {
        let all = SERVERS + CLIENTS;
        let client = SERVERS + self.rng.below(CLIENTS as u64) as usize;
        match self.rng.below(12) {
            0..=2 if self.world.is_alive(client) => self.register(client),
            3 if self.world.is_alive(client) => self.deregister(client),
            4 if self.world.is_alive(client) => {
                self.fire(client);
                let of = self.rng.below(all as u64) as usize;
                self.session(client, of);
            }
            5 if self.world.is_alive(client) => {
                self.kill(client);
            }
            6 if !self.world.is_alive(client) => {
                // It keeps nothing: it comes back without services.
                self.services.insert(client, BTreeSet::new());
                self.world.restart(&self.plan, client);
            }
            7 => {
                let server = self.rng.below(SERVERS as u64) as usize;
                if self.world.is_alive(server) {
                    self.kill(server);
                } else {
                    self.world.restart(&self.plan, server);
                }
            }
            8 => {
                let (a, b) = (self.rng.below(all as u64) as usize, self.rng.below(all as u64) as usize);
                if a != b {
                    self.world.cut(a, b);
                }
            }
            9 if self.world.is_alive(client) => self.count(client),
            _ => self.world.mend(),
        }
        let pause = Duration::from_millis(200) + self.rng.duration_below(Duration::from_secs(5));
        self.pass(pause);
    }

    /// In order again: an agent dies, and its sessions end in time, those of others do not.
    fn end_of_a_node(&mut self) {
        let clients = SERVERS..SERVERS + CLIENTS;
        let living: Vec<usize> = clients.filter(|client| self.world.is_alive(*client)).collect();
        let [witness, other, .., victim] = living[..] else { return };
        let lasting = self.session(witness, other).expect("nothing is wrong");
        let ending = self.session(witness, victim).expect("nothing is wrong");
        self.kill(victim);
        let limit = self.world.now.mono + DETECTION;
        loop {
            let leader = self.world.leader().expect("no server dies here");
            if self.world.published(leader).view.session(ending).is_none() {
                assert!(self.world.published(leader).view.session(lasting).is_some(), "of a living agent");
                return;
            }
            assert!(self.world.now.mono < limit, "a session outlives its agent by {DETECTION:?}");
            self.pass(Duration::from_millis(100));
        }
    }

    fn heal(&mut self) {
        self.world.mend();
        self.world.lose(0, 0.0);
        self.world.double(0, 0.0);
        for server in (0..SERVERS).filter(|server| !self.world.is_alive(*server)).collect::<Vec<_>>() {
            self.world.restart(&self.plan, server);
        }
    }

    /// What must hold in the end, or what is missing yet.
    fn disorder(&self) -> Option<String> {
        let all = SERVERS + CLIENTS;
        let Some(leader) = self.world.leader() else { return Some("nobody leads".to_owned()) };
        let view = &self.world.published(leader).view;
        for agent in 0..all {
            let alive = self.world.is_alive(agent);
            for witness in (0..all).filter(|witness| self.world.is_alive(*witness)) {
                let status = self.world.published(witness).cluster.lan.get(&name(agent)).map(|m| m.status);
                if alive != (status == Some(Status::Alive)) {
                    return Some(format!("{witness} believes {agent} {status:?}, alive: {alive}"));
                }
            }
            let health = view.check(&name(agent), SERF_HEALTH).map(|check| check.status);
            let own = |(id, session): (&Uuid, &Session)| session.of == agent && view.session(*id).is_some();
            if !alive && self.sessions.iter().any(own) {
                return Some(format!("a session of {agent} goes on, which is dead"));
            }
            if alive != (health == Some(Health::Passing)) {
                return Some(format!("the catalog says {health:?} of {agent}, alive: {alive}"));
            }
            let services: BTreeSet<Text> = view
                .node_services(&name(agent))
                .iter()
                .map(|service| service.id.clone())
                .filter(|id| id != SERVICE)
                .collect();
            if let Some(expected) = self.services.get(&agent).filter(|_| alive)
                && services != *expected
            {
                return Some(format!("the catalog has {services:?} of {agent}, it has {expected:?}"));
            }
        }
        for (key, number) in &self.counts {
            let entry = view.kv(key);
            let value = entry.as_ref().map(|entry| String::from_utf8_lossy(&entry.value));
            if value.as_deref() != Some(&*number.to_string()) {
                return Some(format!(
                    "{key} is {value:?}, its only writer was told last that it is {number}"
                ));
            }
        }
        for Fired { name, due } in &self.fired {
            if let Some(agent) = due.iter().find(|agent| !self.has_seen(**agent, name)) {
                return Some(format!("{agent} has not seen {name}"));
            }
        }
        None
    }
}

/// Runs one seed: servers and client agents under loss, cuts and deaths, then in peace until everything is in order.
///
/// # Panics
/// If what must hold does not.
pub fn run(seed: u64) {
    let mut run = Run::new(seed);
    let end = run.world.now.mono + FAULTS;
    while run.world.now.mono < end {
        run.act();
    }
    run.heal();
    let limit = run.world.now.mono + HEALING;
    while let Some(disorder) = run.disorder() {
        assert!(run.world.now.mono < limit, "seed {seed}: {HEALING:?} after the last fault: {disorder}");
        run.pass(Duration::from_secs(1));
    }
    run.end_of_a_node();
}
