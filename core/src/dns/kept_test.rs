use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use super::super::tests::{World, named, question};
use super::super::{Answered, Served, Transport, answer};
use super::*;
use crate::api::{self, Answer};
use crate::ids::LogIndex;
use crate::node::{About, Published};
use crate::rng::Rng;
use crate::testing::{frugal, fuzz};
use crate::time::{Now, Wall};

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000_000)
}

/// A server, and a client agent that asks it.
struct Pair {
    server: World,
    kept: Kept,
    config: DnsConfig,
    rng: Rng,
}

impl Pair {
    fn new() -> Pair {
        let mut server = World::new();
        server.node("n1", "10.0.0.1", &[("role", "db")]);
        server.node("n2", "10.0.0.2", &[]);
        server.service("n1", named("web", "web", 80, "", &["v1"]), Some(Health::Passing));
        server.service("n2", named("web", "web", 81, "", &[]), Some(Health::Warning));
        server.service("n1", named("alias", "alias", 1, "n2.node.consul", &[]), None);
        server.service("n1", named("consul", "consul", 8300, "", &[]), None);
        Pair { server, kept: Kept::default(), config: DnsConfig::default(), rng: Rng::from_seed(1) }
    }

    fn published(&self) -> Published {
        let mut published = self.server.served();
        published.about = Arc::new(About { server: true, ..About::clone(&published.about) });
        published.lease.until = Mono::NEVER;
        published.lease.applied = LogIndex(1);
        published
    }

    /// What the server says to what is asked next.
    fn said(&self, subject: &Subject) -> Said {
        let mut read = self.kept.read(subject, &self.config).expect("it is kept");
        read.blocking = None;
        let now = Now { mono: at(0), wall: Wall(0) };
        let Answer::Reply(reply) = api::answer(&self.published(), &read, now) else { panic!("it enters") };
        Said::of(subject, &reply).expect("it helps")
    }

    /// Asks for what is missing, once.
    fn fetch(&mut self, subject: &Subject, now: Mono) {
        let begun = self.kept.begin(subject, now);
        assert!(begun != Begun::Full, "{subject:?}");
        let said = self.said(subject);
        let mut dropped = Vec::new();
        assert_eq!(self.kept.settle(subject, Some(said), now, now, &mut dropped), Onward::Ask);
        assert_eq!(dropped, []);
    }

    /// A question, and what came of the look at what is kept.
    fn look(&mut self, name: &str, kind: RecordType, now: Mono) -> (Looked, Vec<String>) {
        let published = self.server.served();
        // A client agent has no state of its own.
        let published = Published { view: crate::store::Store::new(), ..published };
        let look = Look::new(&self.kept, now, self.config.max_stale);
        let now = Now { mono: now, wall: Wall(0) };
        let served =
            Served { published: &published, config: &self.config, lent: None, look: Some(&look), now };
        let packet = question(name, kind).to_vec().unwrap();
        let mut out = Vec::new();
        let answered = answer(served, &packet, Transport::Udp, &mut self.rng, &mut out);
        assert!(matches!(answered, Answered::Here | Answered::Further(_) | Answered::Elsewhere(_)));
        let message = Message::from_vec(&out).unwrap();
        let records = message.answers.iter().chain(&message.additionals);
        let mut texts = records.map(|record| record.data.to_string()).collect::<Vec<_>>();
        texts.push(format!("{:?}", message.metadata.response_code));
        texts.sort();
        (look.outcome(), texts)
    }

    /// The answer to a question, when everything is there that it needs.
    fn answered(&mut self, name: &str, kind: RecordType, now: Mono) -> Vec<String> {
        for _ in 0..5 {
            match self.look(name, kind, now) {
                (Looked::Enough, answer) => return answer,
                (Looked::Missing(subjects), _) => {
                    subjects.iter().for_each(|subject| self.fetch(subject, now))
                }
                (Looked::Beyond, _) => panic!("{name}: beyond"),
            }
        }
        panic!("{name}: something is always missing")
    }
}

fn service(name: &str) -> Subject {
    Subject::Service(name.into())
}

#[test]
fn what_is_missing_is_asked_for_and_then_answered_as_a_server_would() {
    let mut pair = Pair::new();
    let (looked, _) = pair.look("web.service.consul.", RecordType::A, at(0));
    assert_eq!(looked, Looked::Missing(vec![service("web")]));
    for (name, kind) in [
        ("web.service.consul.", RecordType::A),
        ("WEB.service.dc1.consul.", RecordType::SRV),
        ("v1.web.service.consul.", RecordType::ANY),
        ("alias.service.consul.", RecordType::A),
        ("alias.service.consul.", RecordType::SRV),
        ("none.service.consul.", RecordType::A),
        ("web.connect.consul.", RecordType::SRV),
        ("n1.node.consul.", RecordType::TXT),
        ("none.node.consul.", RecordType::A),
        ("consul.", RecordType::NS),
        ("0a000001.addr.consul.", RecordType::A),
        ("www.example.com.", RecordType::A),
        ("what.consul.", RecordType::A),
    ] {
        let here = pair.answered(name, kind, at(0));
        let said = pair.server.dig(name, kind);
        let mut there = said.answers.iter().chain(&said.additionals).cloned().collect::<Vec<_>>();
        there.iter_mut().for_each(|text| *text = text.splitn(4, ' ').nth(3).unwrap().to_owned());
        there.push(said.code);
        there.sort();
        assert_eq!(here, there, "{name} {kind}");
    }
}

#[test]
fn only_servers_answer_what_is_not_kept() {
    let mut pair = Pair::new();
    for (name, kind) in [
        ("web.query.consul.", RecordType::A),
        ("web.service.dc2.consul.", RecordType::A),
        ("1.0.0.10.in-addr.arpa.", RecordType::PTR),
    ] {
        assert_eq!(pair.look(name, kind, at(0)).0, Looked::Beyond, "{name}");
    }
}

#[test]
fn a_change_is_seen_as_soon_as_it_is_said() {
    let mut pair = Pair::new();
    let answer = pair.answered("web.service.consul.", RecordType::A, at(0));
    assert_eq!(answer, ["10.0.0.1", "10.0.0.2", "NoError"]);
    pair.server.service("n2", named("web", "web", 81, "", &[]), Some(Health::Critical));
    let read = pair.kept.read(&service("web"), &pair.config).unwrap();
    assert!(
        read.blocking.is_some_and(|blocking| blocking.index > 0) && read.consistency == Consistency::Stale
    );
    let said = pair.said(&service("web"));
    assert_eq!(pair.kept.settle(&service("web"), Some(said), at(1), at(1), &mut Vec::new()), Onward::Ask);
    let answer = pair.answered("web.service.consul.", RecordType::A, at(1));
    assert_eq!(answer, ["10.0.0.1", "NoError"]);
}

#[test]
fn a_lost_server_is_not_noticed_within_max_stale_and_nothing_is_known_after_it() {
    let mut pair = Pair::new();
    pair.config.max_stale = Duration::from_secs(10);
    pair.answered("web.service.consul.", RecordType::A, at(100));
    for (failures, pause) in [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000].into_iter().enumerate() {
        let onward = pair.kept.settle(&service("web"), None, at(101), at(101), &mut Vec::new());
        assert_eq!(onward, Onward::AskAfter(Duration::from_millis(pause)), "{failures}");
    }
    assert_eq!(pair.look("web.service.consul.", RecordType::A, at(110)).0, Looked::Enough);
    assert_eq!(pair.look("web.service.consul.", RecordType::A, at(111)).0, Looked::Beyond);
    // A quarter of the bound: what is known does not grow old while a server answers.
    let wait = pair.kept.read(&service("web"), &pair.config).unwrap().blocking.unwrap().wait;
    assert_eq!(wait, Duration::from_millis(2_500));
    let said = Said { last_contact: Duration::from_secs(4), ..pair.said(&service("web")) };
    let _ = pair.kept.settle(&service("web"), Some(said), at(120), at(120), &mut Vec::new());
    assert_eq!(pair.look("web.service.consul.", RecordType::A, at(126)).0, Looked::Enough);
    assert_eq!(pair.look("web.service.consul.", RecordType::A, at(127)).0, Looked::Beyond);
}

#[test]
fn what_a_lagging_server_says_is_not_believed_when_something_newer_is_known() {
    let mut pair = Pair::new();
    pair.answered("web.service.consul.", RecordType::A, at(100));
    let known = pair.said(&service("web"));
    let older = Said { index: known.index - 1, last_contact: Duration::from_secs(60), ..known.clone() };
    let mut settle = |said| pair.kept.settle(&service("web"), Some(said), at(101), at(101), &mut Vec::new());
    assert_eq!(settle(older), Onward::AskAfter(PAUSE_MIN));
    // A restored state may have lower indexes.
    assert_eq!(settle(Said { index: 1, ..known }), Onward::Ask);
}

#[test]
fn what_nobody_asks_for_is_forgotten() {
    let mut pair = Pair::new();
    pair.answered("web.service.consul.", RecordType::A, at(0));
    pair.look("web.service.consul.", RecordType::A, at(5));
    let said = pair.said(&service("web"));
    let mut settle = |now| pair.kept.settle(&service("web"), Some(said.clone()), now, now, &mut Vec::new());
    assert_eq!(settle(at(605)), Onward::Ask);
    assert_eq!(settle(at(606)), Onward::End);
    assert_eq!(settle(at(607)), Onward::End);
    assert!(pair.kept.is_empty() && pair.kept.bytes == 0);
}

#[test]
fn a_first_question_that_fails_leaves_nothing_behind() {
    let mut pair = Pair::new();
    assert_eq!(pair.kept.begin(&service("web"), at(0)), Begun::Ask(Vec::new()));
    assert_eq!(pair.kept.begin(&service("web"), at(0)), Begun::UnderWay);
    assert_eq!(pair.kept.settle(&service("web"), None, at(0), at(0), &mut Vec::new()), Onward::End);
    assert!(pair.kept.is_empty());
}

fn said(size: usize, is_absent: bool) -> Said {
    let instance = Row {
        node: Node {
            id: None,
            name: "n".into(),
            address: "10.0.0.1".into(),
            datacenter: "dc1".into(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            create_index: 1,
            modify_index: 1,
        },
        service: Some((Service::default(), Health::Passing)),
    };
    let items = if is_absent { Vec::new() } else { Vec::from_iter(super::instance(instance)) };
    let found = Found::Instances(Arc::new(InstanceList::new(7, items)));
    Said { found, index: 7, last_contact: Duration::ZERO, size }
}

#[test]
fn it_has_bounds_and_names_of_nothing_find_little_room() {
    let mut kept = Kept::default();
    let mut dropped = Vec::new();
    for name in 0..2_000_u64 {
        let subject = service(&format!("some{name}"));
        match kept.begin(&subject, at(name)) {
            Begun::Ask(oldest) => dropped.extend(oldest),
            other => panic!("{other:?}"),
        }
        let _ = kept.settle(&subject, Some(said(1_000, false)), at(name), at(name), &mut dropped);
    }
    assert_eq!(
        (kept.len(), dropped.len(), kept.bytes),
        (SUBJECTS_MAX, 2_000 - SUBJECTS_MAX, SUBJECTS_MAX * 1_000)
    );
    assert_eq!(dropped[0], service("some0"));
    dropped.clear();
    for name in 0..2_000_u64 {
        let subject = service(&format!("none{name}"));
        match kept.begin(&subject, at(3_000 + name)) {
            Begun::Ask(oldest) => dropped.extend(oldest),
            other => panic!("{other:?}"),
        }
        let _ = kept.settle(&subject, Some(said(3, true)), at(3_000 + name), at(3_000 + name), &mut dropped);
    }
    let there = kept.entries.values().filter(|entry| !entry.is_absent()).count();
    assert!(there >= SUBJECTS_MAX - ABSENT_MAX - 1, "{there}");
    // Many at once, none of which a server has been heard about yet.
    let mut begun = 0;
    for name in 0..2_000_u64 {
        begun += usize::from(kept.begin(&service(&format!("new{name}")), at(9_000)) != Begun::Full);
    }
    assert_eq!(begun, BEGUN_MAX);
    assert!(kept.len() <= SUBJECTS_MAX);
    let mut kept = Kept::default();
    for name in 0..40_u64 {
        let subject = service(&format!("large{name}"));
        let _ = kept.begin(&subject, at(name));
        let _ = kept.settle(&subject, Some(said(BODY_MAX, false)), at(name), at(name), &mut dropped);
        assert!(kept.bytes <= BYTES_MAX);
    }
    let subject = service("huge");
    let _ = kept.begin(&subject, at(50));
    assert_eq!(
        kept.settle(&subject, Some(said(BODY_MAX + 1, false)), at(50), at(50), &mut dropped),
        Onward::End
    );
}

proptest::proptest! {
    #![proptest_config(fuzz::cases(256))]

    #[test]
    fn no_reply_makes_it_panic(body in fuzz::hostile(proptest::prelude::Just({
        let rows = Rows::Instances(Arc::new(InstanceList::new(7, match said(1, false).found {
            Found::Instances(list) => list.items.clone(),
            Found::Node(_) => Vec::new(),
        })));
        pack(&rows).expect("instances are sent").to_vec()
    }), 200)) {
        let meta = api::QueryMeta { index: 7, known_leader: true, last_contact_ms: 0 };
        let content_type = ContentType::Raw;
        let len = body.len();
        let reply = HttpReply { content_type, meta: Some(meta), ..HttpReply::json(200, body) };
        for subject in [service("web"), Subject::Node("n".into())] {
            let _ = frugal(len, || Said::of(&subject, &reply));
        }
    }
}
