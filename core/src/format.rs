//! Versions of what agents say to each other and replicate, so that a cluster can be upgraded one agent at a time.
//!
//! A *format* covers commands (and with them log entries and rows) and frames between agents. An agent knows a range of
//! formats. It tells the range to every agent that it is connected with, in the first frame, and servers tell it to
//! everybody in a tag of gossip. From that follows what is spoken:
//!
//! * **Frames** between two agents are of the newest format that both know. The greeting itself never changes.
//! * **Commands** are of the group's format: a part of the replicated state, raised by a command when every member
//!   of the group knows more, never lowered. So no server is sent a command that it does not understand by a group
//!   that it belongs to, and a server is not taken up that does not understand the group's.
//! * **An older server** that meets what is newer than it knows all the same (it was downgraded, or restored from a
//!   newer server's files) stops before it applies or overwrites anything: the newer version goes on from there.
//!
//! | format | commands | frames |
//! |---|---|---|
//! | 1 | version byte, body | version byte, body |
//! | 2 | version byte, CRC-32C of the body (little-endian), body | the same |
//! | 3 | version byte, CRC-32C of version byte and body, body | the same; requests for other datacenters, and from them |
//!
//! The checksum goes all the way from the server that proposes a command to each one that applies it, and so
//! also covers what happens to it in memory and on the network.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes of the checksum behind the version byte.
const CHECKSUM: usize = 4;

/// One format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Format(pub u8);

impl Format {
    /// What every version so far understands.
    pub const FIRST: Format = Format(1);
    /// Bodies have a checksum from here on.
    pub const CHECKED: Format = Format(2);
    /// Agents know requests for other datacenters from here on, and the checksum covers the version byte.
    pub const FEDERATED: Format = Format(3);
}

impl Default for Format {
    fn default() -> Self {
        Format::FIRST
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The formats that an agent reads and writes: all from `oldest` to `newest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    /// The oldest one.
    pub oldest: Format,
    /// The newest one; not older than the oldest.
    pub newest: Format,
}

impl Formats {
    /// What this program knows.
    pub const KNOWN: Formats = Formats { oldest: Format::FIRST, newest: Format::FEDERATED };

    /// Whether a format is one of them.
    #[must_use]
    pub fn contains(self, format: Format) -> bool {
        (self.oldest..=self.newest).contains(&format)
    }

    /// The newest format that both know, if there is one.
    #[must_use]
    pub fn common(self, other: Formats) -> Option<Format> {
        let newest = self.newest.min(other.newest);
        (self.contains(newest) && other.contains(newest)).then_some(newest)
    }

    /// Reads what `Display` wrote: `1-2`. An agent that tells nothing knows the first format.
    #[must_use]
    pub fn parse(text: &str) -> Option<Formats> {
        if text.is_empty() {
            return Some(Formats { oldest: Format::FIRST, newest: Format::FIRST });
        }
        let (oldest, newest) = text.split_once('-')?;
        let formats = Formats { oldest: Format(oldest.parse().ok()?), newest: Format(newest.parse().ok()?) };
        (formats.oldest >= Format::FIRST && formats.oldest <= formats.newest).then_some(formats)
    }
}

impl Default for Formats {
    fn default() -> Self {
        Formats::KNOWN
    }
}

impl fmt::Display for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.oldest, self.newest)
    }
}

/// Why bytes cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadEnvelope {
    /// Another format than those that may be used.
    Unknown(Format),
    /// The checksum is wrong.
    Damaged,
    /// Not even an envelope.
    Short,
}

/// Begins an envelope of this format; the body is to be appended, then [`close`] to be called.
pub(crate) fn open(format: Format, room: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + CHECKSUM + room);
    bytes.push(format.0);
    if format >= Format::CHECKED {
        bytes.extend_from_slice(&[0; CHECKSUM]);
    }
    bytes
}

/// Completes an envelope from [`open`] with its body behind it.
pub(crate) fn close(mut bytes: Vec<u8>) -> Bytes {
    if Format(bytes[0]) >= Format::CHECKED {
        let sum = checksum(Format(bytes[0]), &bytes[1 + CHECKSUM..]);
        bytes[1..=CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    }
    Bytes::from(bytes)
}

/// The checksum of an envelope. Since [`Format::FEDERATED`] one checked format cannot pass for another.
fn checksum(format: Format, body: &[u8]) -> u32 {
    let head = if format >= Format::FEDERATED { crc32c::crc32c(&[format.0]) } else { 0 };
    crc32c::crc32c_append(head, body)
}

/// Where the body of an envelope begins. The first format is always taken: greetings come in it.
///
/// # Errors
/// The format is none of `formats`, or the checksum is wrong.
pub(crate) fn body(bytes: &[u8], formats: Formats) -> Result<usize, BadEnvelope> {
    let format = bytes.first().map(|byte| Format(*byte)).ok_or(BadEnvelope::Short)?;
    if format == Format::FIRST {
        return Ok(1);
    }
    if !formats.contains(format) || !Formats::KNOWN.contains(format) {
        return Err(BadEnvelope::Unknown(format));
    }
    let (sum, body) = bytes[1..].split_first_chunk::<CHECKSUM>().ok_or(BadEnvelope::Short)?;
    if checksum(format, body) != u32::from_le_bytes(*sum) {
        return Err(BadEnvelope::Damaged);
    }
    Ok(1 + CHECKSUM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats(oldest: u8, newest: u8) -> Formats {
        Formats { oldest: Format(oldest), newest: Format(newest) }
    }

    fn sealed(format: Format) -> Bytes {
        let mut bytes = open(format, 5);
        bytes.extend_from_slice(b"hello");
        close(bytes)
    }

    #[test]
    fn two_agents_speak_the_newest_format_that_both_know() {
        assert_eq!(formats(1, 2).common(formats(1, 2)), Some(Format(2)));
        assert_eq!(formats(1, 2).common(formats(1, 1)), Some(Format(1)));
        assert_eq!(formats(1, 3).common(formats(2, 5)), Some(Format(3)));
        assert_eq!(formats(1, 1).common(formats(2, 3)), None);
        assert_eq!(formats(4, 5).common(formats(1, 3)), None);
    }

    #[test]
    fn a_range_is_read_as_it_was_told() {
        for known in [Formats::KNOWN, formats(1, 1), formats(3, 200)] {
            assert_eq!(Formats::parse(&known.to_string()), Some(known));
        }
        assert_eq!(Formats::parse(""), Some(formats(1, 1)), "an agent that tells nothing");
        for bad in ["2", "-", "2-1", "0-1", "1-256", "1-2-3", "a-b"] {
            assert_eq!(Formats::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn envelopes_keep_their_bytes() {
        assert_eq!(&sealed(Format(1))[..], b"\x01hello");
        assert_eq!(&sealed(Format(2))[..], b"\x02\x4c\xbb\x71\x9ahello");
        for format in [1, 2, 3] {
            let bytes = sealed(Format(format));
            let at = body(&bytes, Formats::KNOWN).expect("just made");
            assert_eq!(&bytes[at..], b"hello");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_shortening_of_the_checked_formats_is_noticed() {
        for format in [2, 3] {
            let bytes = sealed(Format(format));
            for bit in 8..bytes.len() * 8 {
                let mut bad = bytes.to_vec();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(
                    body(&bad, Formats::KNOWN),
                    Err(BadEnvelope::Damaged),
                    "format {format}, bit {bit}"
                );
            }
            for length in 0..bytes.len() {
                assert!(body(&bytes[..length], Formats::KNOWN).is_err(), "format {format}, {length} bytes");
            }
        }
    }

    #[test]
    fn regression_one_checked_format_does_not_pass_for_another() {
        for (from, to) in [(2, 3), (3, 2)] {
            let mut bad = sealed(Format(from)).to_vec();
            bad[0] = to;
            assert_eq!(body(&bad, Formats::KNOWN), Err(BadEnvelope::Damaged), "{from} as {to}");
        }
    }

    #[test]
    fn what_is_newer_than_an_agent_knows_is_refused_by_name() {
        assert_eq!(body(&sealed(Format(2)), formats(1, 1)), Err(BadEnvelope::Unknown(Format(2))));
        assert_eq!(body(&[9, 0, 0, 0, 0, 0], Formats::KNOWN), Err(BadEnvelope::Unknown(Format(9))));
        assert_eq!(body(&[], Formats::KNOWN), Err(BadEnvelope::Short));
    }
}
