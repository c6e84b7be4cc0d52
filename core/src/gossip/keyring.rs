//! Keys that seal gossip: AES-GCM with a ring of keys, of which the first seals and every one opens.

use core::fmt;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Text;

/// A key of 16, 24 or 32 bytes (AES-128, AES-192, AES-256).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(Bytes);

impl Key {
    /// A key of these bytes; `None` unless there are 16, 24 or 32 of them.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Key> {
        matches!(bytes.len(), 16 | 24 | 32).then(|| Key(Bytes::copy_from_slice(bytes)))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Never shows the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// A change of the keys of a whole pool (Consul: «keyring»).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeysChange {
    /// Add a key to every ring.
    Install(Key),
    /// Seal with this key from now on; it must be installed.
    Use(Key),
    /// Remove a key; not the one that seals.
    Remove(Key),
    /// Change nothing, only count who has which key.
    List,
}

/// What a change of keys, or a listing, found in the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeysReport {
    /// Members that were asked.
    pub members: usize,
    /// Members that answered.
    pub answers: usize,
    /// Members that answered with an error, and which.
    pub errors: BTreeMap<Text, Text>,
    /// How many rings have each key (in base64).
    pub keys: BTreeMap<Text, usize>,
    /// How many rings seal with each key (in base64).
    pub primary_keys: BTreeMap<Text, usize>,
}
