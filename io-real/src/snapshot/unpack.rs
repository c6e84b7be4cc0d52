//! Reading an archive as it comes, and refusing one that is not exactly what was written.

use bytes::{Buf, Bytes, BytesMut};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use sha2::{Digest, Sha256};

use super::{
    BadArchive, META_NAME, META_VERSION, Meta, PIECE_BYTES_MAX, STATE_MAGIC, STATE_NAME, SUMS_NAME,
    TEXT_BYTES_MAX, hex, tar,
};

/// What an archive begins with: gzip, deflate, no options, no time, quickly compressed, no system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff];
/// CRC-32 and length of what was compressed.
const GZIP_TRAILER: usize = 8;

/// Takes an archive in pieces of any size.
pub struct Unpacker {
    gunzip: Gunzip,
    files: Files,
}

/// What a whole archive held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// What it is of.
    pub meta: Meta,
    /// How many pieces of rows it held.
    pub pieces: u64,
}

impl Default for Unpacker {
    fn default() -> Self {
        Unpacker::new()
    }
}

impl Unpacker {
    /// Nothing was read yet.
    #[must_use]
    pub fn new() -> Unpacker {
        Unpacker { gunzip: Gunzip::new(), files: Files::default() }
    }

    /// Takes the next bytes; the pieces of rows that are complete with them are added to `pieces`. They are not to be
    /// trusted before [`Unpacker::finish`].
    ///
    /// # Errors
    /// [`BadArchive`]; the rest is of no use.
    pub fn push(&mut self, bytes: &[u8], pieces: &mut Vec<Bytes>) -> Result<(), BadArchive> {
        let files = &mut self.files;
        self.gunzip.push(bytes, &mut |plain| files.push(plain, pieces))
    }

    /// All of it was taken.
    ///
    /// # Errors
    /// [`BadArchive`] if it is not whole.
    pub fn finish(self) -> Result<Unpacked, BadArchive> {
        self.gunzip.finish()?;
        self.files.finish()
    }
}

/// Decompresses one gzip member that nothing follows. Unlike usual tools it knows only the header that is written here,
/// whose bytes no checksum covers.
struct Gunzip {
    header: usize,
    inflate: Decompress,
    crc: Crc,
    ended: bool,
    trailer: Vec<u8>,
    buffer: Vec<u8>,
}

impl Gunzip {
    fn new() -> Gunzip {
        Gunzip {
            header: 0,
            inflate: Decompress::new(false),
            crc: Crc::new(),
            ended: false,
            trailer: Vec::new(),
            buffer: vec![0; 64 << 10],
        }
    }

    fn push(
        &mut self,
        mut bytes: &[u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), BadArchive>,
    ) -> Result<(), BadArchive> {
        while self.header < GZIP_HEADER.len()
            && let Some((first, rest)) = bytes.split_first()
        {
            if *first != GZIP_HEADER[self.header] {
                return Err(BadArchive::Gzip("gzip: invalid header"));
            }
            self.header += 1;
            bytes = rest;
        }
        while !self.ended {
            let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(bytes, &mut self.buffer, FlushDecompress::None)
                .map_err(|_| BadArchive::Gzip("flate: corrupt input"))?;
            let taken = usize::try_from(self.inflate.total_in() - taken).expect("no more than was given");
            let made = usize::try_from(self.inflate.total_out() - made).expect("no more than there is room");
            bytes = &bytes[taken..];
            self.crc.update(&self.buffer[..made]);
            sink(&self.buffer[..made])?;
            self.ended = status == Status::StreamEnd;
            if !self.ended && taken == 0 && made == 0 {
                return Ok(());
            }
        }
        self.trailer.extend_from_slice(bytes);
        if self.trailer.len() > GZIP_TRAILER {
            return Err(BadArchive::Gzip("gzip: data behind the end"));
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), BadArchive> {
        if self.header == 0 {
            return Err(BadArchive::Gzip("EOF"));
        }
        if self.header < GZIP_HEADER.len() {
            return Err(BadArchive::Gzip("unexpected EOF"));
        }
        if !self.ended || self.trailer.len() < GZIP_TRAILER {
            return Err(BadArchive::Truncated);
        }
        let expected = [self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes()].concat();
        if self.trailer != expected {
            return Err(BadArchive::Gzip("gzip: invalid checksum"));
        }
        Ok(())
    }
}

/// What stands next in the tar.
enum Next {
    Header,
    Meta,
    State {
        left: u64,
    },
    Sums,
    /// Zeros: so many, and then a header, or the end.
    Zeros {
        left: usize,
        last: bool,
    },
    End,
}

/// The files of an archive, in their order.
struct Files {
    next: Next,
    /// Bytes of what is read as a whole.
    buffer: BytesMut,
    /// Length of the file that is being read.
    size: u64,
    meta: Option<Meta>,
    /// What `SHA256SUMS` must say.
    sums: String,
    state: Sha256,
    magic: bool,
    pieces: u64,
    names: Vec<&'static str>,
}

impl Default for Files {
    fn default() -> Self {
        Files {
            next: Next::Header,
            buffer: BytesMut::new(),
            size: 0,
            meta: None,
            sums: String::new(),
            state: Sha256::new(),
            magic: false,
            pieces: 0,
            names: vec![SUMS_NAME, STATE_NAME, META_NAME],
        }
    }
}

fn content(text: impl Into<String>) -> BadArchive {
    BadArchive::Content(text.into())
}

impl Files {
    fn push(&mut self, mut bytes: &[u8], pieces: &mut Vec<Bytes>) -> Result<(), BadArchive> {
        while !bytes.is_empty() {
            match &mut self.next {
                Next::Header => {
                    if self.fill(&mut bytes, tar::BLOCK as u64) {
                        self.header()?;
                    }
                }
                Next::Meta => {
                    if self.fill(&mut bytes, self.size) {
                        let meta: Meta = serde_json::from_slice(&self.buffer).map_err(|error| {
                            content(format!("failed to decode snapshot metadata: {error}"))
                        })?;
                        if meta.version != META_VERSION {
                            return Err(content(format!("unsupported snapshot version {}", meta.version)));
                        }
                        self.meta = Some(meta);
                        let digest = Sha256::digest(&self.buffer);
                        self.ended(META_NAME, &digest);
                    }
                }
                Next::State { left } => {
                    let length = (*left).min(bytes.len() as u64);
                    *left -= length;
                    let ended = *left == 0;
                    let (here, rest) = bytes.split_at(usize::try_from(length).expect("at most all"));
                    bytes = rest;
                    self.state.update(here);
                    self.buffer.extend_from_slice(here);
                    self.take_pieces(pieces)?;
                    if ended {
                        if !self.magic || !self.buffer.is_empty() {
                            return Err(content("the state ends within a piece"));
                        }
                        let digest = self.state.finalize_reset();
                        self.ended(STATE_NAME, &digest);
                    }
                }
                Next::Sums => {
                    if self.fill(&mut bytes, self.size) {
                        if self.buffer != self.sums.as_bytes() {
                            return Err(content(
                                "failed checking integrity of snapshot: its checksums are not those of its files",
                            ));
                        }
                        self.ended(SUMS_NAME, &[]);
                    }
                }
                Next::Zeros { left, last } => {
                    let length = (*left).min(bytes.len());
                    if bytes[..length].iter().any(|byte| *byte != 0) {
                        return Err(content("unexpected data between files"));
                    }
                    *left -= length;
                    bytes = &bytes[length..];
                    if *left == 0 {
                        self.next = if *last { Next::End } else { Next::Header };
                    }
                }
                Next::End => return Err(content("unexpected data behind the last file")),
            }
        }
        Ok(())
    }

    /// Collects `whole` bytes; whether they are there.
    fn fill(&mut self, bytes: &mut &[u8], whole: u64) -> bool {
        let missing = whole - self.buffer.len() as u64;
        let length = usize::try_from(missing.min(bytes.len() as u64)).expect("at most all");
        self.buffer.extend_from_slice(&bytes[..length]);
        *bytes = &bytes[length..];
        self.buffer.len() as u64 == whole
    }

    fn header(&mut self) -> Result<(), BadArchive> {
        let block: [u8; tar::BLOCK] = self.buffer[..].try_into().expect("a whole block was collected");
        self.buffer.clear();
        let (name, size) = tar::parse(&block).ok_or_else(|| content("a file's header is damaged"))?;
        if self.names.pop() != Some(name) {
            return Err(content(format!("unexpected file {name:?} in snapshot")));
        }
        self.size = size;
        if name == STATE_NAME {
            self.next = Next::State { left: size };
            if size == 0 || self.meta.as_ref().is_none_or(|meta| meta.size != size) {
                return Err(content("the state has another length than its description says"));
            }
            return Ok(());
        }
        if size == 0 || size > TEXT_BYTES_MAX {
            return Err(content(format!("{name} has an impossible length")));
        }
        self.next = if name == META_NAME { Next::Meta } else { Next::Sums };
        Ok(())
    }

    /// A file was read.
    fn ended(&mut self, name: &str, digest: &[u8]) {
        self.buffer.clear();
        let last = name == SUMS_NAME;
        if !last {
            self.sums.push_str(&format!("{}  {name}\n", hex(digest)));
        }
        let left = tar::padding(self.size).len() + if last { 2 * tar::BLOCK } else { 0 };
        self.next = if left == 0 { Next::Header } else { Next::Zeros { left, last } };
    }

    /// Takes the pieces out of the state that have come whole.
    fn take_pieces(&mut self, pieces: &mut Vec<Bytes>) -> Result<(), BadArchive> {
        if !self.magic {
            if self.buffer.len() < STATE_MAGIC.len() {
                return Ok(());
            }
            if !self.buffer.starts_with(STATE_MAGIC) {
                return Err(content("the state is of a format that this version does not know"));
            }
            self.buffer.advance(STATE_MAGIC.len());
            self.magic = true;
        }
        while let Some(length) = self.buffer.first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > PIECE_BYTES_MAX {
                return Err(content("a piece of the state has an impossible length"));
            }
            if self.buffer.len() < 4 + length {
                break;
            }
            self.buffer.advance(4);
            pieces.push(self.buffer.split_to(length).freeze());
            self.pieces += 1;
        }
        Ok(())
    }

    fn finish(self) -> Result<Unpacked, BadArchive> {
        match (self.next, self.meta) {
            (Next::End, Some(meta)) => Ok(Unpacked { meta, pieces: self.pieces }),
            _ => Err(BadArchive::Truncated),
        }
    }
}
