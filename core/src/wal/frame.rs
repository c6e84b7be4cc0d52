//! A frame: what one durable append writes.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `pFrm` |
//! | 4 | 4 | CRC-32C of the header without this field |
//! | 8 | 2 | format version |
//! | 10 | 2 | zero |
//! | 12 | 4 | length of the records in bytes |
//! | 16 | 8 | sequence number, one more than the former frame's, across segments |
//! | 24 | 8 | salt of the segment |
//! | 32 | 4 | CRC-32C of the body with its end marks |
//! | 36 | 4 | end marks `A5` |
//! | 40 | | body: records, one after the other, then 1 to 8 end marks up to a multiple of 8 |
//!
//! All numbers are little-endian. The header has its own checksum because an intact header proves that the frames
//! before it were durable, whatever became of its body. The salt is random and known to this member only: bytes that
//! a client stores can never look like a frame. The end marks tell a write that was cut short from a whole one: what
//! was not written is zero.

/// Size of the header.
pub(super) const HEADER: usize = 40;
/// Frames begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// The format that this program writes, and the latest one it reads.
pub(super) const VERSION: u16 = 1;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
const MAGIC: [u8; 4] = *b"pFrm";
const END: u8 = 0xa5;

/// A header whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u16,
    pub(super) length: u32,
    pub(super) sequence: u64,
    pub(super) salt: u64,
    body_crc: u32,
}

/// A buffer to gather records in, with room for the header.
pub(super) fn buffer() -> Vec<u8> {
    vec![0; HEADER]
}

/// Completes a buffer from [`buffer`] with records behind the header: adds the end marks and fills in the header.
pub(super) fn seal(buffer: &mut Vec<u8>, sequence: u64, salt: u64) {
    assert!(buffer.len() > HEADER, "a frame has content");
    let length = u32::try_from(buffer.len() - HEADER).expect("records are far smaller than 4 GiB");
    buffer.resize(size(buffer.len() - HEADER), END);
    let body_crc = crc32c::crc32c(&buffer[HEADER..]);
    buffer[0..4].copy_from_slice(&MAGIC);
    buffer[8..10].copy_from_slice(&VERSION.to_le_bytes());
    buffer[10..12].fill(0);
    buffer[12..16].copy_from_slice(&length.to_le_bytes());
    buffer[16..24].copy_from_slice(&sequence.to_le_bytes());
    buffer[24..32].copy_from_slice(&salt.to_le_bytes());
    buffer[32..36].copy_from_slice(&body_crc.to_le_bytes());
    buffer[36..40].fill(END);
    let header_crc = header_crc(&buffer[..HEADER]);
    buffer[4..8].copy_from_slice(&header_crc.to_le_bytes());
}

impl Header {
    /// The header at an offset, if its checksum is right.
    pub(super) fn read(file: &[u8], at: usize) -> Option<Header> {
        let bytes = file.get(at..at.checked_add(HEADER)?)?;
        if bytes[0..4] != MAGIC || number_u32(bytes, 4) != header_crc(bytes) {
            return None;
        }
        Some(Header {
            version: u16::from_le_bytes([bytes[8], bytes[9]]),
            length: number_u32(bytes, 12),
            sequence: number_u64(bytes, 16),
            salt: number_u64(bytes, 24),
            body_crc: number_u32(bytes, 32),
        })
    }

    /// Size of the whole frame.
    pub(super) fn size(&self) -> usize {
        size(self.length as usize)
    }

    /// The records of the frame at an offset, if the body's checksum is right.
    pub(super) fn body<'a>(&self, file: &'a [u8], at: usize) -> Option<&'a [u8]> {
        let body = file.get(at + HEADER..at.checked_add(self.size())?)?;
        (crc32c::crc32c(body) == self.body_crc).then(|| &body[..self.length as usize])
    }
}

/// Size of a frame with this many bytes of records.
pub(super) fn size(length: usize) -> usize {
    HEADER + (length + 1).next_multiple_of(ALIGN)
}

/// Whether a bad frame, or a bad header, in `[from, to)` may be what an interrupted write left of it in an area that was
/// zero, or beyond the end of the file, before: some sector of it is missing, or it was cut short, or blanking it was.
/// A whole one begins and ends with bytes that no single flipped bit makes zero.
pub(super) fn is_torn(file: &[u8], from: usize, to: usize) -> bool {
    let byte = |at: usize| file.get(at).copied().unwrap_or(0);
    byte(from) == 0 || byte(to - 1) == 0 || has_blank_sector(file, from, to)
}

fn has_blank_sector(file: &[u8], from: usize, to: usize) -> bool {
    let mut at = from;
    while at < to {
        let end = (at + 1).next_multiple_of(SECTOR).min(to);
        if is_blank(file.get(at..end.min(file.len())).unwrap_or_default()) {
            return true;
        }
        at = end;
    }
    false
}

/// Whether these bytes are all zero.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| u128::from_ne_bytes(*chunk) == 0) && rest.iter().all(|byte| *byte == 0)
}

fn header_crc(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[0..4]), &header[8..HEADER])
}

/// The little-endian number at an offset that the caller has checked.
pub(super) fn number_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The little-endian number at an offset that the caller has checked.
pub(super) fn number_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(body: &[u8]) -> Vec<u8> {
        let mut bytes = buffer();
        bytes.extend_from_slice(body);
        seal(&mut bytes, 7, 0x0102_0304_0506_0708);
        bytes
    }

    #[test]
    fn the_format_of_a_frame_is_fixed() {
        let expected = "7046726d 2dd431db 0100 0000 05000000 0700000000000000 0807060504030201 6a16258f a5a5a5a5 \
                        68656c6c6fa5a5a5";
        let hex: String = sealed(b"hello").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.replace(' ', ""));
    }

    #[test]
    fn a_frame_reads_back() {
        let bytes = sealed(b"hello");
        let header = Header::read(&bytes, 0).expect("intact");
        assert_eq!((header.sequence, header.length, header.size()), (7, 5, 48));
        assert_eq!(header.body(&bytes, 0), Some(&b"hello"[..]));
    }

    #[test]
    fn every_flipped_bit_and_every_shortening_is_noticed() {
        let bytes = sealed(b"hello, world");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let header = Header::read(&bad, 0);
            assert_eq!(header.is_none(), bit < HEADER * 8, "bit {bit}");
            assert_eq!(header.and_then(|header| header.body(&bad, 0)), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            let short = &bytes[..length];
            assert_eq!(
                Header::read(short, 0).and_then(|header| header.body(short, 0)),
                None,
                "{length} bytes"
            );
        }
    }

    #[test]
    fn a_blank_sector_is_found_also_at_the_edges_and_beyond_the_end() {
        let mut file = vec![1u8; 2048];
        assert!(!has_blank_sector(&file, 100, 2048));
        assert!(has_blank_sector(&file, 100, 2049));
        file[512..1024].fill(0);
        assert!(has_blank_sector(&file, 100, 2048));
        assert!(!has_blank_sector(&file, 1024, 2048));
        assert!(!has_blank_sector(&file, 100, 512));
        assert!(has_blank_sector(&file, 100, 520));
        file[1023] = 1;
        assert!(!has_blank_sector(&file, 100, 2048));
    }

    #[test]
    fn a_frame_that_was_cut_short_anywhere_looks_torn_and_a_whole_one_does_not() {
        let bytes = sealed(b"\0\0\0\0\0\0\0");
        assert!(!is_torn(&bytes, 0, bytes.len()) && !is_torn(&bytes, 0, HEADER));
        for cut in 0..bytes.len() {
            let mut short = bytes.clone();
            short[cut..].fill(0);
            assert!(is_torn(&short, 0, bytes.len()), "cut at {cut}");
            assert!(cut >= HEADER || is_torn(&short, 0, HEADER), "cut at {cut}");
        }
    }
}
