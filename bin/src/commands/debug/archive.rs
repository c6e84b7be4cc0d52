//! A directory as one compressed file: tar (POSIX.1-2017, pax, «ustar Interchange Format») within gzip.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;

const BLOCK: usize = 512;

/// Packs `dir` and all below it into `file`, readable to its owner only: it may hold what is secret.
///
/// # Errors
/// Something cannot be read or written; no half of a file stays then.
pub(super) fn pack(dir: &Path, file: &Path) -> io::Result<()> {
    let partial = file.with_extension("partial");
    let write = || -> io::Result<()> {
        let out = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        let mut out = GzEncoder::new(out, Compression::default());
        let root = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        add(&mut out, dir, &root)?;
        out.write_all(&[0; 2 * BLOCK])?;
        out.finish()?.sync_all()?;
        fs::rename(&partial, file)
    };
    write().inspect_err(|_| {
        // What cannot be removed was perhaps never made.
        let _ = fs::remove_file(&partial);
    })
}

fn add(out: &mut impl Write, path: &Path, name: &str) -> io::Result<()> {
    let about = fs::metadata(path)?;
    let modified = about.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if !about.is_dir() {
        let content = fs::read(path)?;
        out.write_all(&header(name, content.len() as u64, modified, b'0', 0o600)?)?;
        out.write_all(&content)?;
        return out.write_all(&vec![0; content.len().next_multiple_of(BLOCK) - content.len()]);
    }
    out.write_all(&header(&format!("{name}/"), 0, modified, b'5', 0o700)?)?;
    let mut inside = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    inside.sort_by_key(fs::DirEntry::file_name);
    inside.iter().try_for_each(|entry| {
        add(out, &entry.path(), &format!("{name}/{}", entry.file_name().to_string_lossy()))
    })
}

fn header(name: &str, size: u64, modified: u64, kind: u8, mode: u32) -> io::Result<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    if name.len() > 100 {
        return Err(io::Error::other(format!("the name {name} is too long for an archive")));
    }
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, &format!("{modified:011o}"));
    // The sum is taken with blanks in its own place.
    put(148, "        ");
    put(257, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
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
