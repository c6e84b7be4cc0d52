//! What may be replicated: the commands of the store, and what applying them answers.
//!
//! Commands are postcard in the envelope of a [`Format`] (see [`Command::encode`]); variants and fields are only ever
//! appended.
//! A command carries no time that matters and no chance: identifiers are drawn before it is proposed.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::intentions::IntentionCommand;
use super::model::{Check, Service, Session};
use super::prepared::PreparedCommand;
use super::restore::Restore;
use super::system::AutopilotSettings;
use super::transaction::{Operation, Outcome};
use crate::Text;
use crate::config_entry::{Draft, Kind};
use crate::coordinate::Coordinate;
use crate::format::{self, BadEnvelope, Format, Formats};
use crate::ids::Uuid;

/// A change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// One operation on one key.
    Kv(KvCommand),
    /// Upserts a node with, optionally, one service and any number of checks.
    Register(Box<Registration>),
    /// Removes a node, a service or a check.
    Deregister(Deregistration),
    /// Creates a session. The identifier was drawn by the proposer; indexes are ignored.
    SessionCreate(Box<Session>),
    /// Ends a session, on request or because its TTL ran out. Starts the lock-delay of its keys.
    SessionDestroy {
        /// Which one.
        id: Uuid,
    },
    /// The leader has waited out these lock-delays. Each applies only if the delay still is the one that began at
    /// that index.
    LockDelayOver {
        /// Key, and the Raft index at which the delay began.
        keys: Vec<(Text, u64)>,
    },
    /// Forgets deletions at or below a Raft index, which prefix watchers needed to see an index move.
    ReapTombstones {
        /// The newest index to forget.
        up_to: u64,
    },
    /// Replaces autopilot's settings.
    AutopilotSet {
        /// The new settings.
        settings: Box<AutopilotSettings>,
        /// Only if the settings were last changed at this index; zero: only if there are none.
        cas: Option<u64>,
    },
    /// Gives the group of servers its identity, unless it has one.
    GroupNamed {
        /// Drawn by the group's first leader.
        id: Uuid,
    },
    /// Where these nodes are. Those that are not registered are skipped.
    Coordinates(Vec<(Text, Coordinate)>),
    /// Every server of the group knows this format: commands are of it from here on. Never lowered.
    FormatRaised {
        /// The new one.
        to: Format,
    },
    /// Several operations, all or none.
    Transaction(Vec<Operation>),
    /// A step of replacing the whole state.
    Restore(Restore),
    /// Writes a configuration entry.
    ConfigSet {
        /// The entry.
        entry: Box<Draft>,
        /// Only if the entry was last changed at this index; zero: only if there is none.
        cas: Option<u64>,
    },
    /// Removes a configuration entry.
    ConfigDelete {
        /// What it is about.
        kind: Kind,
        /// Its name.
        name: Text,
        /// Only if the entry was last changed at this index.
        cas: Option<u64>,
    },
    /// Creates, changes or removes a prepared query.
    Prepared(PreparedCommand),
    /// Creates, changes or removes an intention.
    Intention(IntentionCommand),
}

/// One operation on one key. Value and flags are ignored where they make no sense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvCommand {
    /// What to do.
    pub verb: KvVerb,
    /// The key, or the prefix for [`KvVerb::DeleteTree`].
    pub key: Text,
    /// New value.
    pub value: Bytes,
    /// New flags.
    pub flags: u64,
}

/// What to do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvVerb {
    /// Write; locks are advisory and do not hinder it.
    Set,
    /// Write if the modify index is the given one; zero: only if absent.
    Cas(u64),
    /// Write and lock, if free or held by the same session and not in lock-delay.
    Acquire(Uuid),
    /// Write and unlock, if held by this session.
    Release(Uuid),
    /// Delete; deleting what is absent is fine.
    Delete,
    /// Delete if the modify index is the given one.
    DeleteCas(u64),
    /// Delete everything that begins with the key.
    DeleteTree,
}

/// A registration as the catalog takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The node's identity, if it has one.
    pub id: Option<Uuid>,
    /// The node's name.
    pub node: Text,
    /// The node's address.
    pub address: Text,
    /// Further addresses.
    pub tagged_addresses: BTreeMap<Text, Text>,
    /// Metadata of the node.
    pub node_meta: BTreeMap<Text, Text>,
    /// Datacenter of the node.
    pub datacenter: Text,
    /// An instance to upsert.
    pub service: Option<Service>,
    /// Checks to upsert; their node is the registration's.
    pub checks: Vec<Check>,
    /// Leave an existing node row as it is.
    pub skip_node_update: bool,
}

/// What to remove from the catalog: with neither service nor check, the whole node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deregistration {
    /// The node's name.
    pub node: Text,
    /// One instance and its checks.
    pub service_id: Option<Text>,
    /// One check.
    pub check_id: Option<Text>,
}

/// What applying a command answers to the one who proposed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Done, nothing to say.
    Done,
    /// A conditional write: whether the condition held.
    Held(bool),
    /// The session exists.
    SessionCreated(Uuid),
    /// Refused; nothing was changed. Every replica refuses alike.
    Refused(Refusal),
    /// What a transaction came to.
    Transaction(Outcome),
    /// A restore has begun under this name.
    RestoreBegun(Uuid),
    /// The prepared query exists.
    PreparedQueryCreated(Uuid),
    /// The intention exists.
    IntentionSaved(Uuid),
}

/// Why the store refused a command. The display texts are those of Consul's HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// Acquire with an unknown session.
    #[error("invalid session {0:?}")]
    InvalidSession(String),
    /// A session on a node that is not registered.
    #[error("Missing node registration")]
    MissingNode,
    /// A session or a registration that names a check which does not exist.
    #[error("Missing check '{0}' registration")]
    MissingCheck(Text),
    /// A session that would depend on a check which is critical.
    #[error("Check '{0}' is in critical state")]
    CriticalCheck(Text),
    /// A check for an instance that is not registered.
    #[error("failed inserting check: Missing service registration on node {node:?}")]
    MissingService {
        /// Name of the node.
        node: Text,
    },
    /// Any other rule of the catalog, in words.
    #[error("{0}")]
    Other(String),
}

/// Bytes that are no command, or none that this version understands.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadCommand {
    /// The format is unknown. Applying nothing would let this replica differ from the others, so it must stop.
    #[error(
        "a command of format {0}, which this version does not understand: start the newer version again, nothing is lost"
    )]
    Format(Format),
    /// It is not what was proposed.
    #[error("a command whose checksum is wrong")]
    Damaged,
    /// The format is known and the rest is not.
    #[error("a command that cannot be decoded")]
    Malformed,
}

/// [`KvCommand`] as it lies in the buffer.
#[derive(Deserialize)]
struct KvWire<'a> {
    verb: KvVerb,
    key: &'a str,
    value: &'a [u8],
    flags: u64,
}

impl Command {
    /// Postcard in the envelope of a format.
    #[must_use]
    pub fn encode(&self, format: Format) -> Bytes {
        let room = match self {
            Command::Kv(command) => command.key.len() + command.value.len() + 48,
            _ => 256,
        };
        let bytes = format::open(format, room);
        let bytes =
            postcard::to_extend(self, bytes).expect("commands hold nothing that postcard cannot write");
        format::close(bytes)
    }

    /// Reads what [`Command::encode`] wrote. A value is a slice of `bytes`, not a copy.
    ///
    /// # Errors
    /// [`BadCommand`] when its format is none of `formats`, when it was altered, or when it is no command at all.
    pub fn decode(bytes: &Bytes, formats: Formats) -> Result<Command, BadCommand> {
        let at = format::body(bytes, formats).map_err(|bad| match bad {
            BadEnvelope::Unknown(format) => BadCommand::Format(format),
            BadEnvelope::Damaged => BadCommand::Damaged,
            BadEnvelope::Short => BadCommand::Malformed,
        })?;
        // The first variant, by far the most frequent, is read in place.
        if bytes.get(at) == Some(&0) {
            let (wire, rest) = postcard::take_from_bytes::<KvWire<'_>>(&bytes[at + 1..])
                .map_err(|_| BadCommand::Malformed)?;
            if !rest.is_empty() {
                return Err(BadCommand::Malformed);
            }
            return Ok(Command::Kv(KvCommand {
                verb: wire.verb,
                key: Text::new(wire.key),
                value: bytes.slice_ref(wire.value),
                flags: wire.flags,
            }));
        }
        match postcard::take_from_bytes(&bytes[at..]) {
            Ok((command, [])) => Ok(command),
            _ => Err(BadCommand::Malformed),
        }
    }
}
