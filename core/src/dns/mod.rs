//! The semantics of the DNS interface: from a packet to an answer, without a socket.
//!
//! Source: Consul's documentation, «Query services with DNS» and «`dns_config`»; RFC 1035, 2308 (negative answers),
//! 2782 (SRV), 6891 (EDNS), 7871 (client subnet).

mod direct;
mod encode;
pub mod kept;
mod lookup;
mod name;
mod question;
mod records;
mod recursor;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use serde::{Deserialize, Serialize};

use self::kept::Look;
pub(crate) use self::records::Records;
pub use self::recursor::{Ask, Asking, Heard, Order, Recursion, Recursors, mark};
use crate::Text;
use crate::node::Published;
use crate::planted::{Bug, planted};
use crate::rng::Rng;
use crate::store::model::Node;
use crate::store::{InstanceList, PreparedQuery, View};
use crate::time::Now;

/// How names are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// The zone, without dots at the ends.
    pub domain: Text,
    /// Another name of the zone, without dots at the ends.
    pub alt_domain: Option<Text>,
    /// Time to live of records about nodes.
    pub node_ttl: Duration,
    /// Time to live of records about services: by name, by prefix (`web*`) or for all (`*`). The longest match counts.
    pub service_ttl: BTreeMap<Text, Duration>,
    /// Leave out instances with warnings.
    pub only_passing: bool,
    /// Set TC when something was left out.
    pub enable_truncate: bool,
    /// Most answers over UDP without EDNS.
    pub udp_answer_limit: usize,
    /// Most addresses in an answer, over any transport; zero is no limit.
    pub a_record_limit: usize,
    /// Write every name in full.
    pub disable_compression: bool,
    /// Add the node's metadata as TXT records.
    pub node_meta_txt: bool,
    /// Times of the SOA record.
    pub soa: Soa,
    /// Answer from this server's data even if it may be behind the leader's.
    pub allow_stale: bool,
    /// But not if the leader was last heard of longer ago than this.
    pub max_stale: Duration,
    /// Who is asked about other domains. Servers that answer for a client agent are not told: it is the agent that asks them.
    #[serde(skip)]
    pub recursors: Recursors,
}

/// Times of the SOA record, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Soa {
    /// Between two looks of a secondary server.
    pub refresh: u32,
    /// Between two attempts of a secondary server.
    pub retry: u32,
    /// Until a secondary server gives up.
    pub expire: u32,
    /// Time to live of the SOA record, and so of negative answers.
    pub min_ttl: u32,
}

impl Default for DnsConfig {
    fn default() -> Self {
        DnsConfig {
            domain: "consul".into(),
            alt_domain: None,
            node_ttl: Duration::ZERO,
            service_ttl: BTreeMap::new(),
            only_passing: false,
            enable_truncate: false,
            udp_answer_limit: 3,
            a_record_limit: 0,
            disable_compression: false,
            node_meta_txt: true,
            soa: Soa { refresh: 3600, retry: 600, expire: 86_400, min_ttl: 0 },
            allow_stale: true,
            max_stale: Duration::from_secs(10 * 365 * 24 * 3600),
            recursors: Recursors::default(),
        }
    }
}

impl DnsConfig {
    /// Time to live of records about a service: that of the longest match.
    fn ttl_of(&self, service: &str) -> Duration {
        let ttls = &self.service_ttl;
        let of = |pattern: &str| {
            ttls.iter().find(|(name, _)| name.eq_ignore_ascii_case(pattern)).map(|(_, ttl)| *ttl)
        };
        let prefix = |(pattern, ttl): (&Text, &Duration)| {
            let prefix = pattern.strip_suffix('*')?;
            let begins = service.get(..prefix.len())?;
            begins.eq_ignore_ascii_case(prefix).then_some((prefix.len(), *ttl))
        };
        of(service)
            .or_else(|| ttls.iter().filter_map(prefix).max_by_key(|(len, _)| *len).map(|(_, ttl)| ttl))
            .unwrap_or_default()
    }
}

/// How a question came, which limits the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A message on a stream; the length in front of it is the adapter's.
    Tcp,
}

/// A packet that came to a client agent, for a server to answer as that agent is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// As it came.
    pub packet: Bytes,
    /// How it came.
    pub transport: Transport,
    /// How the agent serves names.
    pub config: DnsConfig,
}

impl Question {
    /// The answer, as far as it can be had here; empty for what is no question. With a query of another datacenter it is
    /// what that query finds here.
    #[must_use]
    pub fn answer(
        &self,
        published: &Published,
        lent: Option<&PreparedQuery>,
        now: Now,
        rng: &mut Rng,
    ) -> (Answered, Bytes) {
        let mut out = Vec::new();
        let served = Served { published, config: &self.config, lent, look: None, now };
        let answered = answer(served, &self.packet, self.transport, rng, &mut out);
        (answered, Bytes::from(out))
    }
}

/// How a packet is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// With what was put out.
    Here,
    /// Not at all.
    Never,
    /// Only if the leader says that the state here is not too old. What was put out says that there is trouble.
    Stale,
    /// By recursors, or with their help: see [`Recursion::of_answer`]. What was put out is the answer without them.
    Open,
    /// By a server of this datacenter. What was put out says that there is no such name.
    Elsewhere(Text),
    /// By other datacenters that this prepared query names: here it finds nothing, which is what was put out.
    Further(Arc<PreparedQuery>),
}

impl Question {
    /// The answer when nobody can be asked (SERVFAIL); `None` for what is no question.
    #[must_use]
    pub fn failure(&self) -> Option<Bytes> {
        let mut out = Vec::new();
        match question::read(&self.packet) {
            question::Read::Question(asked) => {
                let reply = lookup::Reply::code(asked.refusal.unwrap_or(ResponseCode::ServFail));
                encode::message(&self.config, &asked, &reply, self.transport, &mut out);
            }
            question::Read::Bad { id, flags, code } => encode::bare(id, flags, code, &mut out),
            question::Read::Silence => return None,
        }
        Some(Bytes::from(out))
    }
}

/// The state that answers come from.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// The node.
    pub published: &'a Published,
    /// How names are served.
    pub config: &'a DnsConfig,
    /// A prepared query of another datacenter, which names of queries stand for.
    pub lent: Option<&'a PreparedQuery>,
    /// What a client agent keeps, which its answers come from; `None` on servers.
    pub look: Option<&'a Look<'a>>,
    /// The time.
    pub now: Now,
}

/// Answers a packet. Puts the answer into `out`, which is cleared first, and says whether there is one, or who has it: what
/// is no question is not answered at all, so that nobody can be made to talk to themselves.
#[must_use]
pub fn answer(
    served: Served<'_>,
    packet: &[u8],
    transport: Transport,
    rng: &mut Rng,
    out: &mut Vec<u8>,
) -> Answered {
    out.clear();
    // The short way knows healthy instances only.
    let is_short = !planted(Bug::DnsServesCritical);
    if is_short && direct::answer(served, packet, transport, rng, out).is_some() {
        return Answered::Here;
    }
    answer_any(served, packet, transport, rng, out)
}

/// As [`answer`], by the way that all questions can go.
fn answer_any(
    served: Served<'_>,
    packet: &[u8],
    transport: Transport,
    rng: &mut Rng,
    out: &mut Vec<u8>,
) -> Answered {
    out.clear();
    let asked = match question::read(packet) {
        question::Read::Question(asked) => asked,
        question::Read::Bad { id, flags, code } => {
            encode::bare(id, flags, code, out);
            return Answered::Here;
        }
        question::Read::Silence => return Answered::Never,
    };
    let reply = if let Some(code) = asked.refusal {
        lookup::Reply { open: code == ResponseCode::Refused, ..lookup::Reply::code(code) }
    } else if served.is_fresh_enough() {
        lookup::reply(served, &asked, encode::budget(served.config, &asked, transport), rng)
    } else {
        encode::message(served.config, &asked, &lookup::Reply::code(ResponseCode::ServFail), transport, out);
        return Answered::Stale;
    };
    encode::message(served.config, &asked, &reply, transport, out);
    match (reply.elsewhere, reply.further) {
        (Some(datacenter), _) => Answered::Elsewhere(datacenter),
        (None, Some(query)) => Answered::Further(query),
        (None, None) if reply.open && !served.config.recursors.addresses.is_empty() => Answered::Open,
        (None, None) => Answered::Here,
    }
}

/// Whether an answer is one: its code says that the name exists, or that there is trouble.
#[must_use]
pub fn finds(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| u16::from(flags & 0xf) != u16::from(ResponseCode::NXDomain))
}

/// For how many seconds an answer may be kept: the least time to live of its records, or that of a negative answer
/// (RFC 2308, section 5); zero if nothing can be said.
#[must_use]
pub fn fresh_for(answer: &[u8]) -> u32 {
    let Ok(message) = Message::from_vec(answer) else { return 0 };
    let negative =
        message.authorities.iter().filter(|_| message.answers.is_empty()).map(|record| match &record.data {
            RData::SOA(soa) => record.ttl.min(soa.minimum),
            _ => record.ttl,
        });
    message.answers.iter().map(|record| record.ttl).chain(negative).min().unwrap_or(0)
}

impl<'a> Served<'a> {
    /// The whole state. A client agent has none: only servers can answer what needs it.
    fn view(&self) -> &'a View {
        if let Some(look) = self.look {
            look.beyond();
        }
        &self.published.view
    }

    /// The instances of a service, its name in lower case; `None` if there is none.
    fn instances(&self, service: &str) -> Option<&'a Arc<InstanceList>> {
        match self.look {
            Some(look) => look.instances(service, false),
            None => self.published.view.service_instances(service),
        }
    }

    /// The instances that take mesh traffic for a service, its name in lower case; `None` if there is none.
    fn connect_instances(&self, service: &str) -> Option<&'a Arc<InstanceList>> {
        match self.look {
            Some(look) => look.instances(service, true),
            None => self.published.view.connect_instances(service),
        }
    }

    /// A node, its name in lower case.
    fn node(&self, name: &str) -> Option<&'a Arc<Node>> {
        match self.look {
            Some(look) => look.node(name),
            None => self.published.view.node(name),
        }
    }

    fn is_fresh_enough(&self) -> bool {
        // What is kept knows its own age.
        if self.look.is_some() {
            return true;
        }
        let lease = &self.published.lease;
        if self.now.mono < lease.until || planted(Bug::DnsIgnoresBound) {
            return true;
        }
        // What was kept through a restart is better than nothing; how old it is, is not known.
        let as_of = lease.as_of.unwrap_or_default();
        self.config.allow_stale && self.now.mono.since(as_of) <= self.config.max_stale
    }
}

#[cfg(test)]
mod tests;
