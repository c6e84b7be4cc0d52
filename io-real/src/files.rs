//! The data directory on a real file system.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use proconsul_core::boundary::Input;
use proconsul_core::ids::Uuid;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::log_writer::{LogJob, write_log};
use crate::owner;
use crate::ports::{Disk, is_full};

/// File in the data directory that the agent which uses it has locked; its process id stands in it.
pub const LOCK_FILE: &str = "proconsul.lock";
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// A directory of log files. Its calls block: it belongs on a thread of its own.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    dir: File,
    open: BTreeMap<String, File>,
    /// The data directory, and whose log it is about to have: written down before the first file is made.
    claim: Option<(PathBuf, Uuid)>,
}

impl FileDisk {
    /// Opens a directory, making it (readable to its owner only) if it does not exist.
    ///
    /// # Errors
    /// The directory cannot be made or opened; the text names it.
    pub fn open(path: &Path) -> io::Result<FileDisk> {
        make_dir(path)?;
        let dir = File::open(path).map_err(|error| naming("open", path, &error))?;
        Ok(FileDisk { path: path.to_owned(), dir, open: BTreeMap::new(), claim: None })
    }

    /// Has a data directory claimed for the log of this server before the first file is made in it.
    pub fn claim(&mut self, data_dir: &DataDir, id: Uuid) {
        self.claim = Some((data_dir.path().to_owned(), id));
    }

    fn on<T>(
        &mut self,
        action: &'static str,
        name: &str,
        act: impl FnOnce(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        let path = self.path.join(name);
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().read(true).write(true).open(&path);
            self.open.insert(name.to_owned(), file.map_err(|error| naming("open", &path, &error))?);
        }
        act(&self.open[name]).map_err(|error| naming(action, &path, &error))
    }
}

#[async_trait]
impl Disk for FileDisk {
    async fn list(&mut self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path).map_err(|error| naming("list", &self.path, &error))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| naming("list", &self.path, &error))?;
            // A name that is no text is none of ours.
            names.extend(entry.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    async fn len(&mut self, name: &str) -> io::Result<u64> {
        self.on("read", name, |file| Ok(file.metadata()?.len()))
    }

    async fn read_at(&mut self, name: &str, offset: u64, length: u64) -> io::Result<Bytes> {
        self.on("read", name, |file| {
            let available = file.metadata()?.len().saturating_sub(offset);
            let mut bytes = vec![0; usize::try_from(length.min(available)).map_err(io::Error::other)?];
            let read = file.read_at(&mut bytes, offset)?;
            bytes.truncate(read);
            Ok(bytes.into())
        })
    }

    async fn create(&mut self, name: &str) -> io::Result<()> {
        if let Some((data_dir, id)) = &self.claim {
            owner::claim(data_dir, *id)?;
            self.claim = None;
        }
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        self.open.insert(name.to_owned(), file.map_err(|error| naming("create", &path, &error))?);
        Ok(())
    }

    async fn write_at(&mut self, name: &str, offset: u64, bytes: Bytes) -> io::Result<()> {
        self.on("write", name, |file| file.write_all_at(&bytes, offset))
    }

    async fn zero(&mut self, name: &str, from: u64, to: u64) -> io::Result<()> {
        self.on("write", name, |file| {
            let mut at = from;
            while at < to {
                let part = ZEROS.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
                file.write_all_at(&ZEROS[..part], at)?;
                at += part as u64;
            }
            Ok(())
        })
    }

    async fn sync(&mut self, name: &str) -> io::Result<()> {
        self.on("sync", name, File::sync_data)
    }

    async fn sync_dir(&mut self) -> io::Result<()> {
        self.dir.sync_all().map_err(|error| naming("sync", &self.path, &error))
    }

    async fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        let path = self.path.join(name);
        fs::remove_file(&path).map_err(|error| naming("remove", &path, &error))
    }
}

/// The right to use a data directory. Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another agent uses it.
    #[error(
        "the data directory {path} is in use by another agent{}; stop that agent, or give this one a directory of its \
         own with -data-dir",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other agent's process, if it has written that down already.
        pid: Option<u32>,
    },
    /// It cannot be made or written to.
    #[error("the data directory cannot be used: {0}")]
    Io(#[from] io::Error),
}

impl DataDir {
    /// Takes a data directory, making it if it does not exist.
    ///
    /// # Errors
    /// Another process has it, or it cannot be made or written to.
    pub fn take(path: &Path) -> Result<DataDir, DataDirError> {
        make_dir(path)?;
        let lock_path = path.join(LOCK_FILE);
        let failed = |action| {
            let path = lock_path.clone();
            move |error: io::Error| naming(action, &path, &error)
        };
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut owner = String::new();
                let read = lock.read_to_string(&mut owner);
                let pid = read.ok().and_then(|_| owner.trim().parse().ok());
                return Err(DataDirError::InUse { path: path.to_owned(), pid });
            }
            Err(error) => return Err(failed("lock")(error.into()).into()),
        }
        let note = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        match note(&mut lock) {
            // The lock counts without it, and an agent starts on a full disk, to serve what it has.
            Err(error) if is_full(&error) => {}
            noted => noted.map_err(failed("write"))?,
        }
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the Raft log lies.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        owner::log_path(&self.path)
    }
}

/// Runs the log's lane on a thread of its own, so that nothing else delays a sync. The thread ends when the channel
/// closes or a write fails.
///
/// # Errors
/// The system has no more threads.
pub fn spawn_log_thread(
    mut disk: FileDisk,
    jobs: mpsc::Receiver<LogJob>,
    done: mpsc::Sender<Input>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let lane = move || runtime.block_on(write_log(&mut disk, jobs, done));
    std::thread::Builder::new().name("proconsul-log".into()).spawn(lane)
}

/// Makes a directory and those above it that are missing, and makes their entries durable.
fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.is_dir()).collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| naming("create", path, &error))?;
    for made in missing {
        let above = match made.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        let synced = File::open(above).and_then(|dir| dir.sync_all());
        synced.map_err(|error| naming("sync", above, &error))?;
    }
    Ok(())
}

pub(crate) fn naming(action: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use proconsul_core::raft::{HardState, Record, SnapshotMeta};
    use proconsul_core::rng::Rng;
    use proconsul_core::wal::Options;

    use super::*;
    use crate::log_writer::open_log;
    use crate::ports::disk_suite;

    fn run<T>(task: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(task)
    }

    /// A directory for one test, and its disk.
    fn disk() -> (tempfile::TempDir, FileDisk) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = FileDisk::open(&dir.path().join("raft/log")).expect("made with its parents");
        (dir, disk)
    }

    #[test]
    fn files_keep_the_contract_of_a_disk() {
        let (_dir, mut disk) = disk();
        run(disk_suite::a_disk_keeps_its_contract(&mut disk));
    }

    #[test]
    fn a_log_on_files_recovers_what_was_acknowledged() {
        let (dir, disk) = disk();
        let reopen = |_| FileDisk::open(&dir.path().join("raft/log")).expect("still there");
        run(disk_suite::a_log_recovers_what_was_acknowledged(disk, reopen));
    }

    #[test]
    fn the_log_thread_writes_reports_and_ends_with_its_channel() {
        let (_dir, mut disk) = disk();
        let opened = run(open_log(&mut disk, Options::default(), Rng::from_seed(1))).expect("empty");
        let (mut wal, _) = opened.with_snapshot(SnapshotMeta::default()).expect("empty");
        let (writes, from_core) = mpsc::channel(1);
        let (to_core, mut done) = mpsc::channel(1);
        let thread = spawn_log_thread(disk, from_core, to_core).expect("a thread");
        let mut out = Vec::new();
        wal.push(7, vec![Record::HardState(HardState::default())], &mut out);
        writes.blocking_send(LogJob::Write(out.remove(0))).expect("the thread runs");
        let Some(Input::Logged { write, result: Ok(()) }) = done.blocking_recv() else {
            panic!("it is durable")
        };
        assert_eq!(wal.on_done(write, &mut out), Some(7));
        drop(writes);
        thread.join().expect("no panic");
    }

    #[test]
    fn a_second_agent_is_refused_and_told_who_has_the_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = DataDir::take(&dir.path().join("data")).expect("free");
        let error = DataDir::take(first.path()).expect_err("taken").to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        assert!(error.contains("/data is in use by another agent"), "{error}");
        let path = first.path().to_owned();
        drop(first);
        DataDir::take(&path).expect("free again");
    }

    #[test]
    fn errors_name_the_path() {
        let (dir, mut disk) = disk();
        let error = run(disk.sync("wal-x")).expect_err("no such file");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("raft/log/wal-x: No such file"), "{error}");
        std::fs::write(dir.path().join("file"), "").expect("written");
        let error = DataDir::take(&dir.path().join("file/data")).expect_err("below a file").to_string();
        assert!(error.contains("the data directory cannot be used: cannot create"), "{error}");
        assert!(error.contains("file/data: Not a directory"), "{error}");
    }

    #[test]
    fn a_full_disk_is_reported_with_the_path() {
        let (_dir, mut disk) = disk();
        let full = OpenOptions::new().read(true).write(true).open("/dev/full").expect("exists on Linux");
        disk.open.insert("wal-full".into(), full);
        let error = run(disk.write_at("wal-full", 0, Bytes::from_static(b"x"))).expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(
            error.to_string().contains("cannot write") && error.to_string().contains("wal-full"),
            "{error}"
        );
    }
}
