//! Taking a lock or a place in a semaphore, watching it, and giving it back.
//!
//! The formats are those of Consul's own clients, so that both kinds wait for each other (Consul's tutorials, «Application
//! Leader Elections with Sessions» and «Distributed Semaphore with Sessions»). A lock is the key `PREFIX/.lock`, acquired by
//! a session. A semaphore is the key `PREFIX/.lock`, whose value lists holders and is changed by compare-and-set, with a
//! key `PREFIX/SESSION` for each contender, which vanishes with its session.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::{Client, ClientError, Response, escape};
use crate::session::Session;

/// Marks keys that are locks.
const LOCK_FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// Marks keys that belong to semaphores.
const SEMAPHORE_FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;
/// How long one blocking query waits.
const WAIT: &str = "15s";
/// How long to wait where nobody holds the lock and it cannot be had: its last holder's session was ended, and the servers
/// keep it back for that session's lock-delay.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// So many changes by others may come in between when a semaphore is given back.
const GIVE_BACK_TRIES: usize = 32;

/// What is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A lock.
    Lock {
        /// Its key.
        key: String,
    },
    /// One of several places.
    Semaphore {
        /// What its keys begin with, with the slash.
        prefix: String,
        /// How many places there are.
        limit: u64,
    },
}

/// Why a claim fails.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The agent does not answer, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The key is something else already.
    #[error("Existing key does not match lock use")]
    NoLock,
    /// The key is something else already.
    #[error("Existing key does not match semaphore use")]
    NoSemaphore,
    /// The semaphore's holders are written in a way that nobody knows.
    #[error("the holders of the semaphore cannot be read: {0}")]
    Holders(String),
    /// Others think that there are more or fewer places.
    #[error("semaphore limit conflict (lock: {theirs}, local: {ours})")]
    Limit {
        /// What the servers know.
        theirs: u64,
        /// What was asked for.
        ours: u64,
    },
    /// The session has ended while its claim was waiting.
    #[error("the session {0} does not exist any more")]
    SessionGone(String),
    /// Something else holds the contender's own key.
    #[error("failed to make contender entry")]
    NoContender,
}

/// Which servers are asked, and how.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The datacenter, if it is not the agent's.
    pub datacenter: Option<String>,
}

impl Query {
    /// The parameters of writes.
    #[must_use]
    pub fn writing(&self) -> Vec<(&'static str, String)> {
        self.datacenter.clone().map(|datacenter| ("dc", datacenter)).into_iter().collect()
    }

    /// The parameters of a read that must be true now, and waits for something newer than an index.
    fn reading(&self, index: u64) -> Vec<(&'static str, String)> {
        let mut query = self.writing();
        query.push(("consistent", String::new()));
        if index > 0 {
            query.push(("index", index.to_string()));
            query.push(("wait", WAIT.to_owned()));
        }
        query
    }
}

/// A key as the servers know it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    flags: u64,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    session: Option<String>,
    modify_index: u64,
}

impl Entry {
    fn is_held(&self) -> bool {
        self.session.as_deref().is_some_and(|session| !session.is_empty())
    }
}

/// The value of a semaphore's key.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Holders {
    limit: u64,
    #[serde(default)]
    holders: BTreeMap<String, bool>,
}

impl Holders {
    fn read(entry: &Entry) -> Result<Holders, ClaimError> {
        let bytes = crate::base64::decode(entry.value.as_deref().unwrap_or_default()).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Holders::default());
        }
        serde_json::from_slice(&bytes).map_err(|error| ClaimError::Holders(error.to_string()))
    }

    fn text(&self) -> String {
        json!({"Limit": self.limit, "Holders": self.holders}).to_string()
    }
}

impl Claim {
    /// What a command line asks for: a lock for a limit of one.
    #[must_use]
    pub fn new(prefix: &str, limit: u64) -> Claim {
        let clean: Vec<&str> = prefix.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let clean = clean.join("/");
        let slash = if clean.is_empty() { "" } else { "/" };
        if limit == 1 {
            Claim::Lock { key: format!("{clean}{slash}.lock") }
        } else {
            Claim::Semaphore { prefix: format!("{clean}/"), limit }
        }
    }

    /// The key that everybody who wants the same looks at.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Claim::Lock { key } => key.clone(),
            Claim::Semaphore { prefix, .. } => format!("{prefix}.lock"),
        }
    }

    /// The session that a claim needs.
    #[must_use]
    pub fn session(&self, name: &str, ttl: Duration) -> Value {
        let mut wanted = json!({"Name": name, "TTL": format!("{}s", ttl.as_secs())});
        if matches!(self, Claim::Semaphore { .. }) {
            wanted["Behavior"] = "delete".into();
        }
        wanted
    }

    /// Waits until the claim is this session's.
    ///
    /// # Errors
    /// It cannot be.
    pub async fn acquire(
        &self,
        client: &Client,
        server: &Query,
        session: &Session,
    ) -> Result<(), ClaimError> {
        match self {
            Claim::Lock { key } => acquire_lock(client, server, session, key).await,
            Claim::Semaphore { prefix, limit } => {
                let place = Place { client, server, session, prefix, limit: *limit };
                place.acquire().await
            }
        }
    }

    /// Looks whether the claim is still this session's, after waiting for something newer than `index`; gives the next
    /// index, or nothing if the claim is lost.
    ///
    /// # Errors
    /// Nobody knows.
    pub async fn look(
        &self,
        client: &Client,
        server: &Query,
        session: &Session,
        index: u64,
    ) -> Result<Option<u64>, ClaimError> {
        let (entries, next) = match self {
            Claim::Lock { key } => entries(client, server, key, false, index).await?,
            Claim::Semaphore { prefix, .. } => entries(client, server, prefix, true, index).await?,
        };
        let key = self.key();
        let main = entries.iter().find(|entry| entry.key == key);
        let holds = match (self, main) {
            (_, None) => false,
            (Claim::Lock { .. }, Some(main)) => main.session.as_deref() == Some(&*session.id),
            (Claim::Semaphore { prefix, .. }, Some(main)) => {
                let own = format!("{prefix}{}", session.id);
                let contends = entries
                    .iter()
                    .any(|entry| entry.key == own && entry.session.as_deref() == Some(&*session.id));
                contends && Holders::read(main)?.holders.contains_key(&session.id)
            }
        };
        // An index that goes back begins anew.
        Ok(holds.then_some(if next < index { 0 } else { next }))
    }

    /// Gives the claim back, and removes its keys if nobody else needs them: true if they were removed.
    ///
    /// # Errors
    /// The servers do not answer.
    pub async fn release(
        &self,
        client: &Client,
        server: &Query,
        session: &Session,
    ) -> Result<bool, ClaimError> {
        match self {
            Claim::Lock { key } => {
                let mut query = server.writing();
                query.push(("release", session.id.clone()));
                query.push(("flags", LOCK_FLAGS.to_string()));
                put(client, key, &query, "").await?;
                let (found, _) = entries(client, server, key, false, 0).await?;
                match found.first() {
                    None => Ok(true),
                    Some(entry) if entry.is_held() => Ok(false),
                    Some(entry) => remove(client, server, entry).await,
                }
            }
            Claim::Semaphore { prefix, limit } => {
                let place = Place { client, server, session, prefix, limit: *limit };
                place.release().await
            }
        }
    }
}

async fn acquire_lock(
    client: &Client,
    server: &Query,
    session: &Session,
    key: &str,
) -> Result<(), ClaimError> {
    let mut index = 0;
    loop {
        let (found, next) = entries(client, server, key, false, index).await?;
        index = if next < index { 0 } else { next };
        if let Some(entry) = found.first() {
            if entry.flags != LOCK_FLAGS {
                return Err(ClaimError::NoLock);
            }
            if entry.session.as_deref() == Some(&*session.id) {
                return Ok(());
            }
            if entry.is_held() {
                continue;
            }
        }
        let mut query = server.writing();
        query.push(("acquire", session.id.clone()));
        query.push(("flags", LOCK_FLAGS.to_string()));
        if put(client, key, &query, "").await? {
            return Ok(());
        }
        // Somebody was faster, which the next read shows, or the lock is kept back.
        let (found, next) = entries(client, server, key, false, 0).await?;
        index = next;
        if !found.first().is_some_and(Entry::is_held) {
            tokio::time::sleep(REFUSED_PAUSE).await;
            index = 0;
        }
    }
}

/// A place in a semaphore.
struct Place<'a> {
    client: &'a Client,
    server: &'a Query,
    session: &'a Session,
    prefix: &'a str,
    limit: u64,
}

impl Place<'_> {
    fn contender(&self) -> String {
        format!("{}{}", self.prefix, self.session.id)
    }

    async fn acquire(&self) -> Result<(), ClaimError> {
        let main = format!("{}.lock", self.prefix);
        let (found, _) = entries(self.client, self.server, &main, false, 0).await?;
        // Before anything is written that others would see.
        if found.first().is_some_and(|entry| entry.flags != SEMAPHORE_FLAGS) {
            return Err(ClaimError::NoSemaphore);
        }
        let mut query = self.server.writing();
        query.push(("acquire", self.session.id.clone()));
        query.push(("flags", SEMAPHORE_FLAGS.to_string()));
        if !put(self.client, &self.contender(), &query, "").await? {
            return Err(ClaimError::NoContender);
        }
        let mut index = 0;
        loop {
            let (all, next) = entries(self.client, self.server, self.prefix, true, index).await?;
            let entry = all.iter().find(|entry| entry.key == main);
            let mut holders = match entry {
                Some(entry) if entry.flags != SEMAPHORE_FLAGS => return Err(ClaimError::NoSemaphore),
                Some(entry) => Holders::read(entry)?,
                None => Holders::default(),
            };
            if holders.limit == 0 {
                holders.limit = self.limit;
            }
            if holders.limit != self.limit {
                return Err(ClaimError::Limit { theirs: holders.limit, ours: self.limit });
            }
            if !all.iter().any(|entry| entry.key == self.contender()) {
                return Err(ClaimError::SessionGone(self.session.id.clone()));
            }
            self.prune(&mut holders, &all);
            if holders.holders.contains_key(&self.session.id) {
                return Ok(());
            }
            if holders.holders.len() as u64 >= self.limit {
                index = if next < index { 0 } else { next };
                continue;
            }
            holders.holders.insert(self.session.id.clone(), true);
            if self.write(&main, entry, &holders).await? {
                return Ok(());
            }
            index = 0;
        }
    }

    /// Leaves out the holders that do not contend any more: their sessions have ended.
    fn prune(&self, holders: &mut Holders, all: &[Entry]) {
        let contends = |session: &String| {
            let key = format!("{}{session}", self.prefix);
            all.iter().any(|entry| entry.key == key && entry.session.as_ref() == Some(session))
        };
        holders.holders.retain(|session, _| contends(session));
    }

    /// Writes the holders if nobody has changed them meanwhile.
    async fn write(&self, main: &str, before: Option<&Entry>, holders: &Holders) -> Result<bool, ClaimError> {
        let mut query = self.server.writing();
        query.push(("cas", before.map_or(0, |entry| entry.modify_index).to_string()));
        query.push(("flags", SEMAPHORE_FLAGS.to_string()));
        put(self.client, main, &query, &holders.text()).await
    }

    async fn release(&self) -> Result<bool, ClaimError> {
        let main = format!("{}.lock", self.prefix);
        for _ in 0..GIVE_BACK_TRIES {
            let (all, _) = entries(self.client, self.server, self.prefix, true, 0).await?;
            let Some(entry) = all.iter().find(|entry| entry.key == main) else { break };
            if entry.flags != SEMAPHORE_FLAGS {
                break;
            }
            let mut holders = Holders::read(entry)?;
            if holders.holders.remove(&self.session.id).is_none()
                || self.write(&main, Some(entry), &holders).await?
            {
                break;
            }
        }
        let path = format!("/v1/kv/{}", escape(&self.contender()));
        self.client.ask(Method::DELETE, &path, &self.server.writing(), "").await?.ok()?;
        let (all, _) = entries(self.client, self.server, self.prefix, true, 0).await?;
        let Some(entry) = all.iter().find(|entry| entry.key == main) else { return Ok(true) };
        if entry.flags != SEMAPHORE_FLAGS {
            return Ok(false);
        }
        let mut holders = Holders::read(entry)?;
        self.prune(&mut holders, &all);
        if holders.holders.is_empty() { remove(self.client, self.server, entry).await } else { Ok(false) }
    }
}

/// A key, or all keys with a prefix, and the index of what is shown.
async fn entries(
    client: &Client,
    server: &Query,
    key: &str,
    recurse: bool,
    index: u64,
) -> Result<(Vec<Entry>, u64), ClaimError> {
    let mut query = server.reading(index);
    if recurse {
        query.push(("recurse", String::new()));
    }
    let path = format!("/v1/kv/{}", escape(key));
    let answer: Response = client.ask(Method::GET, &path, &query, "").await?;
    let next = answer.index.unwrap_or_default();
    if answer.status == StatusCode::NOT_FOUND {
        return Ok((Vec::new(), next));
    }
    let list: Value = answer.json()?;
    let entries = serde_json::from_value(list).map_err(|error| ClientError::Malformed {
        url: path,
        reason: format!("these are no keys: {error}"),
    })?;
    Ok((entries, next))
}

/// Writes a key; false if the servers do not want to.
async fn put(client: &Client, key: &str, query: &[(&str, String)], value: &str) -> Result<bool, ClaimError> {
    let path = format!("/v1/kv/{}", escape(key));
    let answer = client.ask(Method::PUT, &path, query, value.to_owned()).await?.json()?;
    Ok(answer == Value::Bool(true))
}

/// Removes a key that nobody has changed meanwhile.
async fn remove(client: &Client, server: &Query, entry: &Entry) -> Result<bool, ClaimError> {
    let mut query = server.writing();
    query.push(("cas", entry.modify_index.to_string()));
    let path = format!("/v1/kv/{}", escape(&entry.key));
    let answer = client.ask(Method::DELETE, &path, &query, "").await?.json()?;
    Ok(answer == Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_one_is_a_lock_and_prefixes_are_cleaned() {
        for (prefix, limit, key) in [
            ("lk", 1, "lk/.lock"),
            ("lk/", 1, "lk/.lock"),
            ("/abs//x", 1, "abs/x/.lock"),
            ("", 1, ".lock"),
            ("sem", 3, "sem/.lock"),
            ("a/b/", 2, "a/b/.lock"),
        ] {
            let claim = Claim::new(prefix, limit);
            assert_eq!(claim.key(), key, "{prefix:?} {limit}");
            assert_eq!(matches!(claim, Claim::Lock { .. }), limit == 1);
        }
    }

    #[test]
    fn holders_are_written_as_others_read_them() {
        let holders = Holders { limit: 3, holders: BTreeMap::from([("s1".to_owned(), true)]) };
        let text = holders.text();
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read, json!({"Limit": 3, "Holders": {"s1": true}}));
        let value = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &text);
        let entry = Entry {
            key: "s/.lock".into(),
            flags: SEMAPHORE_FLAGS,
            value: Some(value),
            session: None,
            modify_index: 1,
        };
        assert_eq!(Holders::read(&entry).expect("readable"), holders);
    }
}
