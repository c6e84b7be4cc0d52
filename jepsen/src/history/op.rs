//! What clients can ask for, and what they can be told.

use serde::{Deserialize, Serialize};

use super::Nanos;

/// How fresh an answer had been asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The answer must reflect everything that was acknowledged before the question.
    Linearizable,
    /// Any past state will do.
    Stale,
    /// A past state will do if the answering server heard of the leader within this time (`?max_stale`).
    StaleWithin(Nanos),
}

/// What a client asked for.
///
/// Unless it is said otherwise, the operation's key is the key in the key-value store that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Read a key.
    Read {
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Blocking read of a key: answer once the index is above the given one, or the wait is over.
    Watch {
        /// The index that the client has already seen.
        index: u64,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Write a key, whatever is there. Values are unique within a history.
    Write {
        /// The new value.
        value: String,
    },
    /// Write a key if its modify index is still the expected one; 0 stands for «the key does not exist».
    Cas {
        /// The modify index that the client believes to be current.
        expected: u64,
        /// The new value.
        value: String,
    },
    /// Delete a key, whatever is there.
    Delete,
    /// Delete a key if its modify index is still the expected one, which is above 0. Where the key does not exist, it is
    /// done without any change.
    DeleteCas {
        /// The modify index that the client believes to be current.
        expected: u64,
    },
    /// Delete all keys that begin with the operation's key.
    DeleteTree,
    /// Read all keys that begin with the operation's key.
    List {
        /// For a blocking read: the index that the client has already seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        above: Option<u64>,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Several actions on several keys, all or none (`/v1/txn`). The operation's key is empty.
    Txn {
        /// The actions; each sees what those before it have done.
        actions: Vec<TxnAction>,
        /// How fresh the answer must be, if all actions only look.
        consistency: Consistency,
    },
    /// Take a lock: write the key and make the session its holder, if nobody else is.
    Acquire {
        /// The session that is to hold the lock.
        session: String,
        /// The new value.
        value: String,
    },
    /// Give a lock back: write the key and clear its holder, if the session holds it.
    Release {
        /// The session that holds the lock.
        session: String,
        /// The new value.
        value: String,
    },
    /// Write a key in the name of the holder of a lock elsewhere, in such a way that it is refused once that lock has
    /// gone to another (a transaction that checks the lock's session, say). Values are unique within a history.
    FencedWrite {
        /// The key of the lock.
        lock: String,
        /// The session that believes to hold the lock.
        session: String,
        /// The lock index that the session got with the lock.
        fence: u64,
        /// The new value.
        value: String,
    },
    /// Add an element to a set, however the set is kept (a key that lists them, or one key for each). The operation's key
    /// names the set. An element is added once in a history.
    SetAdd {
        /// The element.
        element: String,
    },
    /// Read a whole set, which the operation's key names.
    SetRead {
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Create a session; the operation's key is empty, the reply names the session.
    SessionCreate {
        /// Time to live without renewal; `None` for a session that only ends for other reasons.
        ttl: Option<Nanos>,
        /// How long a lock stays free after the session that held it was invalidated.
        lock_delay: Nanos,
        /// Whether the session's end deletes the keys that it holds, instead of releasing them.
        #[serde(default)]
        deletes_keys: bool,
    },
    /// Renew a session's TTL.
    SessionRenew {
        /// The session.
        session: String,
    },
    /// End a session.
    SessionDestroy {
        /// The session.
        session: String,
    },
    /// Ask whether a session exists.
    SessionRead {
        /// The session.
        session: String,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Anything done to what the session is bound to (its node deregistered, its check critical), whoever did it: from
    /// the invocation on, the session may end at any time.
    SessionUndermine {
        /// The session.
        session: String,
    },
    /// Give something in the catalog a state: a node, an instance of a service, a check. The operation's key is its path,
    /// beginning with what readers ask for: `service/web/node1/web-1`, `check/web/node1/web-1-ttl`, `node/node1`.
    /// A member's failure is one, too: `check/serfHealth/node1` becomes `critical`.
    Register {
        /// The state, in words that readers see alike (`passing`, or a tag or port made for this registration).
        value: String,
        /// Who is to know it first.
        through: Through,
    },
    /// Remove something from the catalog; key as with [`Op::Register`].
    Deregister {
        /// Who is to know it first.
        through: Through,
    },
    /// Read everything in the catalog whose path begins with the operation's key.
    Catalog {
        /// For a blocking read: the index that the client has already seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        above: Option<u64>,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Save the state of the whole store; the operation's key is empty, the reply names the snapshot.
    Save,
    /// Replace the state of the whole store by a saved one; the operation's key is empty.
    Restore {
        /// The snapshot.
        snapshot: String,
    },
}

/// One action of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnAction {
    /// The key.
    pub key: String,
    /// What to do with it.
    pub verb: TxnVerb,
}

/// What an action of a transaction does with its key. A condition that does not hold rolls the transaction back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TxnVerb {
    /// Read the key, which must exist.
    Get,
    /// Read the key, if it exists.
    GetOrEmpty,
    /// The key has this modify index.
    CheckIndex {
        /// The modify index, above 0.
        index: u64,
    },
    /// The key does not exist.
    CheckNotExists,
    /// The key is a lock that this session holds.
    CheckSession {
        /// The session.
        session: String,
    },
    /// Write the key. Values are unique within a history.
    Set {
        /// The new value.
        value: String,
    },
    /// Write the key if it has this modify index; 0 stands for «the key does not exist».
    Cas {
        /// The modify index that the client believes to be current.
        expected: u64,
        /// The new value.
        value: String,
    },
    /// Delete the key, if it exists.
    Delete,
    /// Delete the key if it has this modify index, which is above 0; done without a change where it does not exist.
    DeleteCas {
        /// The modify index that the client believes to be current.
        expected: u64,
    },
}

impl TxnVerb {
    /// The value that the action writes, if it writes one.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        match self {
            TxnVerb::Set { value } | TxnVerb::Cas { value, .. } => Some(value),
            TxnVerb::Get
            | TxnVerb::GetOrEmpty
            | TxnVerb::CheckIndex { .. }
            | TxnVerb::CheckNotExists
            | TxnVerb::CheckSession { .. }
            | TxnVerb::Delete
            | TxnVerb::DeleteCas { .. } => None,
        }
    }

    /// Whether the action may change the key.
    #[must_use]
    pub fn mutates(&self) -> bool {
        self.value().is_some() || matches!(self, TxnVerb::Delete | TxnVerb::DeleteCas { .. })
    }
}

/// By which way something gets into the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Through {
    /// An agent knows it at once and brings it to the catalog in its own time (`/v1/agent`).
    #[default]
    Agent,
    /// The catalog knows it once it is acknowledged (`/v1/catalog`).
    Catalog,
}

impl Op {
    /// The session that the operation is about, if it is about one.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        match self {
            Op::Acquire { session, .. }
            | Op::Release { session, .. }
            | Op::SessionRenew { session }
            | Op::SessionDestroy { session }
            | Op::SessionRead { session, .. }
            | Op::SessionUndermine { session } => Some(session),
            // A fenced write may be refused for another reason, and says nothing about its session.
            Op::FencedWrite { .. }
            | Op::Read { .. }
            | Op::Watch { .. }
            | Op::Write { .. }
            | Op::Cas { .. }
            | Op::Delete
            | Op::DeleteCas { .. }
            | Op::DeleteTree
            | Op::List { .. }
            | Op::Txn { .. }
            | Op::SetAdd { .. }
            | Op::SetRead { .. }
            | Op::SessionCreate { .. }
            | Op::Register { .. }
            | Op::Deregister { .. }
            | Op::Catalog { .. }
            | Op::Save
            | Op::Restore { .. } => None,
        }
    }

    /// The value that the operation writes to its key, if it writes one.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        match self {
            Op::Write { value }
            | Op::Cas { value, .. }
            | Op::Acquire { value, .. }
            | Op::Release { value, .. }
            | Op::FencedWrite { value, .. } => Some(value),
            Op::Read { .. }
            | Op::Watch { .. }
            | Op::Delete
            | Op::DeleteCas { .. }
            | Op::DeleteTree
            | Op::List { .. }
            | Op::Txn { .. }
            | Op::SetAdd { .. }
            | Op::SetRead { .. }
            | Op::SessionCreate { .. }
            | Op::SessionRenew { .. }
            | Op::SessionDestroy { .. }
            | Op::SessionRead { .. }
            | Op::SessionUndermine { .. }
            | Op::Register { .. }
            | Op::Deregister { .. }
            | Op::Catalog { .. }
            | Op::Save
            | Op::Restore { .. } => None,
        }
    }

    /// Whether the operation may change its own key in the key-value store, and nothing else there.
    #[must_use]
    pub fn mutates_key(&self) -> bool {
        self.value().is_some() || self.deletes_key()
    }

    /// Whether the operation may delete its own key in the key-value store.
    #[must_use]
    pub fn deletes_key(&self) -> bool {
        matches!(self, Op::Delete | Op::DeleteCas { .. })
    }

    /// Whether the operation looks at or changes its own key in the key-value store, and nothing else there.
    #[must_use]
    pub fn is_on_key(&self) -> bool {
        self.mutates_key() || matches!(self, Op::Read { .. } | Op::Watch { .. })
    }

    /// How fresh an answer the operation wants, if it only looks.
    #[must_use]
    pub fn consistency(&self) -> Option<Consistency> {
        match self {
            Op::Read { consistency }
            | Op::Watch { consistency, .. }
            | Op::List { consistency, .. }
            | Op::SetRead { consistency }
            | Op::SessionRead { consistency, .. }
            | Op::Catalog { consistency, .. } => Some(*consistency),
            Op::Txn { actions, consistency } => {
                actions.iter().all(|action| !action.verb.mutates()).then_some(*consistency)
            }
            Op::Write { .. }
            | Op::Cas { .. }
            | Op::Delete
            | Op::DeleteCas { .. }
            | Op::DeleteTree
            | Op::Acquire { .. }
            | Op::Release { .. }
            | Op::FencedWrite { .. }
            | Op::SetAdd { .. }
            | Op::SessionCreate { .. }
            | Op::SessionRenew { .. }
            | Op::SessionDestroy { .. }
            | Op::SessionUndermine { .. }
            | Op::Register { .. }
            | Op::Deregister { .. }
            | Op::Save
            | Op::Restore { .. } => None,
        }
    }
}

/// A key as a reader saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value.
    pub value: String,
    /// Raft index of the change that wrote it.
    pub modify_index: u64,
    /// How often the key had been locked.
    #[serde(default)]
    pub lock_index: u64,
    /// The holder of the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// What the system answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The change was made.
    Done {
        /// Its Raft index, where the interface tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
    },
    /// The condition did not hold (index differs, lock is held or delayed, session is not the holder): nothing changed.
    Refused,
    /// The session does not exist: nothing changed.
    NoSession,
    /// A session was created, or still exists.
    Session {
        /// Its identity.
        id: String,
    },
    /// The state of a key.
    Read {
        /// The entry, `None` if the key does not exist.
        entry: Option<Entry>,
        /// The index to ask the next blocking query with (`X-Consul-Index`).
        index: u64,
    },
    /// The state of a key, with what the answering server says about how fresh it is.
    ReadStale {
        /// The entry, `None` if the key does not exist.
        entry: Option<Entry>,
        /// The index to ask the next blocking query with (`X-Consul-Index`).
        index: u64,
        /// How long ago the server had last heard of the leader (`X-Consul-LastContact`).
        last_contact: Nanos,
        /// Whether the server knew a leader (`X-Consul-KnownLeader`).
        known_leader: bool,
    },
    /// All keys under a prefix.
    List {
        /// The keys and their entries, in the order of the answer.
        entries: Vec<(String, Entry)>,
        /// The index to ask the next blocking query with.
        index: u64,
    },
    /// The transaction was made.
    Txn {
        /// For each action that reads: what it found. `None` for all others, and for a key that does not exist.
        entries: Vec<Option<Entry>>,
        /// The Raft index of its changes, where it made any and they tell it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
    },
    /// The transaction changed nothing, because of these actions' conditions.
    RolledBack {
        /// Places of the actions whose conditions did not hold, from 0; empty where that is not known.
        failed: Vec<usize>,
    },
    /// The elements of a set.
    Set {
        /// In any order.
        elements: Vec<String>,
    },
    /// A part of the catalog.
    Catalog {
        /// Paths and states, in the order of the answer.
        entries: Vec<(String, String)>,
        /// The index to ask the next blocking query with.
        index: u64,
    },
    /// The state was saved.
    Snapshot {
        /// A name for the snapshot that is unique in the history.
        id: String,
        /// The Raft index of the state, where the interface tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
    },
}
