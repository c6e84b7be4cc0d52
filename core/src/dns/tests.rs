use std::collections::BTreeMap;
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use proptest::prelude::*;

use super::*;
use crate::ids::Uuid;
use crate::node::{About, Lease};
use crate::rng::Rng;
use crate::store::command::{Command, Registration};
use crate::store::model::{Check, Health, Service, Weights};
use crate::store::{Failover, PreparedCommand, PreparedQuery, ServiceQuery, Store, Template};
use crate::testing::frugal;
use crate::testing::fuzz::{cases, hostile};
use crate::time::{Mono, Wall};

pub(super) struct World {
    store: Store,
    index: u64,
    pub(super) config: DnsConfig,
    pub(super) rng: Rng,
}

/// An answer in words, as one compares it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) code: String,
    flags: String,
    pub(super) answers: Vec<String>,
    authorities: Vec<String>,
    pub(super) additionals: Vec<String>,
}

const SOA: &str = "consul. 0 SOA ns.consul. hostmaster.consul. 1700000000 3600 600 86400 0";

impl World {
    pub(super) fn new() -> World {
        World { store: Store::new(), index: 0, config: DnsConfig::default(), rng: Rng::from_seed(1) }
    }

    pub(super) fn register(&mut self, registration: Registration) {
        self.index += 1;
        let applied = self.store.apply(self.index, &Command::Register(Box::new(registration)));
        assert_eq!(applied.response, crate::store::command::Response::Done);
    }

    pub(super) fn node(&mut self, node: &str, address: &str, meta: &[(&str, &str)]) {
        let node_meta = meta.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let (node, address) = (node.into(), address.into());
        self.register(Registration {
            node,
            address,
            node_meta,
            datacenter: "dc1".into(),
            ..Registration::default()
        });
    }

    pub(super) fn service(&mut self, node: &str, service: Service, status: Option<Health>) {
        let checks = status.map(|status| Check {
            id: format!("check:{}", service.id).into(),
            service_id: service.id.clone(),
            status,
            ..Check::default()
        });
        self.register(Registration {
            node: node.into(),
            service: Some(service),
            checks: checks.into_iter().collect(),
            skip_node_update: true,
            ..Registration::default()
        });
    }

    pub(super) fn served(&self) -> Published {
        Published {
            view: self.store.clone(),
            lease: Lease { is_leader: true, ..Lease::default() },
            membership: Arc::default(),
            agent: Arc::default(),
            cluster: Arc::default(),
            alarm: None,
            about: Arc::new(About { datacenter: "dc1".into(), ..About::default() }),
        }
    }

    fn bytes(&mut self, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let published = self.served();
        let now = Now { mono: Mono(0), wall: Wall(1_700_000_000_000) };
        let served = Served { published: &published, config: &self.config, lent: None, look: None, now };
        let mut out = Vec::new();
        let answered = answer(served, packet, transport, &mut self.rng, &mut out);
        (answered != Answered::Never).then_some(out)
    }

    fn ask(&mut self, message: &Message, transport: Transport) -> (Message, usize) {
        let bytes = self.bytes(&message.to_vec().unwrap(), transport).expect("questions are answered");
        (Message::from_vec(&bytes).expect("answers are well-formed"), bytes.len())
    }

    pub(super) fn dig(&mut self, name: &str, kind: RecordType) -> Said {
        said(&self.ask(&question(name, kind), Transport::Udp).0)
    }

    fn answers(&mut self, name: &str, kind: RecordType) -> Vec<String> {
        let said = self.dig(name, kind);
        assert_eq!(said.code, "NoError", "{name}");
        said.answers
    }
}

pub(super) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub(super) fn with_edns(mut message: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.set_edns(edns);
    message
}

fn said(message: &Message) -> Said {
    let section = |records: &[hickory_proto::rr::Record]| {
        let text = |record: &hickory_proto::rr::Record| {
            format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data)
        };
        let mut texts = records.iter().map(text).collect::<Vec<_>>();
        texts.sort();
        texts
    };
    let meta = &message.metadata;
    let flags = [(meta.authoritative, "aa"), (meta.truncation, "tc"), (meta.recursion_desired, "rd")];
    Said {
        code: format!("{:?}", meta.response_code),
        flags: flags.iter().filter(|flag| flag.0).map(|flag| flag.1).collect::<Vec<_>>().join(" "),
        answers: section(&message.answers),
        authorities: section(&message.authorities),
        additionals: section(&message.additionals),
    }
}

pub(super) fn named(service: &str, id: &str, port: u16, address: &str, tags: &[&str]) -> Service {
    Service {
        service: service.into(),
        id: id.into(),
        port,
        address: address.into(),
        tags: tags.iter().map(|tag| (*tag).into()).collect(),
        ..Service::default()
    }
}

fn example() -> World {
    let mut world = World::new();
    world.node("n1", "10.2.0.1", &[]);
    world.node("n2", "10.2.0.2", &[]);
    world.node("n3", "10.2.0.3", &[("role", "web"), ("rfc1035-00", "raw text")]);
    world.node("n6", "2001:db8::6", &[]);
    world.node("ext", "www.example.com", &[]);
    world.service("n1", named("db", "db1", 5432, "", &["primary", "v1"]), None);
    world.service("n2", named("db", "db2", 5433, "", &["replica", "V2"]), Some(Health::Passing));
    world.service("n6", named("db", "db3", 5434, "192.0.2.30", &["replica"]), Some(Health::Warning));
    world.service("n2", named("db", "db4", 5435, "", &["replica"]), Some(Health::Critical));
    world.service("n6", named("six", "six", 6, "", &[]), None);
    world.service("n1", named("out", "out", 443, "ext.example.com", &[]), None);
    world.service("n1", named("local", "local", 11, "n2.node.consul", &[]), None);
    world.service("n1", named("dead", "dead", 12, "", &[]), Some(Health::Critical));
    world.service("n3", named("consul", "consul", 8300, "", &[]), None);
    world
}

#[test]
fn addresses_of_healthy_instances_are_answered() {
    let mut world = example();
    let all = [
        "db.service.consul. 0 A 10.2.0.1",
        "db.service.consul. 0 A 10.2.0.2",
        "db.service.consul. 0 A 192.0.2.30",
    ];
    assert_eq!(
        world.dig("db.service.consul.", RecordType::A),
        Said {
            code: "NoError".into(),
            flags: "aa rd".into(),
            answers: all.iter().map(|text| (*text).to_owned()).collect(),
            ..Said::default()
        }
    );
    assert_eq!(
        world.answers("v2.db.service.dc1.consul.", RecordType::A),
        ["v2.db.service.dc1.consul. 0 A 10.2.0.2"]
    );
    assert_eq!(
        world.answers("six.service.consul.", RecordType::ANY),
        ["six.service.consul. 0 AAAA 2001:db8::6"]
    );
    world.config.only_passing = true;
    assert_eq!(world.answers("db.service.consul.", RecordType::A), all[..2]);
}

#[test]
fn srv_records_name_the_node_or_spell_the_address() {
    let said = example().dig("_db._tcp.service.consul.", RecordType::SRV);
    assert_eq!(
        said.answers,
        [
            "_db._tcp.service.consul. 0 SRV 1 1 5432 n1.node.dc1.consul.",
            "_db._tcp.service.consul. 0 SRV 1 1 5433 n2.node.dc1.consul.",
            "_db._tcp.service.consul. 0 SRV 1 1 5434 c000021e.addr.dc1.consul.",
        ]
    );
    assert_eq!(
        said.additionals,
        [
            "c000021e.addr.dc1.consul. 0 A 192.0.2.30",
            "n1.node.dc1.consul. 0 A 10.2.0.1",
            "n2.node.dc1.consul. 0 A 10.2.0.2"
        ]
    );
    let said = example().dig("_local._tcp.consul.", RecordType::SRV);
    assert_eq!(said.answers, ["_local._tcp.consul. 0 SRV 1 1 11 n2.node.consul."]);
    assert_eq!(said.additionals, ["n2.node.consul. 0 A 10.2.0.2"]);
}

#[test]
fn weights_follow_the_state() {
    let mut world = World::new();
    world.node("w", "10.3.0.1", &[]);
    let weights = Weights { passing: 10, warning: 2 };
    world.service("w", Service { weights, ..named("a", "a", 1, "", &[]) }, Some(Health::Passing));
    world.service("w", Service { weights, ..named("b", "b", 1, "", &[]) }, Some(Health::Warning));
    assert_eq!(
        world.answers("a.service.consul.", RecordType::SRV),
        ["a.service.consul. 0 SRV 1 10 1 w.node.dc1.consul."]
    );
    assert_eq!(
        world.answers("b.service.consul.", RecordType::SRV),
        ["b.service.consul. 0 SRV 1 2 1 w.node.dc1.consul."]
    );
}

#[test]
fn what_does_not_exist_and_what_has_no_such_record_are_told_apart() {
    let mut world = example();
    let cases = [
        ("nosuch.service.consul.", RecordType::A, "NXDomain"),
        ("dead.service.consul.", RecordType::A, "NXDomain"),
        ("primary.nosuch.service.consul.", RecordType::SRV, "NXDomain"),
        ("nosuch.db.service.consul.", RecordType::A, "NXDomain"),
        ("db.service.dc2.consul.", RecordType::A, "NXDomain"),
        ("n1.node.dc1.dc1.consul.", RecordType::A, "NXDomain"),
        ("nosuch.node.consul.", RecordType::AAAA, "NXDomain"),
        ("consul.", RecordType::A, "NXDomain"),
        ("zz000001.addr.consul.", RecordType::A, "NXDomain"),
        ("x.query.consul.", RecordType::A, "NXDomain"),
        ("db.service.consul.", RecordType::AAAA, "NoError"),
        ("db.service.consul.", RecordType::MX, "NoError"),
        ("n1.node.consul.", RecordType::AAAA, "NoError"),
        ("n1.node.consul.", RecordType::SRV, "NoError"),
    ];
    for (name, kind, code) in cases {
        let said = world.dig(name, kind);
        assert_eq!((said.code.as_str(), &said.answers[..]), (code, &[][..]), "{name} {kind}");
        assert_eq!(said.authorities, [SOA], "{name} {kind}");
    }
}

#[test]
fn a_service_without_a_name_is_a_failure() {
    let said = example().dig("_._tcp.service.consul.", RecordType::SRV);
    assert_eq!((said.code.as_str(), said.flags.as_str()), ("ServFail", "aa rd"));
    assert!(said.answers.is_empty() && said.authorities.is_empty());
}

#[test]
fn other_domains_are_refused_without_authority() {
    let mut world = example();
    for name in ["example.com.", "consul.example.com.", ".", "n1.node."] {
        let said = world.dig(name, RecordType::A);
        assert_eq!((said.code.as_str(), said.flags.as_str()), ("Refused", "rd"), "{name}");
    }
}

#[test]
fn nodes_have_addresses_aliases_and_metadata() {
    let mut world = example();
    let said = world.dig("n3.node.consul.", RecordType::A);
    let meta = ["n3.node.consul. 0 TXT raw text", "n3.node.consul. 0 TXT role=web"];
    assert_eq!(said.answers, ["n3.node.consul. 0 A 10.2.0.3"]);
    assert_eq!(said.additionals, meta);
    assert_eq!(world.answers("n3.node.consul.", RecordType::TXT), meta);
    let alias = ["ext.node.consul. 0 CNAME www.example.com."];
    assert_eq!(world.answers("ext.node.consul.", RecordType::AAAA), alias);
    assert_eq!(
        world.answers("out.service.consul.", RecordType::A),
        ["out.service.consul. 0 CNAME ext.example.com."]
    );
    world.config.node_meta_txt = false;
    assert!(world.dig("n3.node.consul.", RecordType::A).additionals.is_empty());
    assert_eq!(world.answers("n3.node.consul.", RecordType::ANY).len(), 3);
}

#[test]
fn aliases_into_the_own_zone_are_followed_but_not_in_circles() {
    let mut world = example();
    let expected = ["local.service.consul. 0 CNAME n2.node.consul.", "n2.node.consul. 0 A 10.2.0.2"];
    assert_eq!(world.answers("local.service.consul.", RecordType::A), expected);
    world.node("a", "b.node.consul", &[]);
    world.node("b", "a.node.consul", &[]);
    assert!(world.answers("a.node.consul.", RecordType::A).len() <= 5);
    world.node("self", "self.node.consul", &[]);
    assert!(world.answers("self.node.consul.", RecordType::A).is_empty());
}

#[test]
fn the_zone_names_its_servers() {
    let mut world = example();
    let said = world.dig("consul.", RecordType::SOA);
    assert_eq!(said.answers, [SOA]);
    assert_eq!(said.authorities, ["consul. 0 NS n3.node.dc1.consul."]);
    assert_eq!(said.additionals, ["n3.node.dc1.consul. 0 A 10.2.0.3"]);
    assert_eq!(world.answers("consul.", RecordType::NS), ["consul. 0 NS n3.node.dc1.consul."]);
}

#[test]
fn addresses_are_spelt_and_looked_up_in_reverse() {
    let mut world = example();
    assert_eq!(
        world.answers("0A020001.addr.dc9.consul.", RecordType::A),
        ["0A020001.addr.dc9.consul. 0 A 10.2.0.1"]
    );
    let reverse = |world: &mut World, name: &str| world.answers(name, RecordType::PTR).pop().unwrap();
    assert!(reverse(&mut world, "1.0.2.10.in-addr.arpa.").ends_with(" 0 PTR n1.node.dc1.consul."));
    assert!(reverse(&mut world, "30.2.0.192.in-addr.arpa.").ends_with(" 0 PTR db.service.dc1.consul."));
    let six = "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
    assert!(reverse(&mut world, six).ends_with(" 0 PTR n6.node.dc1.consul."));
    assert_eq!(world.dig("9.9.9.9.in-addr.arpa.", RecordType::PTR).code, "Refused");
}

#[test]
fn times_to_live_are_those_of_the_longest_match() {
    let mut world = example();
    world.config.node_ttl = Duration::from_secs(11);
    let ttls = [("*", 5_000), ("d*", 22_500), ("db", 33_000), ("si*", 44_000)];
    world.config.service_ttl = ttls.map(|(name, ms)| (name.into(), Duration::from_millis(ms))).into();
    let ttl = |world: &mut World, name: &str| {
        world.answers(name, RecordType::ANY)[0].split(' ').nth(1).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(ttl(&mut world, "n1.node.consul."), 11);
    assert_eq!(ttl(&mut world, "DB.service.consul."), 33);
    assert_eq!(ttl(&mut world, "six.service.consul."), 44);
    assert_eq!(ttl(&mut world, "out.service.consul."), 5);
}

#[test]
fn the_second_domain_answers_in_its_own_name() {
    let mut world = example();
    world.config.alt_domain = Some("alt.consul".into());
    let said = world.dig("db.service.alt.consul.", RecordType::SRV);
    assert!(said.answers.iter().any(|answer| answer.ends_with(" n1.node.dc1.alt.consul.")), "{said:?}");
    let said = world.dig("nosuch.service.alt.consul.", RecordType::A);
    assert!(said.authorities[0].starts_with("alt.consul. 0 SOA"), "{said:?}");
    assert_eq!(world.answers("n1.node.consul.", RecordType::A).len(), 1);
}

fn big(instances: u32) -> World {
    let mut world = World::new();
    for at in 0..instances {
        let [_, _, high, low] = at.to_be_bytes();
        world.node(&format!("b{at}"), &format!("10.9.{high}.{low}"), &[]);
        world.service(&format!("b{at}"), named("big", "big", 1000, "", &[]), None);
    }
    world
}

#[test]
fn datagrams_hold_three_answers_unless_the_client_takes_more() {
    let mut world = big(12);
    let ask = |world: &mut World, kind, edns: Option<u16>, transport| {
        let message = question("big.service.consul.", kind);
        let message = edns.into_iter().fold(message, with_edns);
        let (reply, size) = world.ask(&message, transport);
        (reply.answers.len(), reply.additionals.len(), reply.metadata.truncation, size)
    };
    assert_eq!(ask(&mut world, RecordType::A, None, Transport::Udp).0, 3);
    assert_eq!(ask(&mut world, RecordType::A, Some(512), Transport::Udp).0, 3);
    assert_eq!(ask(&mut world, RecordType::A, Some(1232), Transport::Udp).0, 12);
    assert_eq!(ask(&mut world, RecordType::A, None, Transport::Tcp).0, 12);
    let (answers, additionals, tc, _) = ask(&mut world, RecordType::SRV, None, Transport::Udp);
    assert_eq!((answers, additionals, tc), (3, 3, false));
    world.config.a_record_limit = 2;
    assert_eq!(ask(&mut world, RecordType::A, None, Transport::Tcp).0, 2);
    assert_eq!(ask(&mut world, RecordType::SRV, None, Transport::Tcp).0, 12);
    world.config.a_record_limit = 0;
    world.config.enable_truncate = true;
    world.config.udp_answer_limit = 5;
    let (answers, _, tc, _) = ask(&mut world, RecordType::A, None, Transport::Udp);
    assert_eq!((answers, tc), (5, true));
    assert!(!ask(&mut world, RecordType::A, None, Transport::Tcp).2);
}

#[test]
fn large_answers_are_cut_to_what_fits_and_keep_their_opt_record() {
    let mut world = big(200);
    world.config.enable_truncate = true;
    for kind in [RecordType::A, RecordType::SRV] {
        let message = with_edns(question("big.service.consul.", kind), 1232);
        let (reply, size) = world.ask(&message, Transport::Udp);
        assert!(size <= 1232 && size > 1100, "{kind}: {size}");
        assert!(reply.metadata.truncation && reply.edns.is_some(), "{kind}");
        let with_address = usize::from(kind == RecordType::SRV) * reply.answers.len();
        assert_eq!(reply.additionals.len(), with_address, "{kind}");
    }
    let (reply, _) = world.ask(&question("big.service.consul.", RecordType::SRV), Transport::Tcp);
    assert_eq!((reply.answers.len(), reply.metadata.truncation), (200, false));
}

#[test]
fn the_size_that_is_offered_comes_back_as_it_was() {
    let mut world = big(2);
    for (name, kind) in [
        ("big.service.consul.", RecordType::A),
        ("big.service.consul.", RecordType::TXT),
        ("none.service.consul.", RecordType::A),
    ] {
        for size in [0, 100, 511, 512, 65_535] {
            // The same question as one with a size that is known to be written.
            let mut packet = with_edns(question(name, kind), 0x1111).to_vec().unwrap();
            let size = u16::to_be_bytes(size);
            let at = packet.len() - 8;
            assert_eq!(packet[at..at + 2], [0x11, 0x11]);
            packet[at..at + 2].copy_from_slice(&size);
            let reply = world.bytes(&packet, Transport::Udp).expect("an answer");
            let opt = &reply[reply.len() - 11..];
            assert_eq!(opt, [0, 0, 41, size[0], size[1], 0, 0, 0, 0, 0, 0], "{name} {kind} {size:?}");
        }
    }
}

#[test]
fn metadata_is_left_out_before_answers_are() {
    let mut world = World::new();
    world.config.enable_truncate = true;
    for at in 1..=12 {
        let [node, address] = [format!("m{at}"), format!("10.9.1.{at}")];
        world.node(&node, &address, &[("rack", "one"), ("role", "x")]);
        world.service(&node, named("metas", "metas", 1, "", &[]), None);
    }
    // The other way, which decides for all questions.
    world.config.disable_compression = true;
    let mut ask = |size| {
        let message = with_edns(question("metas.service.consul.", RecordType::SRV), size);
        let (reply, _) = world.ask(&message, Transport::Udp);
        (reply.answers.len(), reply.additionals.len(), reply.metadata.truncation)
    };
    assert_eq!(ask(4_096), (12, 36, false));
    assert_eq!(ask(1_410), (12, 12, false));
    assert_eq!(ask(512), (3, 3, true));
    let (answers, additionals, is_cut) = ask(800);
    assert!(answers < 12 && answers == additionals && is_cut);
}

#[test]
fn answers_that_outgrow_a_stream_message_are_cut() {
    let mut world = big(2000);
    let (reply, size) = world.ask(&question("big.service.consul.", RecordType::SRV), Transport::Tcp);
    assert!(size <= 65_523 && reply.answers.len() > 500, "{size}");
}

#[test]
fn several_tags_in_one_name_are_one_with_dots_if_there_is_one_and_else_all_of_them() {
    let mut world = World::new();
    world.node("n", "10.0.0.1", &[]);
    for (id, address, tags) in [
        ("1", "10.1.0.1", &["eu", "blue"][..]),
        ("2", "10.1.0.2", &["EU"][..]),
        ("3", "10.1.0.3", &["v1.2"][..]),
        ("4", "10.1.0.4", &["v1", "2", "eu"][..]),
    ] {
        world.service("n", named("web", id, 80, address, tags), None);
    }
    let addresses = |world: &mut World, name: &str| {
        let said = world.dig(name, RecordType::A);
        let mut last: Vec<_> = said.answers.iter().filter_map(|text| text.chars().last()).collect();
        last.sort_unstable();
        last.into_iter().collect::<String>()
    };
    assert_eq!(addresses(&mut world, "blue.eu.web.service.consul."), "1");
    assert_eq!(addresses(&mut world, "eu.blue.web.service.consul."), "1");
    assert_eq!(addresses(&mut world, "eu.web.service.consul."), "124");
    // There is a tag with this dot, so that nothing else is meant.
    assert_eq!(addresses(&mut world, "v1.2.web.service.consul."), "3");
    assert_eq!(addresses(&mut world, "eu.2.v1.web.service.consul."), "4");
    assert_eq!(addresses(&mut world, "eu.red.web.service.consul."), "");
}

/// Each of n instances is the first one equally often, over UDP where not all fit, and by both ways.
#[test]
fn every_instance_is_first_equally_often() {
    const INSTANCES: usize = 7;
    const ROUNDS: usize = 7000;
    let mut world = big(u32::try_from(INSTANCES).unwrap());
    for (kind, name) in [(RecordType::A, "big.service.consul."), (RecordType::ANY, "big.service.consul.")] {
        let mut first = BTreeMap::new();
        let message = question(name, kind);
        for _ in 0..ROUNDS {
            let (answer, _) = world.ask(&message, Transport::Udp);
            *first.entry(answer.answers[0].data.to_string()).or_insert(0usize) += 1;
        }
        assert_eq!(first.len(), INSTANCES, "{kind}: {first:?}");
        // Chi-squared with six degrees of freedom is below 22.5 in 999 of 1000 draws.
        let expected = (ROUNDS / INSTANCES) as f64;
        let off = |times: &usize| *times as f64 - expected;
        let distance: f64 = first.values().map(|times| off(times) * off(times) / expected).sum();
        assert!(distance < 22.5, "{kind}: {distance} {first:?}");
    }
}

#[test]
fn gateways_are_found_by_what_they_let_in() {
    let mut world = World::new();
    world.node("g", "10.0.0.9", &[]);
    let kind = crate::store::model::ServiceKind::IngressGateway;
    let gateway = Service { kind, ..named("ing", "ing", 8888, "", &[]) };
    world.service("g", gateway, Some(Health::Passing));
    let entry = serde_json::json!({"Kind": "ingress-gateway", "Name": "ing",
        "Listeners": [{"Port": 8080, "Protocol": "tcp", "Services": [{"Name": "web"}]}]});
    world.index += 1;
    let entry = Box::new(crate::config_entry::Draft::parse(&entry).expect("an entry"));
    let applied = world.store.apply(world.index, &Command::ConfigSet { entry, cas: None });
    assert!(!matches!(applied.response, crate::store::command::Response::Refused(_)));
    assert_eq!(world.answers("web.ingress.consul.", RecordType::A), ["web.ingress.consul. 0 A 10.0.0.9"]);
    assert_eq!(world.dig("db.ingress.consul.", RecordType::A).code, "NXDomain");
}

#[test]
fn the_order_of_answers_varies() {
    let mut world = example();
    let mut firsts = BTreeMap::new();
    for _ in 0..60 {
        let (reply, _) = world.ask(&question("db.service.consul.", RecordType::A), Transport::Udp);
        *firsts.entry(reply.answers[0].data.to_string()).or_insert(0) += 1;
    }
    assert_eq!(firsts.len(), 3);
    assert!(firsts.values().all(|count| *count > 8), "{firsts:?}");
}

#[test]
fn the_question_is_echoed_letter_for_letter() {
    let mut world = example();
    let packet = question("dB.SerVice.coNSUL.", RecordType::A).to_vec().unwrap();
    let reply = world.bytes(&packet, Transport::Udp).unwrap();
    assert_eq!(packet[12..packet.len()], reply[12..packet.len()]);
    assert_eq!(packet[..2], reply[..2]);
}

#[test]
fn a_client_subnet_comes_back_with_an_answer_for_everybody() {
    let mut world = example();
    let mut message = with_edns(question("db.service.consul.", RecordType::A), 4096);
    let subnet = ClientSubnet::new("192.0.2.0".parse().unwrap(), 24, 0);
    message.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Subnet(subnet));
    let (reply, _) = world.ask(&message, Transport::Udp);
    let edns = reply.edns.unwrap();
    assert_eq!(edns.max_payload(), 4096);
    assert_eq!(edns.option(EdnsCode::Subnet), Some(&EdnsOption::Subnet(subnet)));
}

#[test]
fn prepared_queries_are_answered_by_what_they_find_for_the_one_who_asks() {
    let mut world = example();
    let kept = |id: u128, name: &str, service: &str, dns_ttl: &str, by_prefix: bool| PreparedQuery {
        id: Uuid(id),
        name: name.into(),
        service: ServiceQuery { service: service.into(), ..ServiceQuery::default() },
        dns_ttl: dns_ttl.into(),
        template: Template { by_prefix, ..Template::default() },
        ..PreparedQuery::default()
    };
    for query in [
        kept(1, "q", "db", "7s", false),
        kept(2, "of-", "${name.suffix}", "", true),
        kept(3, "bad-", "${match(name.suffix)}", "", true),
        kept(4, "dot.ted", "none", "", false),
    ] {
        world.index += 1;
        let command = Command::Prepared(PreparedCommand::Create(Box::new(query)));
        world.store.apply(world.index, &command);
    }
    let mut by_service = world.answers("db.service.consul.", RecordType::A);
    by_service.sort();
    for (name, ttl) in [("q", 7), ("OF-db", 0)] {
        let mut answers = world.answers(&format!("{name}.query.dc1.consul."), RecordType::A);
        answers.sort();
        let renamed: Vec<String> = by_service
            .iter()
            .map(|record| record.replace("db.service.consul. 0", &format!("{name}.query.dc1.consul. {ttl}")))
            .collect();
        assert_eq!(answers, renamed, "{name}");
    }
    assert_eq!(world.answers("q.query.consul.", RecordType::SRV).len(), by_service.len());
    for name in ["dot.ted.query.consul.", "none.query.consul.", "query.consul.", "q.query.dc2.consul."] {
        assert_eq!(world.dig(name, RecordType::A).code, "NXDomain", "{name}");
    }
    assert_eq!(world.dig("bad-x.query.consul.", RecordType::A).code, "ServFail");
    let mut message = with_edns(question("q.query.consul.", RecordType::A), 4096);
    let subnet = |scope| ClientSubnet::new("192.0.2.0".parse().unwrap(), 24, scope);
    message.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Subnet(subnet(0)));
    let edns = world.ask(&message, Transport::Udp).0.edns.unwrap();
    assert_eq!(edns.option(EdnsCode::Subnet), Some(&EdnsOption::Subnet(subnet(24))));
}

#[test]
fn what_is_no_question_is_not_answered_or_answered_with_a_code() {
    let mut world = example();
    let packet = question("db.service.consul.", RecordType::A).to_vec().unwrap();
    let code = |world: &mut World, packet: &[u8]| Some(world.bytes(packet, Transport::Udp)?[3] & 0xf);
    let patched = |at: usize, byte: u8| {
        let mut packet = packet.clone();
        packet[at] = byte;
        packet
    };
    assert_eq!(code(&mut world, &[]), None);
    assert_eq!(code(&mut world, &packet[..11]), None);
    assert_eq!(code(&mut world, &patched(2, 0x81)), None, "an answer");
    assert_eq!(code(&mut world, &patched(2, 0x11)), Some(4), "another operation");
    assert_eq!(code(&mut world, &patched(5, 2)), Some(1), "two questions");
    assert_eq!(code(&mut world, &patched(5, 0)), Some(1), "no question");
    assert_eq!(code(&mut world, &packet[..20]), Some(1), "cut short");
    let transfer = question("consul.", RecordType::AXFR).to_vec().unwrap();
    assert_eq!(code(&mut world, &transfer), Some(4));
    let mut chaos = question("db.service.consul.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&mut world, &chaos.to_vec().unwrap()), Some(5));
    let mut late = with_edns(question("db.service.consul.", RecordType::A), 1232);
    late.edns.as_mut().unwrap().set_version(1);
    let (reply, _) = world.ask(&late, Transport::Udp);
    assert_eq!(u16::from(reply.metadata.response_code), 16, "BADVERS");
}

#[test]
fn a_server_that_lost_its_leader_answers_as_long_as_that_is_allowed() {
    let world = example();
    let mut published = world.served();
    published.lease = Lease { as_of: Some(Mono(0)), ..Lease::default() };
    let mut config = DnsConfig::default();
    let packet = question("n1.node.consul.", RecordType::A).to_vec().unwrap();
    let code = |config: &DnsConfig, seconds: u64| {
        let now = Now { mono: Mono(seconds * 1_000_000_000), wall: Wall(0) };
        let mut out = Vec::new();
        let served = Served { published: &published, config, lent: None, look: None, now };
        let answered = answer(served, &packet, Transport::Udp, &mut Rng::from_seed(1), &mut out);
        assert!(matches!(answered, Answered::Here | Answered::Stale));
        // What is too old is for the leader to confirm; without one there is trouble.
        assert_eq!(answered == Answered::Stale, out[3] & 0xf == 2);
        out[3] & 0xf
    };
    assert_eq!(code(&config, 100), 0);
    config.max_stale = Duration::from_secs(10);
    assert_eq!((code(&config, 9), code(&config, 11)), (0, 2));
    config.allow_stale = false;
    assert_eq!(code(&config, 1), 2);
}

/// What comes of a question on a server that knows a datacenter `far`.
fn answered(world: &World, name: &str, lent: Option<&PreparedQuery>) -> (Answered, Said) {
    let mut published = world.served();
    let member = crate::gossip::Member {
        name: "a.far".into(),
        address: ([10, 0, 0, 1], 8302).into(),
        tags: Arc::new([("dc".into(), "far".into())].into()),
        status: crate::gossip::Status::Alive,
    };
    Arc::make_mut(&mut published.cluster).wan.insert(member.name.clone(), member);
    let packet = Bytes::from(question(name, RecordType::A).to_vec().unwrap());
    let question = Question { packet, transport: Transport::Udp, config: DnsConfig::default() };
    let now = Now { mono: Mono(0), wall: Wall(1_700_000_000_000) };
    let (answered, bytes) = question.answer(&published, lent, now, &mut Rng::from_seed(1));
    (answered, said(&Message::from_vec(&bytes).expect("well-formed")))
}

#[test]
fn names_of_another_datacenter_are_for_its_servers_to_answer() {
    let world = example();
    for name in [
        "db.service.far.consul.",
        "n1.node.FAR.consul.",
        "q.query.far.consul.",
        "_db._tcp.service.far.dc.consul.",
    ] {
        let (answered, said) = answered(&world, name, None);
        assert_eq!((answered, said.code.as_str()), (Answered::Elsewhere("far".into()), "NXDomain"), "{name}");
    }
    for name in ["db.service.unknown.consul.", "far.consul.", "x.y.far.consul.", "db.service.dc1.consul."] {
        assert_eq!(answered(&world, name, None).0, Answered::Here, "{name}");
    }
    assert_eq!(
        answered(&world, "0a000001.addr.far.consul.", None).0,
        Answered::Here,
        "an address is an address"
    );
}

#[test]
fn a_query_that_finds_nothing_says_where_else_to_look_and_is_run_where_it_is_lent() {
    let mut world = example();
    let query = |service: &str| {
        let failover = Failover { nearest_n: 1, ..Failover::default() };
        let service = ServiceQuery { service: service.into(), failover, ..ServiceQuery::default() };
        PreparedQuery { id: Uuid(7), name: "q".into(), service, ..PreparedQuery::default() }
    };
    let command = Command::Prepared(PreparedCommand::Create(Box::new(query("none"))));
    world.store.apply(1_000, &command);
    for name in ["q.query.consul.", "q.query.dc1.consul."] {
        let (answered, said) = answered(&world, name, None);
        assert!(matches!(answered, Answered::Further(found) if found.service.service == "none"), "{name}");
        assert_eq!(said.code, "NXDomain");
    }
    for name in ["q.query.consul.", "q.query.elsewhere.consul."] {
        let (done, said) = answered(&world, name, Some(&query("db")));
        assert!(done == Answered::Here && said.code == "NoError" && !said.answers.is_empty(), "{said:?}");
        let (done, said) = answered(&world, name, Some(&query("none")));
        assert_eq!((done, said.code.as_str()), (Answered::Here, "NXDomain"), "it is not lent on");
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn no_packet_makes_it_panic_and_every_answer_can_be_read(
        packet in hostile(
            ("[a-z0-9_.-]{0,40}(node|service|addr|arpa|query|consul)?[.]?(consul)?", any::<u16>(), any::<u16>())
                .prop_map(|(name, kind, size)| {
                    let name = Name::from_ascii(&name).unwrap_or_default();
                    with_edns(question(&name.to_ascii(), RecordType::from(kind)), size).to_vec().unwrap_or_default()
                }),
            80,
        ),
        tcp in any::<bool>(),
    ) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let mut world = example();
        if let Some(reply) = frugal(packet.len(), || world.bytes(&packet, transport)) {
            prop_assert!(reply[2] & 0x80 != 0);
            prop_assert_eq!(&reply[..2], &packet[..2]);
            if transport == Transport::Udp {
                let offered = Message::from_vec(&packet).ok().and_then(|message| message.edns);
                let offered = offered.map_or(0, |edns| usize::from(edns.max_payload()));
                prop_assert!(reply.len() <= offered.max(512));
            }
            if let Err(error) = Message::from_vec(&reply) {
                prop_assert!(false, "{error}: {reply:?}");
            }
        }
        // Nothing is left of it: the next answer is the right one.
        prop_assert_eq!(world.answers("six.service.consul.", RecordType::AAAA).len(), 1);
    }
}
