//! Packets that nobody in the pool has sent.

use std::net::SocketAddr;

use bytes::Bytes;
use proptest::prelude::*;

use super::net::{address, config};
use crate::cx::Cx;
use crate::gossip::packet::{Alive, Exchange, Message, Request, Row, encode, plain};
use crate::gossip::{Effect, Gossip, Key, Pool, State, Status, VERSION};
use crate::network::Network;
use crate::rng::Rng;
use crate::testing::frugal;
use crate::testing::fuzz::{cases, damaged, hostile};
use crate::time::{Mono, Now, Wall};
use crate::timers::Timers;

const NOW: Now = Now { mono: Mono(1_000_000_000), wall: Wall(0) };

struct Lone {
    gossip: Gossip,
    timers: Timers<crate::cx::Timer>,
    effects: Vec<Effect>,
}

impl Lone {
    fn new(keys: Vec<Key>) -> Lone {
        let mut config = config(0);
        config.keys = keys;
        let gossip = Gossip::new(Pool::Lan, config, Vec::new(), Rng::from_seed(1), NOW);
        let mut lone = Lone { gossip, timers: Timers::default(), effects: Vec::new() };
        lone.act(Gossip::start);
        lone
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Gossip, &mut Cx<'_, Effect>) -> T) -> T {
        let mut cx = Cx { now: NOW, timers: &mut self.timers, effects: &mut self.effects };
        act(&mut self.gossip, &mut cx)
    }

    fn datagram(&mut self, bytes: &[u8]) {
        self.act(|gossip, cx| gossip.on_datagram(cx, address(1), bytes));
        self.gossip.table.invariants();
    }

    fn hear(&mut self, message: &Message<'_>) {
        self.datagram(&packet(message));
    }

    fn incarnation(&self, name: &str) -> u32 {
        let slot = self.gossip.table.find(name).unwrap();
        self.gossip.table.at(slot).incarnation
    }
}

#[test]
fn nothing_is_taken_from_outside_of_the_allowed_networks() {
    let mut lone = Lone::new(Vec::new());
    let here = address(1).ip();
    let network = |text: String| Network::parse(&text).expect("a network");
    // The sender is inside, and speaks of others.
    lone.gossip.config.allowed = vec![network(format!("{here}/32")), network("fd00::/8".to_owned())];
    let at = |place: &str, name: &str| {
        let (address, meta) = (place.parse().unwrap(), Vec::new());
        packet(&Message::Alive(Alive { incarnation: 1, name, address, meta: &meta }))
    };
    lone.datagram(&at("192.0.2.7:8301", "outside"));
    lone.datagram(&at("[fd00::7]:8301", "inside"));
    assert_eq!(lone.gossip.state("outside"), None);
    assert_eq!(lone.gossip.state("inside"), Some(State::Alive));
    assert_eq!((lone.gossip.stats().dropped.refused, lone.gossip.stats().dropped.outside), (1, 0));
    let warned = |effect: &Effect| matches!(effect, Effect::Warn(text) if text.contains("'outside' has address 192.0.2.7"));
    assert!(lone.effects.iter().any(warned), "{:?}", lone.effects);
    // One that is inside moves outside.
    lone.datagram(&packet(&Message::Alive(Alive {
        incarnation: 2,
        name: "inside",
        address: "192.0.2.7:8301".parse().unwrap(),
        meta: &[],
    })));
    assert_eq!(lone.gossip.member("inside").unwrap().address.to_string(), "[fd00::7]:8301");
    // The sender is outside.
    lone.gossip.config.allowed = vec![network("fd00::/8".to_owned())];
    lone.effects.clear();
    lone.datagram(&at("[fd00::8]:8301", "other"));
    let ping = plain(&encode(&Request::Ping("m0"), vec![b'L']));
    lone.act(|gossip, cx| gossip.on_call(cx, 1, address(1), &ping));
    assert_eq!(lone.gossip.state("other"), None);
    assert_eq!((lone.gossip.stats().dropped.outside, lone.effects.len()), (2, 0));
}

fn packet(message: &Message<'_>) -> Vec<u8> {
    plain(&encode(message, vec![b'L']))
}

fn alive(incarnation: u32, name: &str) -> Message<'_> {
    Message::Alive(Alive { incarnation, name, address: at(name), meta: &[] })
}

fn at(name: &str) -> SocketAddr {
    SocketAddr::from(([10, 1, 1, name.as_bytes().last().copied().unwrap_or(0)], 8301))
}

#[test]
fn what_is_no_good_is_counted_by_reason() {
    let good = packet(&Message::Ping { seq: 1, target: "m0" });
    let foreign = plain(&[b"W", &good[7..]].concat());
    let mut newer = good.clone();
    newer[0] = VERSION + 1;
    let mut lone = Lone::new(Vec::new());
    lone.datagram(&good);
    assert!(matches!(lone.effects.last(), Some(Effect::Datagram { .. })), "an ack");
    assert_eq!(lone.gossip.stats().dropped.total(), 0);
    lone.datagram(&foreign);
    lone.datagram(&newer);
    lone.datagram(&[]);
    lone.datagram(&good[..good.len() - 1]);
    lone.datagram(&plain(&good[6..good.len() - 1]));
    lone.datagram(&[&good[..], &[0; 2_000]].concat());
    lone.datagram(&[VERSION, 1, 1, 2, 3]);
    let dropped = lone.gossip.stats().dropped;
    assert_eq!((dropped.pool, dropped.version, dropped.damaged, dropped.malformed), (1, 1, 1, 2));
    assert_eq!((dropped.oversized, dropped.sealed), (1, 1));
    let mut lone = Lone::new(vec![Key::new(&[1; 16]).unwrap()]);
    lone.datagram(&good);
    lone.datagram(&[VERSION, 1, 1, 2, 3]);
    let dropped = lone.gossip.stats().dropped;
    assert_eq!((dropped.plain, dropped.seal), (1, 1));
}

#[test]
fn absurd_counts_and_lengths_cost_nothing() {
    let mut lone = Lone::new(Vec::new());
    // An exchange that announces four billion members.
    let bytes = plain(&[b'L', 1, 0, 1, b'a', 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    lone.act(|gossip, cx| gossip.on_call(cx, 1, address(1), &bytes));
    // A name that is four billion bytes long.
    lone.datagram(&plain(&[b'L', 5, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, b'a']));
    assert_eq!(lone.gossip.stats().dropped.malformed, 2);
    assert!(!lone.effects.iter().any(|effect| matches!(effect, Effect::Answer { .. })));
}

#[test]
fn names_that_fill_a_packet_are_not_passed_on() {
    let mut lone = Lone::new(Vec::new());
    lone.hear(&alive(1, "a"));
    let long = "x".repeat(1_380);
    lone.hear(&Message::PingRequest { seq: 1, target: &long, address: address(3) });
    lone.hear(&Message::Suspect { incarnation: 1, name: "a", from: &long, refused: false });
    lone.hear(&Message::Leave { time: 3, name: &long, prune: false });
    let asked = crate::gossip::packet::Ask::Where(long[..1_360].into());
    lone.hear(&Message::Query { time: 1, id: 2, from: "a", address: address(1), ask: asked });
    let dropped = lone.gossip.stats().dropped;
    assert_eq!((dropped.malformed, dropped.oversized), (1, 3));
}

#[test]
fn times_and_incarnations_that_nobody_reached_are_not_followed() {
    let mut lone = Lone::new(Vec::new());
    lone.hear(&alive(1, "a"));
    let before = lone.gossip.stats();
    lone.hear(&Message::Join { time: u64::MAX, name: "a" });
    lone.hear(&Message::Leave { time: u64::MAX - 1, name: "a", prune: true });
    lone.hear(&Message::Suspect { incarnation: u32::MAX, name: "m0", from: "a", refused: true });
    lone.hear(&Message::Dead { incarnation: u32::MAX, name: "a", from: "a" });
    lone.hear(&alive(u32::MAX, "b"));
    let after = lone.gossip.stats();
    assert_eq!(after.dropped.malformed, 5);
    assert_eq!((after.gauges, after.incarnation), (before.gauges, before.incarnation));
    assert_eq!(lone.gossip.member("a").unwrap().status, Status::Alive);
}

/// What the table believes, without times.
fn beliefs(lone: &Lone) -> Vec<(String, u32, State, bool, u64)> {
    lone.gossip
        .table
        .by_name()
        .filter(|entry| entry.info.name != "m0")
        .map(|entry| {
            (entry.info.name.to_string(), entry.incarnation, entry.state, entry.leaving, entry.intent_time)
        })
        .collect()
}

type Said = (u8, u32, u8, bool, u64);

fn said() -> impl Strategy<Value = Said> {
    (0u8..4, 1u32..4, 0u8..4, any::<bool>(), 0u64..4)
}

fn name(of: u8) -> &'static str {
    ["a", "b", "c", "d"][usize::from(of)]
}

fn row(said: &Said) -> Row<'static> {
    let (of, incarnation, state, leaving, intent_time) = *said;
    let state = [State::Alive, State::Suspect, State::Dead, State::Left][usize::from(state)];
    let alive = Alive { incarnation, name: name(of), address: at(name(of)), meta: &[] };
    Row { alive, state, leaving: leaving && intent_time > 0, intent_time, age: 0 }
}

fn exchange(said: &[Said]) -> Exchange<'static> {
    let members = said.iter().map(row).collect();
    Exchange {
        join: false,
        from: "a",
        member_time: 5,
        event_time: 0,
        query_time: 0,
        ring: None,
        members,
        events: vec![],
    }
}

/// One row per member, as an exchange has.
fn said_once() -> impl Strategy<Value = Vec<Said>> {
    proptest::collection::vec(said(), 0..8).prop_map(|mut said| {
        said.sort();
        said.dedup_by_key(|said| said.0);
        said
    })
}

/// A packet of one message of any kind, with names, times and numbers of any size.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just("a".to_owned()), Just("m0".to_owned()), "[ -~]{0,40}"];
    (0..9_u8, name, any::<u32>(), any::<u64>(), any::<bool>()).prop_map(|(kind, name, number, time, flag)| {
        let name = name.as_str();
        packet(&match kind {
            0 => alive(number, name),
            1 => Message::Suspect { incarnation: number, name, from: "b", refused: flag },
            2 => Message::Dead { incarnation: number, name, from: name },
            3 => Message::Leave { time, name, prune: flag },
            4 => Message::PingRequest { seq: number, target: name, address: address(3) },
            5 => Message::Verify { target: name },
            6 => Message::Ack { seq: number, coordinate: flag.then(crate::coordinate::Coordinate::default) },
            7 => Message::Ping { seq: number, target: name },
            _ => Message::Query {
                time,
                id: u64::from(number),
                from: name,
                address: address(1),
                ask: crate::gossip::packet::Ask::Keys(crate::gossip::KeysChange::List),
            },
        })
    })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn nothing_that_arrives_makes_it_panic_or_grow(body in hostile(any_message().prop_map(|bytes| bytes[6..].to_vec()), 1_500)) {
        // The checksum keeps accidents out, not liars.
        let bytes = plain(&body);
        let mut lone = Lone::new(Vec::new());
        lone.hear(&alive(1, "a"));
        lone.hear(&alive(1, "b"));
        frugal(bytes.len(), || {
            lone.datagram(&bytes);
            lone.datagram(&bytes);
            lone.act(|gossip, cx| gossip.on_call(cx, 1, address(1), &bytes));
            lone.act(|gossip, cx| gossip.join(cx, vec![address(1)], 1));
            lone.act(|gossip, cx| gossip.on_answer(cx, 1, Ok(Bytes::from(bytes.clone()))));
        });
        lone.gossip.table.invariants();
    }

    #[test]
    fn a_plain_packet_that_was_changed_is_dropped((sent, bytes) in damaged(any_message())) {
        let mut lone = Lone::new(Vec::new());
        lone.datagram(&bytes);
        prop_assert_eq!(lone.gossip.stats().dropped.total(), 1, "{:?} became {:?}", sent, bytes);
        prop_assert!(lone.gossip.member("a").is_none());
    }

    #[test]
    fn a_sealed_packet_that_was_changed_is_dropped(at in any::<prop::sample::Index>(), change in 1u8..) {
        let key = Key::new(&[1; 16]).unwrap();
        let mut lone = Lone::new(vec![key.clone()]);
        let body = encode(&alive(1, "a"), vec![b'L']);
        let mut bytes = lone.gossip.wrap(&body, None).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        lone.datagram(&bytes);
        prop_assert!(lone.gossip.member("a").is_none());
        prop_assert_eq!(lone.gossip.stats().dropped.total(), 1);
    }

    #[test]
    fn a_higher_incarnation_always_wins(claims in proptest::collection::vec((0u8..3, 1u32..6), 1..12)) {
        let mut lone = Lone::new(Vec::new());
        lone.hear(&alive(1, "a"));
        let mut highest = 1;
        for (what, incarnation) in claims {
            let (before, known) = (lone.gossip.state("a").unwrap(), lone.incarnation("a"));
            lone.hear(&match what {
                0 => alive(incarnation, "a"),
                1 => Message::Suspect { incarnation, name: "a", from: "b", refused: false },
                _ => Message::Dead { incarnation, name: "a", from: "b" },
            });
            let after = lone.gossip.state("a").unwrap();
            if incarnation < known {
                prop_assert_eq!(after, before);
            }
            if what == 0 && incarnation > known {
                prop_assert_eq!(after, State::Alive);
                highest = highest.max(incarnation);
            }
            prop_assert!(lone.incarnation("a") >= known && lone.incarnation("a") >= highest);
        }
    }

    #[test]
    fn merging_twice_is_merging_once(said in said_once()) {
        let mut lone = Lone::new(Vec::new());
        lone.act(|gossip, cx| gossip.merge(cx, &exchange(&said), false));
        let once = beliefs(&lone);
        lone.act(|gossip, cx| gossip.merge(cx, &exchange(&said), false));
        lone.gossip.table.invariants();
        // What was first heard as dead stays dead; what is suspected may only be confirmed.
        prop_assert_eq!(beliefs(&lone), once);
    }

    #[test]
    fn merging_in_either_order_believes_the_same_of_who_is_well_and_who_left(first in said_once(), second in said_once()) {
        // Intents have an order of their own.
        let without_intents = |said: Vec<Said>| said.into_iter().map(|said| (said.0, said.1, said.2, false, 0)).collect();
        let (first, second): (Vec<Said>, Vec<Said>) = (without_intents(first), without_intents(second));
        let merged = |orders: [&[Said]; 2]| {
            let mut lone = Lone::new(Vec::new());
            for said in orders {
                lone.act(|gossip, cx| gossip.merge(cx, &exchange(said), false));
            }
            // Suspicion and death differ only in time: one becomes the other unless it is refuted.
            beliefs(&lone).into_iter().map(|(name, incarnation, state, _, time)| {
                let state = if state == State::Suspect { State::Dead } else { state };
                (name, incarnation, state, time)
            }).collect::<Vec<_>>()
        };
        prop_assert_eq!(merged([&first, &second]), merged([&second, &first]));
    }

    #[test]
    fn an_exchange_of_anything_never_panics(said in proptest::collection::vec(said(), 0..12), cut in any::<prop::sample::Index>()) {
        let mut lone = Lone::new(Vec::new());
        let bytes = plain(&encode(&Request::Exchange(exchange(&said)), vec![b'L']));
        let cut = cut.index(bytes.len() + 1);
        lone.act(|gossip, cx| gossip.on_call(cx, 1, address(1), &bytes[..cut]));
        let short = plain(&bytes[6..cut.max(6)]);
        lone.act(|gossip, cx| gossip.on_call(cx, 3, address(1), &short));
        lone.act(|gossip, cx| gossip.on_call(cx, 2, address(1), &bytes));
        lone.gossip.table.invariants();
    }
}
