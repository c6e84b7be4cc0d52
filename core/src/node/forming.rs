//! What founds a group of servers on an empty log: `-bootstrap`, `-bootstrap-expect N`.
//!
//! A server that was told to expect N waits until it sees N live servers that expect the same, and none that belongs to
//! a group or would found one alone. Of these the one with the lowest identity founds the group of the N lowest, with
//! the consent of each of them; everybody else waits to be contacted. Views may differ: Raft's founding (see there)
//! makes sure that no server ends up in two groups, and so that there is only one as long as fewer than 2N servers
//! are started. Which N are taken only decides how soon it comes about: the rule is the same everywhere, so servers
//! that see the same do not get in each other's way. Whoever is not among them is added by the leader.
//!
//! `-bootstrap` founds a group of one at once, or as soon as its first attempt to join others has ended: if it then sees a
//! server that belongs to a group, or another one that would found one alone, it waits to be added.
//!
//! None of this matters once there is a log.

use std::time::Duration;

use super::FormingPolicy;
use super::duties::Facts;
use crate::Text;
use crate::cx::{Cx, Timer};
use crate::gossip::{Member, Status, tag};
use crate::ids::{ServerId, Uuid};
use crate::raft::{self, Membership, Raft};
use crate::rng::Rng;

/// For how long the first attempt to join others may keep a server from founding a group alone.
const JOIN_MAX: Duration = Duration::from_secs(5);
/// Wait before a founder asks again; doubled up to the maximum, and up to half of it longer.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(8);

/// What a server founds a group with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// Nobody: it waits to be added to a group.
    #[default]
    Wait,
    /// Itself alone.
    Alone,
    /// So many servers, itself included; more than one.
    Expect(usize),
}

impl Plan {
    /// What the settings `bootstrap` and `bootstrap_expect` say; zero expects nothing, one is the same as alone.
    #[must_use]
    pub fn new(bootstrap: bool, expect: usize) -> Plan {
        match expect {
            _ if bootstrap => Plan::Alone,
            0 => Plan::Wait,
            1 => Plan::Alone,
            expect => Plan::Expect(expect),
        }
    }

    /// The plan that a policy comes down to. A group that is given as a whole needs none.
    #[must_use]
    pub fn of(policy: &FormingPolicy) -> Plan {
        match policy {
            FormingPolicy::Alone => Plan::Alone,
            FormingPolicy::Expect(expect) => Plan::new(false, usize::try_from(*expect).unwrap_or(usize::MAX)),
            FormingPolicy::Found(_) | FormingPolicy::Wait => Plan::Wait,
        }
    }

    /// What an operator should know about this plan.
    #[must_use]
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Plan::Expect(2) => Some("A group of 2 servers stops when one of them fails"),
            Plan::Expect(expect) if expect % 2 == 0 => Some(
                "A group with an even number of servers tolerates no more failures than one with one less",
            ),
            Plan::Wait | Plan::Alone | Plan::Expect(_) => None,
        }
    }
}

/// What forming wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Call [`Raft::found`] with these members; whether that works shows in Raft's log.
    Found(Membership),
}

/// Waits for the servers that found a group together.
#[derive(Debug)]
pub struct Forming {
    plan: Plan,
    rng: Rng,
    /// Whether an attempt to join others may still show a group.
    joining: bool,
    /// The next wait before asking again.
    retry: Duration,
    /// The members that were asked last.
    asked: Option<Membership>,
}

impl Forming {
    /// A server with this plan. `joins`: it tries to join others as it starts, see [`Forming::on_joined`].
    #[must_use]
    pub fn new(plan: Plan, joins: bool, rng: Rng) -> Forming {
        Forming { plan, rng, joining: joins && plan == Plan::Alone, retry: RETRY, asked: None }
    }

    /// The node starts.
    pub fn start(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        if self.joining && is_open(facts.raft) {
            cx.timers.set(Timer::Forming, cx.mono() + JOIN_MAX);
        }
        self.look(cx, facts);
    }

    /// The first attempt to join others has ended, whether it met anybody or not.
    pub fn on_joined(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        self.joining = false;
        self.look(cx, facts);
    }

    /// Time to try again.
    pub fn on_timer(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        self.joining = false;
        self.asked = None;
        self.look(cx, facts);
    }

    /// Gossip says something new of a server, or Raft's log is not empty any more: founds a group if the time has come.
    pub fn look(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        if self.plan == Plan::Wait || self.joining && is_open(facts.raft) {
            return;
        }
        if !is_open(facts.raft) {
            self.plan = Plan::Wait;
            cx.timers.cancel(&Timer::Forming);
            return;
        }
        match founders(self.plan, facts) {
            Some(membership) if self.asked.as_ref() != Some(&membership) => {
                self.asked = Some(membership.clone());
                let wait = self.retry + self.rng.duration_below(self.retry / 2);
                self.retry = (self.retry * 2).min(RETRY_MAX);
                cx.timers.set(Timer::Forming, cx.mono() + wait);
                cx.emit(Effect::Found(membership));
            }
            Some(_) => {}
            None => {
                self.asked = None;
                self.retry = RETRY;
                cx.timers.cancel(&Timer::Forming);
            }
        }
    }
}

/// Whether this server belongs to no group and hears of none.
fn is_open(raft: &Raft) -> bool {
    raft.last_index().0 == 0 && raft.leader().is_none()
}

/// A live server of this datacenter.
struct Seen<'a> {
    id: ServerId,
    address: Text,
    member: &'a Member,
}

/// Those with whom this server is to found a group now.
fn founders(plan: Plan, facts: &Facts<'_>) -> Option<Membership> {
    let own = facts.raft.id();
    let datacenter = facts.about.datacenter.as_str();
    let seen: Vec<Seen<'_>> = facts
        .members
        .values()
        .filter(|member| member.status == Status::Alive && member.tag(tag::DATACENTER) == datacenter)
        .filter_map(|member| {
            let address = Text::new(member.rpc_address()?.to_string());
            Some(Seen { id: member.id()?, address, member })
        })
        .collect();
    let is_other = |server: &&Seen<'_>| server.id != own;
    let has = |server: &Seen<'_>, name: &str| !server.member.tag(name).is_empty();
    if seen.iter().filter(is_other).any(|server| has(server, tag::GROUP) || has(server, tag::BOOTSTRAP)) {
        return None;
    }
    let mut chosen: Vec<&Seen<'_>> = match plan {
        Plan::Wait => return None,
        Plan::Alone => seen.iter().filter(|server| server.id == own).collect(),
        Plan::Expect(expect) => {
            let expected = expect.to_string();
            let others = |server: &&Seen<'_>| has(server, tag::EXPECT);
            if seen.iter().filter(others).any(|server| server.member.tag(tag::EXPECT) != expected) {
                return None; // Somebody was told something else: by mistake, and nobody knows whose.
            }
            let votes = |server: &&Seen<'_>| server.member.tag(tag::READ_REPLICA) != "1";
            seen.iter().filter(others).filter(votes).collect()
        }
    };
    let count = match plan {
        Plan::Expect(expect) => expect,
        Plan::Alone | Plan::Wait => 1,
    };
    chosen.sort_by_key(|server| server.id);
    chosen.dedup_by_key(|server| server.id);
    if chosen.len() < count || chosen.first().is_none_or(|first| first.id != own) {
        return None;
    }
    let voter =
        |server: &&Seen<'_>| (server.id, raft::Member { address: server.address.clone(), voter: true });
    Some(Membership { servers: chosen.iter().take(count).map(voter).collect() })
}

/// Whether this server may listen to what another one's Raft says. Groups that meet in gossip must not mix: their logs
/// have nothing in common. An empty log has nothing to lose; a group that is not named yet consists of its founders.
#[must_use]
pub fn may_hear(raft: &Raft, own_group: Option<Uuid>, from: ServerId, their_group: Option<Uuid>) -> bool {
    if raft.last_index().0 == 0 {
        return true;
    }
    match (own_group, their_group) {
        (Some(own), Some(theirs)) => own == theirs,
        (Some(_) | None, _) => raft.membership().servers.contains_key(&from),
    }
}
