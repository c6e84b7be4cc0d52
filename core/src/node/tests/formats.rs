//! Agents of an older and of a newer program in one cluster.

use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::world::{Plan, World, founders, name};
use crate::api::{Call, Read, Write};
use crate::format::{Format, Formats};
use crate::raft::{Entry, HardState, Payload, Recovered};
use crate::store::command::{Command, KvCommand, KvVerb};
use crate::store::query::Query;

const MINUTE: Duration = Duration::from_secs(60);
const FIRST: Formats = Formats { oldest: Format::FIRST, newest: Format::FIRST };

fn set(key: &str) -> Command {
    Command::Kv(KvCommand { verb: KvVerb::Set, key: key.into(), value: Bytes::from_static(b"1"), flags: 0 })
}

fn put(key: &str) -> Call {
    let Command::Kv(command) = set(key) else { unreachable!("just made") };
    Call::Write(Write::Kv(command))
}

fn formed(servers: usize, clients: usize, old: &[usize]) -> World {
    let plan = Plan { servers, clients, forming: FormingPolicy::Found(founders(servers)) };
    let mut world = World::with_old(&plan, old.iter().copied().collect());
    world.until("a leader", MINUTE, |world| world.leader().is_some());
    let all = servers + clients;
    world.until("all see all", MINUTE, |world| {
        (0..all).all(|agent| world.published(agent).cluster.lan.len() == all)
    });
    world
}

fn format(world: &World, server: usize) -> Format {
    world.published(server).view.format()
}

#[test]
fn a_group_of_new_servers_raises_its_format_and_serves_old_and_new_client_agents() {
    let mut world = formed(3, 2, &[4]);
    world
        .until("raised", MINUTE, |world| (0..3).all(|server| format(world, server) == Formats::KNOWN.newest));
    for client in [3, 4] {
        assert_eq!(&world.ask(client, put("a")).body[..], b"true");
        assert_eq!(world.ask(client, Call::Read(Read::new(Query::Kv("a".into())))).status, 200);
    }
    assert!(world.halted.is_empty(), "{:?}", world.halted);
}

#[test]
fn one_old_server_keeps_the_format_of_its_group_down() {
    let mut world = formed(3, 1, &[2]);
    for agent in 0..4 {
        assert_eq!(&world.ask(agent, put("a")).body[..], b"true");
    }
    world.pass(MINUTE);
    assert!((0..3).all(|server| format(&world, server) == Format::FIRST));
    let leader = world.leader().expect("nobody died");
    let applied = world.published(leader).lease.applied;
    assert!((0..3).all(|server| world.published(server).lease.applied == applied));
    assert!(world.halted.is_empty(), "{:?}", world.halted);
}

#[test]
fn a_group_takes_up_no_server_that_does_not_understand_it() {
    let plan = Plan { servers: 1, clients: 0, forming: FormingPolicy::Alone };
    let mut world = World::with_old(&plan, [1].into());
    world.until("raised", MINUTE, |world| format(world, 0) == Formats::KNOWN.newest);
    let joining = Plan { servers: 3, clients: 0, forming: FormingPolicy::Wait };
    world.add(&joining, 1);
    world.add(&joining, 2);
    world.until("the new one votes", MINUTE, |world| world.published(0).membership.voters().count() == 2);
    world.pass(MINUTE);
    assert_eq!(world.published(0).membership.servers.len(), 2);
    assert_eq!(world.published(0).cluster.lan[&name(1)].tag(crate::gossip::tag::FORMATS), "1-1");
}

/// A server whose log has these commands, and what it says as it starts.
fn started(formats: Formats, commands: &[Bytes]) -> (Result<Node, BadStart>, Vec<String>) {
    let mut config = super::config();
    config.about.formats = formats;
    let FormingPolicy::Found(founding) = config.forming.clone() else { unreachable!("a group of one") };
    let payloads =
        [Payload::Membership(founding)].into_iter().chain(commands.iter().cloned().map(Payload::Command));
    let entries: Vec<Entry> = payloads
        .zip(1..)
        .map(|(payload, index)| Entry { term: Term(1), index: LogIndex(index), payload })
        .collect();
    let restored = Restored {
        raft: Recovered { hard: HardState { term: Term(1), vote: None }, entries, ..Recovered::default() },
        ..Restored::default()
    };
    let now = Now { mono: Mono(1_000_000_000), wall: crate::time::Wall(0) };
    let mut node = match Node::new(config, restored, [1; 32], now) {
        Ok(node) => node,
        Err(bad) => return (Err(bad), Vec::new()),
    };
    let mut out = Outbox::default();
    node.start(now, &mut out);
    let halts = out.drain().filter_map(|output| match output {
        Output::Halt { reason } => Some(reason),
        _ => None,
    });
    let halts = halts.collect();
    (Ok(node), halts)
}

#[test]
fn an_older_program_stops_at_a_newer_entry_and_the_newer_one_goes_on() {
    let log = [
        set("a").encode(Format::FIRST),
        Command::FormatRaised { to: Format::CHECKED }.encode(Format::FIRST),
        set("b").encode(Format::CHECKED),
    ];
    let (old, halts) = started(FIRST, &log);
    assert_eq!(halts.len(), 1, "{halts:?}");
    assert!(
        halts[0].contains("log entry 3") && halts[0].contains("start the newer version again"),
        "{halts:?}"
    );
    let (applied, state) = old.as_ref().expect("it starts").state();
    assert!(applied == LogIndex(2) && state.kv("a").is_some() && state.kv("b").is_none());
    let (old, halts) = started(FIRST, &[set("a").encode(Format::CHECKED)]);
    assert!(old.is_ok() && halts[0].contains("a command of format 2"), "{halts:?}");
    let (new, halts) = started(Formats::KNOWN, &log);
    assert!(halts.is_empty(), "{halts:?}");
    let state = new.as_ref().expect("it starts").state().1;
    assert!(state.kv("b").is_some() && state.format() >= Format::CHECKED);
}

#[test]
fn an_older_program_refuses_a_newer_checkpoint() {
    let mut config = super::config();
    config.about.formats = FIRST;
    let mut restored = Restored::default();
    restored.store.apply(2, &Command::FormatRaised { to: Format::CHECKED });
    let now = Now { mono: Mono(1_000_000_000), wall: crate::time::Wall(0) };
    let refused = Node::new(config, restored, [1; 32], now).expect_err("too old").to_string();
    assert!(refused.contains("uses format 2") && refused.contains("nothing is lost"), "{refused}");
}

#[test]
fn an_altered_command_of_the_second_format_stops_the_server_that_would_apply_it() {
    let mut altered = set("b").encode(Format::CHECKED).to_vec();
    *altered.last_mut().expect("it has bytes") ^= 1;
    let (node, halts) = started(Formats::KNOWN, &[altered.into()]);
    assert!(halts.len() == 1 && halts[0].contains("checksum"), "{halts:?}");
    assert!(node.expect("it starts").state().1.kv("b").is_none());
}
