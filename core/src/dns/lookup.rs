//! Finds the records that answer a question.
//!
//! Instances are chosen before records are made of them, so that a service with thousands of instances costs no more
//! than what fits into the answer.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::encode::Budget;
use super::name::{self, Role, Target};
use super::question::Asked;
use super::{DnsConfig, Served};
use crate::planted::{Bug, planted};
use crate::rng::Rng;
use crate::store::model::{Health, Node};
use crate::store::{Execute, Instance, Lent, PreparedQuery, Unresolved, View};
use crate::{Text, duration};

/// Name servers that an answer names.
const NAME_SERVERS_MAX: usize = 3;
/// Records that following an alias may add.
const CHASED_MAX: usize = 5;
/// Aliases that are followed one after the other.
const CHASE_DEPTH: usize = 3;
/// Metadata whose keys begin so is served as its bare value.
pub(super) const BARE_META: &str = "rfc1035-";
/// The service that servers are registered as.
const SERVERS: &str = "consul";

/// What an answer is made of.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: ResponseCode,
    pub(super) authoritative: bool,
    pub(super) answers: Vec<Answer>,
    pub(super) authorities: Vec<Record>,
    /// Additional records that belong to no single answer.
    pub(super) additionals: Vec<Record>,
    /// Whether there was more than the budget allowed.
    pub(super) left_out: bool,
    /// Whether the asking side must be told that there is more, whatever is configured.
    pub(super) truncated: bool,
    /// Whether another client might have been given another answer.
    pub(super) for_client: bool,
    /// Whether an alias leads out of our zones.
    pub(super) open: bool,
    /// The datacenter that knows, if it is another one.
    pub(super) elsewhere: Option<Text>,
    /// A prepared query that finds nothing here, and says where else to look.
    pub(super) further: Option<Arc<PreparedQuery>>,
}

/// A record of the answer section and the additional records that go with it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) record: Record,
    pub(super) additionals: Vec<Record>,
}

impl Reply {
    /// An answer without records, not authoritative.
    pub(super) fn code(code: ResponseCode) -> Reply {
        Reply {
            code,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            left_out: false,
            truncated: false,
            for_client: false,
            open: false,
            elsewhere: None,
            further: None,
        }
    }

    /// An answer without records about a name of ours.
    pub(super) fn authoritative() -> Reply {
        Reply { authoritative: true, ..Reply::code(ResponseCode::NoError) }
    }

    fn answer(&mut self, record: Record) {
        self.answers.push(Answer { record, additionals: Vec::new() });
    }
}

pub(super) fn reply(served: Served<'_>, asked: &Asked, budget: Budget, rng: &mut Rng) -> Reply {
    let labels = name::labels(&asked.query.name);
    if labels.last().is_some_and(|label| label == "arpa") {
        return reverse(served, asked, &labels);
    }
    match Zone::of(served, &labels) {
        Some((zone, rest)) => zone.reply(asked, rest, budget, rng),
        None => Reply { open: true, ..Reply::code(ResponseCode::Refused) },
    }
}

/// The innermost zone that a name is in, in lower case, with the labels before it.
pub(super) fn zone_of<'l>(config: &DnsConfig, labels: &'l [String]) -> Option<(String, &'l [String])> {
    let domains = [Some(&config.domain), config.alt_domain.as_ref()];
    let matches =
        domains.into_iter().flatten().filter_map(|domain| Some((domain, name::below(labels, domain)?)));
    let (domain, rest) = matches.min_by_key(|(_, rest)| rest.len())?;
    Some((domain.to_ascii_lowercase(), rest))
}

/// One of the names under which the datacenter is served.
struct Zone<'a> {
    served: Served<'a>,
    /// In lower case.
    domain: String,
}

/// What an address field says.
enum Place<'a> {
    Ip(IpAddr),
    Host(&'a str),
}

impl<'a> Zone<'a> {
    /// The innermost zone that a name is in, with the labels before it.
    fn of<'l>(served: Served<'a>, labels: &'l [String]) -> Option<(Zone<'a>, &'l [String])> {
        let (domain, rest) = zone_of(served.config, labels)?;
        Some((Zone { served, domain }, rest))
    }

    fn reply(&self, asked: &Asked, labels: &[String], budget: Budget, rng: &mut Rng) -> Reply {
        match asked.query.query_type {
            RecordType::SOA => return self.start_of_authority(rng),
            RecordType::NS => return self.name_servers(rng),
            _ => {}
        }
        let parsed = match name::parse(labels) {
            // Without its keyword the form of RFC 2782 is one for SRV records only.
            parsed if parsed.is_short && asked.query.query_type != RecordType::SRV => name::parse(&[]),
            parsed => parsed,
        };
        let mut reply = match &parsed.target {
            // An address that a name spells does not depend on any datacenter.
            Target::Address(address) => self.address(asked, *address),
            Target::Query(name) if self.served.lent.is_some() => self.prepared(asked, name, budget, rng),
            Target::Nothing => None,
            _ if !self.is_own(parsed.datacenter.as_deref()) => self.elsewhere(parsed.datacenter.as_deref()),
            Target::Service { .. } => self.service(asked, &parsed.target, budget, rng),
            Target::Node(name) => self.node(asked, name, rng),
            Target::Query(name) => self.prepared(asked, name, budget, rng),
        }
        .unwrap_or_else(|| Reply { code: ResponseCode::NXDomain, ..Reply::authoritative() });
        // RFC 2308: a negative answer carries the SOA record, whose TTL is its own.
        let is_negative = reply.answers.is_empty() && reply.additionals.is_empty();
        if is_negative && reply.code != ResponseCode::ServFail {
            reply.authorities.extend(self.soa_record());
        }
        reply
    }

    fn is_own(&self, datacenter: Option<&str>) -> bool {
        datacenter
            .is_none_or(|datacenter| datacenter.eq_ignore_ascii_case(&self.served.published.about.datacenter))
    }

    /// That another datacenter knows, if there is one of this name.
    fn elsewhere(&self, datacenter: Option<&str>) -> Option<Reply> {
        // Servers know which there are.
        if let Some(look) = self.served.look {
            look.beyond();
        }
        let elsewhere = self.served.published.cluster.datacenter_like(datacenter?)?;
        let code = ResponseCode::NXDomain;
        Some(Reply { code, elsewhere: Some(elsewhere), ..Reply::authoritative() })
    }

    fn view(&self) -> &'a View {
        self.served.view()
    }

    fn config(&self) -> &'a DnsConfig {
        self.served.config
    }

    // --- the zone itself ---

    fn soa_record(&self) -> Option<Record> {
        let zone = name::fqdn(&self.domain)?;
        let soa = self.config().soa;
        let signed = |seconds: u32| i32::try_from(seconds).unwrap_or(i32::MAX);
        // The clock, as secondary servers know it from Consul; it may wrap (RFC 1982).
        let serial = (self.served.now.wall.0 / 1000) as u32;
        let data = SOA::new(
            name::fqdn(&format!("ns.{}", self.domain))?,
            name::fqdn(&format!("hostmaster.{}", self.domain))?,
            serial,
            signed(soa.refresh),
            signed(soa.retry),
            signed(soa.expire),
            soa.min_ttl,
        );
        Some(Record::from_rdata(zone, soa.min_ttl, RData::SOA(data)))
    }

    fn start_of_authority(&self, rng: &mut Rng) -> Reply {
        let mut reply = self.name_servers(rng);
        let servers = std::mem::take(&mut reply.answers);
        for Answer { record, additionals } in servers {
            reply.authorities.push(record);
            reply.additionals.extend(additionals);
        }
        if let Some(soa) = self.soa_record() {
            reply.answer(soa);
        }
        reply
    }

    fn name_servers(&self, rng: &mut Rng) -> Reply {
        let mut reply = Reply::authoritative();
        let Some(zone) = name::fqdn(&self.domain) else { return reply };
        let ttl = seconds(self.config().node_ttl);
        let servers = self.served.instances(SERVERS).map(|list| &list.items[..]).unwrap_or_default();
        for instance in shuffle(servers, rng, |instance| instance.health() != Health::Critical) {
            let Some(server) = self.node_name(&instance.node) else { continue };
            let record = Record::from_rdata(zone.clone(), ttl, RData::NS(NS(server.clone())));
            let additionals = match place(&instance.node.address) {
                Place::Ip(address) => vec![address_record(server, ttl, address)],
                Place::Host(_) => Vec::new(),
            };
            reply.answers.push(Answer { record, additionals });
            if reply.answers.len() == NAME_SERVERS_MAX {
                break;
            }
        }
        reply
    }

    fn node_name(&self, node: &Node) -> Option<Name> {
        let datacenter = &self.served.published.about.datacenter;
        name::fqdn(&format!("{}.node.{datacenter}.{}", node.name, self.domain))
    }

    fn address_name(&self, address: IpAddr) -> Option<Name> {
        let datacenter = &self.served.published.about.datacenter;
        name::fqdn(&format!("{}.addr.{datacenter}.{}", name::hex(address), self.domain))
    }

    // --- addresses ---

    fn address(&self, asked: &Asked, address: IpAddr) -> Option<Reply> {
        let mut reply = Reply::authoritative();
        if wants(asked.query.query_type, address) {
            let ttl = seconds(self.config().node_ttl);
            reply.answer(address_record(asked.query.name.clone(), ttl, address));
        }
        Some(reply)
    }

    // --- nodes ---

    fn node(&self, asked: &Asked, node: &str, rng: &mut Rng) -> Option<Reply> {
        let node = self.served.node(node)?;
        let ttl = seconds(self.config().node_ttl);
        let (owner, kind) = (&asked.query.name, asked.query.query_type);
        let mut reply = Reply::authoritative();
        match place(&node.address) {
            Place::Ip(address) if wants(kind, address) => {
                reply.answer(address_record(owner.clone(), ttl, address));
            }
            Place::Host(host) if shows_alias(kind) => self.alias(&mut reply, owner, ttl, host, rng),
            Place::Ip(_) | Place::Host(_) => {}
        }
        match kind {
            RecordType::TXT | RecordType::ANY => {
                for record in meta_records(node, owner, ttl) {
                    reply.answer(record);
                }
            }
            RecordType::A | RecordType::AAAA if self.config().node_meta_txt => {
                reply.additionals.extend(meta_records(node, owner, ttl));
            }
            _ => {}
        }
        Some(reply)
    }

    // --- services ---

    fn service(&self, asked: &Asked, target: &Target, budget: Budget, rng: &mut Rng) -> Option<Reply> {
        let Target::Service { service, .. } = target else { unreachable!("the caller has looked") };
        // `_._tcp`: as in Consul, not even a name of nothing.
        if service.is_empty() {
            return Some(Reply { code: ResponseCode::ServFail, ..Reply::authoritative() });
        }
        let ttl = seconds(self.service_ttl(service));
        let mut gateways = Vec::new();
        let instances = self.instances(target, &mut gateways, rng);
        self.of_instances(asked, ttl, &instances, budget, rng)
    }

    /// What a prepared query finds. Its answers are for the one who asked.
    fn prepared(&self, asked: &Asked, name: &str, budget: Budget, rng: &mut Rng) -> Option<Reply> {
        let client = asked.edns.and_then(|edns| edns.subnet).map(|subnet| subnet.addr().to_string());
        let run = Execute {
            query: name.into(),
            agent: self.served.published.about.node.clone(),
            client: client.unwrap_or_default().into(),
            seed: rng.next_u64(),
            ..Execute::default()
        };
        let done = match self.served.lent {
            Some(query) => {
                let (query, agent) = (query.clone(), Text::default());
                Ok(self.view().execute_lent(&Lent { query, run: Execute { agent, ..run }, failovers: 0 }))
            }
            None => self.view().execute_prepared(&run),
        };
        let done = match done {
            Ok(done) => done,
            Err(Unresolved::Unknown) => return None,
            Err(Unresolved::TemplateById | Unresolved::Template(_)) => {
                return Some(Reply::code(ResponseCode::ServFail));
            }
        };
        let ttl = match duration::parse(&done.dns_ttl) {
            Some(nanos) => Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)),
            None => self.service_ttl(&done.service),
        };
        if let Some(query) = done.failover {
            let code = ResponseCode::NXDomain;
            return Some(Reply { code, further: Some(query), ..Reply::authoritative() });
        }
        let instances: Vec<&Instance> = done.instances.iter().map(|instance| &**instance).collect();
        let reply = self.of_instances(asked, seconds(ttl), &instances, budget, rng);
        reply.map(|reply| Reply { for_client: true, ..reply })
    }

    fn of_instances(
        &self,
        asked: &Asked,
        ttl: u32,
        instances: &[&Instance],
        budget: Budget,
        rng: &mut Rng,
    ) -> Option<Reply> {
        if instances.is_empty() {
            return None;
        }
        let mut reply = Reply::authoritative();
        match asked.query.query_type {
            RecordType::SRV => {
                self.service_records(&mut reply, &asked.query.name, ttl, instances, budget, rng)
            }
            kind => {
                let owner = &asked.query.name;
                self.service_addresses(&mut reply, owner, kind, ttl, instances, budget, rng);
                // What an alias leads to counts, too.
                reply.left_out |= reply.answers.len() > budget.answers;
                reply.answers.truncate(budget.answers);
            }
        }
        Some(reply)
    }

    /// The healthy instances in random order.
    ///
    /// Gateways are looked up by what they are for; `gateways` is where they are kept meanwhile.
    fn instances<'b>(
        &self,
        target: &Target,
        gateways: &'b mut Vec<Arc<Instance>>,
        rng: &mut Rng,
    ) -> Vec<&'b Instance>
    where
        'a: 'b,
    {
        let Target::Service { service, tag, role } = target else { return Vec::new() };
        let items: Option<&'b [Arc<Instance>]> = match role {
            Role::Itself => self.served.instances(service).map(|list| &list.items[..]),
            Role::Connect => self.served.connect_instances(service).map(|list| &list.items[..]),
            Role::Ingress => {
                *gateways = self.view().ingress_of(service);
                Some(&gateways[..])
            }
        };
        let items = items.unwrap_or_default();
        let tags = tag.as_ref().map(|tag| meant_tags(items, tag)).unwrap_or_default();
        let worst = if self.config().only_passing { Health::Passing } else { Health::Warning };
        let worst = if planted(Bug::DnsServesCritical) { Health::Critical } else { worst };
        shuffle(items, rng, |instance| instance.health() <= worst && instance.has_tags(&tags))
    }

    fn service_ttl(&self, service: &str) -> Duration {
        self.config().ttl_of(service)
    }

    #[expect(clippy::too_many_arguments, reason = "one look-up, read from top to bottom")]
    fn service_addresses(
        &self,
        reply: &mut Reply,
        owner: &Name,
        kind: RecordType,
        ttl: u32,
        instances: &[&Instance],
        budget: Budget,
        rng: &mut Rng,
    ) {
        let configured = match self.config().a_record_limit {
            0 => usize::MAX,
            limit => limit,
        };
        let mut seen = BTreeSet::new();
        let mut host = None;
        for instance in instances {
            match place(instance_address(instance)) {
                Place::Ip(address) if wants(kind, address) && !seen.contains(&address) => {
                    if reply.answers.len() >= configured {
                        break;
                    }
                    if reply.answers.len() >= budget.answers {
                        reply.left_out = true;
                        break;
                    }
                    seen.insert(address);
                    reply.answer(address_record(owner.clone(), ttl, address));
                }
                Place::Ip(_) => {}
                Place::Host(name) => host = host.or(Some(name)),
            }
        }
        // A name has at most one alias, and none beside addresses.
        if let Some(host) = host.filter(|_| reply.answers.is_empty()) {
            self.alias(reply, owner, ttl, host, rng);
        }
    }

    fn service_records(
        &self,
        reply: &mut Reply,
        owner: &Name,
        ttl: u32,
        instances: &[&Instance],
        budget: Budget,
        rng: &mut Rng,
    ) {
        let mut seen = BTreeSet::new();
        for instance in instances {
            let service = &instance.service;
            let own = place(&service.address);
            let (target, addresses) = match (&own, place(instance_address(instance))) {
                (Place::Ip(address), _) => {
                    let Some(target) = self.address_name(*address) else { continue };
                    (target.clone(), vec![address_record(target, ttl, *address)])
                }
                (Place::Host(_), Place::Ip(address)) => {
                    let Some(target) = self.node_name(&instance.node) else { continue };
                    (target.clone(), vec![address_record(target, ttl, address)])
                }
                (Place::Host(_), Place::Host(host)) => {
                    let Some(target) = name::fqdn(host) else { continue };
                    (target, self.chase(host, ttl, CHASE_DEPTH, &mut reply.open, rng))
                }
            };
            if !seen.insert((target.to_ascii().to_ascii_lowercase(), service.port)) {
                continue;
            }
            if reply.answers.len() >= budget.answers {
                reply.left_out = true;
                break;
            }
            let mut additionals = addresses;
            if self.config().node_meta_txt
                && let Some(node) = self.node_name(&instance.node)
            {
                additionals.extend(meta_records(&instance.node, &node, ttl));
            }
            let data = SRV::new(1, instance.weight(), service.port, target);
            reply.answers.push(Answer {
                record: Record::from_rdata(owner.clone(), ttl, RData::SRV(data)),
                additionals,
            });
        }
    }

    // --- aliases ---

    /// Adds a CNAME record and what is known about its target.
    fn alias(&self, reply: &mut Reply, owner: &Name, ttl: u32, host: &str, rng: &mut Rng) {
        let Some(target) = name::fqdn(host) else { return };
        if target.num_labels() < 1 || target == *owner {
            return;
        }
        reply.answer(Record::from_rdata(owner.clone(), ttl, RData::CNAME(CNAME(target))));
        for record in self.chase(host, ttl, CHASE_DEPTH, &mut reply.open, rng) {
            reply.answer(record);
        }
    }

    /// Addresses of a name, as far as it is in one of our zones; `open` is set if it is in none.
    fn chase(&self, host: &str, ttl: u32, depth: usize, open: &mut bool, rng: &mut Rng) -> Vec<Record> {
        let Some(owner) = name::fqdn(host) else { return Vec::new() };
        let labels = name::labels(&owner);
        let Some((zone, rest)) = Zone::of(self.served, &labels) else {
            *open = true;
            return Vec::new();
        };
        let parsed = name::parse(rest);
        let is_known =
            matches!(parsed.target, Target::Address(_)) || zone.is_own(parsed.datacenter.as_deref());
        if !is_known || depth == 0 {
            return Vec::new();
        }
        let mut gateways = Vec::new();
        let addresses: Vec<&str> = match &parsed.target {
            Target::Address(address) => return vec![address_record(owner, ttl, *address)],
            Target::Node(node) => {
                zone.served.node(node).map(|node| node.address.as_str()).into_iter().collect()
            }
            Target::Service { .. } => {
                let instances = zone.instances(&parsed.target, &mut gateways, rng);
                instances.into_iter().map(instance_address).collect()
            }
            Target::Query(_) | Target::Nothing => Vec::new(),
        };
        let mut records = Vec::new();
        let mut host = None;
        for address in addresses {
            match place(address) {
                Place::Ip(address) if records.len() < CHASED_MAX => {
                    records.push(address_record(owner.clone(), ttl, address));
                }
                Place::Ip(_) => break,
                Place::Host(name) => host = host.or(Some(name)),
            }
        }
        if let Some(next) = host.filter(|_| records.is_empty())
            && let Some(target) = name::fqdn(next)
        {
            records.push(Record::from_rdata(owner, ttl, RData::CNAME(CNAME(target))));
            records.extend(zone.chase(next, ttl, depth - 1, open, rng));
            records.truncate(CHASED_MAX);
        }
        records
    }
}

/// Which node, or else which service, has an address.
fn reverse(served: Served<'_>, asked: &Asked, labels: &[String]) -> Reply {
    let view = served.view();
    let datacenter = &served.published.about.datacenter;
    let domain = served.config.domain.to_ascii_lowercase();
    // Only recursors could know an address that is not ours.
    let unknown = || Reply { open: true, ..Reply::code(ResponseCode::Refused) };
    let Some(address) = name::reverse(labels) else { return unknown() };
    let node = view.node_at(address).map(|node| format!("{}.node", node.name));
    let service = || view.service_at(address).map(|service| format!("{}.service", service.service));
    let Some(target) = node.or_else(service) else { return unknown() };
    let mut reply = Reply::authoritative();
    if let Some(target) = name::fqdn(&format!("{target}.{datacenter}.{domain}")) {
        reply.answer(Record::from_rdata(asked.query.name.clone(), 0, RData::PTR(PTR(target))));
    }
    // As in Consul, the name is shown whatever is asked about it.
    if asked.query.query_type == RecordType::SOA {
        reply.authorities.extend(Zone { served, domain }.soa_record());
    }
    reply
}

fn shuffle<'a>(
    items: &'a [Arc<Instance>],
    rng: &mut Rng,
    is_wanted: impl Fn(&Instance) -> bool,
) -> Vec<&'a Instance> {
    let mut instances = items.iter().map(|item| &**item).filter(|item| is_wanted(item)).collect::<Vec<_>>();
    rng.shuffle(&mut instances);
    instances
}

/// The tags that a name asks for. Consul reads `a.b.web.service` as the tag `a.b`, and so it is if any instance has that; else
/// both `a` and `b` are meant.
fn meant_tags(items: &[Arc<Instance>], tag: &str) -> Vec<Text> {
    let whole = vec![Text::from(tag)];
    if !tag.contains('.') || items.iter().any(|instance| instance.has_tags(&whole)) {
        return whole;
    }
    tag.split('.').map(Text::from).collect()
}

fn instance_address(instance: &Instance) -> &str {
    match instance.service.address.as_str() {
        "" => &instance.node.address,
        own => own,
    }
}

fn place(address: &str) -> Place<'_> {
    // `::ffff:192.0.2.1` is an IPv4 address.
    address.parse::<IpAddr>().map_or(Place::Host(address), |ip| Place::Ip(ip.to_canonical()))
}

fn wants(kind: RecordType, address: IpAddr) -> bool {
    match kind {
        RecordType::ANY => true,
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        _ => false,
    }
}

/// Whether the alias that a node's address is belongs into the answer. Services show theirs whatever is asked for.
fn shows_alias(kind: RecordType) -> bool {
    matches!(kind, RecordType::A | RecordType::AAAA | RecordType::ANY)
}

fn address_record(owner: Name, ttl: u32, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(owner, ttl, data)
}

fn meta_records(node: &Node, owner: &Name, ttl: u32) -> Vec<Record> {
    let text = |(key, value): (&Text, &Text)| {
        let text = if key.to_ascii_lowercase().starts_with(BARE_META) {
            value.to_string()
        } else {
            format!("{key}={value}")
        };
        // One character-string holds 255 bytes (RFC 1035, section 3.3).
        let mut strings = text.as_bytes().chunks(255).collect::<Vec<_>>();
        if strings.is_empty() {
            strings.push(b"");
        }
        Record::from_rdata(owner.clone(), ttl, RData::TXT(TXT::from_bytes(strings)))
    };
    node.meta.iter().map(text).collect()
}

pub(super) fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)
}
