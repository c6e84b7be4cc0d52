//! The short way for the questions that are asked most: addresses (A, AAAA) and SRV records of the instances of a service in
//! this datacenter. From the packet to the answer without records in between and without an allocation, as long as
//! names and lists are of usual lengths.
//!
//! It answers what it can answer exactly as [`super::answer_any`] does, and leaves everything else to that: odd
//! packets and names, names of other things, aliases, answers that have to be cut. Tests hold the two against each
//! other.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use smallvec::SmallVec;

use super::encode::{AUTHORITATIVE, Budget, RECURSION_AVAILABLE, RECURSION_DESIRED, RESPONSE, TRUNCATED};
use super::lookup::{BARE_META, seconds};
use super::{Served, Transport, name};
use crate::rng::Rng;
use crate::store::{Instance, InstanceList, Place};

const HEADER: usize = 12;
/// A pointer to the name of the question (RFC 1035, section 4.1.4).
const ASKED: [u8; 2] = [0xc0, 12];
/// What a pointer can reach.
const POINTER_MAX: usize = 0x3fff;
const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const OPT: u16 = 41;
const IN: u16 = 1;
const SRV_PRIORITY: u8 = 1;
/// Without these two bits of the flags a packet is a plain question: those that servers do not care about (RFC 2535's AD and CD).
const FLAGS_IGNORED: u16 = 0x0030;

/// Puts the answer into `out` if this is the way for the question; leaves `out` with no meaning if not.
pub(super) fn answer(
    served: Served<'_>,
    packet: &[u8],
    transport: Transport,
    rng: &mut Rng,
    out: &mut Vec<u8>,
) -> Option<()> {
    if served.lent.is_some() || served.config.disable_compression {
        return None;
    }
    let mut text = [0; 256];
    let question = Question::read(packet, &mut text)?;
    let wanted = question.target(served)?;
    if !served.is_fresh_enough() {
        return None;
    }
    let list = served.instances(wanted.service)?;
    let ttl = seconds(served.config.ttl_of(wanted.service)).to_be_bytes();
    let budget = Budget::of(served.config, question.max_payload, transport);
    let candidates = Candidates::of(served, list, wanted.tag);
    if candidates.order.is_empty() {
        return None;
    }
    out.clear();
    out.extend_from_slice(&packet[..question.end]);
    let written = match question.kind {
        SRV => services(served, list, candidates, ttl, budget, rng, out)?,
        kind => addresses(served, list, candidates, kind == A, ttl, budget, rng, out)?,
    };
    if let Some(payload) = question.max_payload {
        out.push(0);
        for word in [OPT, payload, 0, 0, 0] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
    if out.len() > usize::from(budget.size) {
        return None;
    }
    let mut flags = RESPONSE | AUTHORITATIVE | (u16::from(ResponseCode::NoError.low()) & 0xf);
    if written.left_out && served.config.enable_truncate && transport == Transport::Udp {
        flags |= TRUNCATED;
    }
    if question.recursion_desired {
        flags |= RECURSION_DESIRED;
    }
    if !served.config.recursors.addresses.is_empty() {
        flags |= RECURSION_AVAILABLE;
    }
    let additionals = written.additionals + u16::from(question.max_payload.is_some());
    for (at, word) in [flags, 1, written.answers, 0, additionals].into_iter().enumerate() {
        out[2 + 2 * at..4 + 2 * at].copy_from_slice(&word.to_be_bytes());
    }
    Some(())
}

/// What was written behind the question.
struct Written {
    answers: u16,
    additionals: u16,
    left_out: bool,
}

/// A plain question with nothing around it but an OPT record.
struct Question<'t> {
    /// The labels of the name in lower case, with dots between them.
    text: &'t str,
    kind: u16,
    /// Where the question ends in the packet.
    end: usize,
    recursion_desired: bool,
    max_payload: Option<u16>,
}

/// The instances that a name stands for.
struct Target<'t> {
    service: &'t str,
    tag: Option<&'t str>,
}

impl<'t> Question<'t> {
    fn read(packet: &[u8], text: &'t mut [u8; 256]) -> Option<Question<'t>> {
        let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
        let flags = word(2)?;
        if flags & !(RECURSION_DESIRED | FLAGS_IGNORED) != 0 {
            return None;
        }
        let additionals = word(10)?;
        if (word(4)?, word(6)?, word(8)?) != (1, 0, 0) || additionals > 1 {
            return None;
        }
        let (mut at, mut len) = (HEADER, 0);
        loop {
            let label = usize::from(*packet.get(at)?);
            at += 1;
            match label {
                0 => break,
                1..=63 if len + label < 254 => {}
                _ => return None,
            }
            if len > 0 {
                text[len] = b'.';
                len += 1;
            }
            for byte in packet.get(at..at + label)? {
                if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
                    return None;
                }
                text[len] = byte.to_ascii_lowercase();
                len += 1;
            }
            at += label;
        }
        let kind = word(at)?;
        if word(at + 2)? != IN || !matches!(kind, A | AAAA | SRV) {
            return None;
        }
        let end = at + 4;
        let max_payload = match (additionals, &packet[end..]) {
            (0, []) => None,
            // No name, class as size, code and version zero, any flags, no options.
            (1, [0, 0, 41, high, low, 0, 0, _, _, 0, 0]) => Some(u16::from_be_bytes([*high, *low])),
            _ => return None,
        };
        let text = std::str::from_utf8(&text[..len]).ok()?;
        let recursion_desired = flags & RECURSION_DESIRED != 0;
        Some(Question { text, kind, end, recursion_desired, max_payload })
    }

    /// What a name of the forms `[<tag>.]<service>.service[.<dc>[.dc]].<domain>` and `_<service>._<tag>.service…` stands
    /// for.
    fn target(&self, served: Served<'_>) -> Option<Target<'t>> {
        let below = |domain: &str| -> Option<&'t str> {
            let end = self.text.len().checked_sub(domain.len() + 1)?;
            let (rest, zone) = (self.text.get(..end)?, self.text.get(end + 1..)?);
            (self.text.as_bytes()[end] == b'.' && !domain.is_empty() && zone.eq_ignore_ascii_case(domain))
                .then_some(rest)
        };
        let rest = below(&served.config.domain)?;
        if served.config.alt_domain.as_ref().is_some_and(|domain| below(domain).is_some()) {
            return None;
        }
        let datacenter = &served.published.about.datacenter;
        let rest = match rest.strip_suffix(".service") {
            Some(rest) => rest,
            None => {
                let rest = rest.strip_suffix(".dc").unwrap_or(rest);
                let end = rest.len().checked_sub(datacenter.len() + 1)?;
                if !rest.get(end..)?.strip_prefix('.')?.eq_ignore_ascii_case(datacenter)
                    || is_keyword(datacenter)
                {
                    return None;
                }
                rest.get(..end)?.strip_suffix(".service")?
            }
        };
        match rest.split_once('.') {
            None => Some(Target { service: rest, tag: None }),
            Some((first, second)) if !second.contains('.') => match (first.strip_prefix('_'), second) {
                (None, service) => Some(Target { service, tag: Some(first) }),
                (Some(service), tag) => {
                    let tag = tag.strip_prefix('_')?;
                    Some(Target { service, tag: (tag != "tcp").then_some(tag) })
                }
            },
            Some(_) => None,
        }
    }
}

/// Whether a datacenter's name could be taken for the kind of thing that a name stands for.
fn is_keyword(datacenter: &str) -> bool {
    let keywords = ["service", "connect", "node", "addr", "query", "ingress", "virtual", "dc"];
    datacenter.contains('.') || keywords.iter().any(|keyword| datacenter.eq_ignore_ascii_case(keyword))
}

/// Instances to choose from, by their position in the list, each equally likely to be the next.
struct Candidates {
    order: SmallVec<[u32; 64]>,
    next: usize,
    /// Random bits that were drawn and not used.
    bits: Option<u32>,
}

impl Candidates {
    fn of(served: Served<'_>, list: &InstanceList, tag: Option<&str>) -> Candidates {
        let places = list.places();
        let healthy = if served.config.only_passing { &places.passing } else { &places.alive };
        let order = match tag {
            None => SmallVec::from_slice(healthy),
            Some(tag) => {
                let has = |at: &&u32| {
                    let tags = &list.items[**at as usize].service.tags;
                    tags.iter().any(|has| has.eq_ignore_ascii_case(tag))
                };
                healthy.iter().filter(has).copied().collect()
            }
        };
        Candidates { order, next: 0, bits: None }
    }

    /// The next one, drawn from those that are left (Fisher and Yates, as far as it is needed).
    fn next(&mut self, rng: &mut Rng) -> Option<usize> {
        let left = self.order.len() - self.next;
        if left == 0 {
            return None;
        }
        if left > 1 {
            let bits = self.bits.take().unwrap_or_else(|| {
                let drawn = rng.next_u64();
                self.bits = Some((drawn >> 32) as u32);
                drawn as u32
            });
            // Within 2^-32 of uniform.
            let other = (u64::from(bits) * left as u64) >> 32;
            self.order.swap(self.next, self.next + other as usize);
        }
        self.next += 1;
        Some(self.order[self.next - 1] as usize)
    }
}

/// Writes addresses of one family. `None`: there are none, which has other reasons to be looked at.
#[expect(clippy::too_many_arguments, reason = "the parts of one answer")]
fn addresses(
    served: Served<'_>,
    list: &InstanceList,
    mut candidates: Candidates,
    v4: bool,
    ttl: [u8; 4],
    budget: Budget,
    rng: &mut Rng,
    out: &mut Vec<u8>,
) -> Option<Written> {
    let places = list.places();
    let configured = match served.config.a_record_limit {
        0 => usize::MAX,
        limit => limit,
    };
    let start = out.len();
    let size = if v4 { 16 } else { 28 };
    let most = candidates.order.len().min(budget.answers).min(configured);
    // OPT included.
    out.reserve(most * size + 16);
    let mut count = 0;
    let mut left_out = false;
    while let Some(at) = candidates.next(rng) {
        let Some(address) = places.of[at].address.filter(|address| address.is_ipv4() == v4) else { continue };
        let is_same = |record: &[u8]| match address {
            IpAddr::V4(address) => record[12..] == address.octets(),
            IpAddr::V6(address) => record[12..] == address.octets(),
        };
        if !places.distinct && out[start..].chunks(size).any(is_same) {
            continue;
        }
        if count >= configured {
            break;
        }
        if count >= budget.answers {
            left_out = true;
            break;
        }
        address_record(ASKED, address, ttl, out);
        count += 1;
    }
    (count > 0).then_some(Written { answers: u16::try_from(count).ok()?, additionals: 0, left_out })
}

/// Writes an address record; its name is a pointer.
fn address_record(name: [u8; 2], address: IpAddr, ttl: [u8; 4], out: &mut Vec<u8>) {
    let ([n, m], [t, u, v, w]) = (name, ttl);
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            out.extend_from_slice(&[n, m, 0, A as u8, 0, 1, t, u, v, w, 0, 4, a, b, c, d]);
        }
        IpAddr::V6(address) => {
            out.extend_from_slice(&[n, m, 0, AAAA as u8, 0, 1, t, u, v, w, 0, 16]);
            out.extend_from_slice(&address.octets());
        }
    }
}

/// An SRV record that was written.
struct Srv<'a> {
    instance: &'a Arc<Instance>,
    place: &'a Place,
    address: IpAddr,
    /// Where its target's name stands.
    target: usize,
}

fn services(
    served: Served<'_>,
    list: &InstanceList,
    mut candidates: Candidates,
    ttl: [u8; 4],
    budget: Budget,
    rng: &mut Rng,
    out: &mut Vec<u8>,
) -> Option<Written> {
    let places = list.places();
    let mut written = SmallVec::<[Srv<'_>; 64]>::new();
    let mut left_out = false;
    // Most targets are not longer.
    out.reserve((candidates.order.len().min(budget.answers) * 80).min(usize::from(budget.size)));
    let mut of_nodes = Zone { kind: b"\x04node", written: None };
    let mut of_addresses = Zone { kind: b"\x04addr", written: None };
    while let Some(at) = candidates.next(rng) {
        let (place, instance) = (&places.of[at], &list.items[at]);
        // What has a name for an address is looked up further.
        let address = place.address?;
        // The same target: the same spelt address, or the same node.
        let is_same = |other: &Srv<'_>| {
            other.place.port == place.port
                && other.place.is_own == place.is_own
                && if place.is_own {
                    other.address == address
                } else {
                    other.instance.node.name.eq_ignore_ascii_case(&instance.node.name)
                }
        };
        if !places.distinct && written.iter().any(is_same) {
            continue;
        }
        if written.len() >= budget.answers {
            left_out = true;
            break;
        }
        let ([p, q], [r, s]) = (place.weight.to_be_bytes(), place.port.to_be_bytes());
        let [t, u, v, w] = ttl;
        let head = [ASKED[0], ASKED[1], 0, SRV as u8, 0, 1, t, u, v, w, 0, 0, 0, SRV_PRIORITY, p, q, r, s];
        out.extend_from_slice(&head);
        let target = out.len();
        if place.is_own {
            hex(address, out);
            of_addresses.write(served, out)?;
        } else {
            labels(&instance.node.name, out)?;
            of_nodes.write(served, out)?;
        }
        let name = out.len() - target;
        if name > name::LENGTH_MAX {
            return None;
        }
        // Priority, weight and port stand before the name.
        let length = u16::try_from(name + 6).ok()?.to_be_bytes();
        out[target - 8..target - 6].copy_from_slice(&length);
        written.push(Srv { instance, place, address, target });
        if out.len() > usize::from(budget.size) {
            return None;
        }
    }
    let mut additionals = 0;
    for srv in &written {
        address_record(pointer(srv.target)?, srv.address, ttl, out);
        additionals += 1;
        if !served.config.node_meta_txt || !srv.place.has_meta {
            continue;
        }
        let node = &srv.instance.node;
        let mut owner = (!srv.place.is_own).then_some(srv.target);
        for (key, value) in &node.meta {
            match owner {
                Some(owner) => out.extend_from_slice(&pointer(owner)?),
                None => {
                    let start = out.len();
                    owner = Some(start);
                    labels(&node.name, out)?;
                    of_nodes.write(served, out)?;
                    if out.len() - start > name::LENGTH_MAX {
                        return None;
                    }
                }
            }
            record_head(TXT, ttl, out);
            let is_bare = key.len() >= BARE_META.len()
                && key.as_bytes()[..BARE_META.len()].eq_ignore_ascii_case(BARE_META.as_bytes());
            let len = if is_bare { value.len() } else { key.len() + 1 + value.len() };
            // What is longer has to be split.
            let len = u8::try_from(len).ok()?;
            out.extend_from_slice(&(u16::from(len) + 1).to_be_bytes());
            out.push(len);
            if !is_bare {
                out.extend_from_slice(key.as_bytes());
                out.push(b'=');
            }
            out.extend_from_slice(value.as_bytes());
            additionals += 1;
        }
    }
    Some(Written { answers: u16::try_from(written.len()).ok()?, additionals, left_out })
}

/// Writes type, class and time to live of a record.
fn record_head(kind: u16, ttl: [u8; 4], out: &mut Vec<u8>) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&IN.to_be_bytes());
    out.extend_from_slice(&ttl);
}

/// A pointer to a name that has been written; `None` if none reaches so far.
fn pointer(to: usize) -> Option<[u8; 2]> {
    (to <= POINTER_MAX).then(|| (0xc000 | to as u16).to_be_bytes())
}

/// Writes the label that spells an address.
fn hex(address: IpAddr, out: &mut Vec<u8>) {
    let mut spell = |bytes: &[u8]| {
        out.push(bytes.len() as u8 * 2);
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                out.push(b"0123456789abcdef"[usize::from(digit)]);
            }
        }
    };
    match address {
        IpAddr::V4(address) => spell(&address.octets()),
        IpAddr::V6(address) => spell(&address.octets()),
    }
}

/// The end of names in this datacenter: `<kind>.<dc>.<domain>`.
struct Zone {
    kind: &'static [u8],
    /// Where it has been written first.
    written: Option<(usize, usize)>,
}

impl Zone {
    fn write(&mut self, served: Served<'_>, out: &mut Vec<u8>) -> Option<()> {
        if let Some((start, end)) = self.written {
            out.extend_from_within(start..end);
            return Some(());
        }
        let start = out.len();
        out.extend_from_slice(self.kind);
        labels(&served.published.about.datacenter, out)?;
        let domain = out.len();
        labels(&served.config.domain, out)?;
        out[domain..].make_ascii_lowercase();
        out.push(0);
        self.written = Some((start, out.len()));
        Some(())
    }
}

/// Writes the labels of a dotted text. `None` if one of them is empty or too long.
fn labels(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut length_at = out.len();
    out.push(0);
    out.extend_from_slice(text.as_bytes());
    // Where the dots are, lengths have to be.
    for at in length_at + 1..=out.len() {
        if out.get(at).is_none_or(|byte| *byte == b'.') {
            let length = at - length_at - 1;
            if !(1..=63).contains(&length) {
                return None;
            }
            out[length_at] = length as u8;
            length_at = at;
        }
    }
    Some(())
}

#[cfg(test)]
#[path = "direct_test.rs"]
mod tests;
