//! Autopilot: which servers belong to the Raft group, and how healthy they are (Consul: «Autopilot»).
//!
//! A server that gossip shows is added without a vote and gets one after it has been healthy for a while. A server
//! that has left is removed. A server that has failed is removed only if that makes the group more robust: with three
//! voters and one of them dead, two voters tolerate no more than three do, and the dead one may return; with a
//! fourth in place of it, three live voters tolerate one more failure. So a dead server stays until it is replaced. One
//! that lost its disk comes back with another identity at the same address: then the former one is removed in any case.
//!
//! Nothing is changed before the group has its identity, and one change at a time: the next one is decided when the
//! last one is committed, on the facts of that moment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{DutyTimer, Effect, Facts};
use crate::Text;
use crate::cx::{Cx, Timer};
use crate::format::Formats;
use crate::gossip::{Member, Status, tag};
use crate::ids::{LogIndex, ServerId, Term, Uuid};
use crate::raft::{Membership, MembershipChange};
use crate::store::AutopilotSettings;
use crate::store::command::Command;
use crate::time::{Mono, Now, Wall};

/// How often the health of servers is looked at (as in Consul). Only by a leader of several.
const EVERY: Duration = Duration::from_secs(2);
/// A member of the group that gossip does not know counts as failed after this long: after a restart of all servers
/// gossip knows nobody at first.
const ABSENT_MAX: Duration = Duration::from_secs(60);

/// How the group is doing, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether every server is healthy.
    pub healthy: bool,
    /// So many voters may fail at once, and the group still has a quorum.
    pub failure_tolerance: usize,
    /// The same if healthy servers without a vote could take the place of voters.
    pub optimistic_failure_tolerance: usize,
    /// The leader.
    pub leader: ServerId,
    /// The members of the group in the order of their identities.
    pub servers: Vec<ServerState>,
}

/// How one server is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// Identity.
    pub id: ServerId,
    /// Name of its node; empty if gossip does not know it.
    pub name: Text,
    /// `host:port` of its RPC listener.
    pub address: Text,
    /// What gossip believes of it; `None` if it does not know it.
    pub status: Option<Status>,
    /// Version of its program; empty if gossip does not know it.
    pub version: Text,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it never will.
    pub read_replica: bool,
    /// How long ago the leader heard from it; zero for the leader.
    pub last_contact: Duration,
    /// Term of the last entry that it is known to have.
    pub last_term: Term,
    /// That entry.
    pub last_index: LogIndex,
    /// Whether gossip has it alive, the leader hears from it and its log is near the leader's.
    pub healthy: bool,
    /// Since when that has been so.
    pub stable_since: Wall,
}

/// For how long something has been so.
#[derive(Clone, Copy, Debug)]
struct Since {
    healthy: bool,
    mono: Mono,
    wall: Wall,
}

/// What a leader remembers about servers from one look to the next.
#[derive(Debug)]
pub(super) struct Autopilot {
    /// Settings that the first leader of a group writes.
    initial: AutopilotSettings,
    /// Health of each member of the group.
    health: BTreeMap<ServerId, Since>,
    /// Since when gossip has not known a member of the group.
    absent: BTreeMap<ServerId, Mono>,
    /// The members when a change was asked for. That Raft took it shows when they are different; if it did not, the
    /// next look asks again.
    asked: Option<Membership>,
    /// Whether the group had no identity when it was looked at last.
    nameless: bool,
}

/// What gossip says of an identity: whatever is best among the members that tell it.
pub(super) fn member_of<'a>(facts: &Facts<'a>, id: ServerId) -> Option<&'a Member> {
    let rank = |member: &&Member| match member.status {
        Status::Alive => 3,
        Status::Leaving => 2,
        Status::Failed => 1,
        Status::Left => 0,
    };
    facts.members.values().filter(|member| member.is_server() && member.id() == Some(id)).max_by_key(rank)
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

impl Autopilot {
    pub(super) fn new(initial: AutopilotSettings) -> Autopilot {
        Autopilot { initial, health: BTreeMap::new(), absent: BTreeMap::new(), asked: None, nameless: true }
    }

    /// Leadership has begun: what is missing in the replicated state is written, with an identity drawn for this.
    pub(super) fn begin(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>, group: Uuid) {
        if facts.store.group().is_none() {
            cx.emit(Effect::Propose(Command::GroupNamed { id: group }));
        }
        if facts.store.autopilot().is_none() {
            let settings = Box::new(self.initial.clone());
            cx.emit(Effect::Propose(Command::AutopilotSet { settings, cas: Some(0) }));
        }
        self.look(cx, facts);
    }

    pub(super) fn end(&mut self) {
        self.health.clear();
        self.absent.clear();
        self.asked = None;
    }

    /// Something was applied: a change of the group may have become final, and another one possible.
    pub(super) fn on_applied(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        let is_named = self.nameless && facts.store.group().is_some();
        let is_changed = self.asked.as_ref().is_some_and(|before| before != facts.raft.membership());
        if is_named || is_changed && !facts.raft.is_changing() {
            self.look(cx, facts);
        }
    }

    /// Time to look again, and to ask again for what did not come to pass.
    pub(super) fn on_timer(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        self.asked = None;
        self.look(cx, facts);
    }

    /// Looks at all servers, asks for the most urgent change, and comes back in a while if there is anybody to watch.
    pub(super) fn look(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        self.watch(cx.now, facts);
        let is_alone = facts.raft.membership().servers.len() <= 1
            && !facts.members.values().any(|member| {
                member.is_server() && member.status == Status::Alive && member.id() != Some(facts.raft.id())
            });
        let timer = Timer::Duty(DutyTimer::Autopilot);
        if is_alone {
            cx.timers.cancel(&timer);
        } else {
            cx.timers.set(timer, cx.mono() + EVERY);
        }
        self.nameless = facts.store.group().is_none();
        let is_asked = self.asked.as_ref() == Some(facts.raft.membership());
        if self.nameless || is_asked || facts.raft.is_changing() {
            return;
        }
        self.asked = None;
        if let Some(change) = self.change(cx.now, facts) {
            self.asked = Some(facts.raft.membership().clone());
            cx.emit(Effect::ChangeMembership(change));
        }
    }

    fn settings<'a>(&'a self, facts: &Facts<'a>) -> &'a AutopilotSettings {
        facts.store.autopilot().map_or(&self.initial, |row| &row.settings)
    }

    /// Takes note of who is healthy and who is known.
    fn watch(&mut self, now: Now, facts: &Facts<'_>) {
        let members = &facts.raft.membership().servers;
        self.health.retain(|id, _| members.contains_key(id));
        self.absent.retain(|id, _| members.contains_key(id));
        for server in self.servers(now, facts) {
            let since = Since { healthy: server.healthy, mono: now.mono, wall: now.wall };
            let known = self.health.entry(server.id).or_insert(since);
            if known.healthy != server.healthy {
                *known = since;
            }
            if server.status.is_some() {
                self.absent.remove(&server.id);
            } else {
                self.absent.entry(server.id).or_insert(now.mono);
            }
        }
    }

    /// How each member of the group is doing at this moment.
    fn servers(&self, now: Now, facts: &Facts<'_>) -> Vec<ServerState> {
        let (raft, settings) = (facts.raft, self.settings(facts));
        let last = raft.last_index();
        let last_term = raft.entry_term(last).unwrap_or_default();
        let peers: BTreeMap<ServerId, _> =
            raft.peers(now.mono).into_iter().map(|peer| (peer.id, peer)).collect();
        let state = |(id, server): (&ServerId, &crate::raft::Member)| {
            let id = *id;
            let (leader, member) = (id == raft.id(), member_of(facts, id));
            let (last_index, contact) = match peers.get(&id) {
                _ if leader => (last, Duration::ZERO),
                Some(peer) => (peer.matched, peer.last_contact),
                None => (LogIndex(0), Duration::MAX),
            };
            let term = raft.entry_term(last_index).unwrap_or_default();
            let is_near = term == last_term && last.0 - last_index.0 <= settings.max_trailing_logs;
            let is_heard = contact < settings.last_contact_threshold;
            let is_alive = member.is_some_and(|member| member.status == Status::Alive);
            let healthy = leader && !raft.is_stuck() || !leader && is_alive && is_heard && is_near;
            let since = self.health.get(&id).filter(|since| since.healthy == healthy);
            let build = member.map_or("", |member| member.tag(tag::BUILD));
            ServerState {
                id,
                name: member.map(|member| member.name.clone()).unwrap_or_default(),
                address: server.address.clone(),
                status: member.map(|member| member.status),
                version: Text::new(build.split_once(':').map_or(build, |(version, _)| version)),
                leader,
                voter: server.voter,
                read_replica: member.is_some_and(is_read_replica),
                last_contact: contact,
                last_term: term,
                last_index,
                healthy,
                stable_since: since.map_or(now.wall, |since| since.wall),
            }
        };
        raft.membership().servers.iter().map(state).collect()
    }

    /// How the group is doing.
    pub(super) fn state(&self, now: Now, facts: &Facts<'_>) -> State {
        let servers = self.servers(now, facts);
        let voters = servers.iter().filter(|server| server.voter).count();
        let healthy = servers.iter().filter(|server| server.healthy && server.voter).count();
        let substitutes =
            servers.iter().filter(|server| server.healthy && !server.voter && !server.read_replica).count();
        State {
            healthy: servers.iter().all(|server| server.healthy),
            failure_tolerance: healthy.saturating_sub(quorum(voters)),
            optimistic_failure_tolerance: (healthy + substitutes).saturating_sub(quorum(voters)),
            leader: facts.raft.id(),
            servers,
        }
    }

    /// The most urgent change of the group, if there is any.
    fn change(&self, now: Now, facts: &Facts<'_>) -> Option<MembershipChange> {
        let servers = self.servers(now, facts);
        self.left(facts, &servers)
            .or_else(|| moved(facts))
            .or_else(|| joined(facts))
            .or_else(|| self.stable(now, facts, &servers))
            .or_else(|| replaced(facts, &servers))
            .or_else(|| self.dead(now, facts, &servers))
    }

    /// A server that has left, or was declared to have left, is removed.
    fn left(&self, facts: &Facts<'_>, servers: &[ServerState]) -> Option<MembershipChange> {
        let left = servers.iter().find(|server| server.status == Some(Status::Left) && !server.leader)?;
        possible(facts.raft.membership(), MembershipChange::Remove { id: left.id })
    }

    /// A server without a vote that has been healthy for long enough gets one.
    fn stable(&self, now: Now, facts: &Facts<'_>, servers: &[ServerState]) -> Option<MembershipChange> {
        let wait = self.settings(facts).server_stabilization_time;
        let is_stable = |server: &&ServerState| {
            let since = self.health.get(&server.id);
            !server.voter
                && !server.read_replica
                && server.healthy
                && since.is_some_and(|since| since.healthy && now.mono.since(since.mono) >= wait)
        };
        servers.iter().find(is_stable).map(|server| MembershipChange::Promote { id: server.id })
    }

    /// A server that has failed is removed, if that cannot take the quorum away and makes the group more robust.
    fn dead(&self, now: Now, facts: &Facts<'_>, servers: &[ServerState]) -> Option<MembershipChange> {
        let settings = self.settings(facts);
        if !settings.cleanup_dead_servers {
            return None;
        }
        let is_dead = |server: &&ServerState| {
            let is_lost = match server.status {
                Some(Status::Failed) => true,
                Some(Status::Alive | Status::Leaving | Status::Left) => false,
                // Its place was taken by a server of another identity: it has lost its disk.
                None if candidates(facts).any(|(_, address, _)| address == server.address) => true,
                None => {
                    let since = self.absent.get(&server.id);
                    since.is_some_and(|since| now.mono.since(*since) >= ABSENT_MAX)
                }
            };
            // Whoever answers the leader is alive, whatever gossip believes.
            is_lost && !server.leader && server.last_contact >= settings.last_contact_threshold
        };
        let dead: Vec<&ServerState> = servers.iter().filter(is_dead).collect();
        if let Some(spare) = dead.iter().find(|server| !server.voter) {
            return Some(MembershipChange::Remove { id: spare.id });
        }
        let voters = servers.iter().filter(|server| server.voter).count();
        let healthy = servers.iter().filter(|server| server.voter && server.healthy).count();
        may_remove(voters, healthy, dead.len(), settings.min_quorum)
            .then(|| dead.first().map(|server| MembershipChange::Remove { id: server.id }))
            .flatten()
    }
}

/// A server in whose place another one runs: gossip does not know its identity, and has another one alive at its address.
/// So it lost its disk and will not return, while a server that has merely failed may. It is removed as soon as the
/// others can do without it, which is at the latest when whoever took its place votes.
fn replaced(facts: &Facts<'_>, servers: &[ServerState]) -> Option<MembershipChange> {
    let is_replaced = |server: &&ServerState| {
        server.status.is_none()
            && !server.leader
            && candidates(facts).any(|(id, address, _)| id != server.id && address == server.address)
    };
    let gone = servers.iter().find(is_replaced)?;
    let others = servers.iter().filter(|server| server.voter && server.id != gone.id);
    let healthy = others.clone().filter(|server| server.healthy).count();
    (!gone.voter || healthy >= quorum(others.count())).then_some(MembershipChange::Remove { id: gone.id })
}

/// Whether one of the dead voters may be removed: they are a minority, enough voters are left afterwards, those that
/// are healthy are a quorum of them, and without all the dead the group tolerates more failures than with them.
fn may_remove(voters: usize, healthy: usize, dead: usize, min_quorum: u64) -> bool {
    let left = voters.saturating_sub(1);
    dead > 0
        && dead * 2 < voters
        && left as u64 >= min_quorum
        && healthy >= quorum(left)
        && healthy.saturating_sub(quorum(voters - dead)) > healthy.saturating_sub(quorum(voters))
}

fn is_read_replica(member: &Member) -> bool {
    member.tag(tag::READ_REPLICA) == "1"
}

/// Live servers of this datacenter whose address is known.
fn candidates<'a>(facts: &Facts<'a>) -> impl Iterator<Item = (ServerId, Text, &'a Member)> {
    let datacenter = facts.about.datacenter.as_str();
    facts.members.values().filter_map(move |member| {
        let is_here = member.tag(tag::DATACENTER) == datacenter && member.status == Status::Alive;
        let address = member.rpc_address()?.to_string();
        is_here.then_some((member.id()?, Text::new(address), member))
    })
}

/// A member of the group that is reached elsewhere.
fn moved(facts: &Facts<'_>) -> Option<MembershipChange> {
    let members = &facts.raft.membership().servers;
    let is_moved = |id: &ServerId, address: &Text| {
        members.get(id).is_some_and(|server| server.address != *address)
            // Two live agents with one identity would move it to and fro for ever.
            && candidates(facts).filter(|(other, ..)| other == id).count() == 1
    };
    let (id, address, _) = candidates(facts).find(|(id, address, _)| is_moved(id, address))?;
    Some(MembershipChange::SetAddress { id, address })
}

/// A server that belongs to no other group, is no member of this one, and understands its commands. Not if it would found a group by itself, and
/// another one in sight would too: one of them was configured so by mistake (as in Consul).
fn joined(facts: &Facts<'_>) -> Option<MembershipChange> {
    let members = &facts.raft.membership().servers;
    let own = facts.store.group().map(|group| group.to_string());
    let founders = candidates(facts).filter(|(.., member)| member.tag(tag::BOOTSTRAP) == "1").count();
    let format = facts.store.format();
    let is_welcome = |member: &Member| {
        let group = member.tag(tag::GROUP);
        let understands =
            Formats::parse(member.tag(tag::FORMATS)).is_some_and(|formats| formats.contains(format));
        let is_rival = member.tag(tag::BOOTSTRAP) == "1" && founders > 1;
        (group.is_empty() || Some(group) == own.as_deref()) && !is_rival && understands
    };
    let (id, address, _) =
        candidates(facts).find(|(id, _, member)| !members.contains_key(id) && is_welcome(member))?;
    Some(MembershipChange::AddNonVoter { id, address })
}

fn possible(members: &Membership, change: MembershipChange) -> Option<MembershipChange> {
    members.with(change.clone()).is_ok().then_some(change)
}

/// The change by which an operator removes a server, by identity or by address.
///
/// # Errors
/// In Consul's words: there is no such server, or no voter would be left.
pub fn peer_removal(
    members: &Membership,
    id: Option<&str>,
    address: Option<&str>,
) -> Result<MembershipChange, String> {
    let found = members.servers.iter().find(|(known, server)| match (id, address) {
        (Some(id), _) => Uuid::parse(id) == Some(**known),
        (None, Some(address)) => server.address == address,
        (None, None) => false,
    });
    let Some((id, _)) = found else {
        return Err(match (id, address) {
            (Some(id), _) => format!("id \"{id}\" was not found in the Raft configuration"),
            (None, address) => {
                format!("address \"{}\" was not found in the Raft configuration", address.unwrap_or_default())
            }
        });
    };
    let change = MembershipChange::Remove { id: *id };
    match members.with(change.clone()) {
        Ok(_) => Ok(change),
        Err(_) => Err("Need at least one voter in configuration: {[]}".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::may_remove;

    #[test]
    fn a_dead_server_is_removed_only_if_that_makes_the_group_more_robust() {
        for (voters, healthy, dead, min_quorum, removed) in [
            (3, 3, 0, 0, false),
            (3, 2, 1, 0, false), // Two voters tolerate no more than three with one dead.
            (4, 3, 1, 0, true),  // It was replaced.
            (4, 3, 1, 4, false),
            (4, 3, 1, 3, true),
            (4, 2, 2, 0, false), // No minority.
            (5, 4, 1, 0, false),
            (5, 3, 2, 0, true),  // Three voters that all live tolerate one more failure.
            (5, 2, 2, 0, false), // Those that live must be a quorum of those that are left.
            (6, 4, 2, 0, true),
            (7, 4, 3, 0, true),
            (1, 1, 0, 0, false),
        ] {
            let case = (voters, healthy, dead, min_quorum);
            assert_eq!(may_remove(voters, healthy, dead, min_quorum), removed, "{case:?}");
        }
    }
}
