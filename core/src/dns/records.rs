//! SRV records of instances, and the addresses of their targets, as they stand in packets: written once per list, for answers to
//! copy.

use std::net::IpAddr;
use std::sync::Arc;

use super::direct::{A, AAAA, IN, SRV};
use super::name::LENGTH_MAX;
use super::wire;
use crate::store::{Instance, Place, Places};

/// A pointer to the name of the question (RFC 1035, section 4.1.4), which comes right after the header.
pub(super) const ASKED: [u8; 2] = [0xc0, 12];
const SRV_PRIORITY: u16 = 1;
/// Where a record's time to live stands, behind two bytes that are a pointer, its type and its class.
pub(super) const TTL_AT: usize = 6;
/// Where an SRV record's target stands.
pub(super) const TARGET_AT: usize = 18;

/// The records of the instances of a list, with times to live of zero.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    zone: Box<[u8]>,
    bytes: Box<[u8]>,
    /// In the order of the list.
    spans: Box<[Span]>,
}

/// Where the records of an instance are: an SRV record whose owner points to the question, then an address record that
/// has zeros instead of a pointer to the target. Empty if its address is a name or its node's name is none for DNS.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    middle: u32,
    end: u32,
}

impl Records {
    /// Writes the records of instances with targets below `node` or `addr` in a zone.
    pub(crate) fn new(items: &[Arc<Instance>], places: &Places, zone: &[u8]) -> Records {
        let mut bytes = Vec::new();
        let write = |(item, place): (&Arc<Instance>, &Place)| {
            let start = bytes.len();
            records(item, *place, zone, &mut bytes)
                .and_then(|middle| {
                    let place = |at| u32::try_from(at).ok();
                    Some(Span { start: place(start)?, middle: place(middle)?, end: place(bytes.len())? })
                })
                .unwrap_or_else(|| {
                    bytes.truncate(start);
                    Span::default()
                })
        };
        let spans = items.iter().zip(&places.of).map(write).collect();
        Records { zone: zone.into(), bytes: bytes.into(), spans }
    }

    /// The end of the targets' names: `<dc>.<domain>`.
    pub(crate) fn zone(&self) -> &[u8] {
        &self.zone
    }

    /// The SRV record of an instance and the address record of its target. `None`: it has none of this simple form.
    #[inline]
    pub(super) fn of(&self, at: usize) -> Option<(&[u8], &[u8])> {
        let Span { start, middle, end } = self.spans[at];
        let srv = &self.bytes[start as usize..middle as usize];
        (!srv.is_empty()).then(|| (srv, &self.bytes[middle as usize..end as usize]))
    }

    /// Bytes of all of them.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes both records and says where the second one begins.
fn records(item: &Instance, place: Place, zone: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let address = place.address?;
    head(ASKED, SRV, out);
    let length_at = out.len();
    for word in [0, SRV_PRIORITY, item.weight(), item.service.port] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    let target = out.len();
    if place.is_own {
        wire::hex(address, out);
        out.extend_from_slice(b"\x04addr");
    } else {
        wire::labels(&item.node.name, out)?;
        out.extend_from_slice(b"\x04node");
    }
    out.extend_from_slice(zone);
    if out.len() - target > LENGTH_MAX {
        return None;
    }
    length(length_at, out);
    let middle = out.len();
    let kind = if address.is_ipv4() { A } else { AAAA };
    head([0, 0], kind, out);
    let length_at = out.len();
    out.extend_from_slice(&[0, 0]);
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
    length(length_at, out);
    Some(middle)
}

/// Writes a record as far as its time to live.
fn head(owner: [u8; 2], kind: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&owner);
    for word in [kind, IN, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// Writes the length of what stands behind it.
fn length(at: usize, out: &mut [u8]) {
    let length = (out.len() - at - 2) as u16;
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}
