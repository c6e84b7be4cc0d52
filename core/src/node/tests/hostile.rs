//! Frames that no agent in its senses sends. Whoever gets them goes on as what it was.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::peer::{Ask, AskId, PeerAnswer, PeerMessage, Serve};
use super::super::*;
use super::world::{Plan, config, founders, id};
use crate::agent::CatalogState;
use crate::api::{
    Authorizer, Blocking, Call, ClusterCall, Consistency, Elsewhere, EventsRead, Forwarded, HttpReply, Read,
    Request, Write,
};
use crate::coordinate::Coordinate;
use crate::format::{Format, Formats};
use crate::gossip::{KeysChange, UserEvent};
use crate::raft::{Append, Body, Entry, Message, Payload, Position, TransferMark, VoteRequest};
use crate::store::command::{Command, KvCommand, KvVerb, Response};
use crate::store::query::Query;
use crate::time::Wall;

/// Nobody's identity.
const STRANGER: Uuid = Uuid(66);

/// What the node under test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It leads a group of its own.
    Leader,
    /// Server 0 of three, of which it hears nothing.
    Lonely,
    /// An agent without a replica.
    Client,
}

/// A node and everything that it was told to do.
pub struct Bench {
    pub node: Node,
    part: Part,
    now: Now,
    next: u64,
    pub replied: BTreeSet<RequestId>,
    pub answers: Vec<PeerAnswer>,
    /// How often it warned.
    pub warnings: usize,
    /// What it asked.
    pub asked: Vec<AskId>,
}

impl Bench {
    pub fn new(part: Part) -> Bench {
        let (servers, agent) = match part {
            Part::Leader => (1, 0),
            Part::Lonely => (3, 0),
            Part::Client => (3, 3),
        };
        let plan = Plan { servers, clients: 1, forming: FormingPolicy::Found(founders(servers)) };
        let now = Now { mono: Mono(1_000_000_000), wall: Wall(0) };
        let node = Node::new(config(&plan, agent), Restored::default(), [1; 32], now).expect("nothing kept");
        let (replied, answers, asked) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut bench = Bench { node, part, now, next: 0, replied, answers, warnings: 0, asked };
        let mut out = Outbox::default();
        bench.node.start(now, &mut out);
        bench.take(out);
        bench
    }

    fn take(&mut self, mut out: Outbox) {
        for output in out.drain() {
            match output {
                Output::Reply { id, .. } => assert!(self.replied.insert(id), "answered twice"),
                Output::Peer { frame, .. } => {
                    match PeerMessage::decode(&frame, Formats::KNOWN).expect("its own") {
                        PeerMessage::Answer { answer, .. } => self.answers.push(answer),
                        PeerMessage::Ask { id, .. } => self.asked.push(id),
                        PeerMessage::Raft(_) | PeerMessage::Forget { .. } | PeerMessage::Greeting(_) => {}
                    }
                }
                Output::Warn(_) => self.warnings += 1,
                Output::Halt { reason } => panic!("{reason}"),
                Output::Left => panic!("a stranger's frame made it leave"),
                _ => {}
            }
        }
    }

    fn step(&mut self, input: Input) {
        let mut out = Outbox::default();
        self.node.step(self.now, input, &mut out);
        self.take(out);
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

    pub fn request(&mut self, call: Call) -> RequestId {
        self.next += 1;
        let id = RequestId(self.next);
        self.step(Input::Request { id, request: Request { call, authorizer: Authorizer } });
        id
    }

    pub fn frame(&mut self, peer: Uuid, message: &PeerMessage) {
        self.step(Input::PeerFrame { peer, frame: message.encode(Format::FIRST) });
    }

    /// Gossip shows it server 0.
    pub fn meet_a_server(&mut self) {
        self.node.servers.follow(
            &gossip::MemberChange::Upsert(gossip::Member {
                name: "n0".into(),
                address: ([127, 0, 1, 1], 8301).into(),
                tags: Arc::new(
                    config(&Plan { servers: 1, clients: 0, forming: FormingPolicy::Wait }, 0).lan.tags,
                ),
                status: gossip::Status::Alive,
            }),
            "dc1",
        );
    }

    /// What it answers to an ask.
    fn ask(&mut self, ask: Ask) -> Vec<PeerAnswer> {
        self.next += 1;
        self.answers.clear();
        self.frame(STRANGER, &PeerMessage::Ask { id: AskId { life: 1, number: self.next }, ask });
        std::mem::take(&mut self.answers)
    }

    /// That it is what it was, and works.
    fn check(&mut self) {
        self.pass(Duration::from_secs(20));
        match self.part {
            Part::Leader => {
                let write = self.request(put());
                assert!(self.replied.contains(&write), "it leads");
            }
            Part::Lonely => assert_ne!(self.node.raft.role(), Role::Leader),
            Part::Client => {
                assert_eq!(self.node.raft.last_index(), LogIndex(0), "it keeps no log");
                assert_eq!(self.node.raft.term(), Term(0), "it takes part in no term");
            }
        }
    }
}

pub fn put() -> Call {
    Call::Write(Write::Kv(kv()))
}

fn kv() -> KvCommand {
    KvCommand { verb: KvVerb::Set, key: "a".into(), value: Bytes::from_static(b"1"), flags: 0 }
}

fn event() -> UserEvent {
    UserEvent {
        id: Uuid::default(),
        name: "e".into(),
        payload: Bytes::new(),
        node_filter: Text::default(),
        service_filter: Text::default(),
        tag_filter: Text::default(),
        ltime: 0,
    }
}

/// Every call there is, at least once.
fn calls() -> Vec<ClusterCall> {
    let nowhere = Coordinate { height: f64::NAN, ..Coordinate::default() };
    vec![
        ClusterCall::Join { address: "10.0.0.1".into(), pool: Pool::Wan },
        ClusterCall::Leave,
        ClusterCall::ForceLeave { node: "n0".into(), prune: true, pool: Pool::Lan },
        ClusterCall::Fire(event()),
        ClusterCall::Events(EventsRead { name: Text::default(), index: 1, wait: Duration::MAX }),
        ClusterCall::Keys { change: KeysChange::List, local_only: false },
        ClusterCall::Coordinate { node: "n0".into(), coordinate: nowhere },
        ClusterCall::StatusLeader,
        ClusterCall::StatusPeers,
        ClusterCall::RaftConfiguration { stale: true },
        ClusterCall::RaftConfiguration { stale: false },
        ClusterCall::Usage { stale: true },
        ClusterCall::Usage { stale: false },
        ClusterCall::RemovePeer { id: None, address: None },
        ClusterCall::TransferLeader { id: Some(STRANGER) },
        ClusterCall::AutopilotConfiguration { stale: true },
        ClusterCall::AutopilotConfiguration { stale: false },
        ClusterCall::AutopilotHealth,
        ClusterCall::AutopilotState,
        ClusterCall::CoordinateDatacenters,
        ClusterCall::Datacenters,
    ]
}

fn forwarded() -> Vec<Forwarded> {
    let reads = [Consistency::Default, Consistency::Consistent, Consistency::Stale].map(|consistency| {
        let blocking = Some(Blocking { index: u64::MAX, wait: Duration::MAX });
        let read = Read { consistency, filter: "((".into(), ..Read::new(Query::Kv("a".into())) };
        [Forwarded::Read(read.clone()), Forwarded::Read(Read { blocking, ..read })]
    });
    let writes = [Write::Kv(kv()), Write::SessionRenew(Uuid(1)), Write::SessionDestroy(Uuid(1))];
    calls()
        .into_iter()
        .map(Forwarded::Cluster)
        .chain(reads.into_iter().flatten())
        .chain(writes.into_iter().map(Forwarded::Write))
        .collect()
}

fn asks() -> impl Strategy<Value = Ask> {
    prop_oneof![
        Just(Ask::Propose(Command::Kv(kv()).encode(Format::FIRST))),
        Just(Ask::Propose(Command::FormatRaised { to: Format(250) }.encode(Format::FIRST))),
        any::<Vec<u8>>().prop_map(|bytes| Ask::Propose(bytes.into())),
        (any::<bool>(), any::<bool>()).prop_map(|(consistent, renew)| {
            Ask::ReadIndex { consistent, renew: renew.then_some(Uuid(1)) }
        }),
        select(calls()).prop_map(Ask::Lead),
        select(forwarded()).prop_map(|forwarded| Ask::Serve(Serve::Request(Box::new(forwarded)))),
        Just(Ask::Serve(Serve::Command(Command::Kv(kv()).encode(Format::FIRST)))),
        any::<Vec<u8>>().prop_map(|bytes| Ask::Serve(Serve::Command(bytes.into()))),
        Just(Ask::Serve(Serve::Catalog("n0".into()))),
        (select(forwarded()), select(vec!["dc1", "dc2", ""])).prop_map(|(request, datacenter)| {
            Ask::Serve(Serve::Elsewhere(Box::new(Elsewhere { datacenter: datacenter.into(), request })))
        }),
    ]
}

fn answers() -> impl Strategy<Value = PeerAnswer> {
    let catalog = CatalogState { node: None, services: Vec::new(), checks: Vec::new() };
    prop_oneof![
        any::<bool>().prop_map(|done| PeerAnswer::Applied(Response::Held(done))),
        (select(vec![0, 1, u64::MAX]), any::<bool>())
            .prop_map(|(index, renewed)| PeerAnswer::ReadIndex { index, renewed }),
        Just(PeerAnswer::NotLeader),
        Just(PeerAnswer::Unknown),
        Just(PeerAnswer::Reply(HttpReply::empty(200))),
        Just(PeerAnswer::Catalog(Box::new(catalog))),
    ]
}

/// What Raft says, as far as it can be said without knowing the group.
fn raft_messages() -> impl Strategy<Value = Message> {
    let position = |index, term| Position { index: LogIndex(index), term: Term(term) };
    let entry = Entry { term: Term(1), index: LogIndex(1), payload: Payload::Noop };
    let append = Append {
        prev: position(0, 0),
        entries: vec![entry],
        commit: LogIndex(1),
        round: 1,
        promise: true,
        voter: false,
    };
    let vote = VoteRequest { pre: false, election: Term(9), last: position(9, 9), mark: None };
    let mark = TransferMark { leader: STRANGER, term: Term(9), round: 0 };
    let bodies = vec![
        Body::Append(append),
        Body::VoteRequest(vote),
        Body::TimeoutNow(mark),
        Body::StaleTerm,
        Body::FoundRequest,
        Body::FoundReply { asked: Term(1), granted: true },
        Body::FoundProbe,
        Body::FoundRelease { up_to: Term(9) },
    ];
    (1..12_u64, select(bodies)).prop_map(|(term, body)| Message { term: Term(term), body })
}

fn ids() -> impl Strategy<Value = AskId> {
    let number = prop_oneof![20 => 0..40_u64, 1 => select(vec![u64::MAX - 1, u64::MAX])];
    (0..2_u64, number).prop_map(|(life, number)| AskId { life, number })
}

/// What happens to the node.
#[derive(Clone, Debug)]
enum Happening {
    Frame(Uuid, PeerMessage),
    Garbage(Uuid, Vec<u8>),
    Up(Uuid, bool),
    Down(Uuid),
    Request(bool),
    Pass(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    // The node's own numbers begin with one.
    let message = prop_oneof![
        1 => raft_messages().prop_map(PeerMessage::Raft),
        6 => (ids(), asks()).prop_map(|(id, ask)| PeerMessage::Ask { id, ask }),
        3 => (ids(), answers()).prop_map(|(id, answer)| PeerMessage::Answer { id, answer }),
        1 => ids().prop_map(|id| PeerMessage::Forget { id }),
    ];
    let peer = || select(vec![STRANGER, id(0), id(1), id(3)]);
    let happening = prop_oneof![
        12 => (peer(), message).prop_map(|(peer, message)| {
            // Raft's messages of members are believed: servers that lie are not survived.
            let peer = if matches!(message, PeerMessage::Raft(_)) { STRANGER } else { peer };
            Happening::Frame(peer, message)
        }),
        1 => (peer(), any::<Vec<u8>>()).prop_map(|(peer, bytes)| Happening::Garbage(peer, bytes)),
        1 => (peer(), any::<bool>()).prop_map(|(peer, is_foreign)| Happening::Up(peer, is_foreign)),
        1 => peer().prop_map(Happening::Down),
        2 => any::<bool>().prop_map(Happening::Request),
        1 => (0..3_000_u64).prop_map(Happening::Pass),
    ];
    prop::collection::vec(happening, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_frame_of_whatever_kind_stops_an_agent_or_makes_it_another(
        part in select(vec![Part::Leader, Part::Lonely, Part::Client]),
        happenings in happenings(),
    ) {
        let mut bench = Bench::new(part);
        for happening in happenings {
            match happening {
                Happening::Frame(peer, PeerMessage::Answer { id, answer }) => {
                    // Nobody guesses what a process has drawn, but servers that were asked know it.
                    let id = AskId { life: bench.node.life, ..id };
                    bench.frame(peer, &PeerMessage::Answer { id, answer });
                }
                Happening::Frame(peer, message) => bench.frame(peer, &message),
                Happening::Garbage(peer, bytes) => {
                    bench.step(Input::PeerFrame { peer, frame: bytes.into() });
                }
                Happening::Up(peer, is_foreign) => {
                    let datacenter = is_foreign.then(|| "dc2".into());
                    bench.step(Input::PeerUp { peer, datacenter });
                }
                Happening::Down(peer) => bench.step(Input::PeerDown { peer }),
                Happening::Request(true) => {
                    bench.request(put());
                }
                Happening::Request(false) => {
                    bench.request(Call::Read(Read::new(Query::Kv("a".into()))));
                }
                Happening::Pass(millis) => bench.pass(Duration::from_millis(millis)),
            }
        }
        bench.check();
    }
}

#[test]
fn what_is_an_agents_own_business_is_refused() {
    for part in [Part::Leader, Part::Lonely] {
        let mut bench = Bench::new(part);
        for call in calls() {
            let own = call.place() == crate::api::Place::Agent;
            let refused =
                |answers: &[PeerAnswer]| matches!(answers, [PeerAnswer::Reply(reply)] if reply.status == 400);
            let served = Forwarded::Cluster(call.clone());
            let answers = bench.ask(Ask::Serve(Serve::Request(Box::new(served))));
            assert_eq!(refused(&answers), own, "{part:?}, {call:?}: {answers:?}");
            if own {
                let answers = bench.ask(Ask::Lead(call));
                assert!(refused(&answers), "{part:?}: {answers:?}");
            }
        }
        bench.check();
    }
}

#[test]
fn what_only_the_leader_may_decide_is_not_proposed_for_others() {
    let mut bench = Bench::new(Part::Leader);
    let commands = [
        Command::FormatRaised { to: Format(250) },
        Command::GroupNamed { id: STRANGER },
        Command::ReapTombstones { up_to: u64::MAX },
    ];
    for command in commands {
        let payload = command.encode(Format::FIRST);
        for ask in [Ask::Propose(payload.clone()), Ask::Serve(Serve::Command(payload))] {
            let answers = bench.ask(ask);
            assert!(
                matches!(&answers[..], [PeerAnswer::Applied(Response::Refused(_))]),
                "{command:?}: {answers:?}"
            );
        }
    }
    bench.check();
}

#[test]
fn a_client_agent_takes_part_in_no_group_and_leads_nobody() {
    let mut bench = Bench::new(Part::Client);
    let vote = VoteRequest {
        pre: false,
        election: Term(5),
        last: Position { index: LogIndex(9), term: Term(4) },
        mark: None,
    };
    let asks = [
        Ask::Propose(Command::Kv(kv()).encode(Format::FIRST)),
        Ask::ReadIndex { consistent: true, renew: None },
        Ask::Lead(ClusterCall::AutopilotHealth),
        Ask::Serve(Serve::Catalog("n0".into())),
    ];
    for ask in asks {
        assert_eq!(bench.ask(ask), [PeerAnswer::NotLeader]);
    }
    let message = Message { term: Term(5), body: Body::VoteRequest(vote) };
    bench.frame(id(0), &PeerMessage::Raft(message));
    bench.check();
}

#[test]
fn that_frames_cannot_be_read_is_told_once_for_each_connection() {
    let mut bench = Bench::new(Part::Client);
    let garbage = || Input::PeerFrame { peer: STRANGER, frame: Bytes::from_static(&[250, 1, 2]) };
    for _ in 0..3 {
        bench.step(Input::PeerUp { peer: STRANGER, datacenter: None });
        for _ in 0..5 {
            bench.step(garbage());
        }
        bench.step(Input::PeerDown { peer: STRANGER });
    }
    assert_eq!(bench.warnings, 3);
}

#[test]
fn a_client_agent_that_knows_no_server_says_so_at_once() {
    let mut bench = Bench::new(Part::Client);
    let request = bench.request(put());
    assert!(bench.replied.contains(&request));
}

#[test]
fn an_answer_of_another_kind_ends_the_request_with_an_error() {
    let mut bench = Bench::new(Part::Client);
    bench.meet_a_server();
    let request = bench.request(put());
    assert!(!bench.replied.contains(&request), "it has been asked of server 0");
    let number = bench.asked.pop().expect("asked");
    let answer = PeerAnswer::ReadIndex { index: 7, renewed: true };
    bench.frame(STRANGER, &PeerMessage::Answer { id: number, answer: answer.clone() });
    assert!(!bench.replied.contains(&request), "a stranger was not asked");
    bench.frame(id(0), &PeerMessage::Answer { id: number, answer });
    assert!(bench.replied.contains(&request));
}
