//! Checkpoints and local state in fjall.
//!
//! fjall holds what the log can rebuild or what the agent can lose without harm to others; the log itself is elsewhere.
//! The rows of the state are one keyspace, replaced as a whole when a snapshot is installed: a new keyspace is filled
//! first, then one atomic batch points to it. Every save is one batch and one sync, and says what all that is kept adds up to
//! (`summary`); a load that finds something else refuses it.

mod refusal;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use proconsul_core::Text;
use proconsul_core::boundary::Checkpoint;
use proconsul_core::store::{RowKey, Store, StoreBuilder};

use crate::ports::{Checkpoints, Loaded, is_full};
pub use refusal::reading;
use summary::{Sum, Summary, invalid, read_seal, write_seal};

/// Rows are read once, at start: a small cache is enough.
const CACHE_BYTES: u64 = 2 << 20;
/// Rows are written in bulk and never read back before a restart: little of them is held in memory.
const MEMTABLE_BYTES: u64 = 4 << 20;
/// A database that gave up on a file system with less room than this gave up for want of room.
const ROOM_MIN: u64 = 16 << 20;
/// Where the summary is kept.
const SUMMARY: &[u8] = b"meta";
/// What the keys of the agent's own state begin with. They share a keyspace with the above: each keyspace costs a
/// first start twenty syncs.
const LOCAL: &[u8] = b"local/";
/// Where the number of the state's keyspace is kept.
const GENERATION: &[u8] = b"generation";

/// Checkpoints in a directory of their own. It is made by the first save: a server's first start does not wait for it.
pub struct FjallCheckpoints {
    directory: PathBuf,
    opened: Option<Opened>,
    last: Last,
}

/// What the last good save left. The sums of the next one begin with it; its store shares with the present one all rows that
/// have not changed since.
#[derive(Default)]
struct Last {
    summary: Summary,
    store: Store,
    local: BTreeMap<Text, Bytes>,
}

/// An open database.
struct Opened {
    database: Database,
    about: Keyspace,
    state: Keyspace,
    generation: u64,
}

impl FjallCheckpoints {
    /// Opens the directory if it exists; what it has is to be loaded before anything is saved. See [`reading`] for what
    /// damage may do besides giving an error.
    ///
    /// # Errors
    /// The directory cannot be used, is damaged, or was written by a newer version.
    pub fn open(directory: &Path) -> io::Result<FjallCheckpoints> {
        let sealed = read_seal(&seal(directory))?;
        let opened = if directory.exists() { Some(Opened::open(directory)?) } else { None };
        if opened.is_none() && sealed > 0 {
            return Err(invalid(format!("{} is gone, with {sealed} saves", directory.display())));
        }
        Ok(FjallCheckpoints { directory: directory.to_owned(), opened, last: Last::default() })
    }

    /// Performs a save. A database that found no room accepts nothing more: it is closed, and opened again, which brings
    /// it back to its last good save, when the same is tried again.
    fn saving(
        &mut self,
        save: impl FnOnce(&mut Opened, &mut Last) -> Result<(), fjall::Error>,
    ) -> io::Result<()> {
        self.open_or_create()?;
        let opened = self.opened.as_mut().expect("opened above");
        let (summary, store) = (self.last.summary.clone(), self.last.store.clone());
        self.last.summary.saves += 1;
        match save(opened, &mut self.last) {
            Ok(()) => write_seal(&seal(&self.directory), self.last.summary.saves),
            Err(error) => {
                (self.last.summary, self.last.store) = (summary, store);
                let error = bad(&self.directory, &error);
                if is_full(&error) {
                    self.opened = None;
                }
                Err(error)
            }
        }
    }

    /// The database, which is made if need be.
    fn open_or_create(&mut self) -> io::Result<()> {
        if self.opened.is_none() {
            if !self.directory.exists() {
                create(&self.directory)?;
            }
            self.opened = Some(Opened::open(&self.directory)?);
        }
        Ok(())
    }
}

impl Opened {
    fn open(directory: &Path) -> io::Result<Opened> {
        let context = |error: fjall::Error| match bad(directory, &error) {
            failed if failed.kind() == io::ErrorKind::Other => invalid(format!("it is damaged: {error}")),
            failed => failed,
        };
        let database = database(directory).map_err(context)?;
        let about = database.keyspace("about", state_options).map_err(context)?;
        let generation = match about.get(GENERATION).map_err(context)? {
            Some(bytes) => u64::from_be_bytes(
                bytes.as_ref().try_into().map_err(|_| invalid("the number of its keyspace is garbled"))?,
            ),
            None => 0,
        };
        let state = database.keyspace(&state_name(generation), state_options).map_err(context)?;
        Ok(Opened { database, about, state, generation })
    }

    /// Makes a batch durable, with the summary of what is kept then.
    fn commit(&self, mut batch: OwnedWriteBatch, summary: &Summary) -> Result<(), fjall::Error> {
        batch.insert(&self.about, SUMMARY, summary.encode());
        batch.commit()
    }

    fn batch(&self) -> OwnedWriteBatch {
        self.database.batch().durability(Some(PersistMode::SyncAll))
    }

    fn save_rows(&mut self, checkpoint: &Checkpoint, last: &mut Last) -> Result<(), fjall::Error> {
        let Last { summary, store, .. } = last;
        summary.meta = checkpoint.meta.clone();
        if let Some(dirty) = &checkpoint.dirty {
            let mut batch = self.batch();
            // Each once, or it would count twice.
            for key in dirty.iter().collect::<BTreeSet<_>>() {
                if let Some(former) = store.row(key) {
                    summary.rows.remove(key.as_bytes(), &former);
                }
                match checkpoint.store.row(key) {
                    Some(row) => {
                        summary.rows.add(key.as_bytes(), &row);
                        batch.insert(&self.state, key.as_bytes(), row);
                    }
                    None => batch.remove(&self.state, key.as_bytes()),
                }
            }
            *store = checkpoint.store.clone();
            return self.commit(batch, summary);
        }
        let generation = self.generation + 1;
        let name = state_name(generation);
        if self.database.keyspace_exists(&name) {
            // A crash has left it unfinished. It is not cleared: fjall notes that in its journal and does it again at the
            // next start, when the rows that were ingested since are gone with it.
            self.database.delete_keyspace(self.database.keyspace(&name, state_options)?)?;
        }
        let state = self.database.keyspace(&name, state_options)?;
        let mut ingestion = state.start_ingestion()?;
        let mut cursor: Option<RowKey> = None;
        summary.rows = Sum::default();
        loop {
            let (rows, next) = checkpoint.store.rows_after(cursor.as_ref(), 1 << 20);
            for (key, row) in &rows {
                summary.rows.add(key.as_bytes(), row);
                ingestion.write(key.as_bytes(), row.as_slice())?;
            }
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        ingestion.finish()?;
        *store = checkpoint.store.clone();
        let mut batch = self.batch();
        batch.insert(&self.about, GENERATION, generation.to_be_bytes());
        self.commit(batch, summary)?;
        let former = std::mem::replace(&mut self.state, state);
        self.generation = generation;
        self.database.delete_keyspace(former)
    }

    fn save_local(&mut self, changes: &[(Text, Option<Bytes>)], last: &mut Last) -> Result<(), fjall::Error> {
        let mut batch = self.batch();
        for (name, value) in changes {
            let key = [LOCAL, name.as_bytes()].concat();
            if let Some(former) = last.local.remove(name) {
                last.summary.local.remove(&key, &former);
            }
            match value {
                Some(value) => {
                    last.summary.local.add(&key, value);
                    last.local.insert(name.clone(), value.clone());
                    batch.insert(&self.about, key, value.as_ref());
                }
                None => batch.remove(&self.about, key),
            }
        }
        self.commit(batch, &last.summary)
    }

    /// Everything that is kept, if it adds up.
    fn load(&self, sealed: u64) -> io::Result<Last> {
        let summary = match self.about.get(SUMMARY).map_err(io::Error::other)? {
            Some(bytes) => Summary::decode(&bytes)?,
            None => Summary::default(),
        };
        if summary.saves < sealed {
            return Err(invalid(format!("of {sealed} saves only {} are left", summary.saves)));
        }
        let (mut rows, mut local) = (Sum::default(), Sum::default());
        let mut builder = StoreBuilder::default();
        for row in self.state.iter() {
            let (key, row) = row.into_inner().map_err(io::Error::other)?;
            rows.add(&key, &row);
            builder.put_row(&key, &row).map_err(|bad| invalid(bad.to_string()))?;
        }
        let mut kept = BTreeMap::new();
        for row in self.about.prefix(LOCAL) {
            let (key, value) = row.into_inner().map_err(io::Error::other)?;
            local.add(&key, &value);
            let name = std::str::from_utf8(&key[LOCAL.len()..])
                .map_err(|_| invalid("a key of the agent's own state is garbled"))?;
            kept.insert(Text::new(name), Bytes::copy_from_slice(&value));
        }
        if (rows, local) != (summary.rows, summary.local) {
            return Err(invalid("rows are missing or changed"));
        }
        Ok(Last { summary, store: builder.finish(), local: kept })
    }
}

/// The count of saves beside the database.
fn seal(directory: &Path) -> PathBuf {
    directory.with_extension("seal")
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

#[async_trait]
impl Checkpoints for FjallCheckpoints {
    async fn load(&mut self) -> io::Result<Loaded> {
        let Some(opened) = &self.opened else { return Ok(Loaded::default()) };
        self.last = opened.load(read_seal(&seal(&self.directory))?)?;
        let Last { summary, store, local } = &self.last;
        let local = local.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Loaded { meta: summary.meta.clone(), store: store.clone(), local })
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.saving(|opened, last| opened.save_rows(checkpoint, last))
    }

    async fn save_local(&mut self, changes: &[(Text, Option<Bytes>)]) -> io::Result<()> {
        let former = |(name, _): &(Text, Option<Bytes>)| (name.clone(), self.last.local.get(name).cloned());
        let former: Vec<_> = changes.iter().map(former).collect();
        self.saving(|opened, last| opened.save_local(changes, last)).inspect_err(|_| {
            for (name, value) in former {
                match value {
                    Some(value) => self.last.local.insert(name, value),
                    None => self.last.local.remove(&name),
                };
            }
        })
    }
}
