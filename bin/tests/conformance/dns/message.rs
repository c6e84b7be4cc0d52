//! DNS messages, written and read without the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    pub name: String,
    pub kind: String,
    pub class: String,
    pub id: u16,
    pub recursion_desired: bool,
    pub edns: Option<u16>,
    pub subnet: Option<String>,
    pub flags: u16,
    pub copies: u16,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub id: u16,
    pub code: String,
    pub flags: Vec<&'static str>,
    pub questions: Vec<String>,
    pub answers: Vec<String>,
    pub authorities: Vec<String>,
    pub additionals: Vec<String>,
    pub edns: Option<Value>,
    pub compressed: bool,
    pub size: usize,
}

const KINDS: [(&str, u16); 12] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("NAPTR", 35),
    ("OPT", 41),
    ("ANY", 255),
];
const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
const FLAGS: [(&str, u16); 5] = [("qr", 0x8000), ("aa", 0x400), ("tc", 0x200), ("rd", 0x100), ("ra", 0x80)];
const OPT: u16 = 41;
const SUBNET: u16 = 8;

pub fn kind_number(kind: &str) -> u16 {
    let known = KINDS.iter().find(|(name, _)| *name == kind);
    known.map_or_else(|| kind.parse().expect("a type or its number"), |(_, number)| *number)
}

pub fn kind_name(number: u16) -> String {
    let known = KINDS.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// A name in labels, uncompressed.
pub fn put_name(name: &str, out: &mut Vec<u8>) {
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).expect("a label's length"));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}

impl Question {
    pub fn packet(&self) -> Vec<u8> {
        let has_opt = self.edns.is_some() || self.subnet.is_some();
        let flags = self.flags | if self.recursion_desired { 0x0100 } else { 0 };
        let mut out = Vec::new();
        for word in [self.id, flags, self.copies, 0, 0, u16::from(has_opt)] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        let class: u16 = match self.class.as_str() {
            "IN" => 1,
            "CH" => 3,
            "ANY" => 255,
            number => number.parse().expect("a class or its number"),
        };
        for _ in 0..self.copies {
            put_name(&self.name, &mut out);
            out.extend_from_slice(&kind_number(&self.kind).to_be_bytes());
            out.extend_from_slice(&class.to_be_bytes());
        }
        if has_opt {
            let subnet = self.subnet.as_deref().map(subnet).unwrap_or_default();
            out.push(0);
            let length = u16::try_from(subnet.len()).expect("a short option");
            for word in [OPT, self.edns.unwrap_or(4096), 0, 0, length] {
                out.extend_from_slice(&word.to_be_bytes());
            }
            out.extend(subnet);
        }
        out
    }
}

fn subnet(text: &str) -> Vec<u8> {
    let (address, bits) = text.split_once('/').expect("a subnet");
    let bits: u8 = bits.parse().expect("a length");
    let (family, octets) = match address.parse().expect("an address") {
        IpAddr::V4(address) => (1u16, address.octets().to_vec()),
        IpAddr::V6(address) => (2, address.octets().to_vec()),
    };
    let octets = &octets[..usize::from(bits.div_ceil(8))];
    let length = u16::try_from(4 + octets.len()).expect("a short option");
    let mut out = Vec::new();
    for word in [SUBNET, length, family] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&[bits, 0]);
    out.extend_from_slice(octets);
    out
}

/// Reads a message from front to back.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    pointers: bool,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at + count)?;
        self.at += count;
        Some(taken)
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn long(&mut self) -> Option<u32> {
        Some(u32::from(self.word()?) << 16 | u32::from(self.word()?))
    }

    fn name(&mut self) -> Option<String> {
        let (mut at, mut end, mut hops) = (self.at, None, 0);
        let mut name = String::new();
        loop {
            let length = *self.bytes.get(at)?;
            if length & 0xc0 == 0xc0 {
                end.get_or_insert(at + 2);
                at = usize::from(length & 0x3f) << 8 | usize::from(*self.bytes.get(at + 1)?);
                self.pointers = true;
                hops += 1;
                if hops > 64 {
                    return None;
                }
                continue;
            }
            at += 1;
            if length == 0 {
                break;
            }
            let label = self.bytes.get(at..at + usize::from(length))?;
            name.push_str(&String::from_utf8_lossy(label).replace('.', "\\."));
            name.push('.');
            at += usize::from(length);
        }
        self.at = end.unwrap_or(at);
        Some(if name.is_empty() { ".".to_owned() } else { name })
    }

    fn data(&mut self, kind: u16, length: usize) -> Option<String> {
        let end = self.at + length;
        let text = match kind {
            1 => Ipv4Addr::from(<[u8; 4]>::try_from(self.take(4)?).ok()?).to_string(),
            28 => Ipv6Addr::from(<[u8; 16]>::try_from(self.take(16)?).ok()?).to_string(),
            2 | 5 | 12 => self.name()?,
            33 => format!("{} {} {} {}", self.word()?, self.word()?, self.word()?, self.name()?),
            15 => format!("{} {}", self.word()?, self.name()?),
            16 => {
                let mut texts = Vec::new();
                while self.at < end {
                    let length = usize::from(self.take(1)?[0]);
                    let text: String = self.take(length)?.iter().map(|byte| char::from(*byte)).collect();
                    texts.push(json!(text).to_string());
                }
                texts.join(" ")
            }
            6 => {
                let (server, mailbox) = (self.name()?, self.name()?);
                self.long()?;
                let times = (self.long()?, self.long()?, self.long()?, self.long()?);
                format!("{server} {mailbox} <serial> {} {} {} {}", times.0, times.1, times.2, times.3)
            }
            _ => self.take(length)?.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        self.at = end;
        Some(text)
    }
}

/// The first question of a message: its name and type.
pub fn question_of(packet: &[u8]) -> Option<(String, u16, usize)> {
    let mut reader = Reader { bytes: packet, at: 12, pointers: false };
    let name = reader.name()?;
    let kind = reader.word()?;
    reader.word()?;
    Some((name, kind, reader.at))
}

impl Answer {
    /// Reads an answer; `None` if it is malformed.
    pub fn read(bytes: &[u8]) -> Option<Answer> {
        let mut reader = Reader { bytes, at: 0, pointers: false };
        let (id, flags) = (reader.word()?, reader.word()?);
        let counts = [reader.word()?, reader.word()?, reader.word()?, reader.word()?];
        let code = usize::from(flags & 15);
        let mut answer = Answer {
            id,
            code: CODES.get(code).map_or_else(|| code.to_string(), |code| (*code).to_owned()),
            flags: FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name).collect(),
            questions: Vec::new(),
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            edns: None,
            compressed: false,
            size: bytes.len(),
        };
        for _ in 0..counts[0] {
            let (name, kind, _) = (reader.name()?, reader.word()?, reader.word()?);
            answer.questions.push(format!("{name} {}", kind_name(kind)));
        }
        for (section, count) in counts[1..].iter().enumerate() {
            for _ in 0..*count {
                let name = reader.name()?;
                let (kind, class, ttl) = (reader.word()?, reader.word()?, reader.long()?);
                let length = usize::from(reader.word()?);
                if kind == OPT {
                    answer.edns = Some(opt(class, reader.take(length)?));
                    continue;
                }
                let kind_text = match kind_name(kind) {
                    number if number.starts_with(|first: char| first.is_ascii_digit()) => {
                        format!("TYPE{number}")
                    }
                    name => name,
                };
                let record = format!("{name} {ttl} {kind_text} {}", reader.data(kind, length)?);
                [&mut answer.answers, &mut answer.authorities, &mut answer.additionals][section].push(record);
            }
        }
        answer.compressed = reader.pointers;
        Some(answer)
    }
}

fn opt(size: u16, options: &[u8]) -> Value {
    match options {
        [0, 8, _, _, family_high, family, source, scope, ..] => {
            let family = u16::from_be_bytes([*family_high, *family]);
            json!({"udp": size, "ecs": format!("family {family} source /{source} scope /{scope}")})
        }
        _ => json!({"udp": size}),
    }
}
