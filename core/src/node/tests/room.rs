//! A disk that fills up, and has room again.

use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::world::{Plan, World, founders};
use crate::agent::Call as AgentCall;
use crate::agent::definition::service_from_request;
use crate::api::{Authorizer, Call, HttpReply, Read, Request, Write};
use crate::boundary::Lane;
use crate::store::command::{KvCommand, KvVerb};
use crate::store::query::Query;
use crate::time::Wall;
use crate::{Text, wal};

/// A server alone in its group, with a log and local state, and what it is told.
struct Bench {
    node: Node,
    now: Now,
    next: u64,
    /// Completions that come when they are let.
    done: Vec<Input>,
    again: Vec<Lane>,
    warnings: Vec<Text>,
    saves: Vec<Vec<(Text, Option<Bytes>)>>,
    replies: Vec<(RequestId, HttpReply)>,
    published: Arc<Published>,
}

impl Bench {
    fn new() -> Bench {
        let recovery = wal::Recovery::begin(wal::Options::default(), Vec::<String>::new());
        let opened = recovery.finish(crate::rng::Rng::from_seed(1));
        let (wal, raft) = opened.with_snapshot(SnapshotMeta::default()).expect("a new log");
        let restored = Restored { raft, wal: Some(wal), ..Restored::default() };
        let mut config = Config { keeps_local: true, ..super::config() };
        config.agent.persist = true;
        let now = Now { mono: Mono(1_000_000_000), wall: Wall(0) };
        let mut node = Node::new(config, restored, [1; 32], now).expect("nothing to restore");
        let published = node.first_publication(now);
        let mut bench = Bench {
            node,
            now,
            next: 0,
            done: Vec::new(),
            again: Vec::new(),
            warnings: Vec::new(),
            saves: Vec::new(),
            replies: Vec::new(),
            published,
        };
        let mut out = Outbox::default();
        bench.node.start(now, &mut out);
        bench.take(out);
        bench.write_all();
        bench
    }

    fn take(&mut self, mut out: Outbox) {
        for output in out.drain() {
            match output {
                Output::Log(write) => self.done.push(Input::Logged { write: write.id, result: Ok(()) }),
                Output::SaveLocal { op, changes } => {
                    self.saves.push(changes);
                    self.done.push(Input::Saved { op, result: Ok(()) });
                }
                Output::Checkpoint { op, .. } => self.done.push(Input::Saved { op, result: Ok(()) }),
                Output::TryAgain { lane } => self.again.push(lane),
                Output::Warn(text) => self.warnings.push(text),
                Output::Publish(published) => self.published = published,
                Output::Reply { id, reply } => self.replies.push((id, reply)),
                Output::Halt { reason } => panic!("{reason}"),
                _ => {}
            }
        }
    }

    fn step(&mut self, input: Input) {
        let mut out = Outbox::default();
        self.node.step(self.now, input, &mut out);
        self.take(out);
    }

    /// The disk works.
    fn write_all(&mut self) {
        while !self.done.is_empty() {
            for input in std::mem::take(&mut self.done) {
                self.step(input);
            }
        }
    }

    fn full(&mut self, lane: Lane) {
        self.step(Input::Full { lane, reason: "No space left on device".into() });
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some((at, _)) = self.node.next_deadline()
            && at <= end
        {
            self.now.mono = self.now.mono.max(at);
            self.step(Input::Wake);
        }
        self.now.mono = end;
    }

    fn ask(&mut self, call: Call) -> RequestId {
        self.next += 1;
        let id = RequestId(self.next);
        self.step(Input::Request { id, request: Request { call, authorizer: Authorizer } });
        id
    }

    fn put(&mut self, key: &str) -> RequestId {
        let value = Bytes::from_static(b"1");
        self.ask(Call::Write(Write::Kv(KvCommand { verb: KvVerb::Set, key: key.into(), value, flags: 0 })))
    }

    fn register(&mut self, body: &[u8]) -> RequestId {
        let definition = Box::new(service_from_request(body).expect("a definition"));
        self.ask(Call::Agent(AgentCall::RegisterService { definition, replace_existing_checks: false }))
    }

    fn reply(&self, id: RequestId) -> Option<(u16, String)> {
        let (_, reply) = self.replies.iter().find(|(answered, _)| *answered == id)?;
        Some((reply.status, String::from_utf8_lossy(&reply.body).into_owned()))
    }
}

fn put(key: &str) -> Call {
    let value = Bytes::from_static(b"1");
    Call::Write(Write::Kv(KvCommand { verb: KvVerb::Set, key: key.into(), value, flags: 0 }))
}

#[test]
fn a_lone_server_with_a_full_disk_serves_reads_and_refuses_writes_until_there_is_room() {
    let mut bench = Bench::new();
    bench.put("a");
    bench.write_all();
    let caught = bench.put("b");
    bench.full(Lane::Log);
    assert!(bench.published.alarm.as_ref().is_some_and(|alarm| alarm.contains("No space left")));
    let refused = bench.put("c");
    let (status, text) = bench.reply(refused).expect("refused at once");
    assert!(status == 500 && text.contains("is full") && text.contains("free space"), "{text}");
    let read = bench.ask(Call::Read(Read::new(Query::Kv("a".into()))));
    assert_eq!(bench.reply(read).expect("served").0, 200);
    assert!(bench.reply(caught).is_none(), "it is under way");
    bench.pass(Duration::from_millis(1500));
    assert_eq!(bench.again, [Lane::Log]);
    let (status, text) = bench.reply(caught).expect("no client waits for a disk");
    assert!(status == 500 && text.contains("outcome unknown"), "{text}");
    for _ in 0..3 {
        bench.full(Lane::Log);
        bench.pass(Duration::from_millis(1500));
    }
    assert_eq!(bench.again.len(), 4, "once for each time that there was none");
    bench.write_all();
    assert!(bench.published.alarm.is_none());
    assert_eq!(bench.warnings.len(), 2, "once at the beginning, once at the end: {:?}", bench.warnings);
    assert!(bench.warnings[0].contains("ALARM") && bench.warnings[1].contains("room again"));
    let written = bench.put("d");
    bench.write_all();
    assert_eq!(bench.reply(written).expect("written").1, "true");
    let state = bench.node.state().1;
    assert!(state.kv("b").is_some() && state.kv("c").is_none() && state.kv("d").is_some());
}

#[test]
fn registrations_on_a_full_disk_count_and_are_kept_when_there_is_room() {
    let mut bench = Bench::new();
    let saves = bench.saves.len();
    let first = bench.register(br#"{ "Name": "one", "Port": 1 }"#);
    bench.full(Lane::State);
    let (status, text) = bench.reply(first).expect("answered");
    assert!(status == 500 && text.contains("the disk is full"), "{text}");
    let others = [br#"{ "Name": "two", "Port": 2 }"#, br#"{ "Name": "six", "Port": 6 }"#];
    for body in others {
        let id = bench.register(body);
        assert_eq!(bench.reply(id).expect("answered").0, 500);
    }
    assert_eq!(bench.saves.len(), saves + 1, "nothing queues up");
    assert_eq!(bench.published.agent.services.len(), 3, "they count");
    bench.pass(Duration::from_millis(1500));
    assert_eq!(bench.again, [Lane::State]);
    bench.write_all();
    assert_eq!(bench.saves.len(), saves + 2, "what was gathered is one save");
    assert!(bench.saves.last().expect("just seen").len() >= 2);
    assert!(bench.published.alarm.is_none());
    let last = bench.register(br#"{ "Name": "ten", "Port": 10 }"#);
    bench.write_all();
    assert_eq!(bench.reply(last).expect("kept").0, 200);
}

#[test]
fn a_leader_with_a_full_disk_makes_room_for_another_one() {
    let minute = Duration::from_secs(60);
    let mut world = World::new(&Plan { servers: 3, clients: 1, forming: FormingPolicy::Found(founders(3)) });
    world.until("a leader", minute, |world| world.leader().is_some());
    assert_eq!(&world.ask(3, put("a")).body[..], b"true");
    let full = world.leader().expect("just seen");
    world.step(full, Input::Full { lane: Lane::Log, reason: "No space left on device".into() });
    world.until("another leader", Duration::from_secs(3), |world| {
        world.leader().is_some_and(|leader| leader != full)
    });
    for agent in 0..4 {
        assert_eq!(&world.ask(agent, put("b")).body[..], b"true", "through agent {agent}");
    }
    let leader = world.leader().expect("just seen");
    world.kill(leader);
    world.until("the third one", minute, |world| world.leader().is_some());
    assert_ne!(world.leader(), Some(full), "a server that can promise nothing is not elected");
}
