//! The data directory: whether it is there, may be written, has room, and whose it is.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use proconsul_io_real::files::LOCK_FILE;
use rustix::fs::{Access, FlockOperation, access, flock, statvfs};

use super::Report;

const LOOK: &str = "data directory";
/// With less room than this a server soon takes no writes.
const ROOM_ERROR: u64 = 256 << 20;
/// With less room than this somebody should look after it.
const ROOM_WARNING: u64 = 2 << 30;
/// Clocks of file systems in the network may differ by so much.
const FUTURE_MAX: Duration = Duration::from_secs(5);

/// Looks at the directory. The result is the process that uses it.
pub fn look(dir: &Path, report: &mut Report) -> Option<u32> {
    let shown = dir.display();
    if !dir.exists() {
        let above = dir.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
        if access(above, Access::WRITE_OK).is_err() {
            let found =
                format!("{shown} does not exist, and this user may not make it in {}", above.display());
            report.error(
                LOOK,
                found,
                format!("make it, and give it to the agent's user: install -d -o USER -m 0700 {shown}"),
            );
        } else {
            report.ok(LOOK, format!("{shown} does not exist yet; the agent makes it"));
            room(above, report);
        }
        return None;
    }
    if !dir.is_dir() {
        report.error(LOOK, format!("{shown} is no directory"), "set data_dir (-data-dir) to a directory");
        return None;
    }
    if access(dir, Access::WRITE_OK | Access::READ_OK | Access::EXEC_OK).is_err() {
        report.error(
            LOOK,
            format!("this user may not read and write {shown}"),
            format!("run this as the agent's user, or give the directory to it: chown -R USER {shown}"),
        );
        return None;
    }
    if let Ok(about) = dir.metadata()
        && about.mode() & 0o077 != 0
        && dir.join("raft").exists()
    {
        report.warn(
            LOOK,
            format!("others may look into {shown}, which holds keys and values"),
            format!("chmod 0700 {shown}"),
        );
    }
    room(dir, report);
    future(dir, report);
    let user = user(dir);
    match user {
        Some(0) => report.ok(LOOK, format!("{shown} is in use by an agent")),
        Some(pid) => report.ok(LOOK, format!("{shown} is in use by an agent (process {pid})")),
        None => report.ok(LOOK, format!("{shown} can be used; no agent runs on it")),
    }
    user
}

/// The process that has locked the directory; 0 if it has not said who it is.
fn user(dir: &Path) -> Option<u32> {
    let path = dir.join(LOCK_FILE);
    let lock = File::open(&path).ok()?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => None,
        Err(_) => {
            Some(std::fs::read_to_string(&path).ok().and_then(|pid| pid.trim().parse().ok()).unwrap_or(0))
        }
    }
}

fn room(dir: &Path, report: &mut Report) {
    let Ok(about) = statvfs(dir) else { return };
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let found = format!("{} MiB are free below {}", free >> 20, dir.display());
    let remedy = "make room: a server without room takes no writes";
    match free {
        ..ROOM_ERROR => report.error(LOOK, found, remedy),
        ROOM_ERROR..ROOM_WARNING => report.warn(LOOK, found, remedy),
        _ => report.ok(LOOK, found),
    }
    if about.f_files > 0 && about.f_favail < 1000 {
        report.error(
            LOOK,
            format!("only {} files can be made below {}", about.f_favail, dir.display()),
            "remove files: the file system is out of inodes",
        );
    }
}

/// What was written in the future shows that the clock was set back.
fn future(dir: &Path, report: &mut Report) {
    let now = SystemTime::now();
    let parts = [dir.to_owned(), dir.join("raft"), dir.join("raft/log"), dir.join("state")];
    let files = parts.iter().filter_map(|part| std::fs::read_dir(part).ok()).flatten().flatten();
    let latest = files.filter_map(|file| file.metadata().ok()?.modified().ok()).max();
    let ahead = latest.and_then(|latest| latest.duration_since(now).ok()).filter(|ahead| *ahead > FUTURE_MAX);
    if let Some(ahead) = ahead {
        report.warn(
            "clock",
            format!(
                "files in {} were written {} s from now: the clock was set back",
                dir.display(),
                ahead.as_secs()
            ),
            "set the clock by an NTP client such as chrony",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn worst(dir: &Path) -> (Level, Option<u32>, String) {
        let mut report = Report::default();
        let user = look(dir, &mut report);
        let text = report.text();
        // How much room the machine of the test has is not the matter.
        report.findings.retain(|finding| !finding.found.contains("MiB"));
        (report.worst(), user, text)
    }

    #[test]
    fn a_directory_is_free_missing_or_somebodys() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("data");
        assert_eq!(worst(&path).0, Level::Ok);
        let taken = proconsul_io_real::files::DataDir::take(&path).expect("free");
        let (level, user, text) = worst(&path);
        assert_eq!((level, user), (Level::Ok, Some(std::process::id())), "{text}");
        drop(taken);
        assert_eq!(worst(&path).1, None);
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("written");
        let (level, _, text) = worst(&file);
        assert!(level == Level::Error && text.contains("is no directory"), "{text}");
    }

    #[test]
    fn a_clock_that_was_set_back_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = File::create(dir.path().join("node-id")).expect("made");
        file.set_modified(SystemTime::now() + Duration::from_secs(3600)).expect("set");
        let (level, _, text) = worst(dir.path());
        assert!(level == Level::Warning && text.contains("the clock was set back"), "{text}");
    }
}
