//! As much of the tar format (POSIX «ustar») as archives need: plain files with short names.

use std::borrow::Cow;

use tar::{EntryType, Header};

/// Headers and contents are multiples of this.
pub(super) const BLOCK: usize = 512;

/// The header of a file; `name` is short and relative.
pub(super) fn header(name: &str, size: u64, seconds: u64) -> [u8; BLOCK] {
    let mut header = Header::new_ustar();
    header.set_path(name).expect("the names of the archive's files are short and relative");
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(seconds);
    header.set_cksum();
    *header.as_bytes()
}

/// What fills up the last block of a content.
pub(super) fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let used = (size % BLOCK as u64) as usize;
    if used == 0 { &[] } else { &ZEROS[used..] }
}

/// The name and the size of a file, from its header; `None` for what is none that [`header`] writes.
pub(super) fn parse(block: &[u8; BLOCK]) -> Option<(&str, u64)> {
    let header = Header::from_byte_slice(block);
    let mut whole = header.clone();
    whole.set_cksum();
    let plain = header.as_ustar().is_some() && header.entry_type() == EntryType::Regular;
    let Cow::Borrowed(name) = header.path_bytes() else { return None };
    let found = (str::from_utf8(name).ok()?, header.size().ok()?);
    (plain && header.cksum().ok()? == whole.cksum().ok()?).then_some(found)
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
            damaged[at] ^= 0x11;
            assert_eq!(parse(&damaged), None, "byte {at}");
        }
    }

    #[test]
    fn headers_of_former_archives_are_read() {
        // Their sums have six digits.
        let mut block = header("state.bin", 5, 0);
        let sum = Header::from_byte_slice(&block).cksum().expect("just written");
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(parse(&block), Some(("state.bin", 5)));
    }
}
