//! As much of the tar format (POSIX «ustar») as archives need: plain files with short names.

/// Headers and contents are multiples of this.
pub(super) const BLOCK: usize = 512;

/// Where the header's checksum stands.
const CHECKSUM: std::ops::Range<usize> = 148..156;
const MAGIC: &[u8] = b"ustar\x0000";

/// The header of a file.
pub(super) fn header(name: &str, size: u64, seconds: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, &number(size));
    put(136, &number(seconds));
    put(156, b"0");
    put(257, MAGIC);
    let sum = checksum(&block);
    block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Eleven octal digits; numbers beyond eight gibibytes are in base 256 behind a set bit.
fn number(number: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if number < 1 << 33 {
        field[..11].copy_from_slice(format!("{number:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&number.to_be_bytes());
    }
    field
}

/// Reads what [`number`] wrote.
fn parse_number(field: &[u8]) -> Option<u64> {
    if let [0x80, 0, 0, 0, number @ ..] = field {
        return number.try_into().ok().map(u64::from_be_bytes);
    }
    let end = field.iter().position(|byte| *byte == 0)?;
    u64::from_str_radix(std::str::from_utf8(&field[..end]).ok()?, 8).ok()
}

/// What fills up the last block of a content.
pub(super) fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let used = (size % BLOCK as u64) as usize;
    if used == 0 { &[] } else { &ZEROS[used..] }
}

/// The name and the size of a file, from its header; `None` for what is none that [`header`] writes.
pub(super) fn parse(block: &[u8; BLOCK]) -> Option<(&str, u64)> {
    let text = |range: std::ops::Range<usize>| {
        let field = &block[range];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        std::str::from_utf8(&field[..end]).ok()
    };
    let (name, size) = (text(0..100)?, parse_number(&block[124..136])?);
    let plain = block[156] == b'0' && block[257..265] == *MAGIC && block[154..156] == *b"\0 ";
    (plain && parse_number(&block[CHECKSUM])? == checksum(block)).then_some((name, size))
}

/// The sum of all bytes, the checksum's own counted as blanks.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let blank = |(at, byte): (usize, &u8)| u64::from(if CHECKSUM.contains(&at) { b' ' } else { *byte });
    block.iter().enumerate().map(blank).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_a_damaged_one_does_not() {
        let block = header("state.bin", 123_456_789, 1_600_000_000);
        assert_eq!(parse(&block), Some(("state.bin", 123_456_789)));
        let large = header("state.bin", 1 << 40, 0);
        assert_eq!(parse(&large), Some(("state.bin", 1 << 40)));
        for at in 0..BLOCK {
            let mut damaged = block;
            damaged[at] ^= 0x10;
            assert_eq!(parse(&damaged), None, "byte {at}");
        }
    }
}
