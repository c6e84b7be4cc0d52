//! Checkpoints and local state in files.
//!
//! They hold what the log can rebuild or what the agent can lose without harm to others; the log itself is elsewhere.
//! `state-N` has the rows of the state, `local-N` what the agent keeps for itself. A save adds what has changed to its
//! file; when changes are many, or all is new, the next number is written whole and takes the file's place.
//!
//! There is no database underneath. The embedded one that was here cut its journal where a bit had flipped, and said
//! nothing; on a damaged table it panicked with its locks held, so that closing it aborted the process, which no caller
//! can catch. Here every byte that means something is under a checksum, and what is damaged is refused by name.

mod saves;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::boundary::Checkpoint;
use proconsul_core::raft::SnapshotMeta;
use proconsul_core::store::{RowKey, StoreBuilder};

use self::saves::{Save, SaveFile};
use crate::files::{make_dir, naming};
use crate::ports::{Checkpoints, Loaded};

/// Format of a checkpoint's description. A newer one is refused.
const VERSION: u8 = 1;
const STATE: &str = "state";
const LOCAL: &str = "local";
/// What a file is called until it is whole.
const UNFINISHED: &str = "new";
/// So many bytes of rows are encoded at a time.
const ROWS_BYTES: usize = 1 << 20;

/// Checkpoints in a directory of their own. It is made by the first save: a server's first start does not wait for it.
pub struct FileCheckpoints {
    directory: PathBuf,
    state: Option<SaveFile>,
    local: Option<SaveFile>,
    /// What `local` holds.
    kept: BTreeMap<Text, Bytes>,
}

impl FileCheckpoints {
    /// Opens the directory if it exists.
    ///
    /// # Errors
    /// The directory cannot be used, is damaged ([`io::ErrorKind::InvalidData`]), or was written by another version
    /// ([`io::ErrorKind::Unsupported`]). Nothing was changed then.
    pub fn open(directory: &Path) -> io::Result<FileCheckpoints> {
        let found = list(directory)?;
        let newest = |kind: &str| match found.files.iter().filter(|(_, known, _)| known == kind).max() {
            Some((number, _, path)) => SaveFile::open(path, *number).map(Some),
            None => Ok(None),
        };
        let (state, local) = (newest(STATE)?, newest(LOCAL)?);
        if let (None, None, Some(stray)) = (&state, &local, found.strays.first()) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{} was left by another version, which kept its state differently", stray.display()),
            ));
        }
        let mut kept = BTreeMap::new();
        if let Some(local) = &local {
            local.rows(|key, value| {
                let key =
                    std::str::from_utf8(key).map_err(|_| garbled("a key of the agent's local state"))?;
                kept.insert(Text::new(key), Bytes::copy_from_slice(value));
                Ok(())
            })?;
        }
        // What a crash has left of a file that was to take another's place, or of the one whose place was taken.
        let is_current = |kind: &str, number: u64| {
            let current = if kind == STATE { &state } else { &local };
            current.as_ref().is_some_and(|file| file.number() == number)
        };
        let former = found.files.iter().filter(|(number, kind, _)| !is_current(kind, *number));
        for path in former.map(|(_, _, path)| path).chain(&found.unfinished) {
            fs::remove_file(path).map_err(|error| naming("remove", path, &error))?;
        }
        Ok(FileCheckpoints { directory: directory.to_owned(), state, local, kept })
    }

    /// Writes the next file of a kind, and lets it take the place of the former one.
    fn replace(
        &self,
        kind: &str,
        former: Option<u64>,
        about: &[u8],
        fill: impl FnOnce(&mut Save<'_>) -> io::Result<()>,
    ) -> io::Result<SaveFile> {
        make_dir(&self.directory)?;
        let number = former.map_or(1, |former| former + 1);
        let path = self.path(kind, number);
        let unfinished = path.with_extension(UNFINISHED);
        let write = || {
            let mut file = SaveFile::create(&unfinished, number)?;
            let mut save = file.begin();
            fill(&mut save)?;
            save.end(about)?;
            file.publish(&path)?;
            Ok(file)
        };
        let written = write();
        let needless = match &written {
            Ok(_) => former.map(|former| self.path(kind, former)),
            // It may have taken the room that was missing.
            Err(_) => Some(unfinished),
        };
        if let Some(needless) = needless
            && let Err(error) = fs::remove_file(&needless)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %needless.display(), %error, "a file that is of no use could not be removed; the next start removes it");
        }
        written
    }

    fn path(&self, kind: &str, number: u64) -> PathBuf {
        self.directory.join(format!("{kind}-{number:020}"))
    }
}

/// The files of a directory.
#[derive(Default)]
struct Found {
    /// Number, kind and path.
    files: Vec<(u64, String, PathBuf)>,
    unfinished: Vec<PathBuf>,
    /// What is no file of ours.
    strays: Vec<PathBuf>,
}

fn list(directory: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(|error| naming("list", directory, &error))?,
    };
    for entry in entries {
        let path = entry.map_err(|error| naming("list", directory, &error))?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.split_once('-'));
        let known = name.filter(|(kind, _)| [STATE, LOCAL].contains(kind));
        let known = known.and_then(|(kind, number)| Some((number.parse().ok()?, kind.to_owned())));
        match (known, path.extension()) {
            (Some((number, kind)), None) => found.files.push((number, kind, path)),
            (Some(_), Some(extension)) if extension == UNFINISHED => found.unfinished.push(path),
            _ => found.strays.push(path),
        }
    }
    Ok(found)
}

fn change(kept: &mut BTreeMap<Text, Bytes>, changes: &[(Text, Option<Bytes>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => kept.insert(key.clone(), value.clone()),
            None => kept.remove(key),
        };
    }
}

fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is garbled"))
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
            io::ErrorKind::Unsupported,
            format!(
                "checkpoint format {version}, this version reads format {VERSION}: start the newer version again"
            ),
        )),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "empty description of a checkpoint")),
    }
}

#[async_trait]
impl Checkpoints for FileCheckpoints {
    async fn load(&mut self) -> io::Result<Loaded> {
        let local = self.kept.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let Some(state) = &self.state else { return Ok(Loaded { local, ..Loaded::default() }) };
        let meta = decode_meta(state.about())?;
        let mut builder = StoreBuilder::default();
        state.rows(|key, row| {
            builder
                .put_row(key, row)
                .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad.to_string()))
        })?;
        Ok(Loaded { meta, store: builder.finish(), local })
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        let (store, about) = (&checkpoint.store, encode_meta(&checkpoint.meta));
        if let (Some(state), Some(dirty)) = (&mut self.state, &checkpoint.dirty)
            && !state.is_long()
        {
            let mut save = state.begin();
            for key in dirty {
                save.put(key.as_bytes(), store.row(key).as_deref())?;
            }
            return save.end(&about);
        }
        let former = self.state.as_ref().map(SaveFile::number);
        let state = self.replace(STATE, former, &about, |save| {
            let mut cursor: Option<RowKey> = None;
            loop {
                let (rows, next) = store.rows_after(cursor.as_ref(), ROWS_BYTES);
                for (key, row) in &rows {
                    save.put(key.as_bytes(), Some(row))?;
                }
                match next {
                    Some(next) => cursor = Some(next),
                    None => return Ok(()),
                }
            }
        })?;
        self.state = Some(state);
        Ok(())
    }

    async fn save_local(&mut self, changes: &[(Text, Option<Bytes>)]) -> io::Result<()> {
        match &mut self.local {
            Some(local) if !local.is_long() => {
                let mut save = local.begin();
                for (key, value) in changes {
                    save.put(key.as_bytes(), value.as_deref())?;
                }
                save.end(&[])?;
            }
            local => {
                let former = local.as_ref().map(SaveFile::number);
                let mut kept = self.kept.clone();
                change(&mut kept, changes);
                let written = self.replace(LOCAL, former, &[], |save| {
                    kept.iter().try_for_each(|(key, value)| save.put(key.as_bytes(), Some(value)))
                })?;
                self.local = Some(written);
            }
        }
        change(&mut self.kept, changes);
        Ok(())
    }
}
