//! One node that keeps nothing, driven by hand: what a client sees, in which order.

mod cluster;
mod federation;
mod formats;
mod hostile;
mod repeated;
mod room;
mod waiting;

use std::time::Duration;

use bytes::Bytes;

use super::ground::{self, world};
use super::*;
use crate::Text;
use crate::api::{Authorizer, Blocking, Call, Consistency, HttpReply, Read, Request, SessionSpec, Write};
use crate::gossip::tag;
use crate::ids::Uuid;
use crate::raft::{Entry, HardState, Member, Payload, Record, Recovered, Timing};
use crate::store::AutopilotSettings;
use crate::store::command::{Command, KvCommand, KvVerb, Registration};
use crate::store::model::{Service, SessionBehavior};
use crate::store::query::Query;
use crate::time::Wall;
use crate::wal;

fn put(key: &str, value: &'static str) -> Call {
    let value = Bytes::from_static(value.as_bytes());
    Call::Write(Write::Kv(KvCommand { verb: KvVerb::Set, key: key.into(), value, flags: 0 }))
}

fn get(key: &str) -> Call {
    Call::Read(Read::new(Query::Kv(key.into())))
}

/// A founder of a group of one, with its clock.
struct Bench {
    node: Node,
    now: Now,
    next: u64,
    published: Option<Arc<Published>>,
}

/// The agent in a pool of gossip with nobody else.
fn lan(id: Uuid) -> gossip::Config {
    let tags = [
        (tag::ROLE, tag::ROLE_SERVER.to_owned()),
        (tag::DATACENTER, "dc1".to_owned()),
        (tag::ID, id.to_string()),
        (tag::PORT, "8300".to_owned()),
    ];
    let address = "127.0.0.1:8301".parse().expect("an address");
    gossip::Config {
        tags: tags.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        datacenter: Text::new("dc1"),
        ..gossip::Config::new(Text::new("n1"), address)
    }
}

/// The settings of a group of one.
fn config() -> Config {
    let id = Uuid(7);
    let address = Text::new("127.0.0.1:8300");
    let about =
        About { node: Text::new("n1"), id, datacenter: Text::new("dc1"), server: true, ..About::default() };
    Config {
        about,
        timing: Timing::default(),
        forming: FormingPolicy::Found(Membership { servers: [(id, Member { address, voter: true })].into() }),
        recover: None,
        lan: lan(id),
        wan: None,
        join: BTreeMap::new(),
        keeps_local: false,
        keeps_keys: false,
        agent: agent::Config {
            node: Text::new("n1"),
            id: Some(id),
            address: Text::new("127.0.0.1"),
            datacenter: Text::new("dc1"),
            ..agent::Config::default()
        },
        hold_timeout: Duration::from_secs(7),
        checkpoints: CheckpointPolicy { entries: 50, ..CheckpointPolicy::default() },
        autopilot: AutopilotSettings::default(),
        config_entries: Vec::new(),
        tombstone_ttl: Duration::from_secs(900),
    }
}

impl Bench {
    fn new() -> Bench {
        let now = Now { mono: Mono(1_000_000_000), wall: Wall(0) };
        let node = Node::new(config(), Restored::default(), [1; 32], now).expect("nothing to restore");
        let mut bench = Bench { node, now, next: 0, published: None };
        let mut out = Outbox::default();
        bench.node.start(now, &mut out);
        bench.take(out);
        bench
    }

    /// Notes what was published and returns the replies, which must come after it.
    fn take(&mut self, mut out: Outbox) -> Vec<(RequestId, HttpReply)> {
        let mut replies = Vec::new();
        for output in out.drain() {
            match output {
                Output::Publish(published) => {
                    assert!(replies.is_empty(), "readers see a change before anybody is told of it");
                    self.published = Some(published);
                }
                Output::Reply { id, reply } => replies.push((id, reply)),
                Output::Halt { reason } => panic!("{reason}"),
                other => assert!(matches!(other, Output::Cancel { .. }), "nothing else to do: {other:?}"),
            }
        }
        replies
    }

    fn step(&mut self, input: Input) -> Vec<(RequestId, HttpReply)> {
        let mut out = Outbox::default();
        self.node.step(self.now, input, &mut out);
        self.take(out)
    }

    fn pass(&mut self, time: Duration) -> Vec<(RequestId, HttpReply)> {
        let end = self.now.mono + time;
        let mut replies = Vec::new();
        while let Some((at, _)) = self.node.next_deadline()
            && at <= end
        {
            self.now.mono = self.now.mono.max(at);
            replies.extend(self.step(Input::Wake));
        }
        self.now.mono = end;
        replies
    }

    fn ask(&mut self, call: Call) -> (RequestId, Vec<(RequestId, HttpReply)>) {
        self.next += 1;
        let id = RequestId(self.next);
        (id, self.step(Input::Request { id, request: Request { call, authorizer: Authorizer } }))
    }

    fn put(&mut self, key: &str, value: &'static str, verb: KvVerb) -> Vec<(RequestId, HttpReply)> {
        let value = Bytes::from_static(value.as_bytes());
        self.ask(Call::Write(Write::Kv(KvCommand { verb, key: Text::new(key), value, flags: 0 }))).1
    }

    fn session(&mut self, ttl: Duration, lock_delay: Duration) -> Uuid {
        let (_, replies) = self.ask(Call::Write(Write::SessionCreate(SessionSpec {
            name: Text::default(),
            node: Text::new("n1"),
            lock_delay,
            behavior: SessionBehavior::Release,
            ttl: Some((Text::new("10s"), ttl)),
            node_checks: vec![Text::new(SERF_HEALTH)],
            checks: Vec::new(),
            service_checks: None,
        })));
        let body = String::from_utf8_lossy(&replies[0].1.body).into_owned();
        let start = body.find(": \"").map_or_else(|| body.find(":\"").expect("an id") + 2, |at| at + 3);
        Uuid::parse(&body[start..start + 36]).unwrap_or_else(|| panic!("{body}"))
    }
}

fn body(replies: &[(RequestId, HttpReply)]) -> String {
    assert_eq!(replies.len(), 1, "{replies:?}");
    String::from_utf8_lossy(&replies[0].1.body).trim().to_owned()
}

fn blocking(key: &str, index: u64, wait: Duration) -> Call {
    let read = Read::new(Query::Kv(Text::new(key)));
    Call::Read(Read { blocking: Some(Blocking { index, wait }), ..read })
}

#[test]
fn after_any_faults_members_catalog_and_events_come_to_agree_with_what_is() {
    for seed in 0..16 {
        ground::run(seed);
    }
}

#[test]
fn a_sole_server_leads_at_once_and_shows_itself_in_the_catalog() {
    let bench = Bench::new();
    let published = bench.published.as_ref().expect("published by its start");
    assert!(published.lease.is_leader);
    assert_eq!(published.lease.until, Mono::NEVER);
    let view = &published.view;
    assert_eq!(view.service("n1", SERVICE).expect("vouched for").port, 8300);
    assert!(view.check("n1", SERF_HEALTH).is_some());
}

#[test]
fn a_write_is_published_before_it_is_answered() {
    let mut bench = Bench::new();
    assert_eq!(body(&bench.put("a", "1", KvVerb::Set)), "true");
    let view = &bench.published.as_ref().expect("published").view;
    assert_eq!(view.kv("a").expect("written").value.as_ref(), b"1");
}

#[test]
fn a_blocked_read_wakes_for_its_own_key_only() {
    let mut bench = Bench::new();
    bench.put("a", "1", KvVerb::Set);
    let index = bench.node.state().0.0;
    let (id, replies) = bench.ask(blocking("a", index, Duration::from_secs(60)));
    assert!(replies.is_empty());
    assert_eq!(bench.put("b", "1", KvVerb::Set).len(), 1);
    let replies = bench.put("a", "2", KvVerb::Set);
    assert_eq!(replies.len(), 2);
    let woken = &replies.iter().find(|(request, _)| *request == id).expect("woken").1;
    assert!(woken.meta.expect("a read").index > index);
}

#[test]
fn a_blocked_read_that_nothing_wakes_is_answered_when_its_wait_ends() {
    let mut bench = Bench::new();
    bench.put("a", "1", KvVerb::Set);
    let index = bench.node.state().0.0;
    bench.ask(blocking("a", index, Duration::from_secs(16)));
    assert!(bench.pass(Duration::from_secs(15)).is_empty());
    let replies = bench.pass(Duration::from_secs(3));
    assert_eq!(replies[0].1.meta.expect("a read").index, index);
}

#[test]
fn an_abandoned_read_is_never_answered() {
    let mut bench = Bench::new();
    let (id, _) = bench.ask(blocking("a", 1_000, Duration::from_secs(10)));
    assert!(bench.step(Input::Abandon { id }).is_empty());
    assert!(bench.pass(Duration::from_secs(20)).is_empty());
}

#[test]
fn a_session_ends_right_after_its_ttl_and_renewals_put_that_off() {
    let mut bench = Bench::new();
    let session = bench.session(Duration::from_secs(10), Duration::ZERO);
    assert_eq!(body(&bench.put("lock", "me", KvVerb::Acquire(session))), "true");
    bench.pass(Duration::from_secs(9));
    let (_, replies) = bench.ask(Call::Write(Write::SessionRenew(session)));
    assert_eq!(replies[0].1.status, 200);
    bench.pass(Duration::from_millis(9_900));
    assert!(bench.node.state().1.session(session).is_some(), "not before the TTL");
    bench.pass(Duration::from_millis(200));
    assert!(bench.node.state().1.session(session).is_none(), "right after it");
    assert_eq!(bench.node.state().1.kv("lock").expect("released").session, None);
    let (_, replies) = bench.ask(Call::Write(Write::SessionRenew(session)));
    assert_eq!(replies[0].1.status, 404);
}

#[test]
fn a_lock_delay_is_waited_out_before_the_next_session_gets_the_lock() {
    let mut bench = Bench::new();
    let first = bench.session(Duration::from_secs(10), Duration::from_secs(5));
    bench.put("lock", "1", KvVerb::Acquire(first));
    bench.ask(Call::Write(Write::SessionDestroy(first)));
    let second = bench.session(Duration::from_secs(100), Duration::from_secs(5));
    assert_eq!(body(&bench.put("lock", "2", KvVerb::Acquire(second))), "false");
    bench.pass(Duration::from_millis(4_900));
    assert_eq!(body(&bench.put("lock", "2", KvVerb::Acquire(second))), "false");
    bench.pass(Duration::from_millis(200));
    assert_eq!(body(&bench.put("lock", "2", KvVerb::Acquire(second))), "true");
}

#[test]
fn a_consistent_read_of_a_sole_server_asks_nobody() {
    let mut bench = Bench::new();
    bench.put("a", "1", KvVerb::Set);
    let read = Read { consistency: Consistency::Consistent, ..Read::new(Query::Kv(Text::new("a"))) };
    let (_, replies) = bench.ask(Call::Read(read));
    assert_eq!(replies[0].1.status, 200);
}

#[test]
fn the_log_in_memory_is_cut_behind_checkpoints() {
    let mut bench = Bench::new();
    for _ in 0..500 {
        bench.put("a", "1", KvVerb::Set);
        bench.put("a", "2", KvVerb::Set);
    }
    let raft = bench.node.raft_state();
    assert!(raft.last_index().0 > 1_000);
    let policy = CheckpointPolicy::default();
    assert!(raft.base_index().0 + policy.trailing_entries as u64 + 50 >= raft.last_index().0);
}

/// A server that has won its election applies its log only when its first entry is durable. What the agent read of the
/// catalog before that lacked the service, which then stayed until the next synchronisation, a minute later.
#[test]
fn regression_a_deregistered_service_does_not_come_back_with_the_log() {
    let id = Uuid(7);
    let web = Service { id: Text::new("web"), service: Text::new("web"), ..Service::default() };
    let registration = Registration {
        node: Text::new("n1"),
        address: Text::new("127.0.0.1"),
        service: Some(web),
        ..Registration::default()
    };
    let hard = HardState { term: Term(1), vote: None };
    let FormingPolicy::Found(founding) = config().forming else { panic!("a founder") };
    let payloads = [
        Payload::Membership(founding),
        Payload::Command(Command::Register(Box::new(registration)).encode(Format::FIRST)),
    ];
    let entries: Vec<Entry> = (1..)
        .zip(payloads)
        .map(|(index, payload)| Entry { term: Term(1), index: LogIndex(index), payload })
        .collect();
    let recovery = wal::Recovery::begin(wal::Options::default(), Vec::<String>::new());
    let opened = recovery.finish(Rng::from_seed(1));
    let (mut wal, _) = opened.with_snapshot(SnapshotMeta::default()).expect("a new log");
    let mut writes = Vec::new();
    let records = entries.iter().cloned().map(Record::Entry);
    wal.push(1, std::iter::once(Record::HardState(hard)).chain(records).collect(), &mut writes);
    while let Some(write) = writes.pop() {
        wal.on_done(write.id, &mut writes);
    }
    let restored = Restored {
        raft: Recovered { hard, snapshot: SnapshotMeta::default(), entries },
        wal: Some(wal),
        ..Restored::default()
    };
    let mut now = Now { mono: Mono(1_000_000_000), wall: Wall(0) };
    let mut node = Node::new(config(), restored, [1; 32], now).expect("fits together");
    assert_eq!(node.about.id, id);
    let mut out = Outbox::default();
    node.start(now, &mut out);
    let mut pending = std::collections::VecDeque::new();
    // The vote becomes durable at once, the leader's first entry only after ten seconds.
    for tenth in 0..200u64 {
        pending.extend(out.drain().filter_map(|output| match output {
            Output::Log(write) => Some(write.id),
            _ => None,
        }));
        let may_write = node.raft_state().role() != Role::Leader || tenth > 100;
        let input = match pending.pop_front_if(|_| may_write) {
            Some(write) => Input::Logged { write, result: Ok(()) },
            None => Input::Wake,
        };
        now.mono = now.mono + Duration::from_millis(100);
        node.step(now, input, &mut out);
    }
    assert!(node.raft_state().ready());
    assert!(node.state().1.node("n1").is_some());
    assert!(node.state().1.service("n1", "web").is_none(), "the agent knows of no such service");
}
