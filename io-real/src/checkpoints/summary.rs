//! What a save says of everything that is kept, so that a load can tell whether all of it is still there.
//!
//! fjall cuts its journal where it finds damage, and says nothing: what was saved after that is gone. Sums over all rows tell
//! that some are missing or other ones; a count of saves beside the database tells that the last ones are.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use proconsul_core::raft::SnapshotMeta;
use serde::{Deserialize, Serialize};

use crate::files::naming;

/// Format of what is kept.
const VERSION: u8 = 2;

/// What the last save left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    /// How many saves there have been.
    pub saves: u64,
    /// What the state stands for.
    pub meta: SnapshotMeta,
    /// Over all rows of the state.
    pub rows: Sum,
    /// Over the agent's own state.
    pub local: Sum,
}

/// A sum over rows, in whatever order they come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sum {
    count: u64,
    checksums: u64,
}

impl Sum {
    pub fn add(&mut self, key: &[u8], row: &[u8]) {
        self.count += 1;
        self.checksums = self.checksums.wrapping_add(checksum(key, row));
    }

    pub fn remove(&mut self, key: &[u8], row: &[u8]) {
        self.count -= 1;
        self.checksums = self.checksums.wrapping_sub(checksum(key, row));
    }
}

/// Of a row under its key. Where one ends and the other begins makes a difference.
fn checksum(key: &[u8], row: &[u8]) -> u64 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(key), row);
    // Spread, for sums of neighbours must not cancel each other.
    (u64::from(sum) << 32 | (key.len() as u64) << 16 ^ row.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Summary {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_stdvec(self).expect("memory is the only sink"));
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// # Errors
    /// It is damaged, or of a version that this one does not read.
    pub fn decode(bytes: &[u8]) -> io::Result<Summary> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(version) => {
                return Err(invalid(format!("it has format {version}, this version reads format {VERSION}")));
            }
            None => return Err(invalid("its summary is empty")),
        }
        let (body, expected) = bytes.split_last_chunk::<4>().ok_or_else(|| invalid("its summary is cut"))?;
        if crc32c::crc32c(body).to_le_bytes() != *expected {
            return Err(invalid("the checksum of its summary is wrong"));
        }
        postcard::from_bytes(&body[1..]).map_err(|error| invalid(format!("its summary is garbled: {error}")))
    }
}

/// How many saves were counted beside the database; zero if there is no file.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub(super) fn read_seal(file: &Path) -> io::Result<u64> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(naming("read", file, &error)),
    };
    match bytes.split_first_chunk::<8>() {
        Some((count, checksum)) if checksum == crc32c::crc32c(count).to_le_bytes() => {
            Ok(u64::from_be_bytes(*count))
        }
        _ => Err(invalid(format!("{}: the checksum is wrong", file.display()))),
    }
}

/// Counts saves. Less than a sector, so a crash leaves one number or the other; not synced, for a crash that leaves the former
/// one hides no damage that there would be without it.
///
/// # Errors
/// The environment's.
pub(super) fn write_seal(file: &Path, saves: u64) -> io::Result<()> {
    let count = saves.to_be_bytes();
    let bytes = [&count[..], &crc32c::crc32c(&count).to_le_bytes()].concat();
    let write =
        || File::options().create(true).truncate(false).write(true).open(file)?.write_all_at(&bytes, 0);
    write().map_err(|error| naming("write", file, &error))
}

pub(super) fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
