//! The short way and the way of all questions, held against each other.

use std::collections::BTreeMap;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;

use super::super::tests::{World, named, question, with_edns};
use super::super::{Answered, answer_any};
use super::*;
use crate::dns::DnsConfig;
use crate::node::Published;
use crate::rng::Rng;
use crate::store::model::Health;
use crate::testing::fuzz::cases;
use crate::time::{Mono, Now, Wall};

const NOW: Now = Now { mono: Mono(0), wall: Wall(1_700_000_000_000) };

struct Asked {
    short: Option<Message>,
    long: Message,
    bytes: (usize, usize),
}

/// Both answers to one question.
fn both(published: &Published, config: &DnsConfig, packet: &[u8], transport: Transport, seed: u64) -> Asked {
    let served = Served { published, config, lent: None, look: None, now: NOW };
    let (mut short, mut long) = (vec![0xee; 7], Vec::new());
    let done = answer(served, packet, transport, &mut Rng::from_seed(seed), &mut short);
    let answered = answer_any(served, packet, transport, &mut Rng::from_seed(seed ^ 1), &mut long);
    assert_eq!(answered, Answered::Here);
    let bytes = (short.len(), long.len());
    let short = done.map(|()| Message::from_vec(&short).expect("a well-formed answer"));
    Asked { short, long: Message::from_vec(&long).expect("a well-formed answer"), bytes }
}

/// Records in words, in an order of their own.
fn sorted(records: &[hickory_proto::rr::Record]) -> Vec<String> {
    let mut texts = records.iter().map(ToString::to_string).collect::<Vec<_>>();
    texts.sort();
    texts
}

#[derive(Clone, Debug)]
struct Instance {
    node: usize,
    own: Option<&'static str>,
    port: u16,
    health: Option<Health>,
    tag: &'static str,
}

fn instance() -> impl Strategy<Value = Instance> {
    let own = prop_oneof![
        6 => Just(None),
        2 => Just(Some("192.0.2.1")),
        2 => Just(Some("192.0.2.2")),
        1 => Just(Some("2001:db8::7")),
        1 => Just(Some("www.example.com")),
    ];
    let health = prop_oneof![
        2 => Just(None),
        2 => Just(Some(Health::Passing)),
        1 => Just(Some(Health::Warning)),
        1 => Just(Some(Health::Critical)),
    ];
    let tag = prop_oneof![Just("v1"), Just("V2"), Just("tcp"), Just("")];
    (0..NODES.len(), own, 1..3_u16, health, tag).prop_map(|(node, own, port, health, tag)| Instance {
        node,
        own,
        port,
        health,
        tag,
    })
}

/// Name, address and metadata.
type NodeRow = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const NODES: [NodeRow; 6] = [
    ("n0", "10.0.0.1", &[]),
    ("n1", "10.0.0.2", &[("role", "web"), ("RFC1035-x", "bare")]),
    ("N2.rack", "10.0.0.2", &[("empty", "")]),
    ("n3", "2001:db8::3", &[("k", "v")]),
    ("n4", "10.0.0.4", &[]),
    ("n_5", "host.example.com", &[("a", "b")]),
];

fn world(instances: &[Instance], all_addresses: bool) -> World {
    let mut world = World::new();
    for (name, address, meta) in NODES {
        let is_name = address.ends_with("com");
        world.node(name, if is_name && all_addresses { "10.0.0.9" } else { address }, meta);
    }
    for (at, instance) in instances.iter().enumerate() {
        let own = instance.own.filter(|own| !all_addresses || !own.ends_with("com")).unwrap_or_default();
        let service = named("web", &format!("web{at}"), instance.port, own, &[instance.tag]);
        world.service(NODES[instance.node].0, service, instance.health);
    }
    world
}

fn config() -> impl Strategy<Value = DnsConfig> {
    (any::<[bool; 4]>(), 0..9_usize, 0..4_usize, 0..3_u64).prop_map(|(flags, udp, limit, ttl)| DnsConfig {
        domain: if flags[0] { "consul".into() } else { "Corp.Example".into() },
        only_passing: flags[1],
        enable_truncate: flags[2],
        node_meta_txt: flags[3],
        udp_answer_limit: udp,
        a_record_limit: limit,
        service_ttl: BTreeMap::from([("we*".into(), core::time::Duration::from_secs(ttl))]),
        ..DnsConfig::default()
    })
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn both_ways_give_the_same_answer(
        instances in proptest::collection::vec(instance(), 0..12),
        all_addresses in any::<bool>(),
        config in config(),
        name in "((v1|v2|x|_v1)[.])?(_?web|WEB|none)([.]_(tcp|V1))?[.](service|Service|node|query)([.](dc1|DC1|dc2)([.]dc)?)?",
        kind in prop_oneof![
            Just(RecordType::A), Just(RecordType::AAAA), Just(RecordType::SRV), Just(RecordType::TXT)],
        size in prop_oneof![2 => Just(None), 3 => (0..2_000_u16).prop_map(Some)],
        tcp in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let published = world(&instances, all_addresses).served();
        let name = format!("{name}.{}.", config.domain);
        let message = question(&name, kind);
        let message = match size {
            Some(size) => with_edns(message, size),
            None => message,
        };
        let packet = message.to_vec().unwrap();
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let asked = both(&published, &config, &packet, transport, seed);
        let Some(short) = asked.short else { return Ok(()) };
        let long = &asked.long;
        prop_assert_eq!(&short.queries, &long.queries);
        prop_assert_eq!(&short.edns, &long.edns);
        prop_assert!(short.authorities.is_empty());
        let allowed = match (transport, size) {
            (Transport::Tcp, _) => 65_535,
            (Transport::Udp, size) => usize::from(size.unwrap_or(0).max(512)),
        };
        prop_assert!(asked.bytes.0 <= allowed);
        // Everything there is.
        let whole = DnsConfig { a_record_limit: 0, ..config.clone() };
        let whole = both(&published, &whole, &with_edns(question(&name, kind), 65_000).to_vec().unwrap(), Transport::Tcp, seed);
        // Of two that look alike from outside one is named, and either one's node may be.
        let alike = |one: &Instance, other: &Instance| one.own.is_some() && (one.own, one.port) == (other.own, other.port);
        let has_doubles =
            instances.iter().enumerate().any(|(at, one)| instances[..at].iter().any(|other| alike(one, other)));
        let additionals = |message: &Message| {
            let mut texts = sorted(&message.additionals);
            texts.retain(|text| !has_doubles || !text.contains(" TXT "));
            texts
        };
        let (all, more) = (sorted(&whole.long.answers), additionals(&whole.long));
        if long.metadata.truncation && !short.metadata.truncation {
            // Names are shared better: what had to be cut there fits here.
            prop_assert!(short.answers.len() >= long.answers.len());
        } else {
            prop_assert_eq!(&short.metadata, &long.metadata);
        }
        if short.answers.len() == all.len() {
            prop_assert_eq!(sorted(&short.answers), all);
            let mut more = more;
            if additionals(&short) != more {
                // Only metadata that does not fit may be missing, and then all of it is.
                prop_assert!(asked.bytes.0 + more.join("").len() > allowed);
                more.retain(|text| !text.contains(" TXT "));
            }
            prop_assert_eq!(additionals(&short), more);
        } else {
            prop_assert!(short.additionals.iter().all(|record| record.record_type() != RecordType::TXT));
            let (answers, additionals) = (sorted(&short.answers), additionals(&short));
            prop_assert!(answers.iter().all(|answer| all.contains(answer)));
            prop_assert!(additionals.iter().all(|record| more.contains(record)));
            let mut distinct = answers.clone();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), answers.len());
            prop_assert!(short.answers.len() >= long.answers.len());
        }
    }
}

fn plain(count: u32) -> World {
    let mut world = World::new();
    for at in 0..count {
        let node = format!("node-{at}");
        world.node(&node, &format!("10.0.{}.{}", at / 250, at % 250 + 1), &[("zone", "a")]);
        world.service(&node, named("web", "web", 80, "", &["v1"]), Some(Health::Passing));
    }
    world
}

#[test]
fn what_does_not_fit_is_cut_on_the_short_way() {
    let mut world = plain(50);
    world.config.enable_truncate = true;
    let published = world.served();
    // Answers and additional records, over the short way and the other one, for as many bytes as the question offers. Metadata
    // goes first.
    for (kind, size, counts) in [
        (RecordType::A, 512, (3, 0)),
        (RecordType::A, 700, (40, 0)),
        (RecordType::SRV, 512, (3, 3)),
        (RecordType::SRV, 1_232, (20, 20)),
        (RecordType::SRV, 3_500, (50, 50)),
        (RecordType::SRV, 4_096, (50, 100)),
    ] {
        let packet = with_edns(question("web.service.consul.", kind), size).to_vec().unwrap();
        let asked = both(&published, &world.config, &packet, Transport::Udp, 1);
        let short = asked.short.expect("a usual question");
        assert_eq!((short.answers.len(), short.additionals.len()), counts, "{kind} {size}");
        assert_eq!(short.metadata.truncation, counts.0 < 50, "{kind} {size}");
        assert!(asked.bytes.0 <= usize::from(size), "{kind} {size}");
        let long = asked.long;
        assert!(long.answers.len() + 2 >= counts.0 && long.metadata == short.metadata, "{kind} {size}");
    }
}

#[test]
fn usual_questions_go_the_short_way() {
    let mut world = plain(50);
    let published = world.served();
    let forms = [
        "web.service.consul.",
        "WEB.Service.Consul.",
        "v1.web.service.consul.",
        "web.service.dc1.consul.",
        "web.service.dc1.dc.consul.",
        "_web._tcp.service.consul.",
        "_web._v1.service.dc1.consul.",
    ];
    for name in forms {
        for kind in [RecordType::A, RecordType::SRV] {
            let packet = with_edns(question(name, kind), 65_000).to_vec().unwrap();
            let asked = both(&published, &world.config, &packet, Transport::Udp, 1);
            assert_eq!(asked.short.expect(name).answers.len(), 50, "{name} {kind}");
        }
        let packet = question(name, RecordType::A).to_vec().unwrap();
        let asked = both(&published, &world.config, &packet, Transport::Udp, 1);
        assert_eq!(asked.short.expect(name).answers.len(), 3, "{name}");
    }
    world.config.alt_domain = Some("corp".into());
    let packet = question("web.service.consul.", RecordType::A).to_vec().unwrap();
    assert!(both(&published, &world.config, &packet, Transport::Udp, 1).short.is_some());
}

#[test]
fn each_instance_is_first_about_equally_often() {
    let world = plain(10);
    let published = world.served();
    let served = Served { published: &published, config: &world.config, lent: None, look: None, now: NOW };
    let packet = question("web.service.consul.", RecordType::A).to_vec().unwrap();
    let mut rng = Rng::from_seed(5);
    let mut out = Vec::new();
    let mut firsts = BTreeMap::new();
    for _ in 0..10_000 {
        answer(served, &packet, Transport::Udp, &mut rng, &mut out).expect("a usual question");
        let at = packet.len() + 12;
        *firsts.entry(out[at..at + 4].to_vec()).or_insert(0) += 1;
    }
    assert_eq!(firsts.len(), 10);
    assert!(firsts.values().all(|count| (850..1_150).contains(count)), "{firsts:?}");
}

#[test]
fn a_usual_answer_costs_no_allocation() {
    let world = plain(50);
    let published = world.served();
    let served = Served { published: &published, config: &world.config, lent: None, look: None, now: NOW };
    let mut rng = Rng::from_seed(5);
    let mut out = Vec::with_capacity(4_096);
    for (kind, size) in [(RecordType::A, None), (RecordType::SRV, None), (RecordType::A, Some(4_096))] {
        let message = question("web.service.consul.", kind);
        let message = size.map_or_else(|| message.clone(), |size| with_edns(message.clone(), size));
        let packet = message.to_vec().unwrap();
        answer(served, &packet, Transport::Udp, &mut rng, &mut out).expect("a usual question");
        let info = allocation_counter::measure(|| {
            answer(served, &packet, Transport::Udp, &mut rng, &mut out).expect("a usual question");
        });
        assert_eq!(info.count_total, 0, "{kind}");
    }
}
