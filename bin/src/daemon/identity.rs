//! The agent's identity: a UUID that is drawn once and kept in the data directory.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use proconsul_core::ids::Uuid;
use proconsul_core::rng::Rng;
use proconsul_io_real::engine::random;

/// File in the data directory, as Consul names it.
const FILE: &str = "node-id";

/// The identity in the configuration, else the one in the data directory, else a new one, which is kept there.
///
/// # Errors
/// The file cannot be read or written, or holds something else than a UUID.
pub(super) fn establish(configured: Option<Uuid>, data_dir: Option<&Path>) -> io::Result<Uuid> {
    let file = data_dir.map(|dir| dir.join(FILE));
    if let (None, Some(file)) = (configured, &file) {
        match std::fs::read_to_string(file) {
            Ok(text) => {
                return Uuid::parse(text.trim()).ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{} holds no UUID: restore it, or set node_id", file.display()),
                    )
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(naming(file, &error)),
        }
    }
    let id = match configured {
        Some(id) => id,
        None => {
            let mut seed = [0; 32];
            random(&mut seed)?;
            Uuid::random(&mut Rng::from_bytes(seed))
        }
    };
    if let (Some(file), Some(dir)) = (&file, data_dir) {
        replace(dir, file, &id.to_string()).map_err(|error| naming(file, &error))?;
    }
    Ok(id)
}

/// Writes a file so that whoever reads it, after a crash too, finds the former content or the new one. A server that
/// forgets who it is cannot vote.
fn replace(dir: &Path, file: &Path, text: &str) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut new = File::create(&beside)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    std::fs::rename(&beside, file)?;
    File::open(dir)?.sync_all()
}

fn naming(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_drawn_once_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = establish(None, Some(dir.path())).expect("drawn");
        assert_eq!(establish(None, Some(dir.path())).expect("kept"), first);
        assert_ne!(establish(None, None).expect("drawn"), first);
    }

    #[test]
    fn a_configured_identity_replaces_the_kept_one() {
        let dir = tempfile::tempdir().expect("a directory");
        establish(None, Some(dir.path())).expect("drawn");
        assert_eq!(establish(Some(Uuid(5)), Some(dir.path())).expect("configured"), Uuid(5));
        assert_eq!(establish(None, Some(dir.path())).expect("kept"), Uuid(5));
    }

    #[test]
    fn a_file_that_holds_no_uuid_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE), "rubbish").expect("written");
        let error = establish(None, Some(dir.path())).expect_err("no UUID").to_string();
        assert!(error.contains("node-id holds no UUID"), "{error}");
    }
}
