//! Writes answers, and cuts them to what the asking side can take.

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::{Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder, NameEncoding};

use super::lookup::Reply;
use super::question::{Asked, AskedEdns};
use super::{DnsConfig, Transport};

/// What every client takes (RFC 1035, section 4.2.1).
pub(super) const UDP_SIZE_MIN: u16 = 512;
/// The largest datagram over IPv4.
const UDP_SIZE_MAX: u16 = 65_507;
/// The largest message on a stream that leaves room for what relays add.
const TCP_SIZE_MAX: u16 = 65_523;
/// Answers in a datagram to a client without EDNS, whatever is configured.
const UDP_ANSWERS_MAX: usize = 8;
/// The least that an answer takes: a compressed name and an IPv4 address.
const ANSWER_SIZE_MIN: usize = 16;

pub(super) const RESPONSE: u16 = 0x8000;
pub(super) const AUTHORITATIVE: u16 = 0x0400;
pub(super) const TRUNCATED: u16 = 0x0200;
pub(super) const RECURSION_DESIRED: u16 = 0x0100;
pub(super) const RECURSION_AVAILABLE: u16 = 0x0080;

/// How much an answer may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Records in the answer section.
    pub(super) answers: usize,
    /// Bytes.
    pub(super) size: u16,
}

pub(super) fn budget(config: &DnsConfig, asked: &Asked, transport: Transport) -> Budget {
    Budget::of(config, asked.edns.map(|edns| edns.max_payload), transport)
}

impl Budget {
    /// What a question allows that offers to take so many bytes.
    pub(super) fn of(config: &DnsConfig, max_payload: Option<u16>, transport: Transport) -> Budget {
        let payload = max_payload.unwrap_or(UDP_SIZE_MIN).clamp(UDP_SIZE_MIN, UDP_SIZE_MAX);
        match transport {
            Transport::Tcp => {
                Budget { answers: usize::from(TCP_SIZE_MAX) / ANSWER_SIZE_MIN, size: TCP_SIZE_MAX }
            }
            Transport::Udp if payload > UDP_SIZE_MIN => {
                Budget { answers: usize::from(payload) / ANSWER_SIZE_MIN, size: payload }
            }
            Transport::Udp => {
                Budget { answers: config.udp_answer_limit.clamp(1, UDP_ANSWERS_MAX), size: UDP_SIZE_MIN }
            }
        }
    }
}

/// Writes an answer. When it is too large, or there were more answers than may be named, metadata goes; then answers go
/// from the end with the additional records that belong to them; when not even one fits so, all additional records go. TC
/// is set if that is configured and answers are missing.
pub(super) fn message(
    config: &DnsConfig,
    asked: &Asked,
    reply: &Reply,
    transport: Transport,
    out: &mut Vec<u8>,
) {
    let size = budget(config, asked, transport).size;
    let cut = config.enable_truncate && transport == Transport::Udp;
    let mut draft = Draft {
        config,
        asked,
        reply,
        answers: reply.answers.len(),
        additionals: if reply.left_out { Additionals::Addresses } else { Additionals::All },
        truncated: reply.truncated || (cut && reply.left_out),
    };
    if draft.fits(size, out) {
        return;
    }
    for additionals in [Additionals::Addresses, Additionals::None] {
        draft.additionals = additionals;
        // The largest number of answers that fits, by halving.
        let (mut fits, mut too_many) = (0, reply.answers.len() + 1);
        while too_many - fits > 1 {
            draft.answers = fits.midpoint(too_many);
            if draft.fits(size, out) {
                fits = draft.answers;
            } else {
                too_many = draft.answers;
            }
        }
        if fits > 0 || additionals == Additionals::None {
            draft.answers = fits;
            draft.truncated = reply.truncated || (cut && (reply.left_out || fits < reply.answers.len()));
            if draft.fits(size, out) {
                return;
            }
        }
    }
    let flags = if asked.recursion_desired { RECURSION_DESIRED } else { 0 };
    bare(asked.id, flags, ResponseCode::ServFail, out);
}

/// Which records of the additional section are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Additionals {
    All,
    /// Those without which the answers are of no use.
    Addresses,
    None,
}

impl Additionals {
    fn has(self, record: &Record) -> bool {
        match self {
            Additionals::All => true,
            Additionals::Addresses => record.record_type() != RecordType::TXT,
            Additionals::None => false,
        }
    }
}

/// Part of a reply, to be written.
struct Draft<'a> {
    config: &'a DnsConfig,
    asked: &'a Asked,
    reply: &'a Reply,
    answers: usize,
    additionals: Additionals,
    truncated: bool,
}

impl Draft<'_> {
    fn fits(&self, size: u16, out: &mut Vec<u8>) -> bool {
        self.write(out).is_ok() && out.len() <= usize::from(size)
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        let answers = &self.reply.answers[..self.answers];
        let of_answers = answers.iter().flat_map(|answer| &answer.additionals);
        let additionals =
            of_answers.chain(&self.reply.additionals).filter(|record| self.additionals.has(record));
        let mut flags = RESPONSE | (u16::from(self.reply.code.low()) & 0xf);
        for (is_set, bit) in [
            (self.reply.authoritative, AUTHORITATIVE),
            (self.truncated, TRUNCATED),
            (self.asked.recursion_desired, RECURSION_DESIRED),
            (!self.config.recursors.addresses.is_empty(), RECURSION_AVAILABLE),
        ] {
            flags |= if is_set { bit } else { 0 };
        }
        let edns = self.asked.edns.map(|edns| opt(edns, self.reply));
        let counts = [
            1,
            answers.len(),
            self.reply.authorities.len(),
            additionals.clone().count() + usize::from(edns.is_some()),
        ];
        out.clear();
        let mut encoder = BinEncoder::new(out);
        // Names in full cost little where there is nothing to share.
        if self.config.disable_compression || answers.is_empty() {
            encoder.set_name_encoding(NameEncoding::Uncompressed);
        }
        encoder.emit_u16(self.asked.id)?;
        encoder.emit_u16(flags)?;
        for count in counts {
            encoder.emit_u16(u16::try_from(count).unwrap_or(u16::MAX))?;
        }
        self.asked.query.emit(&mut encoder)?;
        for answer in answers {
            answer.record.emit(&mut encoder)?;
        }
        for record in self.reply.authorities.iter().chain(additionals) {
            record.emit(&mut encoder)?;
        }
        let end = encoder.offset();
        if let (Some(edns), Some(asked)) = (edns, self.asked.edns) {
            edns.emit(&mut encoder)?;
            // Sent back as it came, though less than 512 is taken for 512. It stands behind an empty name and the type.
            out[end + 3..end + 5].copy_from_slice(&asked.max_payload.to_be_bytes());
        }
        Ok(())
    }
}

/// Writes an answer that is a header with a code.
pub(super) fn bare(id: u16, flags: u16, code: ResponseCode, out: &mut Vec<u8>) {
    out.clear();
    for word in [id, RESPONSE | flags | (u16::from(code.low()) & 0xf), 0, 0, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// The OPT record of an answer: the asking side's size, and its subnet with whether the answer holds for that
/// or for everybody (RFC 7871).
fn opt(asked: AskedEdns, reply: &Reply) -> Edns {
    let mut edns = Edns::new();
    let code = reply.code;
    edns.set_max_payload(asked.max_payload).set_rcode_high(code.high()).set_version(0);
    if let Some(subnet) = asked.subnet {
        let scope = if reply.for_client { subnet.source_prefix() } else { 0 };
        let subnet = ClientSubnet::new(subnet.addr(), subnet.source_prefix(), scope);
        edns.options_mut().insert(EdnsOption::Subnet(subnet));
    }
    edns
}
