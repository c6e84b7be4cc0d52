//! A directory as one compressed file: tar (POSIX.1-2017, pax, «ustar Interchange Format») within gzip.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Packs `dir` and all below it into `file`, readable to its owner only: it may hold what is secret.
///
/// # Errors
/// Something cannot be read or written; no half of a file stays then.
pub(super) fn pack(dir: &Path, file: &Path) -> io::Result<()> {
    let partial = file.with_extension("partial");
    let write = || -> io::Result<()> {
        let out = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
        archive.append_dir_all(dir.file_name().unwrap_or_default(), dir)?;
        archive.into_inner()?.finish()?.sync_all()?;
        fs::rename(&partial, file)
    };
    write().inspect_err(|_| {
        // What cannot be removed was perhaps never made.
        let _ = fs::remove_file(&partial);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_opens_with_the_systems_tool() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("dbg");
        fs::create_dir_all(root.join("1")).expect("made");
        fs::write(root.join("agent.json"), "{}").expect("written");
        fs::write(root.join("1/consul.log"), vec![b'x'; 1000]).expect("written");
        let file = dir.path().join("dbg.tar.gz");
        pack(&root, &file).expect("packed");
        let there = dir.path().join("there");
        fs::create_dir(&there).expect("made");
        let unpacked =
            std::process::Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(&there).status();
        assert!(unpacked.expect("the system has tar").success());
        assert_eq!(fs::read(there.join("dbg/agent.json")).expect("unpacked"), b"{}");
        assert_eq!(fs::read(there.join("dbg/1/consul.log")).expect("unpacked"), vec![b'x'; 1000]);
        assert!(!file.with_extension("partial").exists());
    }
}
