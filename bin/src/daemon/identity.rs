//! The agent's identity: a UUID that is drawn once and kept in the data directory.
//!
//! A server's identity and its Raft log belong together: one that forgot its vote must never vote. So a server whose log
//! is gone gets another identity and joins as a new one; one whose identity is gone gets it back from what is beside the
//! log.

use std::io;
use std::path::Path;

use proconsul_core::ids::Uuid;
use proconsul_core::rng::Rng;
use proconsul_io_real::engine::random;
use proconsul_io_real::owner;

/// File in the data directory, as Consul names it.
pub const FILE: &str = "node-id";

/// The identity in the configuration, else the one in the data directory, else a new one, which is kept there.
///
/// # Errors
/// A file cannot be read or written, or holds something else than a UUID; or a server's log and its identity do not belong
/// together, and nobody but the operator can say which is right.
pub(super) fn establish(configured: Option<Uuid>, data_dir: Option<&Path>, server: bool) -> io::Result<Uuid> {
    let Some(dir) = data_dir else { return configured.map_or_else(draw, Ok) };
    let kept = owner::read_id(&dir.join(FILE))?;
    let wanted = configured.or(kept);
    let id = if server { of_server(configured, wanted, dir)? } else { wanted.map_or_else(draw, Ok)? };
    if kept != Some(id) {
        owner::write_id(dir, FILE, id)?;
    }
    Ok(id)
}

fn of_server(configured: Option<Uuid>, wanted: Option<Uuid>, dir: &Path) -> io::Result<Uuid> {
    let owned_by = owner::read(dir)?;
    let shown = dir.display();
    match (owned_by, owner::has_log(dir)?, wanted) {
        (Some(owner), true, None) => {
            tracing::warn!(id = %owner, "the file {FILE} was gone; the identity is that of the Raft log");
            Ok(owner)
        }
        (Some(owner), true, Some(id)) if id != owner => Err(refused(format!(
            "the Raft log in {shown} is that of server {owner}, and this agent is to be {id}: restore the identity \
             (file {FILE}, setting node_id), or run `proconsul operator raft repair -data-dir {shown}` to put that \
             log aside and join as a new server"
        ))),
        (None, true, None) => Err(refused(format!(
            "{shown} has a Raft log and no identity: restore the file {FILE}, or run `proconsul operator raft repair \
             -data-dir {shown}` to put that log aside and join as a new server"
        ))),
        // A directory from before the owner was written down.
        (None, true, Some(id)) => owner::claim(dir, id).map(|()| id),
        (Some(owner), false, _) if configured == Some(owner) => Err(refused(format!(
            "the Raft log of server {owner} is gone from {shown}, and a server that forgot its vote must not vote: \
             restore the directory, or set another node_id and remove {shown}/{} to join as a new server",
            owner::FILE
        ))),
        (Some(owner), false, Some(id)) if id == owner => {
            let id = draw()?;
            tracing::warn!(
                former = %owner,
                new = %id,
                "the Raft log in {shown} is gone, and a server that forgot its vote must not vote: this one joins as \
                 a new server; the former one is removed by autopilot, or by operator raft remove-peer"
            );
            Ok(id)
        }
        (_, _, Some(id)) => Ok(id),
        (_, _, None) => draw(),
    }
}

fn draw() -> io::Result<Uuid> {
    let mut seed = [0; 32];
    random(&mut seed)?;
    Ok(Uuid::random(&mut Rng::from_bytes(seed)))
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn begin_log(dir: &Path) {
        let log = dir.join("raft/log");
        fs::create_dir_all(&log).expect("a directory");
        fs::write(log.join("wal-00000000000000000001.log"), "").expect("written");
    }

    /// A directory in which a server has begun its log.
    fn used() -> (tempfile::TempDir, Uuid) {
        let dir = tempfile::tempdir().expect("a directory");
        let id = establish(None, Some(dir.path()), true).expect("drawn");
        owner::claim(dir.path(), id).expect("written");
        begin_log(dir.path());
        (dir, id)
    }

    #[test]
    fn an_identity_is_drawn_once_and_kept() {
        for server in [true, false] {
            let dir = tempfile::tempdir().expect("a directory");
            let first = establish(None, Some(dir.path()), server).expect("drawn");
            assert_eq!(establish(None, Some(dir.path()), server).expect("kept"), first);
            assert_ne!(establish(None, None, server).expect("drawn"), first);
        }
    }

    #[test]
    fn a_configured_identity_replaces_the_kept_one() {
        for server in [true, false] {
            let dir = tempfile::tempdir().expect("a directory");
            establish(None, Some(dir.path()), server).expect("drawn");
            let id = establish(Some(Uuid(5)), Some(dir.path()), server).expect("configured");
            assert_eq!(id, Uuid(5));
            assert_eq!(establish(None, Some(dir.path()), server).expect("kept"), Uuid(5));
        }
    }

    #[test]
    fn a_file_that_holds_no_uuid_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(FILE), "rubbish").expect("written");
        let error = establish(None, Some(dir.path()), true).expect_err("no UUID").to_string();
        assert!(error.contains("node-id holds no UUID"), "{error}");
    }

    #[test]
    fn a_server_keeps_its_identity_with_its_log() {
        let (dir, id) = used();
        assert_eq!(establish(None, Some(dir.path()), true).expect("kept"), id);
        assert_eq!(establish(Some(id), Some(dir.path()), true).expect("the same"), id);
        fs::remove_file(dir.path().join(owner::FILE)).expect("removed");
        assert_eq!(establish(None, Some(dir.path()), true).expect("an older directory"), id);
        assert_eq!(owner::read(dir.path()).expect("written"), Some(id));
    }

    #[test]
    fn a_server_that_lost_its_log_becomes_another_one_and_stays_it() {
        let (dir, id) = used();
        fs::remove_dir_all(dir.path().join("raft")).expect("removed");
        let new = establish(None, Some(dir.path()), true).expect("drawn");
        assert_ne!(new, id);
        assert_eq!(establish(None, Some(dir.path()), true).expect("kept"), new);
        owner::claim(dir.path(), new).expect("written");
        begin_log(dir.path());
        assert_eq!(establish(None, Some(dir.path()), true).expect("kept"), new);
    }

    #[test]
    fn a_configured_identity_that_lost_its_log_is_refused() {
        let (dir, id) = used();
        fs::remove_dir_all(dir.path().join("raft")).expect("removed");
        let error = establish(Some(id), Some(dir.path()), true).expect_err("refused").to_string();
        assert!(error.contains("must not vote") && error.contains("set another node_id"), "{error}");
        assert_eq!(establish(Some(Uuid(5)), Some(dir.path()), true).expect("another"), Uuid(5));
    }

    #[test]
    fn a_server_that_lost_its_identity_gets_it_back_from_beside_its_log() {
        let (dir, id) = used();
        fs::remove_file(dir.path().join(FILE)).expect("removed");
        assert_eq!(establish(None, Some(dir.path()), true).expect("restored"), id);
        fs::remove_file(dir.path().join(FILE)).expect("removed");
        fs::remove_file(dir.path().join(owner::FILE)).expect("removed");
        let error = establish(None, Some(dir.path()), true).expect_err("nobody knows").to_string();
        assert!(error.contains("operator raft repair -data-dir"), "{error}");
    }

    #[test]
    fn a_log_does_not_change_hands() {
        let (dir, id) = used();
        let error = establish(Some(Uuid(5)), Some(dir.path()), true).expect_err("another's log").to_string();
        assert!(
            error.contains(&id.to_string()) && error.contains("operator raft repair -data-dir"),
            "{error}"
        );
    }
}
