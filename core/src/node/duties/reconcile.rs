//! The catalog follows gossip: agents that are there are registered, with the check `serfHealth` that says whether they
//! can be reached, and servers also with the service `consul`; agents that have left go.
//!
//! Each member is compared with the catalog when gossip says something new of it, and all of them when leadership
//! begins and once a minute. Only a difference is a command, and there is none for a node while one is under way: so
//! neither a member that flaps nor a change of leader writes what is there already.
//!
//! - A node without `serfHealth` was registered by hand, and is never touched.
//! - The row of a node is its own agent's business once it is there; it knows more about itself than gossip does.
//! - A name belongs to whom gossip shows under it. If the catalog has it for another identity, that one is declared
//!   unreachable first, which ends its sessions, and then replaced. (Consul refuses until the old one is found to have
//!   failed, which never happens when an agent returns at once with a new identity.)
//! - A node that gossip does not know is removed when the catalog is compared for the second time: after a restart of
//!   all servers gossip knows nobody at first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{DutyTimer, Effect, Facts, SERF_HEALTH, SERVICE};
use crate::Text;
use crate::cx::{Cx, Timer};
use crate::gossip::{Member, Status, tag};
use crate::store::command::{Command, Deregistration, Registration, Response};
use crate::store::model::{Check, Health, Service};

/// How often the whole catalog is compared with gossip (as in Consul).
const EVERY: Duration = Duration::from_secs(60);

const ALIVE: &str = "Agent alive and reachable";
const NOT_ALIVE: &str = "Agent not live or unreachable";

/// What is under way, and what was strange the last time.
#[derive(Debug, Default)]
pub(super) struct Reconcile {
    /// Nodes that commands are under way for, by lower-case name.
    under_way: BTreeMap<Text, UnderWay>,
    /// Nodes that gossip did not know when all were compared last, by lower-case name.
    unknown: BTreeSet<Text>,
}

#[derive(Debug)]
struct UnderWay {
    /// Commands that were not applied yet; never zero.
    commands: usize,
    /// The name as gossip writes it, if something new was said of the node meanwhile.
    again: Option<Text>,
}

impl Reconcile {
    /// Compares everything.
    pub(super) fn all(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        if facts.members.is_empty() {
            return; // An agent without gossip, which knows itself at least, has nothing to compare with.
        }
        for member in facts.members.values() {
            self.member(cx, facts, member);
        }
        let known: BTreeSet<Text> = facts.members.keys().map(folded).collect();
        let unknown: Vec<Text> = facts.store.nodes().map(|node| node.name.clone()).collect();
        let mut strange = BTreeSet::new();
        for name in unknown {
            let key = folded(&name);
            if known.contains(&key) || !is_vouched_for(facts, &name) || is_self(facts, &name) {
                continue;
            }
            if self.unknown.contains(&key) {
                self.order(cx, &name, vec![removal(&name)]);
            }
            strange.insert(key);
        }
        self.unknown = strange;
        cx.timers.set(Timer::Duty(DutyTimer::Reconcile), cx.mono() + EVERY);
    }

    /// Compares one member.
    pub(super) fn member(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>, member: &Member) {
        let datacenter = member.tag(tag::DATACENTER);
        if datacenter.is_empty() || datacenter == facts.about.datacenter.as_str() {
            let commands = match member.status {
                Status::Alive => alive(facts, member),
                Status::Failed => failed(facts, member),
                Status::Left => gone(facts, member),
                // It is there until it is not, and will say so.
                Status::Leaving => Vec::new(),
            };
            self.order(cx, &member.name, commands);
        }
    }

    /// Gossip has forgotten a member.
    pub(super) fn reaped(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>, member: &Member) {
        let commands = gone(facts, member);
        self.order(cx, &member.name, commands);
    }

    /// A command was applied, or refused, which is final: the next comparison may try again.
    pub(super) fn on_done(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        facts: &Facts<'_>,
        command: &Command,
        _response: &Response,
    ) {
        let node = match command {
            Command::Register(registration) => &registration.node,
            Command::Deregister(command) => &command.node,
            Command::Kv(_)
            | Command::SessionCreate(_)
            | Command::SessionDestroy { .. }
            | Command::LockDelayOver { .. }
            | Command::ReapTombstones { .. }
            | Command::AutopilotSet { .. }
            | Command::GroupNamed { .. }
            | Command::FormatRaised { .. }
            | Command::Coordinates(_)
            | Command::Transaction(_)
            | Command::ConfigSet { .. }
            | Command::ConfigDelete { .. }
            | Command::Restore(_)
            | Command::Prepared(_)
            | Command::Intention(_) => return,
        };
        let key = folded(node);
        let Some(under_way) = self.under_way.get_mut(&key) else { return };
        under_way.commands -= 1;
        if under_way.commands > 0 {
            return;
        }
        let again = self.under_way.remove(&key).and_then(|under_way| under_way.again);
        let Some(name) = again else { return };
        match facts.members.get(&name) {
            Some(member) => self.member(cx, facts, member),
            None if is_vouched_for(facts, &name) && !is_self(facts, &name) => {
                self.order(cx, &name, vec![removal(&name)]);
            }
            None => {}
        }
    }

    /// Proposes commands for a node, or remembers to look again when those under way are done.
    fn order(&mut self, cx: &mut Cx<'_, Effect>, name: &Text, commands: Vec<Command>) {
        let key = folded(name);
        if let Some(under_way) = self.under_way.get_mut(&key) {
            under_way.again = Some(name.clone());
        } else if !commands.is_empty() {
            self.under_way.insert(key, UnderWay { commands: commands.len(), again: None });
            commands.into_iter().for_each(|command| cx.emit(Effect::Propose(command)));
        }
    }
}

/// The catalog's key of a name.
fn folded(name: &Text) -> Text {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Text::new(name.to_ascii_lowercase())
    } else {
        name.clone()
    }
}

fn is_self(facts: &Facts<'_>, name: &Text) -> bool {
    folded(name) == folded(&facts.about.node)
}

/// Whether gossip speaks for a node of the catalog.
fn is_vouched_for(facts: &Facts<'_>, name: &str) -> bool {
    facts.store.check(name, SERF_HEALTH).is_some()
}

fn has_health(facts: &Facts<'_>, name: &str, status: Health) -> bool {
    facts.store.check(name, SERF_HEALTH).is_some_and(|check| check.status == status)
}

/// What makes the catalog show a member that is there.
fn alive(facts: &Facts<'_>, member: &Member) -> Vec<Command> {
    let (name, id) = (&member.name, member.id());
    let row = facts.store.node(name);
    if let Some(id) = id
        && let Some(other) = facts.store.node_by_id(id)
        && folded(&other.name) != folded(name)
        && facts.members.get(&other.name).is_some_and(|m| m.status == Status::Alive && m.id() == Some(id))
    {
        return Vec::new(); // Two live agents with one identity: whoever is registered stays.
    }
    let is_taken = row.is_some_and(|row| row.id.is_some() && id.is_some() && row.id != id);
    let service = service_of(member);
    let is_right = row.is_some()
        && !is_taken
        && has_health(facts, name, Health::Passing)
        && service.as_ref().is_none_or(|service| is_registered(facts, name, service));
    if is_right {
        return Vec::new();
    }
    let mut commands = Vec::new();
    if is_taken && is_vouched_for(facts, name) && !has_health(facts, name, Health::Critical) {
        commands.push(registration(facts, member, Health::Critical, None));
    }
    let mut registration = registered(facts, member, Health::Passing, service);
    registration.skip_node_update = !is_taken;
    commands.push(Command::Register(Box::new(registration)));
    commands
}

/// What makes the catalog show that a member cannot be reached.
fn failed(facts: &Facts<'_>, member: &Member) -> Vec<Command> {
    let is_elsewhere = || member.id().is_some_and(|id| facts.store.node_by_id(id).is_some());
    match facts.store.node(&member.name) {
        Some(_) if has_health(facts, &member.name, Health::Critical) => Vec::new(),
        // Its agent is known by another name: this one is history.
        None if is_elsewhere() => Vec::new(),
        Some(_) | None => vec![registration(facts, member, Health::Critical, None)],
    }
}

/// What removes a member that has left.
fn gone(facts: &Facts<'_>, member: &Member) -> Vec<Command> {
    let name = &member.name;
    let Some(row) = facts.store.node(name) else { return Vec::new() };
    let is_its_own = is_vouched_for(facts, name) || row.id.is_some() && row.id == member.id();
    if is_its_own && !is_self(facts, name) { vec![removal(name)] } else { Vec::new() }
}

fn removal(name: &Text) -> Command {
    Command::Deregister(Deregistration { node: name.clone(), ..Deregistration::default() })
}

fn registration(facts: &Facts<'_>, member: &Member, status: Health, service: Option<Service>) -> Command {
    Command::Register(Box::new(registered(facts, member, status, service)))
}

fn registered(facts: &Facts<'_>, member: &Member, status: Health, service: Option<Service>) -> Registration {
    let output = if status == Health::Passing { ALIVE } else { NOT_ALIVE };
    Registration {
        id: member.id(),
        node: member.name.clone(),
        address: Text::new(member.ip().to_string()),
        datacenter: facts.about.datacenter.clone(),
        service,
        checks: vec![Check {
            node: member.name.clone(),
            id: Text::new_static(SERF_HEALTH),
            name: Text::new_static("Serf Health Status"),
            status,
            output: Text::new_static(output),
            ..Check::default()
        }],
        skip_node_update: true,
        ..Registration::default()
    }
}

/// The service that a server is registered as; `None` for client agents.
fn service_of(member: &Member) -> Option<Service> {
    let port = member.rpc_address()?.port();
    let read_replica = if member.tag(tag::READ_REPLICA) == "1" { "true" } else { "false" };
    let build = member.tag(tag::BUILD);
    let version = build.split_once(':').map_or(build, |(version, _)| version);
    // The range of the gossip protocol is that of the agents which proconsul stands in for.
    let meta = [
        ("non_voter", read_replica),
        ("raft_version", member.tag(tag::RAFT_VERSION)),
        ("read_replica", read_replica),
        ("serf_protocol_current", "2"),
        ("serf_protocol_max", "5"),
        ("serf_protocol_min", "1"),
        ("version", version),
    ];
    Some(Service {
        id: Text::new_static(SERVICE),
        service: Text::new_static(SERVICE),
        port,
        meta: meta.into_iter().map(|(key, value)| (Text::new_static(key), Text::new(value))).collect(),
        ..Service::default()
    })
}

fn is_registered(facts: &Facts<'_>, name: &str, wanted: &Service) -> bool {
    facts.store.service(name, SERVICE).is_some_and(|row| row.port == wanted.port && row.meta == wanted.meta)
}
