//! Writing an archive piece by piece.

use std::fmt::Write as _;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use proconsul_core::store::{RowKey, Store, encode_rows};
use sha2::{Digest, Sha256};

use super::{META_NAME, Meta, PIECE_BYTES, STATE_MAGIC, STATE_NAME, SUMS_NAME, hex, tar};

/// The pieces of a store's state, each with its length before it, in the order of their rows.
pub(crate) struct Pieces {
    store: Store,
    cursor: Option<RowKey>,
    begun: bool,
    ended: bool,
}

impl Pieces {
    pub(crate) fn of(store: Store) -> Pieces {
        Pieces { store, cursor: None, begun: false, ended: false }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !std::mem::replace(&mut self.begun, true) {
            return Some(Bytes::from_static(STATE_MAGIC));
        }
        let (rows, next) = self.store.rows_after(self.cursor.as_ref(), PIECE_BYTES);
        self.ended = next.is_none();
        self.cursor = next;
        let rows = encode_rows(&rows);
        let length = u32::try_from(rows.len()).expect("a piece ends with the row that makes it large enough");
        Some([&length.to_le_bytes()[..], &rows].concat().into())
    }
}

/// An archive on its way to a client. The bytes that are finished so far are taken out as it goes on.
pub(crate) struct Packer {
    gzip: GzEncoder<Vec<u8>>,
    pieces: Pieces,
    sums: String,
    state: Sha256,
    size: u64,
    left: u64,
    seconds: u64,
    ended: bool,
}

impl Packer {
    /// Begins the archive of a state. It is walked twice, because a file's length stands before its content; nothing of
    /// it is kept meanwhile but the persistent maps themselves.
    pub(crate) fn new(store: Store, mut meta: Meta, seconds: u64) -> Packer {
        let size = Pieces::of(store.clone()).map(|piece| piece.len() as u64).sum();
        meta.size = size;
        let mut packer = Packer {
            gzip: GzEncoder::new(Vec::new(), Compression::fast()),
            pieces: Pieces::of(store),
            sums: String::new(),
            state: Sha256::new(),
            size,
            left: size,
            seconds,
            ended: false,
        };
        let meta = meta.to_json();
        packer.add_digest(META_NAME, &Sha256::digest(&meta));
        packer.file(META_NAME, &meta);
        packer.write(&tar::header(STATE_NAME, size, seconds));
        packer
    }

    fn write(&mut self, bytes: &[u8]) {
        self.gzip.write_all(bytes).expect("memory is the only sink");
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        self.write(&tar::header(name, content.len() as u64, self.seconds));
        self.write(content);
        self.write(tar::padding(content.len() as u64));
    }

    fn add_digest(&mut self, name: &str, digest: &[u8]) {
        writeln!(self.sums, "{}  {name}", hex(digest)).expect("memory is the only sink");
    }

    fn end(&mut self) {
        assert_eq!(self.left, 0, "both walks over the state find the same");
        self.write(tar::padding(self.size));
        let digest = self.state.finalize_reset();
        self.add_digest(STATE_NAME, &digest);
        let sums = std::mem::take(&mut self.sums);
        self.file(SUMS_NAME, sums.as_bytes());
        self.write(&[0; 2 * tar::BLOCK]);
        self.gzip.try_finish().expect("memory is the only sink");
        self.ended = true;
    }
}

impl Iterator for Packer {
    type Item = Bytes;

    /// The next bytes of the archive, if there are more.
    fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            match self.pieces.next() {
                Some(piece) => {
                    self.state.update(&piece);
                    self.left -= piece.len() as u64;
                    self.write(&piece);
                }
                None => self.end(),
            }
            let out = std::mem::take(self.gzip.get_mut());
            if !out.is_empty() {
                return Some(out.into());
            }
        }
        None
    }
}
