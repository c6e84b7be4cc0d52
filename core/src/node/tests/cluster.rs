//! Servers and client agents that find each other.

use std::time::Duration;

use super::super::*;
use super::world::{Plan, World, founders, name};
use super::{get, put};
use crate::agent::Call as AgentCall;
use crate::agent::definition::service_from_request;
use crate::api::{Blocking, Call, ClusterCall, Consistency, Read, Write};
use crate::dns::{DnsConfig, Question, Transport};
use crate::gossip::{Status, tag};
use crate::store::command::Registration;
use crate::store::model::Health;
use crate::store::query::{Query, ServiceSelector};

const MINUTE: Duration = Duration::from_secs(60);

fn formed(servers: usize, clients: usize) -> World {
    let mut world = World::new(&Plan { servers, clients, forming: FormingPolicy::Found(founders(servers)) });
    world.until("a leader", MINUTE, |world| world.leader().is_some());
    let all = servers + clients;
    world.until("all see all", MINUTE, |world| {
        (0..all).all(|agent| world.published(agent).cluster.lan.len() == all)
    });
    world
}

/// What the leader's catalog says of an agent's reachability.
fn serf_health(world: &World, agent: usize) -> Option<Health> {
    let leader = world.leader()?;
    world.published(leader).view.check(&name(agent), SERF_HEALTH).map(|check| check.status)
}

#[test]
fn a_client_agent_writes_and_reads_through_servers() {
    let mut world = formed(3, 2);
    assert_eq!(&world.ask(3, put("a", "1")).body[..], b"true");
    let reply = world.ask(4, get("a"));
    assert_eq!(reply.status, 200);
    assert!(String::from_utf8_lossy(&reply.body).contains("MQ=="), "{reply:?}");
    assert!(reply.meta.is_some_and(|meta| meta.known_leader && meta.index > 1));
}

/// A read with a bound was answered with a state that the leader had confirmed, but under the time since this server had
/// heard of the leader last, which was beyond the bound.
#[test]
fn regression_what_the_leader_has_confirmed_is_shown_as_fresh() {
    let mut world = formed(3, 0);
    let follower = (world.leader().expect("formed") + 1) % 3;
    world.ask(follower, put("a", "1"));
    for _ in 0..20 {
        world.pass(Duration::from_millis(7));
        let bounded = Read {
            consistency: Consistency::Stale,
            max_stale: Some(Duration::from_millis(5)),
            ..Read::new(Query::Kv("a".into()))
        };
        for (call, at_most) in [(get("a"), 0), (Call::Read(bounded), 5)] {
            let meta = world.ask(follower, call).meta.expect("reads tell");
            assert!(meta.known_leader && meta.last_contact_ms <= at_most, "{meta:?}");
        }
    }
}

/// An agent that may not serve old names has its server ask the leader first, whichever server that is.
#[test]
fn names_that_must_be_new_are_answered_once_the_leader_has_confirmed_the_state() {
    let mut world = formed(3, 1);
    let follower = (world.leader().expect("formed") + 1) % 3;
    let node = Registration { node: "x".into(), address: "192.0.2.7".into(), ..Registration::default() };
    world.ask(follower, Call::Write(Write::Register(Box::new(node))));
    let question = Question {
        packet: bytes::Bytes::from_static(
            b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01x\x04node\x06consul\0\0\x01\0\x01",
        ),
        transport: Transport::Udp,
        config: DnsConfig { allow_stale: false, ..DnsConfig::default() },
    };
    for agent in 0..4 {
        let reply = world.ask(agent, Call::Dns(Box::new(question.clone()), None));
        let found = reply.body.windows(4).any(|window| window == [192, 0, 2, 7]);
        assert!(found && reply.body[3] & 0xf == 0, "{agent}: {reply:?}");
    }
}

#[test]
fn a_service_of_one_client_agent_is_found_through_another() {
    let mut world = formed(3, 2);
    let definition = service_from_request(br#"{ "Name": "web", "Port": 80 }"#).expect("a definition");
    let definition = Box::new(definition);
    let call = AgentCall::RegisterService { definition, replace_existing_checks: false };
    assert_eq!(world.ask(3, Call::Agent(call)).status, 200);
    let query = Query::ServiceHealth {
        select: ServiceSelector { service: "web".into(), ..ServiceSelector::default() },
        passing: true,
    };
    world.until("the catalog has it", MINUTE, |world| {
        let leader = world.leader().expect("nobody died");
        world.published(leader).view.service(&name(3), "web").is_some()
    });
    let reply = world.ask(4, Call::Read(Read::new(query)));
    assert!(String::from_utf8_lossy(&reply.body).contains("n3"), "{reply:?}");
}

#[test]
fn a_blocking_query_through_a_client_agent_wakes_for_a_change_through_another() {
    let mut world = formed(3, 2);
    world.ask(3, put("a", "1"));
    let index = world.ask(4, get("a")).meta.expect("a read").index;
    let blocking = Some(Blocking { index, wait: Duration::from_secs(300) });
    let id = world.begin(4, Call::Read(Read { blocking, ..Read::new(Query::Kv("a".into())) }));
    world.pass(Duration::from_secs(30));
    assert!(world.reply(id).is_none(), "nothing has changed");
    world.ask(3, put("a", "2"));
    world.until("the reply", Duration::from_secs(1), |world| world.reply(id).is_some());
}

#[test]
fn a_request_goes_to_another_server_when_one_dies_and_waits_for_the_next_leader() {
    let mut world = formed(3, 1);
    world.ask(3, put("a", "1"));
    let leader = world.leader().expect("formed");
    world.kill(leader);
    // Until the connection is known to be lost, a write's fate is unknown.
    world.pass(Duration::from_millis(2));
    assert_eq!(&world.ask(3, put("a", "2")).body[..], b"true");
    assert!(String::from_utf8_lossy(&world.ask(3, get("a")).body).contains("Mg=="));
}

/// A stopped server keeps its connections and says nothing, and the client agents that had chosen it sent everything
/// there until gossip was certain, or until the first of their requests had waited for its whole time.
#[test]
fn regression_what_comes_after_a_server_was_stopped_is_not_asked_of_it_for_long() {
    for stopped in 0..3 {
        let mut world = formed(3, 1);
        world.ask(3, put("a", "1"));
        world.isolate(stopped);
        let since = world.now.mono;
        let read = world.begin(3, get("a"));
        let mut writes = Vec::new();
        let done = |world: &World, id: &RequestId| world.reply(*id).is_some_and(|it| it.status == 200);
        while !writes.iter().any(|write| done(&world, write)) {
            writes.push(world.begin(3, put("a", "2")));
            world.pass(Duration::from_millis(100));
            let waited = world.now.mono.since(since);
            assert!(waited < Duration::from_secs(4), "server {stopped}, {writes:?}");
        }
        let waited = world.now.mono.since(since);
        assert!(done(&world, &read), "what may be done twice is asked of another server, after {waited:?}");
    }
}

#[test]
fn the_catalog_follows_who_is_there() {
    let mut world = formed(3, 2);
    world.until("all are healthy", MINUTE, |world| {
        (0..5).all(|agent| serf_health(world, agent) == Some(Health::Passing))
    });
    world.kill(3);
    world.until("it is found dead", Duration::from_secs(30), |world| {
        serf_health(world, 3) == Some(Health::Critical)
    });
    world.step(4, Input::Leave);
    world.until("it has left", Duration::from_secs(30), |world| {
        !world.is_alive(4) && serf_health(world, 4).is_none()
    });
    let leader = world.leader().expect("nobody died");
    assert_eq!(world.published(leader).cluster.lan[&name(3)].status, Status::Failed);
    assert_eq!(world.published(leader).cluster.lan[&name(4)].status, Status::Left);
    assert!(world.published(leader).view.node(&name(4)).is_none());
}

#[test]
fn servers_that_expect_each_other_found_one_group() {
    let mut world = World::new(&Plan { servers: 3, clients: 1, forming: FormingPolicy::Expect(3) });
    world.until("a leader", MINUTE, |world| world.leader().is_some());
    assert_eq!(&world.ask(3, put("a", "1")).body[..], b"true");
    world.until("all agree on the group", MINUTE, |world| {
        let group = world.published(0).view.group();
        group.is_some() && (0..3).all(|server| world.published(server).view.group() == group)
    });
    let leader = world.leader().expect("nobody died");
    assert_eq!(world.published(leader).membership.voters().count(), 3);
    let tag = world.published(leader).view.group().expect("named").to_string();
    world.until("gossip is told", MINUTE, |world| {
        (0..3).all(|server| world.published(3).cluster.lan[&name(server)].tag(tag::GROUP) == tag)
    });
}

#[test]
fn a_lone_founder_takes_up_servers_that_join_it() {
    let mut world = World::new(&Plan { servers: 1, clients: 0, forming: FormingPolicy::Alone });
    world.until("a leader", MINUTE, |world| world.leader().is_some());
    world.add(&Plan { servers: 3, clients: 0, forming: FormingPolicy::Wait }, 1);
    world.add(&Plan { servers: 3, clients: 0, forming: FormingPolicy::Wait }, 2);
    world.until("all vote", MINUTE, |world| world.published(0).membership.voters().count() == 3);
}

#[test]
fn a_leader_that_leaves_hands_over_and_is_removed() {
    let mut world = formed(3, 1);
    world.ask(3, put("a", "1"));
    let leader = world.leader().expect("formed");
    world.step(leader, Input::Leave);
    world.until("it has left", Duration::from_secs(30), |world| !world.is_alive(leader));
    world.until("it is removed", Duration::from_secs(30), |world| {
        world.leader().is_some_and(|next| world.published(next).membership.servers.len() == 2)
    });
    assert_eq!(&world.ask(3, put("a", "2")).body[..], b"true");
    let next = world.leader().expect("another one");
    world.until("its node is gone", MINUTE, |world| world.published(next).view.node(&name(leader)).is_none());
}

/// It joined again while it was leaving, and was alive for everybody until its process ended.
#[test]
fn regression_whoever_is_leaving_does_not_join_again() {
    let mut world = formed(3, 1);
    world.step(3, Input::Leave);
    let join = ClusterCall::Join { address: "10.0.0.1".into(), pool: crate::gossip::Pool::Lan };
    let reply = world.ask(3, Call::Cluster(join));
    assert_eq!(reply.status, 500, "{reply:?}");
    assert!(String::from_utf8_lossy(&reply.body).contains("this agent is leaving"), "{reply:?}");
    world.until("it has left", Duration::from_secs(12), |world| !world.is_alive(3));
    assert_eq!(world.published(0).cluster.lan[&name(3)].status, Status::Left);
}

#[test]
fn regression_a_write_that_reached_nobody_is_asked_of_the_next_leader_at_once() {
    let mut world = formed(3, 0);
    world.ask(0, put("a", "1"));
    let leader = world.leader().expect("formed");
    let follower = (leader + 1) % 3;
    let gone = world.published(leader).about.id;
    world.step(follower, Input::PeerDown { peer: gone });
    world.isolate(leader);
    let write = world.begin(follower, put("a", "2"));
    world.until("another leader", MINUTE, |world| {
        world.published(follower).lease.leader.is_some_and(|leader| leader != gone)
    });
    world.step(follower, Input::PeerDown { peer: gone });
    world.until("the reply", Duration::from_secs(1), |world| world.reply(write).is_some());
    assert_eq!(&world.reply(write).expect("just seen").body[..], b"true");
}

/// Whatever was held back waited for the end of the server's penalty, which never came because it had answered meanwhile.
#[test]
fn regression_what_was_held_back_is_asked_of_a_server_that_answers_again() {
    let mut world = formed(1, 1);
    world.ask(1, put("a", "1"));
    let index = world.ask(1, get("a")).meta.expect("a read").index;
    let blocking = Some(Blocking { index, wait: Duration::from_secs(300) });
    let parked = world.begin(1, Call::Read(Read { blocking, ..Read::new(Query::Kv("a".into())) }));
    world.pass(Duration::from_secs(1));
    world.isolate(0);
    let lost = world.begin(1, put("b", "1"));
    world.pass(Duration::from_millis(100));
    world.mend();
    world.until("it is given up", MINUTE, |world| world.reply(lost).is_some());
    let held = world.begin(1, get("c"));
    world.ask(0, put("a", "2"));
    world.until("the server is heard", Duration::from_secs(1), |world| world.reply(parked).is_some());
    world.until("the reply", Duration::from_millis(500), |world| world.reply(held).is_some());
    assert_eq!(world.reply(held).expect("just seen").status, 404);
}

/// Gossip alone tries each failed member about once in thirty seconds, and never one that left.
#[test]
fn client_agents_without_a_server_find_the_first_that_is_back_within_seconds() {
    let mut world = formed(3, 3);
    for server in 0..3 {
        world.kill(server);
    }
    let seen = |world: &World, server: usize, status: Status| {
        (3..6).all(|client| world.published(client).cluster.lan[&name(server)].status == status)
    };
    world.until("all have failed", MINUTE, |world| (0..3).all(|server| seen(world, server, Status::Failed)));
    world.pass(Duration::from_secs(100));
    let plan = Plan { servers: 3, clients: 3, forming: FormingPolicy::Wait };
    for back in [2, 1, 0] {
        // It keeps nothing, and knows the first server only.
        world.restart(&plan, back);
        world.until("it is found", Duration::from_secs(20), |world| seen(world, back, Status::Alive));
        world.kill(back);
        world.until("it has failed again", MINUTE, |world| seen(world, back, Status::Failed));
    }
}

#[test]
fn client_agents_find_their_sole_server_that_left_and_came_back() {
    let mut world = formed(1, 3);
    let seen = |world: &World, status: Status| {
        (1..4).all(|client| world.published(client).cluster.lan[&name(0)].status == status)
    };
    world.step(0, Input::Leave);
    world.until("it has left", MINUTE, |world| !world.is_alive(0) && seen(world, Status::Left));
    world.pass(Duration::from_secs(100));
    world.restart(&Plan { servers: 1, clients: 3, forming: FormingPolicy::Found(founders(1)) }, 0);
    world.until("it is found", Duration::from_secs(10), |world| seen(world, Status::Alive));
    let reply = world.ask(2, put("a", "1"));
    assert_eq!(&reply.body[..], b"true", "{reply:?}");
}
