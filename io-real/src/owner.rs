//! Whose log a data directory has: an identity that has voted must never speak without its log.
//!
//! The file beside the log is written before the log's first file, and outlives it: a server that finds its own identity
//! there and no log has forgotten what it promised. The agent's identity itself, `node-id`, says nothing about that: it
//! is there before the first start is over, and on client agents.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use proconsul_core::ids::Uuid;

use crate::files::naming;

/// File in the data directory.
pub const FILE: &str = "server-id";

/// Whose log was begun in this data directory; `None` if none was.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read(data_dir: &Path) -> io::Result<Option<Uuid>> {
    read_id(&data_dir.join(FILE))
}

/// Notes whose log is about to be begun in this data directory. Durable on return.
///
/// # Errors
/// The file cannot be written.
pub fn claim(data_dir: &Path, id: Uuid) -> io::Result<()> {
    write_id(data_dir, FILE, id)
}

/// Whether there is a log in this data directory.
///
/// # Errors
/// The directory of the log cannot be read.
pub fn has_log(data_dir: &Path) -> io::Result<bool> {
    let log = log_path(data_dir);
    match fs::read_dir(&log) {
        Ok(files) => {
            for file in files {
                let name = file.map_err(|error| naming("list", &log, &error))?.file_name();
                if name.to_string_lossy().starts_with("wal-") {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(naming("list", &log, &error)),
    }
}

/// Where the log of a data directory lies.
pub(crate) fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join("raft").join("log")
}

/// The identity in a file; `None` if there is no such file.
///
/// # Errors
/// The file cannot be read, or holds something else than a UUID.
pub fn read_id(file: &Path) -> io::Result<Option<Uuid>> {
    match fs::read_to_string(file) {
        Ok(text) => match Uuid::parse(text.trim()) {
            Some(id) => Ok(Some(id)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} holds no UUID: restore it, or set node_id", file.display()),
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(naming("read", file, &error)),
    }
}

/// Writes an identity so that whoever reads it, after a crash too, finds the former one or the new one.
///
/// # Errors
/// The file cannot be written.
pub fn write_id(directory: &Path, name: &str, id: Uuid) -> io::Result<()> {
    let file = directory.join(name);
    let beside = file.with_extension("new");
    let replace = || {
        let mut new = File::create(&beside)?;
        new.write_all(id.to_string().as_bytes())?;
        new.sync_all()?;
        fs::rename(&beside, &file)?;
        File::open(directory)?.sync_all()
    };
    replace().map_err(|error| naming("write", &file, &error))
}

/// What was moved aside, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The directory that has it now.
    pub path: PathBuf,
    /// Whose log it is.
    pub owner: Option<Uuid>,
}

/// Moves a server's log, state and identity aside, so that it begins as a new server. Nothing is deleted. A crash in the
/// middle leaves a directory whose next server is a new one, too.
///
/// # Errors
/// There is nothing to move, or it cannot be moved.
pub fn set_aside(data_dir: &Path, node_id: &str) -> io::Result<Aside> {
    let raft = data_dir.join("raft");
    let free =
        (1..).map(|number| data_dir.join(format!("raft.damaged-{number}"))).find(|path| !path.exists());
    let path = free.expect("numbers do not end");
    let owner = read(data_dir).ok().flatten();
    fs::rename(&raft, &path).map_err(|error| naming("move", &raft, &error))?;
    for name in [FILE, node_id] {
        let file = data_dir.join(name);
        match fs::rename(&file, path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(naming("move", &file, &error));
            }
            _ => {}
        }
    }
    File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(|error| naming("sync", data_dir, &error))?;
    Ok(Aside { path, owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_log_is_kept_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()).expect("readable"), None);
        claim(dir.path(), Uuid(5)).expect("written");
        assert_eq!(read(dir.path()).expect("readable"), Some(Uuid(5)));
        fs::write(dir.path().join(FILE), "rubbish").expect("written");
        let error = read(dir.path()).expect_err("no UUID").to_string();
        assert!(error.contains("server-id holds no UUID"), "{error}");
    }

    #[test]
    fn a_log_is_there_when_it_has_a_segment() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(!has_log(dir.path()).expect("readable"));
        fs::create_dir_all(log_path(dir.path())).expect("a directory");
        assert!(!has_log(dir.path()).expect("readable"));
        fs::write(log_path(dir.path()).join("wal-00000000000000000001.log"), "").expect("written");
        assert!(has_log(dir.path()).expect("readable"));
    }

    #[test]
    fn what_is_set_aside_is_kept_as_often_as_it_is_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        for number in 1..=3_u128 {
            fs::create_dir(dir.path().join("raft")).expect("a directory");
            fs::write(dir.path().join("raft/file"), number.to_string()).expect("written");
            claim(dir.path(), Uuid(number)).expect("written");
            write_id(dir.path(), "node-id", Uuid(number)).expect("written");
            let aside = set_aside(dir.path(), "node-id").expect("moved");
            assert_eq!(aside.owner, Some(Uuid(number)));
            assert_eq!(aside.path, dir.path().join(format!("raft.damaged-{number}")));
        }
        for number in 1..=3_u128 {
            let aside = dir.path().join(format!("raft.damaged-{number}"));
            assert_eq!(fs::read_to_string(aside.join("file")).expect("kept"), number.to_string());
            assert_eq!(read_id(&aside.join("node-id")).expect("kept"), Some(Uuid(number)));
        }
        assert!(!dir.path().join("node-id").exists() && !dir.path().join(FILE).exists());
        let error = set_aside(dir.path(), "node-id").expect_err("nothing is left").to_string();
        assert!(error.contains("cannot move"), "{error}");
    }
}
