//! A segment file: its name and its header.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `proclog\n` |
//! | 8 | 4 | CRC-32C of the header without this field |
//! | 12 | 2 | format version |
//! | 14 | 2 | zero |
//! | 16 | 8 | sequence number of the segment's first frame |
//! | 24 | 8 | salt |
//! | 32 | 8 | index of the last entry in the log when the segment was begun |
//! | 40 | 24 | zero |
//!
//! Size, magic, checksum and version keep their places in every later format, so that an older program can tell what it
//! does not know. The header is durable before the first frame is written.

use super::frame::{VERSION, number_u32, number_u64};
use crate::ids::LogIndex;

/// Size of the header; the first frame follows.
pub(super) const HEADER: usize = 64;
const MAGIC: [u8; 8] = *b"proclog\n";

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u16,
    pub(super) first_sequence: u64,
    pub(super) salt: u64,
    pub(super) follows: LogIndex,
}

impl Header {
    pub(super) fn new(first_sequence: u64, salt: u64, follows: LogIndex) -> Header {
        Header { version: VERSION, first_sequence, salt, follows }
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[12..14].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.follows.0.to_le_bytes());
        let crc = header_crc(&bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header of a file, if its checksum is right.
    pub(super) fn read(file: &[u8]) -> Option<Header> {
        let bytes = file.first_chunk::<HEADER>()?;
        if bytes[0..8] != MAGIC || number_u32(bytes, 8) != header_crc(bytes) {
            return None;
        }
        Some(Header {
            version: u16::from_le_bytes([bytes[12], bytes[13]]),
            first_sequence: number_u64(bytes, 16),
            salt: number_u64(bytes, 24),
            follows: LogIndex(number_u64(bytes, 32)),
        })
    }
}

fn header_crc(bytes: &[u8; HEADER]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[0..8]), &bytes[12..])
}

/// The file name of the segment that begins with this frame.
pub(super) fn name(first_sequence: u64) -> String {
    format!("wal-{first_sequence:020}.log")
}

/// The first frame of the segment with this file name; `None` if it is no segment.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("wal-")?.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_a_segment_header_is_fixed() {
        let bytes = Header::new(9, 0x0102_0304_0506_0708, LogIndex(3)).encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected =
            "70726f636c6f670a bb49123d 0100 0000 0900000000000000 0807060504030201 0300000000000000";
        assert_eq!(hex, expected.replace(' ', "") + &"0".repeat(48));
    }

    #[test]
    fn every_flipped_bit_of_a_segment_header_is_noticed() {
        let bytes = Header::new(9, 4, LogIndex(3)).encode();
        assert_eq!(Header::read(&bytes), Some(Header::new(9, 4, LogIndex(3))));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::read(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn names_sort_like_their_numbers_and_read_back() {
        assert_eq!(name(1), "wal-00000000000000000001.log");
        assert!(name(99) < name(100));
        assert_eq!(parse_name(&name(u64::MAX)), Some(u64::MAX));
        for other in ["wal-1.log", "lock", "wal-0000000000000000000x.log", "wal-99999999999999999999.log"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
