//! Questions for other resolvers: about names of other domains, and about where aliases lead that leave our zones.
//!
//! This decides what is asked of whom, what counts as an answer and what becomes of it; sockets are the adapter's. An answer
//! counts if it carries the number and the question that were sent; the adapter takes it from nobody else than the
//! resolver that was asked. With a number and a port that are new for each question, whoever does not see the traffic must guess
//! 32 bits (RFC 5452).
//!
//! Source: Consul's documentation, «`recursors`», «`dns_config.recursor_timeout`» and «`dns_config.recursor_strategy`».

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable as _;

use super::lookup::{Answer, Reply, zone_of};
use super::name::{self, Target};
use super::question::{self, Asked, Read};
use super::{DnsConfig, Transport, encode};
use crate::rng::Rng;

/// Bytes of a message's header.
const HEADER: usize = 12;
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const RECURSION_AVAILABLE: u8 = 0x80;
const CODE: u8 = 0x0f;
/// Records that following an alias may add for those who ask without EDNS.
const FOLLOWED_MAX: usize = 5;
/// Aliases of one answer that are followed.
const ALIASES_MAX: usize = 64;

/// Other resolvers, and how they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recursors {
    /// Where they listen. None: other domains are refused.
    pub addresses: Vec<SocketAddr>,
    /// For so long one of them may think.
    pub timeout: Duration,
    /// In which order they are asked.
    pub order: Order,
}

/// In which order resolvers are asked; the next one if one fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As configured.
    #[default]
    Sequential,
    /// In another order for each question.
    Random,
}

impl Default for Recursors {
    fn default() -> Self {
        Recursors { addresses: Vec::new(), timeout: Duration::from_secs(2), order: Order::Sequential }
    }
}

/// What is sent to a resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Where to. Only what comes from there is heard.
    pub to: SocketAddr,
    /// The question.
    pub packet: Bytes,
    /// How it travels.
    pub transport: Transport,
    /// For so long an answer may take.
    pub timeout: Duration,
}

/// What a packet from a resolver means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// No answer to what was asked: the one that was asked may answer yet.
    Nothing,
    /// The resolver has no answer: the next one is asked.
    Failure,
    /// The answer does not fit a datagram; it is asked for over TCP.
    OverTcp(Ask),
    /// An answer.
    Answer(Bytes),
}

/// One question, put to one resolver after the other.
#[derive(Debug)]
pub struct Asking {
    /// With a number of its own.
    packet: Bytes,
    transport: Transport,
    timeout: Duration,
    /// Who has not been asked, each with the number of its question.
    rest: VecDeque<(SocketAddr, u16)>,
    /// So many records are wanted: an answer that was cut short and has fewer is asked for over TCP.
    wanted: usize,
    /// Whom the last packet went to.
    asked: Option<Ask>,
}

impl Asking {
    fn new(
        recursors: &Recursors,
        packet: Bytes,
        transport: Transport,
        wanted: usize,
        rng: &mut Rng,
    ) -> Asking {
        let mut order = recursors.addresses.clone();
        if recursors.order == Order::Random {
            rng.shuffle(&mut order);
        }
        let numbered = |address| (address, (rng.next_u64() >> 48) as u16);
        let rest = order.into_iter().map(numbered).collect();
        Asking { packet, transport, timeout: recursors.timeout, rest, wanted, asked: None }
    }

    /// The next question; `None` when nobody is left who could be asked.
    pub fn next_ask(&mut self) -> Option<Ask> {
        let (to, id) = self.rest.pop_front()?;
        let mut packet = BytesMut::from(&self.packet[..]);
        packet[..2].copy_from_slice(&id.to_be_bytes());
        let ask = Ask { to, packet: packet.freeze(), transport: self.transport, timeout: self.timeout };
        self.asked = Some(ask.clone());
        Some(ask)
    }

    /// What a packet means that came from the resolver that was asked last.
    pub fn hear(&mut self, packet: Bytes) -> Heard {
        let Some(asked) = &self.asked else { return Heard::Nothing };
        let is_answer = packet.len() >= HEADER
            && packet[..2] == asked.packet[..2]
            && packet[2] & (RESPONSE | OPCODE) == RESPONSE;
        if !is_answer {
            return Heard::Nothing;
        }
        let code = packet[3] & CODE;
        let found =
            code == u16::from(ResponseCode::NoError) as u8 || code == u16::from(ResponseCode::NXDomain) as u8;
        match (section(&asked.packet), section(&packet)) {
            (Some(asked), Some(echoed)) if echoed.eq_ignore_ascii_case(asked) => {}
            // Those who understand nothing may say so without the question.
            _ if !found && packet[4..6] == [0, 0] => {}
            _ => return Heard::Nothing,
        }
        if !found {
            return Heard::Failure;
        }
        let is_short = packet[2] & TRUNCATED != 0
            && usize::from(u16::from_be_bytes([packet[6], packet[7]])) < self.wanted;
        if is_short && asked.transport == Transport::Udp {
            let ask = Ask { transport: Transport::Tcp, ..asked.clone() };
            self.asked = Some(ask.clone());
            return Heard::OverTcp(ask);
        }
        Heard::Answer(packet)
    }
}

/// The question section of a message with one question. Letter case of the name is all that may differ between
/// what is asked and what is answered.
fn section(packet: &[u8]) -> Option<&[u8]> {
    if packet.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match usize::from(*packet.get(at)?) {
            0 => return packet.get(HEADER..at + 5),
            length @ 1..64 => at += 1 + length,
            _ => return None,
        }
    }
}

/// An answer that other resolvers have to do with.
#[derive(Debug)]
pub struct Recursion {
    asked: Asked,
    transport: Transport,
    askings: Vec<Asking>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// The question is passed on, and the answer back.
    Forward,
    /// Names that our own answer leads to.
    Follow { own: Box<Message>, names: Vec<Name> },
}

impl Recursion {
    /// The recursion of a question that is about none of our zones, so that nothing needs to be looked up for it.
    #[must_use]
    pub fn of_other_domain(
        config: &DnsConfig,
        packet: &[u8],
        transport: Transport,
        rng: &mut Rng,
    ) -> Option<Recursion> {
        if config.recursors.addresses.is_empty() {
            return None;
        }
        let Read::Question(asked) = question::read(packet) else { return None };
        let labels = name::labels(&asked.query.name);
        let is_ours =
            labels.last().is_some_and(|label| label == "arpa") || zone_of(config, &labels).is_some();
        if is_ours || !is_passed_on(&asked) {
            return None;
        }
        Some(Recursion::forward(config, asked, packet, transport, rng))
    }

    /// The recursion that our own answer to a question needs, if it does.
    #[must_use]
    pub fn of_answer(
        config: &DnsConfig,
        packet: &[u8],
        transport: Transport,
        own: &[u8],
        rng: &mut Rng,
    ) -> Option<Recursion> {
        if config.recursors.addresses.is_empty() {
            return None;
        }
        let Read::Question(asked) = question::read(packet) else { return None };
        let refused = own.get(3).is_some_and(|flags| flags & CODE == u16::from(ResponseCode::Refused) as u8);
        if refused {
            let labels = name::labels(&asked.query.name);
            let is_ours = zone_of(config, &labels).is_some();
            return (!is_ours && is_passed_on(&asked))
                .then(|| Recursion::forward(config, asked, packet, transport, rng));
        }
        let own = Message::from_vec(own).ok()?;
        let names = open_names(config, &own);
        if names.is_empty() {
            return None;
        }
        let wanted = followed_max(config, &asked);
        let asking = |name: &Name| {
            let packet = question_for(name)?;
            Some(Asking::new(&config.recursors, packet, Transport::Udp, wanted, rng))
        };
        let askings = names.iter().filter_map(asking).collect();
        Some(Recursion { asked, transport, askings, work: Work::Follow { own: Box::new(own), names } })
    }

    fn forward(
        config: &DnsConfig,
        asked: Asked,
        packet: &[u8],
        transport: Transport,
        rng: &mut Rng,
    ) -> Recursion {
        let packet = Bytes::copy_from_slice(packet);
        // Whoever asks over UDP is told that there is more, and asks over TCP.
        let asking = Asking::new(&config.recursors, packet, transport, 0, rng);
        Recursion { asked, transport, askings: vec![asking], work: Work::Forward }
    }

    /// The questions; they do not depend on each other.
    pub fn askings(&mut self) -> &mut [Asking] {
        &mut self.askings
    }

    /// The answer, from what was answered to the questions, in their order; `None`: nobody had an answer.
    #[must_use]
    pub fn conclude(&self, config: &DnsConfig, answers: &[Option<Bytes>]) -> Bytes {
        let mut out = Vec::new();
        let reply = match &self.work {
            Work::Forward => match answers.first() {
                Some(Some(answer)) => {
                    let size = encode::budget(config, &self.asked, self.transport).size;
                    if answer.len() <= usize::from(size) {
                        let mut answer = BytesMut::from(&answer[..]);
                        answer[..2].copy_from_slice(&self.asked.id.to_be_bytes());
                        return answer.freeze();
                    }
                    // More than the asking side takes: only that there is more.
                    Reply { truncated: true, ..Reply::code(ResponseCode::NoError) }
                }
                _ => Reply::code(ResponseCode::ServFail),
            },
            Work::Follow { own, names } => self.followed(config, own, names, answers),
        };
        encode::message(config, &self.asked, &reply, self.transport, &mut out);
        Bytes::from(out)
    }

    /// Our own answer with what the names in it lead to.
    fn followed(
        &self,
        config: &DnsConfig,
        own: &Message,
        names: &[Name],
        answers: &[Option<Bytes>],
    ) -> Reply {
        let is_node = is_node(config, &self.asked);
        let is_srv = self.asked.query.query_type == RecordType::SRV;
        let most = followed_max(config, &self.asked);
        let mut found = names
            .iter()
            .zip(answers)
            .map(|(name, answer)| {
                let records = answer.as_ref().map(|answer| addresses(answer)).unwrap_or_default();
                (name, records.into_iter().take(most).collect::<Vec<_>>())
            })
            .collect::<Vec<_>>();
        let mut reply = Reply { code: own.metadata.response_code, ..Reply::authoritative() };
        reply.left_out = own.metadata.truncation;
        reply.for_client = own.edns.as_ref().is_some_and(|edns| {
            matches!(edns.option(EdnsCode::Subnet), Some(EdnsOption::Subnet(subnet)) if subnet.scope_prefix() > 0)
        });
        reply.authorities = own.authorities.clone();
        let mut additionals = own.additionals.clone();
        for record in &own.answers {
            let mut answer = Answer { record: record.clone(), additionals: Vec::new() };
            let target = leads_to(record).cloned();
            if let (true, Some(target)) = (is_srv, &target) {
                let (its, others) = additionals.into_iter().partition(|record| record.name == *target);
                answer.additionals = its;
                additionals = others;
            }
            reply.answers.push(answer);
            let Some(at) = found.iter().position(|(name, _)| Some(*name) == target.as_ref()) else {
                continue;
            };
            let (_, records) = found.swap_remove(at);
            // What a service leads to is kept no longer than the service is.
            let keep = |own: &Record| if is_node { own.ttl } else { record.ttl };
            let records = records.into_iter().map(|mut found| {
                found.ttl = keep(&found);
                found
            });
            if is_srv {
                reply.answers.last_mut().expect("it was just pushed").additionals.extend(records);
            } else {
                reply.answers.extend(records.map(|record| Answer { record, additionals: Vec::new() }));
            }
        }
        reply.additionals = additionals;
        if !is_node {
            let most = encode::budget(config, &self.asked, self.transport).answers;
            reply.left_out |= reply.answers.len() > most;
            reply.answers.truncate(most);
        }
        reply
    }
}

fn is_node(config: &DnsConfig, asked: &Asked) -> bool {
    let labels = name::labels(&asked.query.name);
    zone_of(config, &labels).is_some_and(|(_, rest)| matches!(name::parse(rest).target, Target::Node(_)))
}

/// So many records an alias may add, as in Consul: a few to a service's, all to a node's, and all for those who ask with EDNS.
fn followed_max(config: &DnsConfig, asked: &Asked) -> usize {
    if asked.edns.is_some() || is_node(config, asked) { usize::MAX } else { FOLLOWED_MAX }
}

/// Says in an answer that came from a server, which does not know our recursors, that there are some.
pub fn mark(config: &DnsConfig, answer: &mut [u8]) {
    if let (false, Some(flags)) = (config.recursors.addresses.is_empty(), answer.get_mut(3)) {
        *flags |= RECURSION_AVAILABLE;
    }
}

/// Transfers and what is not understood are nothing to pass on. Other classes are.
fn is_passed_on(asked: &Asked) -> bool {
    matches!(asked.refusal, None | Some(ResponseCode::Refused))
}

/// The names that an answer leads to without saying more about them, outside our zones.
fn open_names(config: &DnsConfig, own: &Message) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    for record in &own.answers {
        let Some(target) = leads_to(record) else { continue };
        let is_known = own.answers.iter().chain(&own.additionals).any(|record| record.name == *target);
        let is_open = !is_known && zone_of(config, &name::labels(target)).is_none();
        if is_open && !names.contains(target) && names.len() < ALIASES_MAX {
            names.push(target.clone());
        }
    }
    // An alias in our zone that is part of an additional section may lead out, too.
    for record in &own.additionals {
        let Some(target) = leads_to(record) else { continue };
        if own.additionals.iter().all(|other| other.name != *target)
            && zone_of(config, &name::labels(target)).is_none()
            && !names.contains(target)
            && names.len() < ALIASES_MAX
        {
            names.push(target.clone());
        }
    }
    names
}

fn leads_to(record: &Record) -> Option<&Name> {
    match &record.data {
        RData::CNAME(target) => Some(&target.0),
        RData::SRV(srv) => Some(&srv.target),
        _ => None,
    }
}

/// What is asked about a name: its addresses. As Consul does, for IPv4 ones; aliases come with either.
fn question_for(name: &Name) -> Option<Bytes> {
    let mut packet = BytesMut::new();
    for word in [0u16, 0x0100, 1, 0, 0, 0] {
        packet.put_u16(word);
    }
    packet.put_slice(&Query::query(name.clone(), RecordType::A).to_bytes().ok()?);
    Some(packet.freeze())
}

/// The addresses and aliases of an answer; none if it cannot be read.
fn addresses(answer: &[u8]) -> Vec<Record> {
    let Ok(message) = Message::from_vec(answer) else { return Vec::new() };
    let is_wanted = |record: &Record| {
        matches!(record.record_type(), RecordType::A | RecordType::AAAA | RecordType::CNAME)
    };
    message.answers.iter().filter(|record| is_wanted(record)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use hickory_proto::op::{MessageType, Metadata, OpCode};
    use hickory_proto::rr::rdata::{A, CNAME, SRV};

    use super::*;

    fn config(addresses: &[&str]) -> DnsConfig {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        DnsConfig { recursors: Recursors { addresses, ..Recursors::default() }, ..DnsConfig::default() }
    }

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn question(owner: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 0x1234;
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name(owner), kind));
        message.to_vec().unwrap()
    }

    /// An answer to `asked` with `records`.
    fn reply(asked: &[u8], code: ResponseCode, records: Vec<Record>) -> Message {
        let asked = Message::from_vec(asked).unwrap();
        let mut metadata = Metadata::new(asked.metadata.id, MessageType::Response, OpCode::Query);
        metadata.response_code = code;
        let mut message = Message::response(asked.metadata.id, OpCode::Query);
        message.metadata = metadata;
        message.add_queries(asked.queries.clone());
        message.add_answers(records);
        message
    }

    fn bytes(message: &Message) -> Bytes {
        message.to_vec().unwrap().into()
    }

    fn address(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A([203, 0, 113, last].into())))
    }

    fn texts(message: &[u8]) -> (Vec<String>, Vec<String>) {
        let message = Message::from_vec(message).unwrap();
        let texts = |records: &[Record]| {
            records.iter().map(|record| format!("{} {} {}", record.name, record.ttl, record.data)).collect()
        };
        (texts(&message.answers), texts(&message.additionals))
    }

    fn forwarded(config: &DnsConfig) -> Recursion {
        let packet = question("www.Example.com.", RecordType::A);
        Recursion::of_other_domain(config, &packet, Transport::Udp, &mut Rng::from_seed(1)).unwrap()
    }

    /// Our own answer to a question, followed with what `found` says about each name.
    fn follow(
        owner: &str,
        kind: RecordType,
        records: Vec<Record>,
        found: &dyn Fn(&str) -> Vec<Record>,
    ) -> Bytes {
        let config = config(&["192.0.2.1:53"]);
        let packet = question(owner, kind);
        let own = bytes(&reply(&packet, ResponseCode::NoError, records));
        let mut recursion =
            Recursion::of_answer(&config, &packet, Transport::Tcp, &own, &mut Rng::from_seed(1)).unwrap();
        let answers = recursion.askings().iter_mut().map(|asking| {
            let ask = asking.next_ask().unwrap();
            let asked = Message::from_vec(&ask.packet).unwrap();
            let records = found(&asked.queries[0].name.to_ascii());
            match asking.hear(bytes(&reply(&ask.packet, ResponseCode::NoError, records))) {
                Heard::Answer(answer) => Some(answer),
                other => panic!("{other:?}"),
            }
        });
        let answers = answers.collect::<Vec<_>>();
        recursion.conclude(&config, &answers)
    }

    #[test]
    fn other_domains_are_passed_on_letter_for_letter_under_another_number() {
        let config = config(&["192.0.2.1:53"]);
        let mut recursion = forwarded(&config);
        let ask = recursion.askings()[0].next_ask().unwrap();
        assert_ne!(ask.packet[..2], [0x12, 0x34]);
        assert_eq!(ask.packet[2..], question("www.Example.com.", RecordType::A)[2..]);
        let answer =
            bytes(&reply(&ask.packet, ResponseCode::NoError, vec![address("www.Example.com.", 60, 1)]));
        assert_eq!(recursion.askings()[0].hear(answer.clone()), Heard::Answer(answer.clone()));
        let concluded = recursion.conclude(&config, &[Some(answer.clone())]);
        assert_eq!((&concluded[..2], &concluded[2..]), (&[0x12, 0x34][..], &answer[2..]));
    }

    #[test]
    fn what_does_not_answer_what_was_asked_is_not_heard() {
        let config = config(&["192.0.2.1:53"]);
        let mut recursion = forwarded(&config);
        let asking = &mut recursion.askings()[0];
        let ask = asking.next_ask().unwrap();
        let good = bytes(&reply(&ask.packet, ResponseCode::NoError, vec![]));
        let mut other_number = good.to_vec();
        other_number[0] ^= 1;
        let mut other_kind = good.to_vec();
        *other_kind.iter_mut().nth_back(2).unwrap() = 28;
        let mut no_response = good.to_vec();
        no_response[2] &= 0x7f;
        let mut other_name = good.to_vec();
        other_name[HEADER + 1] = b'x';
        for bad in [other_number, other_kind, no_response, other_name, good[..5].to_vec(), Vec::new()] {
            assert_eq!(asking.hear(bad.into()), Heard::Nothing);
        }
        let mut other_case = good.to_vec();
        other_case[HEADER + 1] = b'W';
        assert!(matches!(asking.hear(other_case.into()), Heard::Answer(_)));
    }

    #[test]
    fn the_next_one_is_asked_when_one_fails_but_not_when_a_name_does_not_exist() {
        let config = config(&["192.0.2.1:53", "192.0.2.2:53"]);
        let mut recursion = forwarded(&config);
        let asking = &mut recursion.askings()[0];
        let first = asking.next_ask().unwrap();
        for code in
            [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp, ResponseCode::FormErr]
        {
            assert_eq!(asking.hear(bytes(&reply(&first.packet, code, vec![]))), Heard::Failure, "{code}");
        }
        let second = asking.next_ask().unwrap();
        assert_eq!(second.to, "192.0.2.2:53".parse().unwrap());
        // What the first one says late is not heard any more.
        let late = bytes(&reply(&first.packet, ResponseCode::NoError, vec![]));
        assert_eq!(asking.hear(late), Heard::Nothing);
        let none = bytes(&reply(&second.packet, ResponseCode::NXDomain, vec![]));
        assert!(matches!(asking.hear(none), Heard::Answer(_)));
        assert_eq!(asking.next_ask(), None);
        let failure = recursion.conclude(&config, &[None]);
        assert_eq!(failure[2..4], [0x81, 0x82], "SERVFAIL, with recursion");
    }

    #[test]
    fn a_random_order_begins_with_each_one_equally_often() {
        let mut config = config(&["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"]);
        config.recursors.order = Order::Random;
        let packet = question("a.example.", RecordType::A);
        let mut rng = Rng::from_seed(7);
        let mut first = std::collections::BTreeMap::new();
        for _ in 0..3000 {
            let mut recursion =
                Recursion::of_other_domain(&config, &packet, Transport::Udp, &mut rng).unwrap();
            let ask = recursion.askings()[0].next_ask().unwrap();
            *first.entry(ask.to).or_insert(0) += 1;
        }
        assert!(first.len() == 3 && first.values().all(|times| (900..1100).contains(times)), "{first:?}");
    }

    #[test]
    fn names_of_ours_are_not_passed_on() {
        let mut config = config(&["192.0.2.1:53"]);
        config.alt_domain = Some("corp.example".into());
        let of_other_domain = |config: &DnsConfig, owner: &str| {
            let packet = question(owner, RecordType::A);
            Recursion::of_other_domain(config, &packet, Transport::Udp, &mut Rng::from_seed(1)).is_some()
        };
        for ours in ["nosuch.node.consul.", "x.corp.example.", "1.0.0.10.in-addr.arpa."] {
            assert!(!of_other_domain(&config, ours), "{ours}");
        }
        for other in ["www.example.com.", "example.", ".", "notconsul."] {
            assert!(of_other_domain(&config, other), "{other}");
            assert!(!of_other_domain(&DnsConfig::default(), other), "{other}");
        }
    }

    #[test]
    fn an_address_that_nobody_knows_here_is_asked_about_elsewhere() {
        let config = config(&["192.0.2.1:53"]);
        let packet = question("1.0.0.10.in-addr.arpa.", RecordType::PTR);
        let refused = bytes(&reply(&packet, ResponseCode::Refused, vec![]));
        let mut rng = Rng::from_seed(1);
        assert!(Recursion::of_answer(&config, &packet, Transport::Udp, &refused, &mut rng).is_some());
        let packet = question("x.node.consul.", RecordType::A);
        let refused = bytes(&reply(&packet, ResponseCode::Refused, vec![]));
        assert!(Recursion::of_answer(&config, &packet, Transport::Udp, &refused, &mut rng).is_none());
    }

    #[test]
    fn an_alias_of_a_service_is_followed_and_kept_as_long_as_the_service() {
        let alias = RData::CNAME(CNAME(name("ext.example.com.")));
        let own = vec![Record::from_rdata(name("ext.service.consul."), 7, alias)];
        let many = |_: &str| (1..9).map(|last| address("ext.example.com.", 60, last)).collect();
        let answer = follow("ext.service.consul.", RecordType::AAAA, own, &many);
        let (answers, _) = texts(&answer);
        assert_eq!(answers.len(), 1 + FOLLOWED_MAX);
        assert_eq!(
            answers[..2],
            ["ext.service.consul. 7 ext.example.com.", "ext.example.com. 7 203.0.113.1"]
        );
    }

    #[test]
    fn an_alias_of_a_node_brings_all_that_is_found_as_it_is() {
        let alias = RData::CNAME(CNAME(name("ext.example.com.")));
        let own = vec![Record::from_rdata(name("n.node.consul."), 9, alias)];
        let many = |_: &str| (1..9).map(|last| address("ext.example.com.", 60, last)).collect();
        let answer = follow("n.node.consul.", RecordType::A, own, &many);
        let (answers, _) = texts(&answer);
        assert_eq!((answers.len(), answers[8].as_str()), (9, "ext.example.com. 60 203.0.113.8"));
    }

    #[test]
    fn targets_of_srv_records_are_looked_up_one_by_one() {
        let srv = |target: &str| {
            let data = RData::SRV(SRV::new(1, 1, 80, name(target)));
            Record::from_rdata(name("s.service.consul."), 7, data)
        };
        let own = vec![srv("a.example.com."), srv("n.node.dc1.consul."), srv("b.example.com.")];
        let found = |owner: &str| vec![address(owner, 60, if owner.starts_with('a') { 1 } else { 2 })];
        let answer = follow("s.service.consul.", RecordType::SRV, own, &found);
        let (answers, additionals) = texts(&answer);
        assert_eq!(answers.len(), 3);
        assert_eq!(additionals, ["a.example.com. 7 203.0.113.1", "b.example.com. 7 203.0.113.2"]);
    }

    #[test]
    fn an_answer_that_was_cut_short_is_asked_for_over_tcp_when_we_need_it_ourselves() {
        let config = config(&["192.0.2.1:53"]);
        let packet = question("ext.service.consul.", RecordType::A);
        let alias = RData::CNAME(CNAME(name("ext.example.com.")));
        let own = vec![Record::from_rdata(name("ext.service.consul."), 7, alias)];
        let own = bytes(&reply(&packet, ResponseCode::NoError, own));
        let mut rng = Rng::from_seed(1);
        let mut recursion = Recursion::of_answer(&config, &packet, Transport::Udp, &own, &mut rng).unwrap();
        let asking = &mut recursion.askings()[0];
        let ask = asking.next_ask().unwrap();
        let mut cut = reply(&ask.packet, ResponseCode::NoError, vec![]);
        cut.metadata.truncation = true;
        let Heard::OverTcp(again) = asking.hear(bytes(&cut)) else { panic!("it is asked again") };
        assert_eq!((again.transport, &again.packet), (Transport::Tcp, &ask.packet));
        assert!(matches!(asking.hear(bytes(&cut)), Heard::Answer(_)));
        // Nothing was found: the alias stands alone.
        let (answers, _) = texts(&recursion.conclude(&config, &[None]));
        assert_eq!(answers, ["ext.service.consul. 7 ext.example.com."]);
    }

    #[test]
    fn no_more_is_passed_back_than_the_asking_side_takes() {
        let config = config(&["192.0.2.1:53"]);
        let mut recursion = forwarded(&config);
        let ask = recursion.askings()[0].next_ask().unwrap();
        let many = (0..60).map(|last| address("www.Example.com.", 60, last)).collect();
        let large = bytes(&reply(&ask.packet, ResponseCode::NoError, many));
        assert!(large.len() > 512);
        let concluded = recursion.conclude(&config, &[Some(large)]);
        assert!(concluded.len() <= 512 && concluded[2] & TRUNCATED != 0);
    }
}
