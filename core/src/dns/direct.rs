//! The short way for the questions that are asked most: addresses (A, AAAA) and SRV records of the instances of a service in
//! this datacenter. From the packet to the answer without records in between and without an allocation, as long as
//! names and lists are of usual lengths.
//!
//! It answers what it can answer exactly as [`super::answer_any`] does, and leaves everything else to that: odd
//! packets and names, names of other things, aliases. Tests hold the two against each
//! other.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use smallvec::SmallVec;

use super::encode::{AUTHORITATIVE, Budget, RECURSION_AVAILABLE, RECURSION_DESIRED, RESPONSE, TRUNCATED};
use super::lookup::{BARE_META, seconds};
use super::records::{ASKED, TARGET_AT, TTL_AT};
use super::wire::labels;
use super::{Served, Transport, name};
use crate::rng::Rng;
use crate::store::InstanceList;

const HEADER: usize = 12;
/// What a pointer can reach.
const POINTER_MAX: usize = 0x3fff;
pub(super) const A: u16 = 1;
const TXT: u16 = 16;
pub(super) const AAAA: u16 = 28;
pub(super) const SRV: u16 = 33;
const OPT: u16 = 41;
pub(super) const IN: u16 = 1;
/// Bytes of records of addresses whose names are pointers.
const A_SIZE: usize = 16;
const AAAA_SIZE: usize = 28;
/// Where the data of such a record stands.
const RDATA_AT: usize = 12;
/// Where the port of an SRV record stands, followed by the target.
const PORT_AT: usize = TARGET_AT - 2;
/// Bytes of an OPT record without options.
const OPT_SIZE: u16 = 11;
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
    if wanted.service.is_empty() || !served.is_fresh_enough() {
        return None;
    }
    let list = served.instances(wanted.service)?;
    let ttl = seconds(served.config.ttl_of(wanted.service)).to_be_bytes();
    let mut budget = Budget::of(served.config, question.max_payload, transport);
    budget.size -= if question.max_payload.is_some() { OPT_SIZE } else { 0 };
    let candidates = Candidates::of(served, list, wanted.tag);
    if candidates.order.is_empty() {
        return None;
    }
    out.clear();
    out.extend_from_slice(&packet[..question.end]);
    let written = match question.kind {
        SRV => services(served, list, candidates, ttl, budget, rng, out)?,
        A => addresses::<A_SIZE>(served, list, candidates, ttl, budget, rng, out)?,
        _ => addresses::<AAAA_SIZE>(served, list, candidates, ttl, budget, rng, out)?,
    };
    if let Some(payload) = question.max_payload {
        out.push(0);
        for word in [OPT, payload, 0, 0, 0] {
            out.extend_from_slice(&word.to_be_bytes());
        }
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
                    Some(Target { service, tag: (!matches!(tag, "tcp" | "")).then_some(tag) })
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
    #[inline]
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

/// Writes addresses of one family, whose records have so many bytes. `None`: there are none, which has other reasons to be
/// looked at.
fn addresses<const SIZE: usize>(
    served: Served<'_>,
    list: &InstanceList,
    mut candidates: Candidates,
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
    let fitting = (usize::from(budget.size).saturating_sub(start) / SIZE).min(budget.answers);
    let room = candidates.order.len().min(fitting).min(configured);
    out.reserve(room * SIZE + usize::from(OPT_SIZE));
    out.resize(start + room * SIZE, 0);
    let (kind, [t, u, v, w]) = (if SIZE == A_SIZE { A } else { AAAA }, ttl);
    let mut record = [0; SIZE];
    record[..RDATA_AT].copy_from_slice(&[
        ASKED[0],
        ASKED[1],
        0,
        kind as u8,
        0,
        1,
        t,
        u,
        v,
        w,
        0,
        (SIZE - RDATA_AT) as u8,
    ]);
    let mut count = 0;
    let mut left_out = false;
    while let Some(at) = candidates.next(rng) {
        match places.of[at].address {
            Some(IpAddr::V4(address)) if SIZE == A_SIZE => {
                record[RDATA_AT..].copy_from_slice(&address.octets());
            }
            Some(IpAddr::V6(address)) if SIZE == AAAA_SIZE => {
                record[RDATA_AT..].copy_from_slice(&address.octets());
            }
            _ => continue,
        }
        if !places.distinct && out[start..start + count * SIZE].chunks(SIZE).any(|other| other == record) {
            continue;
        }
        if count >= configured {
            break;
        }
        if count >= fitting {
            left_out = true;
            break;
        }
        out[start + count * SIZE..][..SIZE].copy_from_slice(&record);
        count += 1;
    }
    out.truncate(start + count * SIZE);
    (count > 0).then_some(Written { answers: u16::try_from(count).ok()?, additionals: 0, left_out })
}

/// An SRV record that was written.
struct Srv {
    /// The instance, by its position in the list.
    at: usize,
    /// Where its target's name stands.
    target: usize,
}

/// Writes SRV records with the addresses of their targets, as many as fit, and then, if all did, metadata, if all of that
/// fits. `None`: not even one fits, or something is unusual.
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
    let start = out.len();
    zone(served, out)?;
    let records = list.records(&out[start..])?;
    out.truncate(start);
    let size = usize::from(budget.size);
    let room = records.size().min(size.saturating_sub(start));
    out.reserve(room + usize::from(OPT_SIZE));
    out.resize(start + room, 0);
    let mut end = start;
    let mut written = SmallVec::<[Srv; 64]>::new();
    let mut left_out = false;
    // Bytes of the address records that are still to be written.
    let mut owed = 0;
    while let Some(at) = candidates.next(rng) {
        let (srv, address) = records.of(at)?;
        // The same port and target.
        let is_same = |other: &Srv| {
            let has = |(other, _): (&[u8], _)| other[PORT_AT..].eq_ignore_ascii_case(&srv[PORT_AT..]);
            records.of(other.at).is_some_and(has)
        };
        if !places.distinct && written.iter().any(is_same) {
            continue;
        }
        owed += address.len();
        if written.len() >= budget.answers || end + srv.len() + owed > size {
            left_out = true;
            break;
        }
        let record = &mut out[end..end + srv.len()];
        record.copy_from_slice(srv);
        record[TTL_AT..TTL_AT + 4].copy_from_slice(&ttl);
        written.push(Srv { at, target: end + TARGET_AT });
        end += srv.len();
    }
    if written.is_empty() {
        return None;
    }
    for srv in &written {
        let (_, address) = records.of(srv.at)?;
        let owner = pointer(srv.target)?;
        let to = &mut out[end..end + address.len()];
        // Of a size that is known, a copy is two moves.
        match <&[u8; A_SIZE]>::try_from(address) {
            Ok(address) => to.copy_from_slice(address),
            Err(_) => to.copy_from_slice(address),
        }
        to[..2].copy_from_slice(&owner);
        to[TTL_AT..TTL_AT + 4].copy_from_slice(&ttl);
        end += address.len();
    }
    out.truncate(end);
    let answers = u16::try_from(written.len()).ok()?;
    let mut additionals = answers;
    if places.has_meta && served.config.node_meta_txt && !left_out {
        let written = metadata(list, records.zone(), &written, ttl, out)?;
        if out.len() <= size {
            additionals += written;
        } else {
            out.truncate(end);
        }
    }
    Some(Written { answers, additionals, left_out })
}

/// Writes the metadata of nodes, and says of how many records that is. `None`: it does not fit into strings, or is out of
/// the reach of pointers.
fn metadata(
    list: &InstanceList,
    zone: &[u8],
    written: &[Srv],
    ttl: [u8; 4],
    out: &mut Vec<u8>,
) -> Option<u16> {
    let mut records = 0;
    for srv in written {
        let node = &list.items[srv.at].node;
        let mut owner = (!list.places().of[srv.at].is_own).then_some(srv.target);
        for (key, value) in &node.meta {
            match owner {
                Some(owner) => out.extend_from_slice(&pointer(owner)?),
                None => {
                    let start = out.len();
                    owner = Some(start);
                    labels(&node.name, out)?;
                    out.extend_from_slice(b"\x04node");
                    out.extend_from_slice(zone);
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
            records += 1;
        }
    }
    Some(records)
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

/// Writes the end of names in this datacenter: `<dc>.<domain>`.
fn zone(served: Served<'_>, out: &mut Vec<u8>) -> Option<()> {
    labels(&served.published.about.datacenter, out)?;
    let domain = out.len();
    labels(&served.config.domain, out)?;
    out[domain..].make_ascii_lowercase();
    out.push(0);
    Some(())
}

#[cfg(test)]
#[path = "direct_test.rs"]
mod tests;
