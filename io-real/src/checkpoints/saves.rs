//! A file of saves: rows as they were at first, then the changes of every save, all under checksums.
//!
//! | offset | what |
//! |---|---|
//! | 0 | header: magic, checksum (32 bits), format (32 bits), number of the file (64 bits) |
//! | 512, 1024 | two seals, written in turn: saves (64), end of the last one (64), its checksum (32), checksum of the seal (32) |
//! | 4096 | frames: length (32), whether a save ends (32), checksum (32), content |
//!
//! Numbers are little-endian, checksums CRC-32C. A frame's checksum goes on from that of the frame before, so each is one
//! of everything before it. A save is some frames of rows and one that ends it and says what it means.
//!
//! **What a crash leaves.** A save is synced before it is sealed, so what a seal covers was durable, and a fault in it
//! is damage: the file is refused. Behind the seal there may be whole saves, whose seal a crash has cost, and part of
//! one, which was never acknowledged and is cut. A seal is within a sector and never overwrites the newest one. It
//! becomes durable with the sync of the next save, or when the system writes it back: a loss of power before that,
//! together with a rotten last save, would pass for a save that was cut short.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::files::naming;

const MAGIC: [u8; 8] = *b"proc-rws";
/// What this version writes. A newer one is refused.
const FORMAT: u32 = 1;
const HEADER: usize = 24;
const SEALS_AT: [u64; 2] = [512, 1024];
const SEAL: usize = 24;
const FRAMES_AT: u64 = 4096;
const FRAME_HEAD: usize = 12;
/// A frame is closed when it has so many bytes; a single row may make it longer.
const FRAME_BYTES: usize = 1 << 20;
/// A long save is synced in steps: the log's syncs wait for what is being written then.
const STEP_BYTES: u64 = 8 << 20;
/// Changes of fewer bytes are not worth a new file.
const CHANGES_BYTES_MIN: u64 = 16 << 20;

const ROWS: u32 = 0;
const END: u32 = 1;

/// A file of saves that is open for more. One process has it at a time.
pub(super) struct SaveFile {
    file: File,
    path: PathBuf,
    number: u64,
    /// Where the last save ends.
    last: Place,
    /// Where the first save ends: what follows are changes.
    first: Place,
    about: Vec<u8>,
}

/// A place between two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// How many saves are before it.
    saves: u64,
    at: u64,
    /// Checksum of everything before it.
    chain: u32,
}

impl Place {
    /// Where the frames of a file begin.
    fn first(number: u64) -> Place {
        Place { saves: 0, at: FRAMES_AT, chain: crc32c::crc32c(&header(FORMAT, number)) }
    }
}

/// A row and its value, or that it is gone.
type Change<'a> = (&'a [u8], Option<&'a [u8]>);

impl SaveFile {
    /// Makes a file without saves, under a name that [`SaveFile::publish`] replaces. One that was left there by a crash
    /// is overwritten.
    pub(super) fn create(path: &Path, number: u64) -> io::Result<SaveFile> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(path).map_err(|error| naming("create", path, &error))?;
        file.write_all_at(&header(FORMAT, number), 0).map_err(|error| naming("write", path, &error))?;
        Ok(SaveFile::empty(file, path, number))
    }

    fn empty(file: File, path: &Path, number: u64) -> SaveFile {
        let last = Place::first(number);
        SaveFile { file, path: path.to_owned(), number, last, first: last, about: Vec::new() }
    }

    /// Gives the file its name, in place of what may be there. Both the file and its name are durable on return.
    pub(super) fn publish(&mut self, path: &Path) -> io::Result<()> {
        self.sync()?;
        fs::rename(&self.path, path).map_err(|error| naming("make", path, &error))?;
        path.clone_into(&mut self.path);
        let above = path.parent().unwrap_or(path);
        let synced = File::open(above).and_then(|directory| directory.sync_all());
        synced.map_err(|error| failed_sync(above, &error))
    }

    /// Opens a file and looks at every byte of it that means something.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for damage, [`io::ErrorKind::Unsupported`] for a newer format; nothing was
    /// changed then.
    pub(super) fn open(path: &Path, number: u64) -> io::Result<SaveFile> {
        let file = File::options().read(true).write(true).open(path);
        let file = file.map_err(|error| naming("open", path, &error))?;
        let mut head = vec![0; FRAMES_AT as usize];
        read(&file, path, 0, &mut head)?;
        let format = u32::from_le_bytes(*head[12..].first_chunk().expect("24 bytes"));
        if head[..HEADER] != header(format, number) {
            return Err(damaged(path, 0, "it does not begin as such a file does"));
        }
        if format > FORMAT {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{} is of format {format}, this version reads format {FORMAT}: start the newer version again",
                    path.display()
                ),
            ));
        }
        let seals = SEALS_AT.into_iter().filter_map(|at| decode_seal(&head[at as usize..], number));
        let Some(sealed) = seals.max_by_key(|seal| seal.saves) else {
            return Err(damaged(path, SEALS_AT[0], "it has no seal"));
        };
        let mut found = SaveFile::empty(file, path, number);
        found.scan(sealed)?;
        if found.last != sealed {
            // Nobody may go by a save that a loss of power would take back.
            found.sync()?;
            found.seal()?;
        }
        Ok(found)
    }

    /// Finds the last whole save, which is not before a seal.
    fn scan(&mut self, sealed: Place) -> io::Result<()> {
        let length = self.file.metadata().map_err(|error| naming("read", &self.path, &error))?.len();
        let (mut at, mut chain, mut content) = (self.last.at, self.last.chain, Vec::new());
        while at < length {
            let is_sealed = at < sealed.at;
            let limit = if is_sealed { sealed.at } else { length };
            let frame = read_frame(&self.file, at, limit, chain, &mut content);
            let frame = frame.map_err(|error| naming("read", &self.path, &error))?;
            let Some((kind, next)) = frame else {
                if is_sealed {
                    return Err(damaged(&self.path, at, "what stands there has another checksum"));
                }
                break;
            };
            at += (FRAME_HEAD + content.len()) as u64;
            chain = next;
            if kind == END {
                self.last = Place { saves: self.last.saves + 1, at, chain };
                self.about.clone_from(&content);
                if self.last.saves == 1 {
                    self.first = self.last;
                }
            }
            if at == sealed.at && self.last != sealed {
                return Err(damaged(&self.path, at, "it differs from its seal"));
            }
        }
        if self.last.at < sealed.at {
            return Err(damaged(&self.path, at, &format!("it ends, and should go on to {}", sealed.at)));
        }
        Ok(())
    }

    /// What the last save said that it means.
    pub(super) fn about(&self) -> &[u8] {
        &self.about
    }

    /// The number that it was made with.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether so much has changed since the first save that a new file is due.
    pub(super) fn is_long(&self) -> bool {
        let (first, changes) = (self.first.at - FRAMES_AT, self.last.at - self.first.at);
        changes > CHANGES_BYTES_MIN.max(first / 2)
    }

    /// Hands out every row once.
    pub(super) fn rows(&self, mut take: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        // Changes are fewer than rows: they are held in memory, the rows are not.
        let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        self.walk(self.first, self.last, |(key, value)| {
            changes.insert(key.to_vec(), value.map(<[u8]>::to_vec));
            Ok(())
        })?;
        self.walk(Place::first(self.number), self.first, |(key, value)| {
            let changed = if changes.is_empty() { None } else { changes.remove(key) };
            match changed.as_ref().map_or(value, |changed| changed.as_deref()) {
                Some(value) => take(key, value),
                None => Ok(()),
            }
        })?;
        changes.iter().try_for_each(|(key, value)| match value {
            Some(value) => take(key, value),
            None => Ok(()),
        })
    }

    /// Hands out the changes between two places.
    fn walk(
        &self,
        from: Place,
        to: Place,
        mut take: impl FnMut(Change<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut at, mut chain, mut content) = (from.at, from.chain, Vec::new());
        while at < to.at {
            let frame = read_frame(&self.file, at, to.at, chain, &mut content);
            let frame = frame.map_err(|error| naming("read", &self.path, &error))?;
            let Some((kind, next)) = frame else {
                return Err(damaged(&self.path, at, "it was written by somebody else meanwhile"));
            };
            if kind == ROWS {
                let mut rest = &content[..];
                while !rest.is_empty() {
                    let (change, behind) =
                        decode_change(rest).ok_or_else(|| damaged(&self.path, at, "a row is garbled"))?;
                    take(change)?;
                    rest = behind;
                }
            }
            at += (FRAME_HEAD + content.len()) as u64;
            chain = next;
        }
        Ok(())
    }

    /// Begins a save. Until it has ended nothing has changed.
    pub(super) fn begin(&mut self) -> Save<'_> {
        let last = self.last;
        Save { file: self, to: last, synced: last.at, content: Vec::new() }
    }

    fn seal(&self) -> io::Result<()> {
        let at = SEALS_AT[(self.last.saves % 2) as usize];
        let written = self.file.write_all_at(&encode_seal(self.last, self.number), at);
        written.map_err(|error| naming("write", &self.path, &error))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| failed_sync(&self.path, &error))
    }
}

/// A save on its way to the file.
pub(super) struct Save<'a> {
    file: &'a mut SaveFile,
    to: Place,
    synced: u64,
    /// Of the frame that is not written yet.
    content: Vec<u8>,
}

impl Save<'_> {
    /// Adds a row, or that it is gone.
    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        encode_change(&mut self.content, (key, value));
        if self.content.len() >= FRAME_BYTES { self.write(ROWS) } else { Ok(()) }
    }

    /// Ends the save, with what it means. It is durable on return. If there was no room nothing has changed, and the
    /// same may be tried again.
    pub(super) fn end(mut self, about: &[u8]) -> io::Result<()> {
        if !self.content.is_empty() {
            self.write(ROWS)?;
        }
        self.content.extend_from_slice(about);
        self.write(END)?;
        self.file.sync()?;
        self.to.saves += 1;
        self.file.last = self.to;
        self.file.about = about.to_vec();
        if self.to.saves == 1 {
            self.file.first = self.to;
        }
        self.file.seal()
    }

    fn write(&mut self, kind: u32) -> io::Result<()> {
        let length = u32::try_from(self.content.len()).expect("no row has gibibytes");
        let mut frame = Vec::with_capacity(FRAME_HEAD + self.content.len());
        frame.extend(length.to_le_bytes());
        frame.extend(kind.to_le_bytes());
        let chain = crc32c::crc32c_append(crc32c::crc32c_append(self.to.chain, &frame), &self.content);
        frame.extend(chain.to_le_bytes());
        frame.append(&mut self.content);
        let written = self.file.file.write_all_at(&frame, self.to.at);
        written.map_err(|error| naming("write", &self.file.path, &error))?;
        self.to = Place { saves: self.to.saves, at: self.to.at + frame.len() as u64, chain };
        if self.to.at - self.synced >= STEP_BYTES {
            self.synced = self.to.at;
            self.file.sync()?;
        }
        Ok(())
    }
}

fn header(format: u32, number: u64) -> Vec<u8> {
    let about = [&format.to_le_bytes()[..], &number.to_le_bytes()].concat();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&MAGIC), &about);
    [&MAGIC[..], &checksum.to_le_bytes(), &about].concat()
}

fn encode_seal(place: Place, number: u64) -> Vec<u8> {
    let mut seal =
        [&place.saves.to_le_bytes()[..], &place.at.to_le_bytes(), &place.chain.to_le_bytes()].concat();
    // A seal of another file is none.
    seal.extend(crc32c::crc32c_append(Place::first(number).chain, &seal).to_le_bytes());
    seal
}

/// A seal; `None` if there is none, or it has rotted.
fn decode_seal(bytes: &[u8], number: u64) -> Option<Place> {
    let part = |at: usize| *bytes[at..].first_chunk().expect("a seal is within a sector");
    let chain = u32::from_le_bytes(*bytes[16..].first_chunk().expect("a seal is within a sector"));
    let place = Place { saves: u64::from_le_bytes(part(0)), at: u64::from_le_bytes(part(8)), chain };
    (encode_seal(place, number) == bytes[..SEAL]).then_some(place)
}

fn encode_change(to: &mut Vec<u8>, (key, value): Change<'_>) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("no row has gibibytes");
    to.extend(length(key).to_le_bytes());
    to.extend(value.map_or(0, |value| length(value) + 1).to_le_bytes());
    to.extend(key);
    to.extend(value.unwrap_or_default());
}

fn decode_change(bytes: &[u8]) -> Option<(Change<'_>, &[u8])> {
    let (key_length, rest) = bytes.split_first_chunk()?;
    let (value_length, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_length) as usize)?;
    match u32::from_le_bytes(*value_length).checked_sub(1) {
        None => Some(((key, None), rest)),
        Some(length) => {
            let (value, rest) = rest.split_at_checked(length as usize)?;
            Some(((key, Some(value)), rest))
        }
    }
}

/// Reads a frame that ends before `limit`: its kind, and the checksum of everything up to its end. `None` if there is
/// no such frame.
fn read_frame(
    file: &File,
    at: u64,
    limit: u64,
    chain: u32,
    content: &mut Vec<u8>,
) -> io::Result<Option<(u32, u32)>> {
    let mut head = [0; FRAME_HEAD];
    if limit - at < FRAME_HEAD as u64 {
        return Ok(None);
    }
    if let Err(error) = file.read_exact_at(&mut head, at) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let number = |at: usize| u32::from_le_bytes(*head[at..].first_chunk().expect("12 bytes"));
    let (length, kind, checksum) = (number(0), number(4), number(8));
    if u64::from(length) > limit - at - FRAME_HEAD as u64 {
        return Ok(None);
    }
    content.resize(length as usize, 0);
    match file.read_exact_at(content, at + FRAME_HEAD as u64) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let found = crc32c::crc32c_append(crc32c::crc32c_append(chain, &head[..8]), content);
    Ok((found == checksum && kind <= END).then_some((kind, found)))
}

fn read(file: &File, path: &Path, at: u64, bytes: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(path, at, "it ends too early"),
        _ => naming("read", path, &error),
    })
}

/// A sync that failed is no want of room, whatever the system says: what it was to make durable may be gone.
fn failed_sync(path: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("cannot sync {}: {error}", path.display()))
}

fn damaged(path: &Path, at: u64, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{} is damaged at offset {at}: {what}", path.display()),
    )
}
