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
use crate::format::Formats;
use crate::gossip::{Member, Status, tag};
use crate::ids::{LogIndex, ServerId, Uuid};
use crate::raft::{self, Membership, Payload, Raft};
use crate::rng::Rng;
use crate::store::command::Command;

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
    /// The plan that a policy comes down to: to expect one is the same as alone. A group that is given as a whole needs
    /// none.
    #[must_use]
    pub fn of(policy: &FormingPolicy) -> Plan {
        match policy {
            FormingPolicy::Alone | FormingPolicy::Expect(1) => Plan::Alone,
            FormingPolicy::Found(_) | FormingPolicy::Wait | FormingPolicy::Expect(0) => Plan::Wait,
            FormingPolicy::Expect(expect) => Plan::Expect(usize::try_from(*expect).unwrap_or(usize::MAX)),
        }
    }
}

/// What forming wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Call [`Raft::found`] with these members; whether that works shows in Raft's log.
    Found(Membership),
    /// Call [`Raft::stop_founding`]: somebody else is to found the group.
    Withdraw,
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
                if facts.raft.is_founding() {
                    cx.emit(Effect::Withdraw);
                }
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
///
/// A server that has just started knows nothing to be committed, and so no name of its group: its log has the name, and
/// it must listen to a leader that joined after the last entry that it has, or it would never learn of any later one. A
/// log may also end before the entry with the name: then the group is that of the members that the log knows, as they
/// tell.
#[must_use]
pub fn may_hear(
    raft: &Raft,
    own_group: Option<Uuid>,
    from: ServerId,
    group_of: impl Fn(ServerId) -> Option<Uuid>,
    formats: Formats,
) -> bool {
    let members = &raft.membership().servers;
    if raft.last_index().0 == 0 {
        return true;
    }
    match (own_group, group_of(from)) {
        (Some(own), Some(theirs)) => own == theirs,
        (Some(_), None) | (None, None) => members.contains_key(&from),
        (None, Some(theirs)) => {
            members.contains_key(&from)
                || log_names(raft, theirs, formats)
                || members.keys().any(|member| group_of(*member) == Some(theirs))
        }
    }
}

/// Whether an entry of the log, committed or not, gives the group this name. Names are drawn: no other group has it.
fn log_names(raft: &Raft, group: Uuid, formats: Formats) -> bool {
    let after_base = raft.base_index().0 + 1..=raft.last_index().0;
    let mut commands = after_base.filter_map(|index| match &raft.entry(LogIndex(index))?.payload {
        Payload::Command(command) => Command::decode(command, formats).ok(),
        Payload::Noop | Payload::Membership(_) => None,
    });
    commands.any(|command| matches!(command, Command::GroupNamed { id } if id == group))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use imbl::OrdMap;

    use super::*;
    use crate::ids::Term;
    use crate::node::About;
    use crate::raft::{Entry, HardState, Limits, Recovered, Timing};
    use crate::store::Store;
    use crate::time::{Mono, Now};
    use crate::timers::Timers;

    /// Server 2 with what it sees.
    struct Bench {
        forming: Forming,
        raft: Raft,
        store: Store,
        about: About,
        members: OrdMap<Text, Member>,
        now: Now,
        timers: Timers<Timer>,
    }

    fn server(number: u128, tags: &[(&str, &str)]) -> Member {
        let id = Uuid(number).to_string();
        let own = [
            (tag::ROLE, tag::ROLE_SERVER),
            (tag::DATACENTER, "dc1"),
            (tag::ID, id.as_str()),
            (tag::PORT, "8300"),
        ];
        let tags: BTreeMap<Text, Text> =
            own.iter().chain(tags).map(|(key, value)| (Text::new(key), Text::new(value))).collect();
        Member {
            name: Text::new(format!("s{number}")),
            address: format!("10.0.0.{number}:8301").parse().expect("an address"),
            tags: Arc::new(tags),
            status: Status::Alive,
        }
    }

    fn expecting(number: u128) -> Member {
        server(number, &[(tag::EXPECT, "3")])
    }

    fn raft_of(recovered: Recovered) -> Raft {
        let config = raft::Config { id: Uuid(2), timing: Timing::default(), limits: Limits::default() };
        Raft::new(config, recovered, Rng::from_seed(1), Now::default())
    }

    impl Bench {
        fn new(plan: Plan, joins: bool, members: impl IntoIterator<Item = Member>) -> Bench {
            Bench {
                forming: Forming::new(plan, joins, Rng::from_seed(3)),
                raft: raft_of(Recovered::default()),
                store: Store::new(),
                about: About { datacenter: "dc1".into(), ..About::default() },
                members: members.into_iter().map(|member| (member.name.clone(), member)).collect(),
                now: Now { mono: Mono(1), ..Now::default() },
                timers: Timers::default(),
            }
        }

        /// Whom it wants to found a group with after this call.
        fn call(
            &mut self,
            act: impl FnOnce(&mut Forming, &mut Cx<'_, Effect>, &Facts<'_>),
        ) -> Option<Vec<u128>> {
            let mut effects = Vec::new();
            let mut cx = Cx { now: self.now, timers: &mut self.timers, effects: &mut effects };
            let facts =
                Facts { store: &self.store, members: &self.members, raft: &self.raft, about: &self.about };
            act(&mut self.forming, &mut cx, &facts);
            assert!(effects.len() <= 1);
            match effects.pop() {
                Some(Effect::Found(group)) => Some(group.servers.keys().map(|id| id.0).collect()),
                Some(Effect::Withdraw) | None => None,
            }
        }

        fn look(&mut self) -> Option<Vec<u128>> {
            self.call(Forming::look)
        }
    }

    #[test]
    fn policies_come_down_to_a_plan() {
        for (policy, plan) in [
            (FormingPolicy::Wait, Plan::Wait),
            (FormingPolicy::Alone, Plan::Alone),
            (FormingPolicy::Expect(0), Plan::Wait),
            (FormingPolicy::Expect(1), Plan::Alone),
            (FormingPolicy::Expect(2), Plan::Expect(2)),
        ] {
            assert_eq!(Plan::of(&policy), plan);
        }
    }

    #[test]
    fn the_lowest_of_those_that_are_expected_founds_the_group() {
        let left = Member { status: Status::Left, ..expecting(3) };
        let bootstrap = server(5, &[(tag::BOOTSTRAP, "1")]);
        let group = server(5, &[(tag::GROUP, "x"), (tag::EXPECT, "3")]);
        let replica = server(3, &[(tag::EXPECT, "3"), (tag::READ_REPLICA, "1")]);
        let other = server(3, &[(tag::EXPECT, "5")]);
        let abroad = server(3, &[(tag::EXPECT, "3"), (tag::DATACENTER, "dc2")]);
        let [two, three, four, one] = [expecting(2), expecting(3), expecting(4), expecting(1)];
        type Case = (&'static str, Vec<Member>, Option<Vec<u128>>);
        let cases: [Case; 12] = [
            ("three are there", vec![two.clone(), three.clone(), four.clone()], Some(vec![2, 3, 4])),
            ("two are there", vec![two.clone(), three.clone()], None),
            ("one of them has left", vec![two.clone(), left, four.clone()], None),
            (
                "more are there",
                vec![two.clone(), three.clone(), four.clone(), expecting(5)],
                Some(vec![2, 3, 4]),
            ),
            ("another one is lower", vec![one, two.clone(), three.clone()], None),
            ("one founds alone", vec![two.clone(), three.clone(), four.clone(), bootstrap], None),
            ("there is a group", vec![two.clone(), three.clone(), four.clone(), group], None),
            ("one never votes", vec![two.clone(), replica, four.clone()], None),
            ("one expects more", vec![two.clone(), other, four.clone()], None),
            ("one is elsewhere", vec![two.clone(), abroad, four.clone()], None),
            ("one was told nothing", vec![two.clone(), server(3, &[]), four.clone()], None),
            ("nobody is there", vec![], None),
        ];
        for (what, members, wanted) in cases {
            assert_eq!(Bench::new(Plan::Expect(3), true, members).look(), wanted, "{what}");
        }
    }

    #[test]
    fn a_founder_asks_again_until_it_has_a_log() {
        let mut bench = Bench::new(Plan::Expect(3), false, [2, 3, 4].map(expecting));
        assert!(bench.look().is_some());
        assert_eq!(bench.look(), None, "asked already");
        for _ in 0..10 {
            let (at, timer) = bench.timers.next().map(|(at, timer)| (at, timer.clone())).expect("armed");
            assert_eq!(timer, Timer::Forming);
            assert!(at.since(bench.now.mono) <= RETRY_MAX + RETRY_MAX / 2);
            bench.now.mono = at;
            bench.timers.cancel(&timer);
            assert!(bench.call(Forming::on_timer).is_some());
        }
        let member = raft::Member { address: "10.0.0.2:8300".into(), voter: true };
        let membership = Membership { servers: [(Uuid(2), member)].into() };
        let entry = Entry { term: Term(1), index: LogIndex(1), payload: Payload::Membership(membership) };
        let hard = HardState { term: Term(1), vote: None };
        bench.raft = raft_of(Recovered { hard, entries: vec![entry], ..Recovered::default() });
        assert_eq!(bench.look(), None);
        assert!(bench.timers.next().is_none(), "never again");
    }

    #[test]
    fn one_that_founds_alone_looks_around_first() {
        let own = || server(2, &[(tag::BOOTSTRAP, "1")]);
        let mut bench = Bench::new(Plan::Alone, false, [own()]);
        assert_eq!(bench.call(Forming::start), Some(vec![2]));
        let mut bench = Bench::new(Plan::Alone, true, [own()]);
        assert_eq!(bench.call(Forming::start), None, "it may meet a group");
        assert_eq!(bench.call(Forming::on_joined), Some(vec![2]));
        let mut bench = Bench::new(Plan::Alone, true, [own()]);
        bench.call(Forming::start);
        assert_eq!(bench.call(Forming::on_timer), Some(vec![2]), "nobody answers");
        for other in [server(1, &[(tag::GROUP, "x")]), server(1, &[(tag::BOOTSTRAP, "1")])] {
            let mut bench = Bench::new(Plan::Alone, true, [own(), other]);
            bench.call(Forming::start);
            assert_eq!(bench.call(Forming::on_joined), None);
        }
    }

    #[test]
    fn groups_that_meet_do_not_hear_each_other() {
        let (ours, theirs) = (Some(Uuid(70)), Some(Uuid(71)));
        let blank = raft_of(Recovered::default());
        assert!(may_hear(&blank, None, Uuid(9), |_| theirs, Formats::KNOWN));
        let member = raft::Member { address: "10.0.0.2:8300".into(), voter: true };
        let membership = Membership { servers: [(Uuid(2), member.clone()), (Uuid(3), member)].into() };
        let entry = Entry { term: Term(1), index: LogIndex(1), payload: Payload::Membership(membership) };
        let hard = HardState { term: Term(1), vote: None };
        let raft = raft_of(Recovered { hard, entries: vec![entry], ..Recovered::default() });
        for (own, from, group, heard) in [
            (ours, 9, ours, true),
            (ours, 3, theirs, false),
            (ours, 3, None, true),
            (ours, 9, None, false),
            (None, 3, ours, true),
            (None, 9, ours, false),
        ] {
            let group_of = |id| if id == Uuid(from) { group } else { None };
            let hears = may_hear(&raft, own, Uuid(from), group_of, Formats::KNOWN);
            assert_eq!(hears, heard, "{own:?} {from} {group:?}");
        }
    }

    #[test]
    fn regression_a_server_that_restarts_hears_a_leader_that_joined_its_group_after_its_last_entry() {
        let named = Command::GroupNamed { id: Uuid(70) }.encode(crate::format::Format::FIRST);
        let member = raft::Member { address: "10.0.0.2:8300".into(), voter: true };
        let membership = Membership { servers: [(Uuid(2), member)].into() };
        let entry = |index, payload| Entry { term: Term(1), index: LogIndex(index), payload };
        let entries = vec![entry(1, Payload::Membership(membership)), entry(2, Payload::Command(named))];
        let hard = HardState { term: Term(1), vote: None };
        let raft = raft_of(Recovered { hard, entries, ..Recovered::default() });
        for (group, heard) in [(70, true), (71, false)] {
            let group_of = |id| (id == Uuid(9)).then_some(Uuid(group));
            assert_eq!(may_hear(&raft, None, Uuid(9), group_of, Formats::KNOWN), heard);
        }
    }

    #[test]
    fn regression_a_server_whose_log_ends_before_the_name_of_its_group_knows_it_from_the_members_of_its_log()
    {
        let member = raft::Member { address: "10.0.0.2:8300".into(), voter: true };
        let membership = Membership { servers: [(Uuid(2), member.clone()), (Uuid(3), member)].into() };
        let entry = Entry { term: Term(1), index: LogIndex(1), payload: Payload::Membership(membership) };
        let hard = HardState { term: Term(1), vote: None };
        let raft = raft_of(Recovered { hard, entries: vec![entry], ..Recovered::default() });
        for (fellow, heard) in [(Some(70), true), (Some(71), false), (None, false)] {
            let group_of = |id| match id {
                Uuid(3) => fellow.map(Uuid),
                Uuid(9) => Some(Uuid(70)),
                _ => None,
            };
            assert_eq!(may_hear(&raft, None, Uuid(9), group_of, Formats::KNOWN), heard, "{fellow:?}");
        }
    }
}
