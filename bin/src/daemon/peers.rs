//! `raft/peers.json`: the operator's word on who belongs to the Raft group, when a majority was lost for good.
//!
//! Source: Consul's documentation, «Disaster recovery for Consul clusters», manual recovery using `peers.json`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use proconsul_core::Text;
use proconsul_core::ids::Uuid;
use proconsul_core::raft::{Member, Membership};
use serde_json::Value;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadPeers {
    /// It cannot be read.
    #[error("{path}: {error}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// What stands in it is no list of servers.
    #[error("{path} cannot be used: {reason}; correct it on every server, or remove it to start without recovery", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which entry, and what is wrong with it.
        reason: String,
    },
}

/// A group to recover with, and the file that asks for it.
#[derive(Debug)]
pub(super) struct Recovery {
    path: PathBuf,
    /// Who belongs to the group.
    pub(super) membership: Membership,
}

impl Recovery {
    /// What the operator asks for, if there is a file.
    pub(super) fn read(data_dir: &Path, own: Uuid) -> Result<Option<Recovery>, BadPeers> {
        let path = data_dir.join("raft").join("peers.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BadPeers::Unreadable { path, error }),
        };
        match membership(&text, own) {
            Ok(membership) => Ok(Some(Recovery { path, membership })),
            Err(reason) => Err(BadPeers::Malformed { path, reason }),
        }
    }

    /// Puts the file aside once it has had its effect: the next start must not recover again.
    pub(super) fn done(self) -> io::Result<()> {
        let aside = self.path.with_extension("json.applied");
        std::fs::rename(&self.path, &aside).map_err(|error| {
            let path = self.path.display();
            io::Error::new(
                error.kind(),
                format!("cannot put {path} aside: {error}; remove it, or the next start recovers again"),
            )
        })
    }
}

fn membership(text: &str, own: Uuid) -> Result<Membership, String> {
    let list: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let Value::Array(list) = list else {
        return Err("it must be a list of objects with id and address".to_owned());
    };
    let mut servers: BTreeMap<Uuid, Member> = BTreeMap::new();
    for (number, entry) in (1..).zip(&list) {
        let (id, member) = server(entry).map_err(|reason| format!("entry {number}: {reason}"))?;
        if servers.values().any(|other| other.address == member.address) {
            return Err(format!(
                "entry {number}: the address {:?} stands in it twice",
                member.address.as_str()
            ));
        }
        if servers.insert(id, member).is_some() {
            return Err(format!("entry {number}: the id {id} stands in it twice"));
        }
    }
    if !servers.values().any(|member| member.voter) {
        return Err("it needs at least one voter".to_owned());
    }
    if !servers.contains_key(&own) {
        return Err(format!(
            "this server ({own}) is not in it; do not put it on servers that shall not take part"
        ));
    }
    Ok(Membership { servers })
}

fn server(entry: &Value) -> Result<(Uuid, Member), String> {
    let Value::Object(entry) = entry else {
        return Err(match entry.as_str() {
            Some(address) => format!(
                "{address:?} is an address alone: write {{\"id\": \"...\", \"address\": {address:?}}}, the id from the file node-id of that server"
            ),
            None => "it must be an object with id and address".to_owned(),
        });
    };
    if let Some(unknown) = entry.keys().find(|key| !["id", "address", "non_voter"].contains(&key.as_str())) {
        return Err(format!("unknown key {unknown:?}: id, address and non_voter are known"));
    }
    let text = |key: &str| match entry.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.as_str()),
        Some(Value::String(_)) | None => Err(format!("{key} is missing")),
        Some(_) => Err(format!("{key} must be text")),
    };
    let id = text("id")?;
    let id = Uuid::parse(id)
        .ok_or_else(|| format!("id {id:?} is no UUID: take it from the file node-id of that server"))?;
    let address = text("address")?;
    match address.parse::<SocketAddr>() {
        Ok(parsed) if parsed.port() != 0 && !parsed.ip().is_unspecified() => {}
        _ => return Err(format!("address {address:?} is not of the form IP:PORT")),
    }
    let non_voter = match entry.get("non_voter") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(non_voter)) => *non_voter,
        Some(_) => return Err("non_voter must be true or false".to_owned()),
    };
    Ok((id, Member { address: Text::new(address), voter: !non_voter }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Uuid = Uuid(0x0000_0001_0000_0000_0000_0000_0000_0000);
    const OTHER: &str = "00000002-0000-0000-0000-000000000000";

    fn write(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("raft")).expect("a directory");
        std::fs::write(dir.path().join("raft/peers.json"), text).expect("a file");
        dir
    }

    #[test]
    fn without_a_file_nothing_is_recovered() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(Recovery::read(dir.path(), OWN).expect("no trouble").is_none());
    }

    #[test]
    fn a_group_is_read_and_the_file_put_aside() {
        let dir = write(&format!(
            r#"[{{"id":"{OWN}","address":"10.0.0.1:8300"}},{{"id":"{OTHER}","address":"[::2]:8300","non_voter":true}}]"#
        ));
        let recovery = Recovery::read(dir.path(), OWN).expect("good").expect("there");
        let servers: Vec<_> =
            recovery.membership.servers.values().map(|m| (m.address.as_str(), m.voter)).collect();
        assert_eq!(servers, [("10.0.0.1:8300", true), ("[::2]:8300", false)]);
        recovery.done().expect("put aside");
        assert!(Recovery::read(dir.path(), OWN).expect("no trouble").is_none());
        assert!(dir.path().join("raft/peers.json.applied").exists());
    }

    #[test]
    fn what_is_wrong_is_said_with_the_entry() {
        let own = OWN.to_string();
        let good = format!(r#"{{"id":"{own}","address":"10.0.0.1:8300"}}"#);
        for (text, reason) in [
            ("{".to_owned(), "no JSON"),
            ("{}".to_owned(), "a list"),
            ("[]".to_owned(), "at least one voter"),
            (format!(r#"[{good},"10.0.0.2:8300"]"#), "entry 2: \"10.0.0.2:8300\" is an address alone"),
            (format!("[{good},3]"), "entry 2: it must be an object"),
            (format!(r#"[{good},{{"address":"10.0.0.2:8300"}}]"#), "entry 2: id is missing"),
            (r#"[{"id":"x","address":"10.0.0.1:8300"}]"#.to_owned(), "entry 1: id \"x\" is no UUID"),
            (format!(r#"[{{"id":"{own}"}}]"#), "entry 1: address is missing"),
            (format!(r#"[{{"id":"{own}","address":"10.0.0.1"}}]"#), "not of the form IP:PORT"),
            (format!(r#"[{{"id":"{own}","address":"10.0.0.1:1","non_voter":1}}]"#), "non_voter must be"),
            (format!(r#"[{{"id":"{own}","address":"10.0.0.1:1","voter":true}}]"#), "unknown key \"voter\""),
            (format!("[{good},{good}]"), "entry 2: the address"),
            (format!(r#"[{good},{{"id":"{own}","address":"10.0.0.2:1"}}]"#), "entry 2: the id"),
            (format!(r#"[{{"id":"{OTHER}","address":"10.0.0.1:1"}}]"#), "this server"),
            (format!(r#"[{{"id":"{own}","address":"10.0.0.1:1","non_voter":true}}]"#), "at least one voter"),
        ] {
            let dir = write(&text);
            let error = Recovery::read(dir.path(), OWN).map(|_| ()).expect_err(&text).to_string();
            assert!(error.contains(reason) && error.contains("peers.json"), "{text}: {error}");
        }
    }
}
