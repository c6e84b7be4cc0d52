//! Several datacenters: whom a request for another one reaches, and what becomes of it when something breaks on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::*;
use super::world::{World, id, name};
use super::{get, put};
use crate::api::{Blocking, Call, ClusterCall, HttpReply, Read, SessionSpec, Write};
use crate::format::Format;
use crate::gossip::UserEvent;
use crate::raft::{Body, Message, Position, VoteRequest};
use crate::rng::Rng;
use crate::store::command::{Command, KvCommand, KvVerb, Registration};
use crate::store::model::{Service, SessionBehavior};
use crate::store::query::Query;
use crate::store::{Execute, Failover, PreparedCommand, PreparedQuery, Rows, ServiceQuery};

const MINUTE: Duration = Duration::from_secs(60);

fn in_dc(number: usize, call: Call) -> Call {
    call.aimed_at(Some(&Text::new(format!("dc{number}"))))
}

fn text(reply: &HttpReply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

/// Datacenters of these sizes, in which each has a leader and all servers know each other.
fn formed(sizes: &[(usize, usize)]) -> World {
    let mut world = World::federated(sizes);
    let all_servers: usize = sizes.iter().map(|(servers, _)| servers).sum();
    let mut first = 0;
    for (servers, clients) in sizes {
        let all = first..first + servers + clients;
        world.until("a leader", MINUTE, |world| world.leader_among(all.clone()).is_some());
        world.until("all see all", MINUTE, |world| {
            all.clone().all(|agent| world.published(agent).cluster.lan.len() == all.len())
        });
        world.until("all servers see all servers", MINUTE, |world| {
            (first..first + servers).all(|agent| world.published(agent).cluster.wan.len() == all_servers)
        });
        first = all.end;
    }
    world
}

#[test]
fn a_key_of_another_datacenter_is_written_and_read_there() {
    // A follower in the first one, a client agent there, and the other one's leader or not: it makes no difference.
    let mut world = formed(&[(3, 1), (3, 0)]);
    for agent in [0, 1, 2, 3] {
        let key = format!("far-{agent}");
        assert_eq!(&world.ask(agent, in_dc(2, put(&key, "1"))).body[..], b"true");
        let reply = world.ask(agent, in_dc(2, get(&key)));
        assert!(reply.status == 200 && reply.meta.is_some_and(|meta| meta.known_leader), "{reply:?}");
        assert_eq!(world.ask(agent, get(&key)).status, 404, "not here");
        assert_eq!(world.ask(5, get(&key)).status, 200, "asked there");
        let reply = world.ask(agent, in_dc(3, get(&key)));
        assert_eq!((reply.status, text(&reply).as_str()), (500, "No path to datacenter"));
        assert_eq!(world.ask(agent, in_dc(1, get(&key))).status, 404, "by its own name");
    }
}

#[test]
fn what_only_leaders_do_is_done_by_the_other_one() {
    let mut world = formed(&[(1, 1), (3, 0)]);
    let reply = world.ask(1, in_dc(2, Call::Cluster(ClusterCall::RaftConfiguration { stale: false })));
    let body = text(&reply);
    assert!((2..5).all(|agent| body.contains(&id(agent).to_string())), "{body}");
    assert!(!body.contains(&id(0).to_string()), "{body}");
}

#[test]
fn an_event_for_another_datacenter_is_fired_there() {
    let mut world = formed(&[(1, 1), (1, 1)]);
    let event = UserEvent {
        id: Uuid::default(),
        name: "deploy".into(),
        payload: Bytes::new(),
        node_filter: Text::default(),
        service_filter: Text::default(),
        tag_filter: Text::default(),
        ltime: 0,
    };
    assert_eq!(world.ask(1, in_dc(2, Call::Cluster(ClusterCall::Fire(event)))).status, 200);
    world.until("it arrives", MINUTE, |world| world.published(3).cluster.events.len() == 1);
    world.pass(Duration::from_secs(5));
    assert!((0..2).all(|agent| world.published(agent).cluster.events.is_empty()));
}

/// Begins to wait for a change of a key in the second datacenter.
fn park(world: &mut World, agent: usize, key: &str) -> RequestId {
    world.ask(agent, in_dc(2, put(key, "1")));
    let index = world.ask(agent, in_dc(2, get(key))).meta.expect("a read").index;
    let blocking = Some(Blocking { index, wait: Duration::from_secs(300) });
    let read = Read { blocking, ..Read::new(Query::Kv(key.into())) };
    let id = world.begin(agent, in_dc(2, Call::Read(read)));
    world.pass(Duration::from_secs(10));
    assert!(world.reply(id).is_none(), "nothing has changed");
    id
}

/// The agents in which questions are parked.
fn with_parked(world: &World, agents: std::ops::Range<usize>) -> Vec<usize> {
    agents.filter(|agent| world.is_alive(*agent) && !world.node(*agent).parked.is_empty()).collect()
}

#[test]
fn a_blocking_query_waits_in_the_other_datacenter_until_something_changes_or_nobody_waits() {
    for asker in [0, 1] {
        let mut world = formed(&[(1, 1), (1, 0)]);
        let id = park(&mut world, asker, "a");
        assert_eq!(with_parked(&world, 0..3), [2]);
        world.ask(2, put("a", "2"));
        world.until("the reply", Duration::from_secs(1), |world| world.reply(id).is_some());
        let given_up = park(&mut world, asker, "b");
        world.step(asker, Input::Abandon { id: given_up });
        world.until("it is forgotten", Duration::from_secs(1), |world| with_parked(world, 0..3).is_empty());
    }
}

#[test]
fn what_was_parked_at_a_server_that_dies_is_asked_of_another_there() {
    let mut world = formed(&[(1, 0), (3, 0)]);
    let id = park(&mut world, 0, "a");
    let [host] = with_parked(&world, 1..4)[..] else { panic!("parked at one") };
    world.kill(host);
    world.until("asked of another", MINUTE, |world| with_parked(world, 1..4).len() == 1);
    assert!(world.reply(id).is_none());
    let other = (1..4).find(|agent| *agent != host).expect("three");
    world.until("another leader", MINUTE, |world| world.leader_among(1..4).is_some());
    assert_eq!(world.ask(other, put("a", "2")).status, 200);
    world.until("the reply", Duration::from_secs(2), |world| world.reply(id).is_some());
}

#[test]
fn what_was_parked_in_a_datacenter_that_dies_is_answered_with_an_error() {
    let mut world = formed(&[(1, 1), (1, 0)]);
    let ids = [park(&mut world, 0, "a"), park(&mut world, 1, "b")];
    world.kill(2);
    world.until("the replies", MINUTE, |world| ids.iter().all(|id| world.reply(*id).is_some()));
    for id in ids {
        assert_eq!(world.reply(id).expect("just seen").status, 500);
    }
    let reply = world.ask(1, in_dc(2, get("a")));
    assert_eq!((reply.status, text(&reply).as_str()), (500, "No path to datacenter"));
    let plan = world.plan_of(2);
    world.restart(&plan, 2);
    world.until("it is back", MINUTE, |world| {
        let member = world.published(0).cluster.wan.get("n2.dc2");
        member.is_some_and(|member| member.status == gossip::Status::Alive)
    });
    world.until("a leader", MINUTE, |world| world.leader_among(2..3).is_some());
    assert_eq!(&world.ask(1, in_dc(2, put("a", "1"))).body[..], b"true");
}

/// The server that is asked cannot be reached any more, though the others hear it: it takes another way.
#[test]
fn a_cut_between_two_servers_is_gone_around() {
    let mut world = formed(&[(1, 0), (3, 0)]);
    world.ask(0, in_dc(2, put("a", "1")));
    let asked = (1..4).find(|server| world.node(0).connected.contains(&id(*server))).expect("one of them");
    world.cut(0, asked);
    let read = world.ask(0, in_dc(2, get("a")));
    assert_eq!(read.status, 200, "{read:?}");
    world.pass(Duration::from_millis(10));
    assert_eq!(&world.ask(0, in_dc(2, put("a", "2"))).body[..], b"true");
}

#[test]
fn a_server_of_another_datacenter_does_nothing_but_ask_for_clients() {
    let mut world = formed(&[(1, 0), (1, 0)]);
    let term = world.node(1).raft_state().term();
    let before = world.node(1).state().0;
    let say = |world: &mut World, message: &PeerMessage| {
        let frame = message.encode(Format::FIRST);
        world.step(1, Input::PeerFrame { peer: id(0), frame });
    };
    world.step(1, Input::PeerUp { peer: id(0), datacenter: Some("dc1".into()) });
    let last = Position { index: LogIndex(1_000), term: Term(900) };
    let vote = VoteRequest { pre: false, election: Term(901), last, mark: None };
    say(&mut world, &PeerMessage::Raft(Message { term: Term(901), body: Body::VoteRequest(vote) }));
    let command = KvCommand { verb: KvVerb::Set, key: "x".into(), value: Bytes::new(), flags: 0 };
    let command = Command::Kv(command).encode(Format::FIRST);
    let onward = Call::Cluster(ClusterCall::StatusPeers).aimed_at(Some(&"dc1".into()));
    let Call::Elsewhere(onward) = onward else { panic!("it travels") };
    let asks = [
        Ask::Propose(command.clone()),
        Ask::ReadIndex { consistent: true, renew: None },
        Ask::Lead(ClusterCall::TransferLeader { id: None }),
        Ask::Serve(Serve::Command(command)),
        Ask::Serve(Serve::Catalog(name(1))),
        Ask::Serve(Serve::Elsewhere(onward)),
        Ask::Serve(Serve::Request(Box::new(crate::api::Forwarded::Cluster(ClusterCall::Leave)))),
    ];
    for (number, ask) in (1..).zip(asks) {
        say(&mut world, &PeerMessage::Ask { id: AskId { life: 7, number }, ask });
    }
    world.pass(Duration::from_millis(100));
    assert_eq!(world.node(1).raft_state().term(), term);
    assert_eq!(world.node(1).state().0, before, "nothing was applied");
    assert_eq!(world.leader_among(1..2), Some(1));
}

/// Registers an instance of `web` in an agent's datacenter.
fn register_web(world: &mut World, agent: usize) {
    let registration = Registration {
        node: Text::new(format!("host-of-{agent}")),
        address: "10.0.0.1".into(),
        datacenter: world.published(agent).about.datacenter.clone(),
        service: Some(Service { id: "web".into(), service: "web".into(), ..Service::default() }),
        ..Registration::default()
    };
    assert_eq!(world.ask(agent, Call::Write(Write::Register(Box::new(registration)))).status, 200);
}

fn query(world: &mut World, query_name: &str, failover: Failover) {
    let service = ServiceQuery { service: "web".into(), failover, ..ServiceQuery::default() };
    let query = PreparedQuery { name: query_name.into(), service, ..PreparedQuery::default() };
    let command = PreparedCommand::Create(Box::new(query));
    assert_eq!(world.ask(0, Call::Write(Write::Prepared(command))).status, 200);
}

/// Runs a query: where it found how many instances, and how many others it asked.
fn execute(world: &mut World, agent: usize, query: &str) -> (String, u64, usize) {
    let run = Execute { query: query.into(), agent: name(agent), ..Execute::default() };
    let reply = world.ask(agent, Call::Read(Read::new(Query::Execute(Box::new(run)))));
    let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(reply.status, 200);
    (
        body["Datacenter"].as_str().expect("a name").to_owned(),
        body["Failovers"].as_u64().expect("a number"),
        body["Nodes"].as_array().expect("a list").len(),
    )
}

#[test]
fn prepared_queries_fail_over_to_one_datacenter_after_the_other() {
    let mut world = formed(&[(1, 1), (1, 0), (1, 0)]);
    let list = |names: &[&str]| Some(names.iter().map(|name| Text::new(*name)).collect::<Vec<_>>());
    query(
        &mut world,
        "listed",
        Failover { datacenters: list(&["dc9", "dc2", "dc1", "dc2", "dc3"]), ..Failover::default() },
    );
    query(&mut world, "targets", Failover { targets: list(&["dc3", "dc2"]), ..Failover::default() });
    query(&mut world, "nearest", Failover { nearest_n: 5, ..Failover::default() });
    query(&mut world, "none", Failover::default());
    let found = |place: &str, failovers, nodes| (place.to_owned(), failovers, nodes);
    for agent in [0, 1] {
        assert_eq!(execute(&mut world, agent, "listed"), found("dc3", 2, 0), "nowhere");
        assert_eq!(execute(&mut world, agent, "none"), found("dc1", 0, 0));
    }
    register_web(&mut world, 3);
    for agent in [0, 1] {
        assert_eq!(execute(&mut world, agent, "listed"), found("dc3", 2, 1));
        assert_eq!(execute(&mut world, agent, "targets"), found("dc3", 1, 1));
        let (place, failovers, nodes) = execute(&mut world, agent, "nearest");
        assert_eq!((place.as_str(), nodes), ("dc3", 1));
        assert!((1..=2).contains(&failovers), "{failovers}");
    }
    world.kill(2);
    world.pass(Duration::from_millis(10));
    assert_eq!(execute(&mut world, 1, "listed"), found("dc3", 2, 1), "the first does not answer");
    register_web(&mut world, 0);
    assert_eq!(execute(&mut world, 1, "listed"), found("dc1", 0, 1));
}

/// A session in the second datacenter, of a node there.
fn session(name: &Text, node: usize) -> Call {
    Call::Write(Write::SessionCreate(SessionSpec {
        name: name.clone(),
        node: super::world::name(node),
        lock_delay: Duration::ZERO,
        behavior: SessionBehavior::Release,
        ttl: None,
        node_checks: Vec::new(),
        service_checks: None,
        checks: Vec::new(),
    }))
}

/// Something that happens while clients of the first datacenter write to the second.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// Through this agent of the first one.
    Write(usize),
    /// Between an agent of the first one and one of the second, or two of the second.
    Cut(usize, usize),
    Mend,
    /// A server of the second one, if it is the only dead one.
    Kill(usize),
    Pass(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        6 => (0..3_usize).prop_map(Happening::Write),
        2 => (0..2_usize, 3..6_usize).prop_map(|(a, b)| Happening::Cut(a, b)),
        1 => (3..5_usize).prop_map(|a| Happening::Cut(a, a + 1)),
        2 => Just(Happening::Mend),
        1 => (3..6_usize).prop_map(Happening::Kill),
        3 => (0..2_000_u64).prop_map(Happening::Pass),
    ];
    proptest::collection::vec(happening, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_write_for_another_datacenter_is_applied_at_most_once(seed in any::<u64>(), happenings in happenings()) {
        let mut world = formed(&[(2, 1), (3, 0)]);
        world.until("the nodes are registered", MINUTE, |world| {
            let leader = world.leader_among(3..6).expect("nobody died");
            (3..6).all(|agent| world.published(leader).view.node(&name(agent)).is_some())
        });
        world.double(seed, 0.2);
        let mut rng = Rng::from_seed(seed);
        let (mut asked, mut dead) = (Vec::new(), None);
        for happening in happenings {
            match happening {
                Happening::Write(agent) => {
                    let written = Text::new(format!("s{}", asked.len()));
                    // A node that is never killed for long enough to be removed.
                    let id = world.begin(agent, in_dc(2, session(&written, 3)));
                    asked.push((written, id));
                    world.pass(Duration::from_micros(rng.below(4_000)));
                }
                Happening::Cut(a, b) => world.cut(a, b),
                Happening::Mend => world.mend(),
                Happening::Kill(agent) if dead.is_none() => {
                    world.kill(agent);
                    dead = Some(agent);
                }
                Happening::Kill(_) => {}
                Happening::Pass(millis) => world.pass(Duration::from_millis(millis)),
            }
        }
        world.mend();
        world.double(0, 0.0);
        world.until("all is answered", MINUTE, |world| {
            asked.iter().all(|(_, id)| world.reply(*id).is_some())
        });
        world.until("a leader", MINUTE, |world| world.leader_among(3..6).is_some());
        world.pass(Duration::from_secs(2));
        let leader = world.leader_among(3..6).expect("just seen");
        let mut counts: BTreeMap<Text, usize> = BTreeMap::new();
        let found = world.published(leader).view.evaluate(&Query::Sessions);
        let Rows::Sessions(found) = found.rows else { panic!("sessions") };
        for found in found {
            *counts.entry(found.name.clone()).or_default() += 1;
        }
        for (written, id) in asked {
            let status = world.reply(id).expect("just seen").status;
            let count = counts.get(&written).copied().unwrap_or(0);
            prop_assert!(count <= 1, "{written} was applied {count} times");
            prop_assert!(status != 200 || count == 1, "{written} was acknowledged and is not there");
        }
    }
}
