//! The duties by hand: given these facts, exactly these effects.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::format::Format;
use crate::gossip::{Status, tag};
use crate::ids::{LogIndex, ServerId, Term};
use crate::raft::{self, Entry, HardState, Membership, Payload, Recovered, Timing};
use crate::store::command::{Deregistration, Registration};
use crate::store::model::{Health, Session, SessionBehavior};
use crate::time::{Mono, Wall};
use crate::timers::Timers;

/// What an older program understands.
const FIRST: Formats = Formats { oldest: Format::FIRST, newest: Format::FIRST };

/// A leader that is the only voter so far, with its clock, a store and a gossip pool.
struct Bench {
    duties: Duties,
    store: Store,
    index: u64,
    members: OrdMap<Text, Member>,
    raft: Raft,
    raft_effects: Vec<raft::Effect>,
    about: About,
    now: Now,
    timers: Timers<Timer>,
    effects: Vec<Effect>,
}

fn server(number: u128) -> Member {
    let tags = [
        (tag::ROLE, tag::ROLE_SERVER.to_owned()),
        (tag::DATACENTER, "dc1".to_owned()),
        (tag::ID, Uuid(number).to_string()),
        (tag::PORT, "8300".to_owned()),
        (tag::BUILD, "1.2.3:abc".to_owned()),
        (tag::RAFT_VERSION, "3".to_owned()),
    ];
    member(&format!("s{number}"), number, &tags)
}

fn client(name: &str, number: u128) -> Member {
    let tags = [
        (tag::ROLE, tag::ROLE_CLIENT.to_owned()),
        (tag::DATACENTER, "dc1".to_owned()),
        (tag::ID, Uuid(number).to_string()),
    ];
    member(name, number, &tags)
}

fn member(name: &str, number: u128, tags: &[(&str, String)]) -> Member {
    let tags: BTreeMap<Text, Text> =
        tags.iter().map(|(key, value)| (Text::new(key), Text::new(value))).collect();
    let address = SocketAddr::from(([10, 0, 0, u8::try_from(number % 250).unwrap()], 8301));
    Member { name: Text::new(name), address, tags: Arc::new(tags), status: Status::Alive }
}

fn tagged(member: Member, name: &str, value: &str) -> Member {
    let mut tags = BTreeMap::clone(&member.tags);
    tags.insert(Text::new(name), Text::new(value));
    Member { tags: Arc::new(tags), ..member }
}

fn address(number: u128) -> Text {
    Text::new(server(number).rpc_address().expect("a server").to_string())
}

fn voter(number: u128) -> (ServerId, raft::Member) {
    (Uuid(number), raft::Member { address: address(number), voter: true })
}

impl Bench {
    /// Server 1 alone.
    fn new() -> Bench {
        let timing = Timing::default();
        let config = raft::Config { id: Uuid(1), timing, limits: raft::Limits::default() };
        let membership = Membership { servers: [voter(1)].into() };
        let entry = Entry { term: Term(1), index: LogIndex(1), payload: Payload::Membership(membership) };
        let recovered = Recovered {
            hard: HardState { term: Term(1), vote: None },
            entries: vec![entry],
            ..Recovered::default()
        };
        let now = Now { mono: Mono(1_000_000_000_000), wall: Wall(1) };
        let mut bench = Bench {
            duties: Duties::new(Duration::from_secs(900), AutopilotSettings::default(), Rng::from_seed(1)),
            store: Store::new(),
            index: 1,
            members: OrdMap::new(),
            raft: Raft::new(config, recovered, Rng::from_seed(2), now),
            raft_effects: Vec::new(),
            about: About {
                node: "s1".into(),
                id: Uuid(1),
                datacenter: "dc1".into(),
                formats: FIRST,
                ..About::default()
            },
            now,
            timers: Timers::default(),
            effects: Vec::new(),
        };
        bench.raft(|raft, cx| raft.start(cx));
        bench.persist();
        assert!(bench.raft.ready());
        bench
    }

    fn raft<T>(&mut self, act: impl FnOnce(&mut Raft, &mut Cx<'_, raft::Effect>) -> T) -> T {
        let mut cx = Cx { now: self.now, timers: &mut self.timers, effects: &mut self.raft_effects };
        act(&mut self.raft, &mut cx)
    }

    /// What Raft writes is durable at once, and everybody whom gossip has alive answers what it sends.
    fn persist(&mut self) {
        use raft::{AppendReply, Body, Effect, Message, Verdict};
        while !self.raft_effects.is_empty() {
            for effect in std::mem::take(&mut self.raft_effects) {
                match effect {
                    Effect::Persist { token, .. } => self.raft(|raft, cx| raft.on_persisted(cx, token)),
                    Effect::Send { to, message: Message { term, body: Body::Append(append) } }
                        if self.is_alive(to) =>
                    {
                        let last = append.entries.last().map_or(append.prev.index, |last| last.index);
                        let verdict = Verdict::Accepted { matched: last, verified: last };
                        let body = Body::AppendReply(AppendReply { round: append.round, verdict });
                        self.raft(|raft, cx| raft.on_message(cx, to, Message { term, body }));
                    }
                    _ => {}
                }
            }
        }
    }

    fn is_alive(&self, id: ServerId) -> bool {
        self.members.values().any(|member| member.id() == Some(id) && member.status == Status::Alive)
    }

    fn duties<T>(&mut self, act: impl FnOnce(&mut Duties, &mut Cx<'_, Effect>, &Facts<'_>) -> T) -> T {
        let mut cx = Cx { now: self.now, timers: &mut self.timers, effects: &mut self.effects };
        let facts =
            Facts { store: &self.store, members: &self.members, raft: &self.raft, about: &self.about };
        act(&mut self.duties, &mut cx, &facts)
    }

    /// Carries out effects until there are none; returns them.
    fn settle(&mut self) -> Vec<Effect> {
        let mut all = Vec::new();
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match &effect {
                    Effect::Propose(command) => {
                        let applied = self.apply(command);
                        self.duties(|duties, cx, facts| duties.on_done(cx, facts, command, &applied));
                    }
                    Effect::ChangeMembership(change) => {
                        let change = change.clone();
                        self.raft(|raft, cx| raft.propose_membership(cx, change)).expect("possible");
                        self.persist();
                    }
                }
                all.push(effect);
            }
            self.duties(|duties, cx, facts| duties.on_applied(cx, facts, &[]));
        }
        all
    }

    fn apply(&mut self, command: &Command) -> Response {
        self.index += 1;
        let applied = self.store.apply(self.index, command);
        self.duties(|duties, cx, facts| duties.on_applied(cx, facts, &applied.touched));
        applied.response
    }

    fn begin(&mut self) -> Vec<Effect> {
        self.duties(|duties, cx, facts| duties.begin(cx, facts));
        self.settle()
    }

    /// What gossip says next.
    fn says(&mut self, member: Member) {
        self.members.insert(member.name.clone(), member.clone());
        let change = MemberChange::Upsert(member);
        self.duties(|duties, cx, facts| duties.on_member(cx, facts, &change));
    }

    fn status(&mut self, name: &str, status: Status) {
        let member = Member { status, ..self.members.get(name).expect("known").clone() };
        self.says(member);
    }

    /// Lets time pass, with everything that becomes due.
    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let end = self.now.mono + time;
        let mut all = Vec::new();
        while let Some((at, _)) = self.timers.next().filter(|(at, _)| *at <= end) {
            self.now.mono = self.now.mono.max(at);
            let Some(timer) = self.timers.pop_due(self.now.mono) else { break };
            match timer {
                Timer::Duty(timer) => self.duties(|duties, cx, facts| duties.on_timer(cx, facts, &timer)),
                Timer::Raft(timer) => {
                    self.raft(|raft, cx| raft.on_timer(cx, timer));
                    self.persist();
                }
                other => unreachable!("{other:?}"),
            }
            all.extend(self.settle());
        }
        self.now.mono = end;
        all
    }

    fn health(&self, node: &str) -> Option<Health> {
        self.store.check(node, SERF_HEALTH).map(|check| check.status)
    }
}

#[test]
fn a_first_leader_names_the_group_writes_the_settings_and_registers_itself() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    assert!(bench.store.group().is_some());
    assert_eq!(bench.store.autopilot().unwrap().settings, AutopilotSettings::default());
    let node = bench.store.node("s1").expect("registered");
    assert_eq!((node.id, node.address.as_str()), (Some(Uuid(1)), "10.0.0.1"));
    assert_eq!(bench.health("s1"), Some(Health::Passing));
    let service = bench.store.service("s1", SERVICE).expect("a server");
    assert_eq!((service.port, service.meta["version"].as_str()), (8300, "1.2.3"));
    // Another leader finds nothing to do.
    bench.duties(|duties, cx, _| duties.end(cx));
    assert_eq!(bench.begin(), []);
}

#[test]
fn the_catalog_follows_an_agent_through_its_life() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    bench.says(client("c", 9));
    bench.settle();
    assert_eq!(bench.health("c"), Some(Health::Passing));
    assert!(bench.store.service("c", SERVICE).is_none(), "no server");
    bench.status("c", Status::Failed);
    bench.settle();
    assert_eq!(bench.health("c"), Some(Health::Critical));
    bench.status("c", Status::Alive);
    bench.settle();
    assert_eq!(bench.health("c"), Some(Health::Passing));
    bench.status("c", Status::Leaving);
    assert_eq!(bench.settle(), []);
    bench.status("c", Status::Left);
    bench.settle();
    assert!(bench.store.node("c").is_none());
    bench.status("s1", Status::Left);
    assert_eq!(bench.settle(), [], "never itself");
}

#[test]
fn a_member_that_flaps_writes_what_differs_in_the_end() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    bench.says(client("c", 9));
    for _ in 0..10 {
        bench.status("c", Status::Failed);
        bench.status("c", Status::Alive);
    }
    assert_eq!(bench.effects.len(), 1, "one command at a time");
    assert_eq!(bench.settle().len(), 1, "which is right in the end");
    bench.says(client("c", 9));
    assert_eq!(bench.settle(), []);
    bench.status("c", Status::Failed);
    bench.status("c", Status::Left);
    assert_eq!(bench.settle().len(), 2);
    assert!(bench.store.node("c").is_none());
}

#[test]
fn a_member_that_failed_unseen_is_registered_as_critical() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.says(Member { status: Status::Failed, ..client("c", 9) });
    bench.says(Member { status: Status::Left, ..client("d", 10) });
    bench.begin();
    assert_eq!(bench.health("c"), Some(Health::Critical));
    assert!(bench.store.node("d").is_none());
}

#[test]
fn a_name_goes_to_whom_gossip_shows_under_it_and_the_old_ones_sessions_end() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    bench.says(client("c", 9));
    bench.settle();
    let session = Session {
        id: Uuid(77),
        name: Text::default(),
        node: "c".into(),
        lock_delay: Duration::ZERO,
        behavior: SessionBehavior::Release,
        ttl: Text::default(),
        ttl_parsed: None,
        node_checks: vec![SERF_HEALTH.into()],
        service_checks: None,
        checks: Vec::new(),
        create_index: 0,
        modify_index: 0,
    };
    bench.apply(&Command::SessionCreate(Box::new(session)));
    assert!(bench.store.session(Uuid(77)).is_some());
    // Its disk was wiped, and it is back before anybody found it missing.
    bench.says(client("c", 10));
    bench.settle();
    let node = bench.store.node("c").expect("registered");
    assert_eq!((node.id, node.address.as_str()), (Some(Uuid(10)), "10.0.0.10"));
    assert_eq!(bench.health("c"), Some(Health::Passing));
    assert_eq!(bench.store.session(Uuid(77)), None, "its node is another one");
}

#[test]
fn a_session_ends_when_its_node_is_found_to_have_failed() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    bench.says(client("c", 9));
    bench.settle();
    bench.apply(&Command::SessionCreate(Box::new(ttl_session("c", None))));
    bench.status("c", Status::Failed);
    bench.settle();
    assert_eq!(bench.store.session(Uuid(77)), None);
}

fn ttl_session(node: &str, ttl: Option<Duration>) -> Session {
    Session {
        id: Uuid(77),
        name: Text::default(),
        node: node.into(),
        lock_delay: Duration::ZERO,
        behavior: SessionBehavior::Release,
        ttl: Text::default(),
        ttl_parsed: ttl,
        node_checks: vec![SERF_HEALTH.into()],
        service_checks: None,
        checks: Vec::new(),
        create_index: 0,
        modify_index: 0,
    }
}

#[test]
fn a_ttl_runs_in_full_after_a_fail_over_and_ends_on_time() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    bench.apply(&Command::SessionCreate(Box::new(ttl_session("s1", Some(Duration::from_secs(10))))));
    bench.pass(Duration::from_secs(9));
    // Another leader does not know when it was renewed last.
    bench.duties(|duties, cx, _| duties.end(cx));
    bench.begin();
    bench.pass(Duration::from_millis(9_999));
    assert!(bench.store.session(Uuid(77)).is_some(), "not before its TTL");
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.store.session(Uuid(77)), None, "and not long after it");
}

#[test]
fn two_live_agents_with_one_identity_do_not_take_it_from_each_other() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    bench.says(client("c", 9));
    bench.settle();
    bench.says(client("d", 9));
    assert_eq!(bench.settle(), []);
    // The first one goes: now it is a new name of the same agent.
    bench.status("c", Status::Failed);
    bench.settle();
    bench.says(client("d", 9));
    bench.settle();
    assert!(bench.store.node("d").is_some() && bench.store.node("c").is_none());
    // What gossip still says of the old name does not bring it back.
    bench.says(Member { status: Status::Failed, ..client("c", 9) });
    assert_eq!(bench.settle(), []);
}

#[test]
fn nodes_that_gossip_does_not_know_go_after_a_second_look_and_external_ones_stay() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    for name in ["external", "ghost", "returns"] {
        let checks = if name == "external" { Vec::new() } else { vec![serf_health(name)] };
        bench.apply(&Command::Register(Box::new(Registration {
            node: name.into(),
            address: "10.1.1.1".into(),
            datacenter: "dc1".into(),
            checks,
            ..Registration::default()
        })));
    }
    assert_eq!(bench.pass(Duration::from_secs(61)), [], "gossip may not know everybody yet");
    bench.says(client("returns", 30));
    bench.settle();
    let gone = Command::Deregister(Deregistration { node: "ghost".into(), ..Deregistration::default() });
    assert_eq!(bench.pass(Duration::from_secs(61)), [Effect::Propose(gone)]);
    assert!(bench.store.node("external").is_some());
}

fn serf_health(node: &str) -> crate::store::model::Check {
    crate::store::model::Check {
        node: node.into(),
        id: SERF_HEALTH.into(),
        status: Health::Passing,
        ..Default::default()
    }
}

#[test]
fn a_new_server_votes_after_it_has_been_healthy_for_a_while() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    assert!(bench.timers.deadline(&Timer::Duty(DutyTimer::Autopilot)).is_none(), "nobody to watch");
    bench.says(server(2));
    bench.settle();
    assert!(bench.raft.membership().servers.contains_key(&Uuid(2)));
    assert!(!bench.raft.membership().is_voter(Uuid(2)));
    bench.pass(Duration::from_secs(9));
    assert!(!bench.raft.membership().is_voter(Uuid(2)));
    bench.pass(Duration::from_secs(6));
    assert!(bench.raft.membership().is_voter(Uuid(2)));
    let now = bench.now;
    let state = bench.duties(|duties, _, facts| duties.autopilot(now, facts)).expect("leads");
    assert!(state.healthy, "{state:#?}");
    assert_eq!((state.failure_tolerance, state.servers.len()), (0, 2));
}

#[test]
fn strangers_replicas_and_rivals_are_not_made_voters() {
    let mut bench = Bench::new();
    bench.says(tagged(server(1), tag::BOOTSTRAP, "1"));
    bench.begin();
    bench.says(tagged(server(2), tag::GROUP, &Uuid(99).to_string()));
    bench.says(tagged(server(3), tag::READ_REPLICA, "1"));
    bench.says(tagged(server(4), tag::BOOTSTRAP, "1"));
    bench.says(tagged(server(5), tag::DATACENTER, "dc2"));
    bench.settle();
    bench.pass(Duration::from_secs(30));
    let servers: Vec<ServerId> = bench.raft.membership().servers.keys().copied().collect();
    assert_eq!(servers, [Uuid(1), Uuid(3)]);
    assert!(!bench.raft.membership().is_voter(Uuid(3)));
}

#[test]
fn a_server_that_moved_is_reached_elsewhere_and_one_that_left_is_removed() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    bench.says(server(2));
    bench.settle();
    bench.says(Member { address: "10.9.9.9:8301".parse().unwrap(), ..server(2) });
    bench.settle();
    assert_eq!(bench.raft.membership().servers[&Uuid(2)].address, "10.9.9.9:8300");
    bench.status("s2", Status::Left);
    bench.settle();
    assert_eq!(bench.raft.membership().servers.len(), 1);
}

#[test]
fn a_server_that_failed_stays_until_another_one_takes_its_place() {
    let mut bench = Bench::new();
    bench.says(server(1));
    bench.begin();
    for number in [2, 3] {
        bench.says(server(number));
        bench.settle();
    }
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.raft.membership().voters().count(), 3);
    bench.status("s2", Status::Failed);
    bench.settle();
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.raft.membership().voters().count(), 3, "two would tolerate no more than three");
    bench.says(server(4));
    bench.settle();
    bench.pass(Duration::from_secs(30));
    let voters: Vec<ServerId> = bench.raft.membership().voters().collect();
    assert_eq!(voters, [Uuid(1), Uuid(3), Uuid(4)]);
}

#[test]
fn a_server_whose_place_another_one_has_taken_is_removed_from_a_group_of_any_size() {
    for others in [2, 3, 4] {
        let mut bench = Bench::new();
        bench.says(server(1));
        bench.begin();
        for number in 2..=1 + others {
            bench.says(server(number));
            bench.settle();
        }
        bench.pass(Duration::from_secs(20));
        assert_eq!(bench.raft.membership().voters().count() as u128, 1 + others);
        bench.says(Member { name: "s2".into(), ..server(252) });
        bench.settle();
        bench.pass(Duration::from_secs(30));
        let voters: Vec<ServerId> = bench.raft.membership().voters().collect();
        let expected = (1..=1 + others).filter(|number| *number != 2).chain([252]).map(Uuid);
        assert_eq!(voters, expected.collect::<Vec<_>>());
    }
}

#[test]
fn an_operator_removes_servers_by_identity_or_address() {
    let members = Membership { servers: [voter(1), voter(2)].into() };
    let removal = |id: Option<&str>, address: Option<&str>| {
        autopilot::peer_removal(&members, id, address).map_err(|error| error.to_string())
    };
    let two = Ok(MembershipChange::Remove { id: Uuid(2) });
    assert_eq!(removal(Some(&Uuid(2).to_string()), None), two);
    assert_eq!(removal(None, Some("10.0.0.2:8300")), two);
    assert_eq!(removal(Some("abc"), None).unwrap_err(), "id \"abc\" was not found in the Raft configuration");
    let unknown = "address \"1.2.3.4:8300\" was not found in the Raft configuration";
    assert_eq!(removal(None, Some("1.2.3.4:8300")).unwrap_err(), unknown);
    let alone = Membership { servers: [voter(1)].into() };
    assert!(autopilot::peer_removal(&alone, None, Some("10.0.0.1:8300")).is_err());
}

#[test]
fn the_format_is_raised_when_every_server_of_the_group_knows_a_newer_one() {
    let mut bench = Bench::new();
    let knows = |number, formats| tagged(server(number), tag::FORMATS, formats);
    bench.about.formats = Formats { newest: Format::CHECKED, ..Formats::KNOWN };
    bench.says(knows(1, "1-2"));
    bench
        .raft(|raft, cx| {
            raft.propose_membership(cx, MembershipChange::AddNonVoter { id: Uuid(2), address: address(2) })
        })
        .expect("possible");
    bench.persist();
    bench.begin();
    assert_eq!(bench.store.format(), Format::FIRST, "nothing is known of the other one");
    bench.says(server(2));
    bench.settle();
    assert_eq!(bench.store.format(), Format::FIRST, "the other one is older");
    bench.says(knows(2, "1-9"));
    bench.settle();
    assert_eq!(bench.store.format(), Format::CHECKED, "the first one knows no more");
    bench.says(server(2));
    bench.settle();
    assert_eq!(bench.store.format(), Format::CHECKED, "never lowered");
}

#[test]
fn a_restore_that_nobody_goes_on_with_is_given_up_and_one_that_goes_on_is_not() {
    use crate::store::Restore;
    let mut bench = Bench::new();
    bench.begin();
    let id = Uuid(5);
    bench.apply(&Command::Restore(Restore::Begin { id }));
    for number in 0..4 {
        bench.pass(Duration::from_secs(250));
        let piece = Restore::Piece { id, number, rows: bytes::Bytes::from_static(&[0]) };
        assert_eq!(bench.apply(&Command::Restore(piece)), Response::Done);
    }
    // Another leader gives it its time in full.
    bench.pass(Duration::from_secs(250));
    bench.duties(|duties, cx, _| duties.end(cx));
    bench.begin();
    bench.pass(Duration::from_secs(250));
    assert_eq!(bench.store.restoring(), Some((id, 4)));
    let effects = bench.pass(Duration::from_secs(100));
    assert!(effects.contains(&Effect::Propose(Command::Restore(Restore::Abort { id }))), "{effects:?}");
    assert_eq!(bench.store.restoring(), None);
    bench.pass(Duration::from_secs(100));
    assert_eq!(bench.timers.deadline(&Timer::Duty(DutyTimer::Restore)), None);
}
