//! Checkpoints and local state in fjall.
//!
//! fjall holds what the log can rebuild or what the agent can lose without harm to others; the log itself is elsewhere.
//! The rows of the state are one keyspace, replaced as a whole when a snapshot is installed: a new keyspace is filled
//! first, then one atomic batch points to it. Every save is one batch and one sync.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use proconsul_core::Text;
use proconsul_core::boundary::Checkpoint;
use proconsul_core::raft::SnapshotMeta;
use proconsul_core::store::{RowKey, StoreBuilder};

use crate::ports::{Checkpoints, Loaded, is_full};

/// Format of what is kept. A newer one is refused.
const VERSION: u8 = 1;
/// Rows are read once, at start: a small cache is enough.
const CACHE_BYTES: u64 = 2 << 20;
/// Rows are written in bulk and never read back before a restart: little of them is held in memory.
const MEMTABLE_BYTES: u64 = 4 << 20;
/// A database that gave up on a file system with less room than this gave up for want of room.
const ROOM_MIN: u64 = 16 << 20;
/// Where the meaning of the state is kept.
const META: &[u8] = b"meta";
/// What the keys of the agent's own state begin with. They share a keyspace with the above: each keyspace costs a
/// first start twenty syncs.
const LOCAL: &[u8] = b"local/";
/// Where the number of the state's keyspace is kept.
const GENERATION: &[u8] = b"generation";

/// Checkpoints in a directory of their own. It is made by the first save: a server's first start does not wait for it.
pub struct FjallCheckpoints {
    directory: PathBuf,
    opened: Option<Opened>,
}

/// An open database.
struct Opened {
    database: Database,
    about: Keyspace,
    state: Keyspace,
    generation: u64,
}

impl FjallCheckpoints {
    /// Opens the directory if it exists.
    ///
    /// # Errors
    /// The directory cannot be used, is damaged, or was written by a newer version.
    pub fn open(directory: &Path) -> io::Result<FjallCheckpoints> {
        let opened = if directory.exists() { Some(Opened::open(directory)?) } else { None };
        Ok(FjallCheckpoints { directory: directory.to_owned(), opened })
    }

    /// Performs a save. A database that found no room accepts nothing more: it is closed, and opened again, which brings
    /// it back to its last good save, when the same is tried again.
    fn saving<T>(&mut self, save: impl FnOnce(&mut Opened) -> Result<T, fjall::Error>) -> io::Result<T> {
        let saved = save(self.opened()?);
        saved.map_err(|error| {
            let error = bad(&self.directory, &error);
            if is_full(&error) {
                self.opened = None;
            }
            error
        })
    }

    /// The database, which is made if need be.
    fn opened(&mut self) -> io::Result<&mut Opened> {
        if self.opened.is_none() {
            create(&self.directory)?;
            self.opened = Some(Opened::open(&self.directory)?);
        }
        Ok(self.opened.as_mut().expect("opened above"))
    }
}

impl Opened {
    fn open(directory: &Path) -> io::Result<Opened> {
        let context = |error: fjall::Error| bad(directory, &error);
        let database = database(directory).map_err(context)?;
        let about = database.keyspace("about", state_options).map_err(context)?;
        let generation = match about.get(GENERATION).map_err(context)? {
            Some(bytes) => u64::from_be_bytes(bytes.as_ref().try_into().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: garbled generation", directory.display()),
                )
            })?),
            None => 0,
        };
        let state = database.keyspace(&state_name(generation), state_options).map_err(context)?;
        Ok(Opened { database, about, state, generation })
    }

    fn save_rows(&mut self, checkpoint: &Checkpoint) -> Result<(), fjall::Error> {
        let meta = encode_meta(&checkpoint.meta);
        if let Some(dirty) = &checkpoint.dirty {
            let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
            for key in dirty {
                match checkpoint.store.row(key) {
                    Some(row) => batch.insert(&self.state, key.as_bytes(), row),
                    None => batch.remove(&self.state, key.as_bytes()),
                }
            }
            batch.insert(&self.about, META, meta);
            return batch.commit();
        }
        let generation = self.generation + 1;
        let state = self.database.keyspace(&state_name(generation), state_options)?;
        state.clear()?;
        let mut ingestion = state.start_ingestion()?;
        let mut cursor: Option<RowKey> = None;
        loop {
            let (rows, next) = checkpoint.store.rows_after(cursor.as_ref(), 1 << 20);
            for (key, row) in &rows {
                ingestion.write(key.as_bytes(), row.as_slice())?;
            }
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        ingestion.finish()?;
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.about, META, meta);
        batch.insert(&self.about, GENERATION, generation.to_be_bytes());
        batch.commit()?;
        let former = std::mem::replace(&mut self.state, state);
        self.generation = generation;
        self.database.delete_keyspace(former)
    }
}

fn database(directory: &Path) -> Result<Database, fjall::Error> {
    Database::builder(directory).cache_size(CACHE_BYTES).worker_threads(1).open()
}

/// Makes an empty database under its name at once. fjall makes one file by file and, after a crash in the middle,
/// refuses what it finds.
fn create(directory: &Path) -> io::Result<()> {
    let context =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
    let unfinished = directory.with_extension("new");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(context(error)),
        _ => {}
    }
    fs::create_dir_all(&unfinished).map_err(context)?;
    let made = database(&unfinished).and_then(|database| database.persist(PersistMode::SyncAll));
    made.map_err(|error| bad(&unfinished, &error))?;
    fs::rename(&unfinished, directory).map_err(context)?;
    let above = directory.parent().unwrap_or(directory);
    fs::File::open(above).and_then(|dir| dir.sync_all()).map_err(context)
}

fn state_name(generation: u64) -> String {
    format!("state-{generation}")
}

fn state_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

/// An error with its place. If there was no room it says so: also of a database that gave up because its own housekeeping
/// had found none.
fn bad(directory: &Path, error: &fjall::Error) -> io::Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut kind = io::ErrorKind::Other;
    while let Some(found) = source {
        if let Some(io) = found.downcast_ref::<io::Error>() {
            kind = io.kind();
        }
        source = found.source();
    }
    if matches!(error, fjall::Error::Poisoned) && has_no_room(directory) {
        kind = io::ErrorKind::StorageFull;
    }
    io::Error::new(kind, format!("cannot write {}: {error}", directory.display()))
}

fn has_no_room(directory: &Path) -> bool {
    rustix::fs::statvfs(directory).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < ROOM_MIN)
}

fn encode_meta(meta: &SnapshotMeta) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_stdvec(meta).expect("memory is the only sink"));
    bytes
}

fn decode_meta(bytes: &[u8]) -> io::Result<SnapshotMeta> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(io::Error::other),
        Some((version, _)) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "checkpoint format {version}, this version reads format {VERSION}: start the newer version again"
            ),
        )),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "empty description of a checkpoint")),
    }
}

#[async_trait]
impl Checkpoints for FjallCheckpoints {
    async fn load(&mut self) -> io::Result<Loaded> {
        let Some(opened) = &self.opened else { return Ok(Loaded::default()) };
        let meta = match opened.about.get(META).map_err(io::Error::other)? {
            Some(bytes) => decode_meta(&bytes)?,
            None => SnapshotMeta::default(),
        };
        let mut builder = StoreBuilder::default();
        for row in opened.state.iter() {
            let (key, row) = row.into_inner().map_err(io::Error::other)?;
            builder
                .put_row(&key, &row)
                .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad.to_string()))?;
        }
        let mut local = Vec::new();
        for row in opened.about.prefix(LOCAL) {
            let (key, value) = row.into_inner().map_err(io::Error::other)?;
            let key = std::str::from_utf8(&key[LOCAL.len()..]).map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, "garbled key in the agent's local state")
            })?;
            local.push((Text::new(key), Bytes::copy_from_slice(&value)));
        }
        Ok(Loaded { meta, store: builder.finish(), local })
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.saving(|opened| opened.save_rows(checkpoint))
    }

    async fn save_local(&mut self, changes: &[(Text, Option<Bytes>)]) -> io::Result<()> {
        self.saving(|opened| {
            let mut batch = opened.database.batch().durability(Some(PersistMode::SyncAll));
            for (key, value) in changes {
                let key = [LOCAL, key.as_bytes()].concat();
                match value {
                    Some(value) => batch.insert(&opened.about, key, value.as_ref()),
                    None => batch.remove(&opened.about, key),
                }
            }
            batch.commit()
        })
    }
}
