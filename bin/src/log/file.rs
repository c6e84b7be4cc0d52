//! The log in files that begin anew by size and by time.
//!
//! Source of names and limits: Consul's documentation, «log_file» and what follows it. A file is named after the moment
//! in which it begins, so that nothing is ever renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proconsul_io_real::words::io_reason;
use tracing_subscriber::fmt::MakeWriter;

/// Where the log goes, and when a new file begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The path, without the time that is put into the name.
    pub path: PathBuf,
    /// A file ends when it has so many bytes; 0: at any size.
    pub bytes: u64,
    /// A file ends after so long; zero: never.
    pub after: Duration,
    /// So many ended files are kept; `None`: all.
    pub kept: Option<usize>,
}

impl LogFile {
    /// The file for the value of `log_file`: a directory gets files that are called `consul-TIME.log`, a name without
    /// an extension gets `.log`.
    #[must_use]
    pub fn path_of(text: &str) -> PathBuf {
        if text.ends_with('/') || Path::new(text).is_dir() {
            return Path::new(text).join("consul.log");
        }
        let path = PathBuf::from(text);
        if path.extension().is_none() { path.with_extension("log") } else { path }
    }
}

/// A writer of lines into such files.
#[derive(Debug)]
pub(super) struct Files {
    config: LogFile,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    written: u64,
    since: Instant,
}

impl Files {
    /// Begins the first file.
    ///
    /// # Errors
    /// It cannot be made; the text names it.
    pub(super) fn begin(config: LogFile) -> io::Result<Files> {
        let open = Mutex::new(open(&config)?);
        Ok(Files { config, open })
    }

    fn put(&self, line: &[u8]) -> io::Result<()> {
        let mut current = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let config = &self.config;
        let full = config.bytes > 0 && current.written >= config.bytes;
        let old = !config.after.is_zero() && current.since.elapsed() >= config.after;
        if full || old {
            *current = open(config)?;
        }
        current.file.write_all(line)?;
        current.written += line.len() as u64;
        Ok(())
    }
}

/// Begins a file, and removes those that are too many.
fn open(config: &LogFile) -> io::Result<Open> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let path = named(&config.path, &now.to_string());
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path);
    let file = file.map_err(|error| {
        io::Error::new(error.kind(), format!("open {}: {}", path.display(), io_reason(&error)))
    })?;
    if let Some(kept) = config.kept {
        for old in ended(config, &path).into_iter().rev().skip(kept) {
            // One that cannot be removed is tried again with the next file.
            let _ = fs::remove_file(old);
        }
    }
    Ok(Open { file, written: 0, since: Instant::now() })
}

/// The path with `-TIME` before the extension.
fn named(path: &Path, time: &str) -> PathBuf {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!("{}-{time}.{}", text(path.file_stem()), text(path.extension())))
}

/// Files that have ended, the oldest first.
fn ended(config: &LogFile, current: &Path) -> Vec<PathBuf> {
    let sample = named(&config.path, "*");
    let sample = sample.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((before, after)) = sample.split_once('*') else { return Vec::new() };
    let dir = config.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found: Vec<(u128, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let time = name.strip_prefix(before).and_then(|name| name.strip_suffix(after)?.parse().ok());
        if let Some(time) = time.filter(|_| Some(entry.file_name().as_os_str()) != current.file_name()) {
            found.push((time, entry.path()));
        }
    }
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

impl Write for &Files {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for &'static Files {
    type Writer = &'static Files;

    fn make_writer(&self) -> &'static Files {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> usize {
        fs::read_dir(dir).expect("there").count()
    }

    fn config(dir: &Path, bytes: u64, after: Duration, kept: Option<usize>) -> LogFile {
        LogFile { path: dir.join("x.log"), bytes, after, kept }
    }

    #[test]
    fn a_name_is_made_of_what_is_configured() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = dir.path().to_str().expect("text");
        for (written, path) in [
            (text.to_owned(), dir.path().join("consul.log")),
            ("/nosuch/".to_owned(), PathBuf::from("/nosuch/consul.log")),
            ("/nosuch/x".to_owned(), PathBuf::from("/nosuch/x.log")),
            ("x.txt".to_owned(), PathBuf::from("x.txt")),
        ] {
            assert_eq!(LogFile::path_of(&written), path, "{written}");
        }
        assert_eq!(named(Path::new("a/x.txt"), "5"), Path::new("a/x-5.txt"));
    }

    #[test]
    fn a_full_file_is_followed_by_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::begin(config(dir.path(), 10, Duration::ZERO, None)).expect("begun");
        files.put(b"123456789\n").expect("written");
        assert_eq!(names(dir.path()), 1);
        files.put(b"next\n").expect("written");
        assert_eq!(names(dir.path()), 2);
    }

    #[test]
    fn an_old_file_is_followed_by_another_and_too_many_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("x-other.log"), "not ours").expect("written");
        let files = Files::begin(config(dir.path(), 0, Duration::from_nanos(1), Some(2))).expect("begun");
        for line in 0..6 {
            files.put(format!("{line}\n").as_bytes()).expect("written");
        }
        assert_eq!(names(dir.path()), 1 + 2 + 1);
        let left = ended(&config(dir.path(), 0, Duration::ZERO, None), Path::new(""));
        let text: String = left.iter().map(|path| fs::read_to_string(path).expect("there")).collect();
        assert_eq!(text, "3\n4\n5\n");
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(&dir.path().join("none"), 0, Duration::ZERO, None);
        let error = Files::begin(config).expect_err("no directory").to_string();
        assert!(error.contains("none/x-") && error.ends_with("no such file or directory"), "{error}");
    }
}
