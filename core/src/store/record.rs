//! Rows outside of a store: what an archive holds, for those who look into it.

use super::BadRow;
use super::coordinates::NodeCoordinate;
use super::indexes::TableIndex;
use super::kv;
use super::model::{Check, KvEntry, Node, Service, Session};
use super::prepared::PreparedQuery;
use super::rows::{Primary, decode};
use super::sessions::LockDelay;
use super::system::{Autopilot, SystemRow};
use crate::Text;
use crate::config_entry::ConfigEntry;
use crate::format::Format;
use crate::ids::Uuid;

/// A row, by its table.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A key.
    Kv(KvEntry),
    /// What a deleted key left behind.
    Tombstone {
        /// The key.
        key: Text,
        /// Raft index of the deletion.
        index: u64,
    },
    /// A node.
    Node(Node),
    /// An instance of a service.
    Service {
        /// Lower-case name of its node.
        node: Text,
        /// The instance.
        service: Service,
    },
    /// A check.
    Check(Check),
    /// A session.
    Session(Session),
    /// A key that cannot be locked for a while.
    LockDelay {
        /// The key.
        key: Text,
        /// For how long.
        delay: LockDelay,
    },
    /// A newest Raft index, by the name of what it is of: `kvs`, `service.web`.
    Index {
        /// The name.
        name: String,
        /// The index.
        index: u64,
    },
    /// Autopilot's settings.
    Autopilot(Autopilot),
    /// What the servers know about themselves, by name.
    System {
        /// `group`, `format`, `index-offset` or `restore`.
        name: &'static str,
        /// What is known.
        value: String,
    },
    /// Where a node is in the space of network coordinates.
    Coordinate(NodeCoordinate),
    /// A piece of a state that was being restored, by its number.
    Piece(u64),
    /// A configuration entry.
    ConfigEntry(ConfigEntry),
    /// A prepared query.
    PreparedQuery(PreparedQuery),
}

impl Record {
    /// Reads a row as checkpoints and archives keep it.
    ///
    /// # Errors
    /// [`BadRow`] for what this version did not write.
    pub fn parse(key: &[u8], value: &[u8]) -> Result<Record, BadRow> {
        Ok(match Primary::parse(key)? {
            Primary::Kv(key) => Record::Kv(kv::parse(key, value)?),
            Primary::Tombstone(key) => Record::Tombstone { key, index: decode(value)? },
            Primary::Node(_) => {
                let (row, _, _): (Node, u64, u64) = decode(value)?;
                Record::Node(row)
            }
            Primary::Service((node, _)) => Record::Service { node, service: decode(value)? },
            Primary::Check(_) => Record::Check(decode(value)?),
            Primary::Session(_) => Record::Session(decode(value)?),
            Primary::LockDelay(key) => Record::LockDelay { key, delay: decode(value)? },
            Primary::Group(key) => {
                let what = if key.connect { "connect" } else { "service" };
                Record::Index { name: format!("{what}.{}", key.name), index: decode(value)? }
            }
            Primary::Index(table) => {
                Record::Index { name: index_name(table).to_owned(), index: decode(value)? }
            }
            Primary::System(SystemRow::Autopilot) => Record::Autopilot(decode(value)?),
            Primary::System(SystemRow::Group) => system("group", decode::<Uuid>(value)?),
            Primary::System(SystemRow::Format) => system("format", decode::<Format>(value)?),
            Primary::System(SystemRow::IndexOffset) => system("index-offset", decode::<u64>(value)?),
            Primary::System(SystemRow::Restore) => system("restore", decode::<Uuid>(value)?),
            Primary::Coordinate(_) => Record::Coordinate(decode(value)?),
            Primary::Staged(number) => Record::Piece(number),
            Primary::ConfigEntry(_) => Record::ConfigEntry(decode(value)?),
            Primary::Prepared(_) => Record::PreparedQuery(decode(value)?),
        })
    }

    /// The table's name, as users know it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Record::Kv(_) => "KV",
            Record::Tombstone { .. } => "Tombstone",
            Record::Node(_) => "Node",
            Record::Service { .. } => "Service",
            Record::Check(_) => "Check",
            Record::Session(_) => "Session",
            Record::LockDelay { .. } => "LockDelay",
            Record::Index { .. } => "Index",
            Record::Autopilot(_) => "Autopilot",
            Record::System { .. } => "SystemMetadata",
            Record::Coordinate(_) => "Coordinate",
            Record::Piece(_) => "RestorePiece",
            // Intentions are kept in such entries.
            Record::ConfigEntry(_) => "ConfigEntry",
            Record::PreparedQuery(_) => "PreparedQuery",
        }
    }
}

fn system(name: &'static str, value: impl std::fmt::Display) -> Record {
    Record::System { name, value: value.to_string() }
}

fn index_name(table: TableIndex) -> &'static str {
    match table {
        TableIndex::Kv => "kvs",
        TableIndex::Nodes => "nodes",
        TableIndex::Services => "services",
        TableIndex::Checks => "checks",
        TableIndex::Sessions => "sessions",
        TableIndex::Reaped => "tombstones",
        TableIndex::Coordinates => "coordinates",
        TableIndex::Restored => "restored",
        TableIndex::ConfigEntries => "config-entries",
        TableIndex::Prepared => "prepared-queries",
    }
}

/// A row as it is kept: its key and its value.
type Kept<'a> = (&'a [u8], &'a [u8]);

/// The rows of a piece, as [`super::encode_rows`] wrote it.
///
/// # Errors
/// [`BadRow::Value`] if it is none.
pub fn decode_rows(piece: &[u8]) -> Result<Vec<Kept<'_>>, BadRow> {
    match postcard::take_from_bytes(piece) {
        Ok((rows, [])) => Ok(rows),
        _ => Err(BadRow::Value),
    }
}
