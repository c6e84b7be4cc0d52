//! What a packet asks.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, RecordType};

/// Bytes of a message's header.
const HEADER: usize = 12;
const OPCODE: u16 = 0x7800;
const RECURSION_DESIRED: u16 = 0x0100;
const RESPONSE: u16 = 0x8000;
const OPT: u16 = 41;
/// What an answer to a bad question copies from it.
pub(super) const ECHOED: u16 = OPCODE | RECURSION_DESIRED;

/// A question that can be answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: u16,
    pub(super) recursion_desired: bool,
    /// Echoed as it came, letter for letter.
    pub(super) query: Query,
    pub(super) edns: Option<AskedEdns>,
    /// It is understood, but not served.
    pub(super) refusal: Option<ResponseCode>,
}

/// What the asking side says about itself (RFC 6891).
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedEdns {
    /// As it came, which may be less than the 512 that everybody takes.
    pub(super) max_payload: u16,
    pub(super) subnet: Option<ClientSubnet>,
}

/// What to do with a packet.
pub(super) enum Read {
    Question(Asked),
    /// Not understood; answer with a bare code.
    Bad {
        id: u16,
        flags: u16,
        code: ResponseCode,
    },
    /// Not answered.
    Silence,
}

pub(super) fn read(packet: &[u8]) -> Read {
    let Some(header) = packet.get(..HEADER) else { return Read::Silence };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (id, flags) = (word(0), word(2));
    if flags & RESPONSE != 0 {
        return Read::Silence;
    }
    let bad = |code| Read::Bad { id, flags: flags & ECHOED, code };
    if flags & OPCODE != 0 {
        return bad(ResponseCode::NotImp);
    }
    if word(4) != 1 {
        return bad(ResponseCode::FormErr);
    }
    let Ok(mut message) = Message::from_vec(packet) else { return bad(ResponseCode::FormErr) };
    if message.metadata.op_code != OpCode::Query || message.metadata.message_type != MessageType::Query {
        return bad(ResponseCode::NotImp);
    }
    let Some(query) = message.queries.pop() else { return bad(ResponseCode::FormErr) };
    let edns = message.edns.as_ref().map(|edns| read_edns(edns, packet));
    let refusal = if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        Some(ResponseCode::BADVERS)
    } else if matches!(query.query_type, RecordType::AXFR | RecordType::IXFR) {
        Some(ResponseCode::NotImp)
    } else if !matches!(query.query_class, DNSClass::IN | DNSClass::ANY) {
        Some(ResponseCode::Refused)
    } else {
        None
    };
    Read::Question(Asked { id, recursion_desired: flags & RECURSION_DESIRED != 0, query, edns, refusal })
}

fn read_edns(edns: &Edns, packet: &[u8]) -> AskedEdns {
    let subnet = match edns.option(EdnsCode::Subnet) {
        Some(EdnsOption::Subnet(subnet)) => Some(*subnet),
        _ => None,
    };
    AskedEdns { max_payload: payload(packet).unwrap_or(edns.max_payload()), subnet }
}

/// The size in the OPT record of a packet with one question: [`Edns`] knows none below 512.
fn payload(packet: &[u8]) -> Option<u16> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let after_name = |mut at: usize| loop {
        match *packet.get(at)? {
            0 => break Some(at + 1),
            label @ 1..=63 => at += 1 + usize::from(label),
            // A pointer ends a name.
            _ => break Some(at + 2),
        }
    };
    let mut at = after_name(HEADER)? + 4;
    loop {
        at = after_name(at)?;
        if word(at)? == OPT {
            return word(at + 2);
        }
        // Type, class and time to live stand before the length.
        at += 10 + usize::from(word(at + 8)?);
    }
}
