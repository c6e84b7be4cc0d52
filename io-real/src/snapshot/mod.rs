//! Archives of the replicated state (Consul: «Snapshot»): a gzipped tar with three files.
//!
//! | file | holds |
//! |---|---|
//! | `meta.json` | what the state stands for |
//! | `state.bin` | `proconsul state 1`, a line feed, and pieces of rows, each with its length (32 bits, little-endian) |
//! | `SHA256SUMS` | the SHA-256 of both, in the form of `sha256sum` |
//!
//! Archives are written and read piece by piece, so that neither takes more memory than a piece. Reading is strict:
//! the checksums of gzip and of `SHA256SUMS` must both hold, and nothing may stand before, between or behind the files.

mod pack;
mod tar;
mod unpack;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use pack::Packer;
pub use unpack::{Unpacked, Unpacker};

const META_NAME: &str = "meta.json";
const STATE_NAME: &str = "state.bin";
const SUMS_NAME: &str = "SHA256SUMS";
/// First bytes of `state.bin`, the format's number among them.
const STATE_MAGIC: &[u8] = b"proconsul state 1\n";
/// A longer piece is refused. It ends with a row whose value may be large.
const PIECE_BYTES_MAX: usize = 64 << 20;
/// `meta.json` and `SHA256SUMS` are far smaller.
const TEXT_BYTES_MAX: u64 = 64 << 10;

/// What a saved state stands for. Names are those of Consul's archives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Meta {
    /// Version of this description.
    pub version: u64,
    /// Term, index and time in milliseconds.
    #[serde(rename = "ID")]
    pub id: String,
    /// Index of the newest change that the state includes.
    pub index: u64,
    /// Raft term in which it was saved.
    pub term: u64,
    /// Length of `state.bin` in bytes.
    pub size: u64,
}

/// The version of [`Meta`] that this program writes.
const META_VERSION: u64 = 1;

impl Meta {
    /// Describes a state as it is saved at this time.
    #[must_use]
    pub fn new(index: u64, term: u64, millis: u64) -> Meta {
        Meta { version: META_VERSION, id: format!("{term}-{index}-{millis}"), index, term, size: 0 }
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and a text")
    }
}

/// Why an archive is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadArchive {
    /// It is not gzip, or was damaged.
    #[error("failed to decompress snapshot: {0}")]
    Gzip(&'static str),
    /// It ends too early.
    #[error("failed to read snapshot file: failed to read or write snapshot data: unexpected EOF")]
    Truncated,
    /// Its files are not those of a snapshot, or not whole.
    #[error("failed to read snapshot file: {0}")]
    Content(String),
}

/// Reads a whole archive and answers what it is of.
///
/// # Errors
/// The reader's, or [`BadArchive`] as [`std::io::ErrorKind::InvalidData`].
pub fn verify(mut archive: impl std::io::Read) -> std::io::Result<Meta> {
    let bad = |bad: BadArchive| std::io::Error::new(std::io::ErrorKind::InvalidData, bad);
    let mut unpacker = Unpacker::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = archive.read(&mut buffer)?;
        if length == 0 {
            return Ok(unpacker.finish().map_err(bad)?.meta);
        }
        unpacker.push(&buffer[..length], &mut Vec::new()).map_err(bad)?;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proconsul_core::store::command::{Command, KvCommand, KvVerb};
    use proconsul_core::store::{Pieces, Store, StoreBuilder};
    use proptest::prelude::*;

    use super::*;

    fn store(values: &[Vec<u8>]) -> Store {
        let mut store = Store::new();
        for (at, value) in values.iter().enumerate() {
            let (key, value) = (format!("key/{at}").into(), Bytes::from(value.clone()));
            let command = KvCommand { verb: KvVerb::Set, key, value, flags: 0 };
            store.apply(at as u64 + 2, &Command::Kv(command));
        }
        store
    }

    fn archive(store: &Store) -> Vec<u8> {
        let length = Pieces::of(store.clone()).map(|piece| piece.len() as u64).sum();
        let mut packer = Packer::new(Meta::new(store.newest_index(), 3, 1_000), length, 1);
        Pieces::of(store.clone()).for_each(|piece| packer.add(&piece));
        packer.end().unwrap();
        packer.take().to_vec()
    }

    /// What an archive holds, taken in pieces of so many bytes.
    fn unpacked(archive: &[u8], step: usize) -> Result<(Unpacked, Vec<Bytes>), BadArchive> {
        let (mut unpacker, mut pieces) = (Unpacker::new(), Vec::new());
        for bytes in archive.chunks(step) {
            unpacker.push(bytes, &mut pieces)?;
        }
        Ok((unpacker.finish()?, pieces))
    }

    /// All rows, encoded.
    fn rows(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (rows, end) = store.rows_after(None, usize::MAX);
        assert_eq!(end, None);
        rows.into_iter().map(|(key, row)| (key.as_bytes().to_vec(), row)).collect()
    }

    #[test]
    fn a_changed_byte_is_refused_unless_it_means_the_same() {
        let archive = archive(&store(&[b"value".to_vec(), vec![7; 300]]));
        let whole = unpacked(&archive, 1_000).unwrap();
        let mut refused = 0;
        for at in 0..archive.len() {
            let mut damaged = archive.clone();
            damaged[at] ^= 0xff;
            // Compressed data has bits that mean nothing, such as the last ones before its end.
            match unpacked(&damaged, 1_000) {
                Err(_) => refused += 1,
                Ok(same) => assert!(same == whole, "byte {at} of {}", archive.len()),
            }
        }
        assert!(refused * 100 > archive.len() * 98, "{refused} of {}", archive.len());
    }

    #[test]
    fn an_archive_that_is_cut_or_goes_on_is_refused() {
        let mut archive = archive(&store(&[b"value".to_vec()]));
        for length in 0..archive.len() {
            assert!(unpacked(&archive[..length], 100).is_err(), "{length} of {}", archive.len());
        }
        archive.push(0);
        assert!(unpacked(&archive, 100).is_err());
    }

    #[test]
    fn what_is_no_archive_is_refused_in_the_words_of_consul() {
        let text = |bytes: &[u8]| unpacked(bytes, 10).unwrap_err().to_string();
        assert_eq!(text(b""), "failed to decompress snapshot: EOF");
        assert_eq!(text(b"this is no snapshot"), "failed to decompress snapshot: gzip: invalid header");
        let archive = archive(&store(&[vec![1; 1_000]]));
        assert_eq!(
            text(&archive[..archive.len() / 2]),
            "failed to read snapshot file: failed to read or write snapshot data: unexpected EOF"
        );
    }

    #[test]
    fn an_archive_is_a_tar_with_three_files() {
        use std::io::Read as _;
        let mut plain = Vec::new();
        let archive = archive(&store(&[b"value".to_vec()]));
        flate2::read::GzDecoder::new(&archive[..]).read_to_end(&mut plain).unwrap();
        let mut names = Vec::new();
        let mut at = 0;
        while let Some((name, size)) = tar::parse(plain[at..at + tar::BLOCK].try_into().unwrap()) {
            names.push(name.to_owned());
            at += tar::BLOCK + usize::try_from(size).unwrap().next_multiple_of(tar::BLOCK);
        }
        assert_eq!(names, [META_NAME, STATE_NAME, SUMS_NAME]);
        assert_eq!(plain.len(), at + 2 * tar::BLOCK);
    }

    #[test]
    fn an_archive_comes_in_pieces() {
        let values: Vec<Vec<u8>> = (0..8u8).map(|at| vec![at; 100_000]).collect();
        let store = store(&values);
        let (whole, pieces) = unpacked(&archive(&store), 777).unwrap();
        assert_eq!((whole.pieces, pieces.len()), (3, 3));
        assert!(pieces.iter().all(|piece| piece.len() < 512 << 10));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_was_packed_is_unpacked(
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2_000), 0..20),
            step in 1..5_000usize,
        ) {
            let store = store(&values);
            let (whole, pieces) = unpacked(&archive(&store), step).unwrap();
            prop_assert_eq!(whole.meta.index, store.newest_index());
            let mut builder = StoreBuilder::new();
            for piece in pieces {
                let piece: Vec<(&[u8], &[u8])> = postcard::from_bytes(&piece).unwrap();
                for (key, row) in piece {
                    builder.put_row(key, row).unwrap();
                }
            }
            prop_assert_eq!(rows(&builder.finish()), rows(&store));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = unpacked(&bytes, 50);
            let _ = unpacked(&[&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff][..], &bytes].concat(), 50);
        }
    }
}
