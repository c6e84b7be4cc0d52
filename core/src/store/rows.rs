//! Rows as checkpoints and snapshots keep them: one format for both.
//!
//! A row's key is a byte that names its table and the primary key, in an encoding that sorts as the table does. Its
//! value is postcard, except that a key's value follows its header as it is. A table whose rows need another layout gets
//! another tag; an older server that meets it refuses by name instead of guessing.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::Store;
use super::catalog::assemble;
use super::checks::OnNode;
use super::config::EntryKey;
use super::coordinates::NodeCoordinate;
use super::indexes::TableIndex;
use super::instances::Instance;
use super::kv::KeysBuilder;
use super::model::{Check, Node, Service, Session};
use super::nodes::NodeEntry;
use super::prepared::PreparedQuery;
use super::restore::Staging;
use super::services::GroupKey;
use super::sessions::LockDelay;
use super::system::{Autopilot, SystemRow};
use crate::Text;
use crate::config_entry::{ConfigEntry, Kind};
use crate::format::Format;
use crate::ids::Uuid;

/// Which table a row is in. The numbers are format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Table {
    Kv = 1,
    Tombstone = 2,
    Node = 3,
    Service = 4,
    Check = 5,
    Session = 6,
    LockDelay = 7,
    Group = 8,
    Index = 9,
    System = 10,
    Coordinate = 11,
    Staged = 12,
    ConfigEntry = 13,
    Prepared = 14,
}

impl Table {
    /// All tables in the order of their numbers, which is the order of their rows.
    const ALL: [Table; 14] = [
        Table::Kv,
        Table::Tombstone,
        Table::Node,
        Table::Service,
        Table::Check,
        Table::Session,
        Table::LockDelay,
        Table::Group,
        Table::Index,
        Table::System,
        Table::Coordinate,
        Table::Staged,
        Table::ConfigEntry,
        Table::Prepared,
    ];

    fn of(tag: u8) -> Option<Table> {
        Table::ALL.into_iter().find(|table| *table as u8 == tag)
    }
}

/// Where a row is: its table and its primary key, as ordered bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowKey(Vec<u8>);

impl RowKey {
    fn new(table: Table, parts: &[&[u8]]) -> RowKey {
        let mut bytes = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
        bytes.push(table as u8);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        RowKey(bytes)
    }

    /// A first part that may contain anything, and what follows it: zero is escaped, so that the order is that of the
    /// pair.
    fn pair(table: Table, first: &str, rest: &[u8]) -> RowKey {
        let mut bytes = Vec::with_capacity(first.len() + rest.len() + 3);
        bytes.push(table as u8);
        for byte in first.bytes() {
            bytes.push(byte);
            if byte == 0 {
                bytes.push(0xff);
            }
        }
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(rest);
        RowKey(bytes)
    }

    pub(super) fn kv(key: &str) -> RowKey {
        RowKey::new(Table::Kv, &[key.as_bytes()])
    }

    pub(super) fn tombstone(key: &str) -> RowKey {
        RowKey::new(Table::Tombstone, &[key.as_bytes()])
    }

    pub(super) fn node(name: &str) -> RowKey {
        RowKey::new(Table::Node, &[name.as_bytes()])
    }

    pub(super) fn service(key: &OnNode) -> RowKey {
        RowKey::pair(Table::Service, &key.0, key.1.as_bytes())
    }

    pub(super) fn check(key: &OnNode) -> RowKey {
        RowKey::pair(Table::Check, &key.0, key.1.as_bytes())
    }

    pub(super) fn session(id: Uuid) -> RowKey {
        RowKey::new(Table::Session, &[&id.0.to_be_bytes()])
    }

    pub(super) fn lock_delay(key: &str) -> RowKey {
        RowKey::new(Table::LockDelay, &[key.as_bytes()])
    }

    pub(super) fn group(key: &GroupKey) -> RowKey {
        RowKey::pair(Table::Group, &key.name, &[u8::from(key.connect)])
    }

    pub(super) fn index(table: TableIndex) -> RowKey {
        RowKey::new(Table::Index, &[&[table as u8]])
    }

    pub(super) fn system(row: SystemRow) -> RowKey {
        RowKey::new(Table::System, &[&[row as u8]])
    }

    pub(super) fn coordinate(node: &str) -> RowKey {
        RowKey::new(Table::Coordinate, &[node.as_bytes()])
    }

    pub(super) fn prepared(id: Uuid) -> RowKey {
        RowKey::new(Table::Prepared, &[&id.0.to_be_bytes()])
    }

    pub(super) fn staged(number: u64) -> RowKey {
        RowKey::new(Table::Staged, &[&number.to_be_bytes()])
    }

    pub(super) fn config_entry((kind, name): &EntryKey) -> RowKey {
        let kind = postcard::to_allocvec(kind).expect("memory is the only sink");
        RowKey::new(Table::ConfigEntry, &[&kind, name.as_bytes()])
    }

    /// The bytes, as they are kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the bytes of [`RowKey::as_bytes`].
    ///
    /// # Errors
    /// [`BadRow::Table`] and [`BadRow::Key`] for what this version did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<RowKey, BadRow> {
        Primary::parse(bytes)?;
        Ok(RowKey(bytes.to_vec()))
    }
}

/// What a [`RowKey`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Primary {
    Kv(Text),
    Tombstone(Text),
    Node(Text),
    Service(OnNode),
    Check(OnNode),
    Session(Uuid),
    LockDelay(Text),
    Group(GroupKey),
    Index(TableIndex),
    System(SystemRow),
    Coordinate(Text),
    Staged(u64),
    ConfigEntry(EntryKey),
    Prepared(Uuid),
}

impl Primary {
    fn table(&self) -> Table {
        match self {
            Primary::Kv(_) => Table::Kv,
            Primary::Tombstone(_) => Table::Tombstone,
            Primary::Node(_) => Table::Node,
            Primary::Service(_) => Table::Service,
            Primary::Check(_) => Table::Check,
            Primary::Session(_) => Table::Session,
            Primary::LockDelay(_) => Table::LockDelay,
            Primary::Group(_) => Table::Group,
            Primary::Index(_) => Table::Index,
            Primary::System(_) => Table::System,
            Primary::Coordinate(_) => Table::Coordinate,
            Primary::Staged(_) => Table::Staged,
            Primary::ConfigEntry(_) => Table::ConfigEntry,
            Primary::Prepared(_) => Table::Prepared,
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Primary, BadRow> {
        let (tag, rest) = bytes.split_first().ok_or(BadRow::Key)?;
        Ok(match Table::of(*tag).ok_or(BadRow::Table(*tag))? {
            Table::Kv => Primary::Kv(text(rest)?),
            Table::Tombstone => Primary::Tombstone(text(rest)?),
            Table::Node => Primary::Node(text(rest)?),
            Table::Service => Primary::Service(on_node(rest)?),
            Table::Check => Primary::Check(on_node(rest)?),
            Table::Session => Primary::Session(uuid(rest)?),
            Table::Prepared => Primary::Prepared(uuid(rest)?),
            Table::LockDelay => Primary::LockDelay(text(rest)?),
            Table::Coordinate => Primary::Coordinate(text(rest)?),
            Table::Staged => {
                let bytes: [u8; 8] = rest.try_into().map_err(|_| BadRow::Key)?;
                Primary::Staged(u64::from_be_bytes(bytes))
            }
            Table::ConfigEntry => {
                let (kind, name) = postcard::take_from_bytes(rest).map_err(|_| BadRow::Key)?;
                Primary::ConfigEntry((kind, text(name)?))
            }
            Table::Group => {
                let (name, rest) = unescape(rest)?;
                let connect = match rest {
                    [0] => false,
                    [1] => true,
                    _ => return Err(BadRow::Key),
                };
                Primary::Group(GroupKey { name, connect })
            }
            Table::Index => match rest {
                [number] => Primary::Index(
                    TableIndex::ALL.into_iter().find(|table| *table as u8 == *number).ok_or(BadRow::Key)?,
                ),
                _ => return Err(BadRow::Key),
            },
            Table::System => match rest {
                [number] => Primary::System(
                    SystemRow::ALL.into_iter().find(|row| *row as u8 == *number).ok_or(BadRow::Key)?,
                ),
                _ => return Err(BadRow::Key),
            },
        })
    }
}

fn text(bytes: &[u8]) -> Result<Text, BadRow> {
    std::str::from_utf8(bytes).map(Text::new).map_err(|_| BadRow::Key)
}

fn uuid(bytes: &[u8]) -> Result<Uuid, BadRow> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| BadRow::Key)?;
    Ok(Uuid(u128::from_be_bytes(bytes)))
}

/// Reads the first part of a pair and gives what follows it.
fn unescape(bytes: &[u8]) -> Result<(Text, &[u8]), BadRow> {
    let mut first = Vec::new();
    let mut at = 0;
    loop {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(0), Some(0)) => return Ok((text(&first)?, &bytes[at + 2..])),
            (Some(0), Some(0xff)) => {
                first.push(0);
                at += 2;
            }
            (Some(0), _) | (None, _) => return Err(BadRow::Key),
            (Some(byte), _) => {
                first.push(*byte);
                at += 1;
            }
        }
    }
}

fn on_node(bytes: &[u8]) -> Result<OnNode, BadRow> {
    let (node, id) = unescape(bytes)?;
    Ok((node, text(id)?))
}

/// A row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadRow {
    /// The table is not known here.
    #[error("a row of a table with the number {0}, which this version does not know: a newer one wrote it")]
    Table(u8),
    /// The primary key is malformed.
    #[error("a row whose key is malformed")]
    Key,
    /// The value is malformed.
    #[error("a row whose value is malformed")]
    Value,
}

/// A row in the store, not yet encoded.
enum RowRef<'a> {
    Kv(&'a [u8], &'a [u8]),
    Tombstone(&'a Text, u64),
    Node(&'a Text, &'a NodeEntry),
    Service(&'a OnNode, &'a Service),
    Check(&'a OnNode, &'a Check),
    Session(&'a Session),
    LockDelay(&'a Text, LockDelay),
    Group(&'a GroupKey, u64),
    Index(TableIndex, u64),
    Autopilot(&'a Autopilot),
    GroupId(Uuid),
    Format(Format),
    Coordinate(&'a Text, &'a NodeCoordinate),
    IndexOffset(u64),
    Restore(Uuid),
    Staged(u64, &'a [u8]),
    ConfigEntry(&'a EntryKey, &'a ConfigEntry),
    Prepared(&'a PreparedQuery),
}

impl RowRef<'_> {
    fn key(&self) -> RowKey {
        match self {
            RowRef::Kv(key, _) => RowKey::new(Table::Kv, &[key]),
            RowRef::Tombstone(key, _) => RowKey::tombstone(key),
            RowRef::Node(name, _) => RowKey::node(name),
            RowRef::Service(key, _) => RowKey::service(key),
            RowRef::Check(key, _) => RowKey::check(key),
            RowRef::Session(session) => RowKey::session(session.id),
            RowRef::LockDelay(key, _) => RowKey::lock_delay(key),
            RowRef::Group(key, _) => RowKey::group(key),
            RowRef::Index(table, _) => RowKey::index(*table),
            RowRef::Autopilot(_) => RowKey::system(SystemRow::Autopilot),
            RowRef::GroupId(_) => RowKey::system(SystemRow::Group),
            RowRef::Format(_) => RowKey::system(SystemRow::Format),
            RowRef::Coordinate(node, _) => RowKey::coordinate(node),
            RowRef::IndexOffset(_) => RowKey::system(SystemRow::IndexOffset),
            RowRef::Restore(_) => RowKey::system(SystemRow::Restore),
            RowRef::Staged(number, _) => RowKey::staged(*number),
            RowRef::ConfigEntry(key, _) => RowKey::config_entry(key),
            RowRef::Prepared(query) => RowKey::prepared(query.id),
        }
    }

    fn value(&self) -> Vec<u8> {
        match self {
            RowRef::Kv(_, payload) => payload.to_vec(),
            RowRef::Tombstone(_, index) | RowRef::Group(_, index) | RowRef::Index(_, index) => encode(index),
            RowRef::Node(_, entry) => encode(&(&*entry.row, entry.index, entry.checks_index)),
            RowRef::Service(_, service) => encode(service),
            RowRef::Check(_, check) => encode(check),
            RowRef::Session(session) => encode(session),
            RowRef::LockDelay(_, delay) => encode(delay),
            RowRef::Autopilot(row) => encode(row),
            RowRef::GroupId(id) | RowRef::Restore(id) => encode(id),
            RowRef::IndexOffset(offset) => encode(offset),
            RowRef::Staged(_, rows) => rows.to_vec(),
            RowRef::Format(format) => encode(format),
            RowRef::Coordinate(_, row) => encode(row),
            RowRef::ConfigEntry(_, row) => encode(row),
            RowRef::Prepared(query) => encode(query),
        }
    }
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("rows hold nothing that postcard cannot write")
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadRow> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(BadRow::Value),
    }
}

impl Store {
    /// The keys of all rows, in order. The store is its rows: [`StoreBuilder`] makes an equal one from them.
    pub fn rows(&self) -> impl Iterator<Item = RowKey> {
        self.walk(None).map(|row| row.key())
    }

    /// One row as checkpoints keep it; `None`: it is gone.
    #[must_use]
    pub fn row(&self, key: &RowKey) -> Option<Vec<u8>> {
        let primary = Primary::parse(&key.0).expect("row keys are only made for tables that exist");
        let row = match &primary {
            Primary::Kv(key) => RowRef::Kv(key.as_bytes(), self.kv.payload(key.as_bytes())?),
            Primary::Tombstone(key) => RowRef::Tombstone(key, self.kv.tombstones.get(key)?),
            Primary::Node(name) => RowRef::Node(name, self.nodes.get(name)?),
            Primary::Service(key) => RowRef::Service(key, self.services.get(key)?),
            Primary::Check(key) => RowRef::Check(key, self.checks.get(key)?),
            Primary::Session(id) => RowRef::Session(self.sessions.get(*id)?),
            Primary::LockDelay(key) => RowRef::LockDelay(key, self.sessions.lock_delay(key)?),
            Primary::Group(key) => RowRef::Group(key, self.services.group(key)?.index),
            Primary::Index(table) => match self.indexes.get(*table) {
                0 => return None,
                index => RowRef::Index(*table, index),
            },
            Primary::System(row) => self.system_row(*row)?,
            Primary::Coordinate(node) => RowRef::Coordinate(node, self.coordinates.get(node)?),
            Primary::Staged(number) => RowRef::Staged(*number, self.staging.as_ref()?.pieces.get(number)?),
            Primary::ConfigEntry(key) => RowRef::ConfigEntry(key, self.config.row(key)?),
            Primary::Prepared(id) => RowRef::Prepared(self.prepared.get(*id)?),
        };
        Some(row.value())
    }

    /// The rows behind a cursor in key order, until `max_bytes` are exceeded (at least one row); the cursor for the next
    /// call, or `None` at the end. Calls on clones of the same store make one consistent walk.
    #[must_use]
    pub fn rows_after(
        &self,
        cursor: Option<&RowKey>,
        max_bytes: usize,
    ) -> (Vec<(RowKey, Vec<u8>)>, Option<RowKey>) {
        let mut rows = Vec::new();
        let mut bytes = 0;
        for row in self.walk(cursor) {
            let (key, value) = (row.key(), row.value());
            bytes += key.0.len() + value.len();
            rows.push((key, value));
            if bytes >= max_bytes {
                let next = rows.last().map(|(key, _)| key.clone());
                return (rows, next);
            }
        }
        (rows, None)
    }

    /// The rows behind a key, or all.
    fn walk(&self, after: Option<&RowKey>) -> impl Iterator<Item = RowRef<'_>> + use<'_> {
        let after = after.cloned();
        let cursor = after
            .as_ref()
            .map(|key| Primary::parse(&key.0).expect("row keys are only made for tables that exist"));
        let first = cursor.as_ref().map_or(Table::Kv, Primary::table);
        Table::ALL
            .into_iter()
            .filter(move |table| *table >= first)
            .flat_map(move |table| {
                self.table_from(table, cursor.as_ref().filter(|cursor| cursor.table() == table))
            })
            .skip_while(move |row| after.as_ref().is_some_and(|after| row.key() <= *after))
    }

    fn system_row(&self, row: SystemRow) -> Option<RowRef<'_>> {
        match row {
            SystemRow::Autopilot => self.system.autopilot.as_deref().map(RowRef::Autopilot),
            SystemRow::Group => self.system.group.map(RowRef::GroupId),
            SystemRow::Format => {
                let format = self.system.format;
                (format != Format::FIRST).then_some(RowRef::Format(format))
            }
            SystemRow::IndexOffset => {
                let offset = self.system.index_offset;
                (offset > 0).then_some(RowRef::IndexOffset(offset))
            }
            SystemRow::Restore => self.staging.as_ref().map(|staging| RowRef::Restore(staging.id)),
        }
    }

    /// One table's rows at or after a primary key, or all of them.
    fn table_from<'a>(
        &'a self,
        table: Table,
        from: Option<&Primary>,
    ) -> Box<dyn Iterator<Item = RowRef<'a>> + 'a> {
        let from_text = match from {
            Some(
                Primary::Kv(text)
                | Primary::Tombstone(text)
                | Primary::Node(text)
                | Primary::LockDelay(text)
                | Primary::Coordinate(text),
            ) => text.clone(),
            _ => Text::default(),
        };
        let from_pair = match from {
            Some(Primary::Service(key) | Primary::Check(key)) => key.clone(),
            _ => OnNode::default(),
        };
        match table {
            Table::Kv => Box::new(
                self.kv.payloads_from(from_text.as_bytes()).map(|(key, payload)| RowRef::Kv(key, payload)),
            ),
            Table::Tombstone => Box::new(
                self.kv.tombstones.from(&from_text).map(|(key, index)| RowRef::Tombstone(key, index)),
            ),
            Table::Node => {
                Box::new(self.nodes.from(&from_text).map(|(name, entry)| RowRef::Node(name, entry)))
            }
            Table::Service => {
                Box::new(self.services.from(from_pair).map(|(key, row)| RowRef::Service(key, row)))
            }
            Table::Check => Box::new(self.checks.from(from_pair).map(|(key, row)| RowRef::Check(key, row))),
            Table::Session => {
                let from = match from {
                    Some(Primary::Session(id)) => *id,
                    _ => Uuid::default(),
                };
                Box::new(self.sessions.all_from(from).map(|session| RowRef::Session(session)))
            }
            Table::LockDelay => Box::new(
                self.sessions.delays_from(&from_text).map(|(key, delay)| RowRef::LockDelay(key, *delay)),
            ),
            Table::Group => {
                let from = match from {
                    Some(Primary::Group(key)) => key.clone(),
                    _ => GroupKey::new("", false),
                };
                Box::new(self.services.groups_from(from).map(|(key, group)| RowRef::Group(key, group.index)))
            }
            Table::Index => Box::new(
                TableIndex::ALL
                    .into_iter()
                    .map(|table| (table, self.indexes.get(table)))
                    .filter(|(_, index)| *index > 0)
                    .map(|(table, index)| RowRef::Index(table, index)),
            ),
            Table::System => Box::new(SystemRow::ALL.into_iter().filter_map(|row| self.system_row(row))),
            Table::Coordinate => {
                Box::new(self.coordinates.from(&from_text).map(|(key, row)| RowRef::Coordinate(key, row)))
            }
            Table::ConfigEntry => {
                let from = match from {
                    Some(Primary::ConfigEntry(key)) => key.clone(),
                    _ => (Kind::ALL[0], Text::default()),
                };
                Box::new(self.config.from(from).map(|(key, row)| RowRef::ConfigEntry(key, row)))
            }
            Table::Prepared => {
                let from = match from {
                    Some(Primary::Prepared(id)) => *id,
                    _ => Uuid::default(),
                };
                Box::new(self.prepared.all_from(from).map(|query| RowRef::Prepared(query)))
            }
            Table::Staged => {
                let from = match from {
                    Some(Primary::Staged(number)) => *number,
                    _ => 0,
                };
                let pieces = self.staging.iter().flat_map(move |staging| staging.pieces.range(from..));
                Box::new(pieces.map(|(number, rows)| RowRef::Staged(*number, rows)))
            }
        }
    }
}

/// Makes a store from its rows. Rows may come in any order; in key order it is fastest.
#[derive(Default)]
pub struct StoreBuilder {
    store: Store,
    keys: KeysBuilder,
    groups: OrdMap<GroupKey, u64>,
    restoring: Option<Uuid>,
    staged: OrdMap<u64, bytes::Bytes>,
}

impl StoreBuilder {
    /// A builder without rows.
    #[must_use]
    pub fn new() -> StoreBuilder {
        StoreBuilder::default()
    }

    /// Takes one row.
    ///
    /// # Errors
    /// [`BadRow`] for what this version did not write; the builder should be given up then.
    pub fn put_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadRow> {
        if let Some((tag, rest)) = key.split_first()
            && *tag == Table::Kv as u8
        {
            return self.keys.put(rest, value);
        }
        match Primary::parse(key)? {
            Primary::Kv(key) => self.keys.put(key.as_bytes(), value)?,
            Primary::Tombstone(key) => self.keys.tombstones.insert(key, decode(value)?),
            Primary::Node(_) => {
                let (row, index, checks_index): (Node, u64, u64) = decode(value)?;
                self.store.nodes.put(NodeEntry { row: Arc::new(row), index, checks_index });
            }
            Primary::Service(key) => {
                self.store.services.put(key, Arc::new(decode::<Service>(value)?));
            }
            Primary::Check(key) => self.store.checks.put(key, Arc::new(decode::<Check>(value)?)),
            Primary::Session(_) => self.store.sessions.put(Arc::new(decode::<Session>(value)?)),
            Primary::Prepared(_) => self.store.prepared.put(Arc::new(decode::<PreparedQuery>(value)?)),
            Primary::LockDelay(key) => {
                self.store.sessions.put_delay(key, decode::<LockDelay>(value)?);
            }
            Primary::Group(key) => {
                self.groups.insert(key, decode(value)?);
            }
            Primary::Index(table) => self.store.indexes.raise(table, decode(value)?),
            Primary::System(SystemRow::Autopilot) => {
                self.store.system.autopilot = Some(Arc::new(decode(value)?));
            }
            Primary::System(SystemRow::Group) => self.store.system.group = Some(decode(value)?),
            Primary::System(SystemRow::Format) => self.store.system.format = decode(value)?,
            Primary::System(SystemRow::IndexOffset) => self.store.system.index_offset = decode(value)?,
            Primary::System(SystemRow::Restore) => self.restoring = Some(decode(value)?),
            Primary::Staged(number) => {
                self.staged.insert(number, bytes::Bytes::copy_from_slice(value));
            }
            Primary::ConfigEntry(_) => {
                let row = Arc::new(decode::<ConfigEntry>(value)?);
                self.store.config.put(row).ok_or(BadRow::Value)?;
            }
            Primary::Coordinate(key) => {
                self.store.coordinates.put(key, Arc::new(decode::<NodeCoordinate>(value)?));
            }
        }
        Ok(())
    }

    /// The store, with everything that is derived from rows.
    #[must_use]
    pub fn finish(self) -> Store {
        let StoreBuilder { mut store, keys, groups, restoring, staged } = self;
        store.staging = restoring.map(|id| Staging { id, pieces: staged });
        store.kv = keys.finish();
        let mut instances: Vec<(OnNode, Arc<Instance>)> = Vec::new();
        for (name, entry) in store.nodes.from("") {
            let keys = store.services.of_node(name).map(|(key, _)| key.clone()).collect();
            instances.extend(assemble(&entry.row, name, &keys, &store));
        }
        store.services.restore(instances, &groups);
        store
    }
}
