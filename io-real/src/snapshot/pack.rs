//! Writing an archive piece by piece.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::{META_NAME, Meta, STATE_MAGIC, STATE_NAME, SUMS_NAME, hex, tar};

/// An archive on its way to a client. The bytes that are finished so far are taken out as it goes on.
pub(crate) struct Packer {
    gzip: GzEncoder<Vec<u8>>,
    sums: String,
    state: Sha256,
    size: u64,
    left: u64,
    seconds: u64,
}

impl Packer {
    /// Begins the archive of a state whose pieces have `pieces_bytes` together.
    pub(crate) fn new(mut meta: Meta, pieces_bytes: u64, seconds: u64) -> Packer {
        let size = STATE_MAGIC.len() as u64 + pieces_bytes;
        meta.size = size;
        let mut packer = Packer {
            gzip: GzEncoder::new(Vec::new(), Compression::fast()),
            sums: String::new(),
            state: Sha256::new(),
            size,
            left: size,
            seconds,
        };
        let meta = meta.to_json();
        packer.add_digest(META_NAME, &Sha256::digest(&meta));
        packer.file(META_NAME, &meta);
        packer.write(&tar::header(STATE_NAME, size, seconds));
        packer.add(STATE_MAGIC);
        packer
    }

    /// Adds a piece.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.state.update(piece);
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.write(piece);
    }

    /// All pieces were added.
    ///
    /// # Errors
    /// They were shorter than was said: the archive is of no use.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "pieces of the state are missing"));
        }
        self.write(tar::padding(self.size));
        let digest = self.state.finalize_reset();
        self.add_digest(STATE_NAME, &digest);
        let sums = std::mem::take(&mut self.sums);
        self.file(SUMS_NAME, sums.as_bytes());
        self.write(&[0; 2 * tar::BLOCK]);
        self.gzip.try_finish()
    }

    /// What is finished of the archive and was not taken yet.
    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(self.gzip.get_mut()).into()
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
}
