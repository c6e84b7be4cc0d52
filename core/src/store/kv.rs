//! Keys: their rows, their locks, and the commands on them.
//!
//! A million small keys are the common large state, so a row is one allocation that holds the key, the numbers and the
//! value, and the table is a set of such rows ordered by key. Readers get a [`KvEntry`] that shares the row's memory.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::command::{KvCommand, KvVerb, Refusal, Response};
use super::indexes::{Indexes, TableIndex};
use super::model::KvEntry;
use super::query::WatchKey;
use super::rows::{BadRow, RowKey};
use super::sessions::Sessions;
use super::tombstones::Tombstones;
use crate::Text;
use crate::ids::Uuid;
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};

/// The numbers of a row. Postcard: field order is format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    flags: u64,
    lock_index: u64,
    session: Option<Uuid>,
    create_index: u64,
    modify_index: u64,
}

impl Header {
    fn with(self, key: Text, value: Bytes) -> KvEntry {
        let Header { flags, lock_index, session, create_index, modify_index } = self;
        KvEntry { key, value, flags, lock_index, session, create_index, modify_index }
    }
}

/// A row in one allocation: the key's length (four bytes, little endian), the key, the header, the value.
#[derive(Clone)]
struct Row(Arc<[u8]>);

const KEY_AT: usize = 4;

/// Four numbers of up to 10 bytes and a session of up to 20.
const HEADER_MAX: usize = 60;

impl Row {
    fn new(key: &str, header: &Header, value: &[u8]) -> Row {
        let mut room = [0; HEADER_MAX];
        let header =
            postcard::to_slice(header, &mut room).expect("a header takes no more than its five numbers");
        Row::join(key.as_bytes(), header, value)
    }

    /// One allocation from the key and the two parts of what follows it.
    fn join(key: &[u8], head: &[u8], tail: &[u8]) -> Row {
        let len = u32::try_from(key.len()).expect("keys are far below 4 GiB").to_le_bytes();
        let size = KEY_AT + key.len() + head.len() + tail.len();
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, size).collect();
        let mut rest = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
        for part in [&len[..], key, head, tail] {
            let (here, behind) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = behind;
        }
        Row(bytes)
    }

    fn key_end(&self) -> usize {
        let len: [u8; KEY_AT] = self.0[..KEY_AT].try_into().expect("a row begins with its key's length");
        KEY_AT + u32::from_le_bytes(len) as usize
    }

    fn key(&self) -> &[u8] {
        &self.0[KEY_AT..self.key_end()]
    }

    fn text(&self) -> Text {
        Text::new(std::str::from_utf8(self.key()).expect("rows are only made of valid keys"))
    }

    /// What a checkpoint keeps: header and value.
    fn payload(&self) -> &[u8] {
        &self.0[self.key_end()..]
    }

    fn parts(&self) -> (Header, &[u8]) {
        postcard::take_from_bytes(self.payload()).expect("rows are only made with valid headers")
    }

    fn header(&self) -> Header {
        self.parts().0
    }

    fn entry(&self) -> Arc<KvEntry> {
        let (header, value) = self.parts();
        let value_at = self.0.len() - value.len();
        let value =
            if value.is_empty() { Bytes::new() } else { Bytes::from_owner(self.0.clone()).slice(value_at..) };
        Arc::new(header.with(self.text(), value))
    }
}

impl Borrow<[u8]> for Row {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Row) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Row) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Row {}

/// All keys.
#[derive(Clone, Default)]
pub(super) struct Keys {
    rows: OrdSet<Row>,
    /// Which keys a session holds. Derived from the rows.
    held: OrdMap<Uuid, OrdSet<Text>>,
    pub(super) tombstones: Tombstones,
}

impl Keys {
    pub(super) fn apply(
        &mut self,
        sessions: &Sessions,
        indexes: &mut Indexes,
        change: &mut Change,
        command: &KvCommand,
    ) -> Response {
        let row = self.rows.get(command.key.as_bytes()).cloned();
        let old = row.as_ref().map(Row::header);
        let row = row.as_ref();
        let session = old.and_then(|old| old.session);
        let lock_index = old.map_or(0, |old| old.lock_index);
        match command.verb {
            // A plain write keeps the lock but begins to count acquisitions anew, as Consul does.
            KvVerb::Set => self.write(indexes, change, command, row, session, 0),
            KvVerb::Cas(expected) => {
                if old.map_or(0, |old| old.modify_index) != expected && !planted(Bug::CasIgnoresIndex) {
                    return Response::Held(false);
                }
                self.write(indexes, change, command, row, session, 0);
            }
            KvVerb::Acquire(id) => {
                if sessions.get(id).is_none() {
                    return Response::Refused(Refusal::InvalidSession(id.to_string()));
                }
                if session.is_some_and(|holder| holder != id) && !planted(Bug::AcquireIgnoresHolder) {
                    marks::hit(Mark::LockRefusedByHolder);
                    return Response::Held(false);
                }
                if sessions.lock_delay(&command.key).is_some() {
                    marks::hit(Mark::LockRefusedByDelay);
                    return Response::Held(false);
                }
                let fresh = session != Some(id) && !planted(Bug::LockIndexStandsStill);
                self.write(indexes, change, command, row, Some(id), lock_index + u64::from(fresh));
            }
            KvVerb::Release(id) => {
                if session != Some(id) && !planted(Bug::ReleaseIgnoresHolder) {
                    return Response::Held(false);
                }
                self.write(indexes, change, command, row, None, lock_index);
            }
            KvVerb::Delete => {
                if old.is_some() {
                    self.delete(indexes, change, command.key.clone());
                }
            }
            KvVerb::DeleteCas(expected) => match old {
                None => {}
                Some(old) if old.modify_index != expected => return Response::Held(false),
                Some(_) => self.delete(indexes, change, command.key.clone()),
            },
            KvVerb::DeleteTree => {
                let doomed: Vec<Text> = self.under(&command.key).map(Row::text).collect();
                for key in doomed {
                    self.delete(indexes, change, key);
                }
            }
        }
        Response::Held(true)
    }

    /// Writes a row unless it would be the same again.
    fn write(
        &mut self,
        indexes: &mut Indexes,
        change: &mut Change,
        command: &KvCommand,
        old: Option<&Row>,
        session: Option<Uuid>,
        lock_index: u64,
    ) {
        let mut header = Header {
            flags: command.flags,
            lock_index,
            session,
            create_index: change.index,
            modify_index: change.index,
        };
        let mut holder = None;
        if let Some(old) = old {
            let (was, value) = old.parts();
            header.create_index = was.create_index;
            if planted(Bug::ModifyIndexStandsStill) {
                header.modify_index = was.modify_index;
            }
            holder = was.session;
            let same = Header { modify_index: was.modify_index, ..header } == was;
            if same && value == command.value {
                return;
            }
        }
        self.rows.insert(Row::new(&command.key, &header, &command.value));
        self.hand_over(&command.key, holder, session);
        change.touch(WatchKey::Kv(command.key.clone()));
        change.dirty(RowKey::kv(&command.key));
        change.raise(indexes, TableIndex::Kv);
    }

    fn delete(&mut self, indexes: &mut Indexes, change: &mut Change, key: Text) {
        let Some(old) = self.rows.remove(key.as_bytes()) else { return };
        self.hand_over(&key, old.header().session, None);
        self.tombstones.insert(key.clone(), change.index);
        change.dirty(RowKey::kv(&key));
        change.dirty(RowKey::tombstone(&key));
        change.raise(indexes, TableIndex::Kv);
        if !planted(Bug::WatchMissesDelete) {
            change.touch(WatchKey::Kv(key));
        }
    }

    fn hand_over(&mut self, key: &Text, from: Option<Uuid>, to: Option<Uuid>) {
        if from == to {
            return;
        }
        if let Some(from) = from
            && let Some(keys) = self.held.get_mut(&from)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.held.remove(&from);
            }
        }
        if let Some(to) = to {
            self.held.entry(to).or_default().insert(key.clone());
        }
    }

    /// The keys that a session holds, in byte order.
    pub(super) fn held_by(&self, session: Uuid) -> Vec<Text> {
        self.held.get(&session).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// Takes a key's lock from a session that has ended.
    pub(super) fn release(&mut self, indexes: &mut Indexes, change: &mut Change, key: &Text) {
        let Some(row) = self.rows.get(key.as_bytes()) else { return };
        let (was, value) = row.parts();
        let header = Header { session: None, modify_index: change.index, ..was };
        let row = Row::new(key, &header, value);
        self.rows.insert(row);
        self.hand_over(key, was.session, None);
        change.touch(WatchKey::Kv(key.clone()));
        change.dirty(RowKey::kv(key));
        change.raise(indexes, TableIndex::Kv);
    }

    /// Deletes a key because the session that held it has ended.
    pub(super) fn delete_held(&mut self, indexes: &mut Indexes, change: &mut Change, key: Text) {
        self.delete(indexes, change, key);
    }

    /// Forgets tombstones at or below an index.
    pub(super) fn reap(&mut self, indexes: &mut Indexes, change: &mut Change, up_to: u64) {
        for (index, key) in self.tombstones.reap(up_to) {
            indexes.raise(TableIndex::Reaped, index);
            change.dirty(RowKey::tombstone(&key));
            change.dirty(RowKey::index(TableIndex::Reaped));
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<KvEntry>> {
        self.rows.get(key.as_bytes()).map(Row::entry)
    }

    fn from<'a>(&'a self, from: &[u8]) -> impl Iterator<Item = &'a Row> + use<'a> {
        self.rows.range::<_, [u8]>((Bound::Included(from), Bound::Unbounded))
    }

    fn under(&self, prefix: &str) -> impl Iterator<Item = &Row> {
        self.from(prefix.as_bytes()).take_while(move |row| row.key().starts_with(prefix.as_bytes()))
    }

    pub(super) fn tree(&self, prefix: &str) -> Vec<Arc<KvEntry>> {
        self.under(prefix).map(Row::entry).collect()
    }

    /// The keys under a prefix, each cut behind the first separator that follows the prefix; no cut comes twice.
    pub(super) fn list(&self, prefix: &str, separator: &str) -> Vec<Text> {
        let mut keys: Vec<Text> = Vec::new();
        for row in self.under(prefix) {
            let key = std::str::from_utf8(row.key()).expect("rows are only made of valid keys");
            let end = match separator {
                "" => key.len(),
                _ => key[prefix.len()..]
                    .find(separator)
                    .map_or(key.len(), |at| prefix.len() + at + separator.len()),
            };
            if keys.last().is_none_or(|last| last != &key[..end]) {
                keys.push(Text::new(&key[..end]));
            }
        }
        keys
    }

    /// Index of one key: its own, or the table's while it is absent.
    pub(super) fn key_index(&self, indexes: &Indexes, key: &str) -> u64 {
        self.rows.get(key.as_bytes()).map_or(indexes.kv, |row| row.header().modify_index)
    }

    /// Index of a prefix: its newest change, deletions included, or the table's while nothing is known of it.
    pub(super) fn prefix_index(&self, indexes: &Indexes, prefix: &str) -> u64 {
        let rows = if prefix.is_empty() {
            // Every change of the table is below the empty prefix.
            Some(indexes.kv)
        } else {
            self.under(prefix).map(|row| row.header().modify_index).max()
        };
        if planted(Bug::IndexGoesBack) {
            return self.under(prefix).map(|row| row.header().modify_index).max().unwrap_or(indexes.kv);
        }
        match rows.max(self.tombstones.newest_under(prefix)) {
            Some(newest) => newest.max(indexes.reaped),
            None => indexes.kv,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Keys at or after `from` with what a checkpoint keeps of them.
    pub(super) fn payloads_from<'a>(
        &'a self,
        from: &[u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.from(from).map(|row| (row.key(), row.payload()))
    }

    pub(super) fn payload(&self, key: &[u8]) -> Option<&[u8]> {
        self.rows.get(key).map(Row::payload)
    }
}

/// A row as [`Keys::payloads_from`] gave it, on its own.
pub(super) fn parse(key: Text, payload: &[u8]) -> Result<KvEntry, BadRow> {
    let (header, value): (Header, &[u8]) = postcard::take_from_bytes(payload).map_err(|_| BadRow::Value)?;
    Ok(header.with(key, Bytes::copy_from_slice(value)))
}

/// Builds the table from a checkpoint.
#[derive(Default)]
pub(super) struct KeysBuilder {
    /// Rows that come in order would leave every leaf of a B-tree half empty. Inserting half a leaf's worth of every
    /// leaf, and then the other halves, fills them.
    halves: [Vec<Row>; 2],
    held: Vec<(Uuid, Text)>,
    pub(super) tombstones: Tombstones,
}

/// How many rows a leaf of the persistent tree takes. A wrong guess costs memory, nothing else.
const LEAF: usize = 16;

impl KeysBuilder {
    /// Takes one row as [`Keys::payloads_from`] gave it.
    pub(super) fn put(&mut self, key: &[u8], payload: &[u8]) -> Result<(), BadRow> {
        let text = std::str::from_utf8(key).map_err(|_| BadRow::Key)?;
        let (header, _): (Header, &[u8]) = postcard::take_from_bytes(payload).map_err(|_| BadRow::Value)?;
        if let Some(session) = header.session {
            self.held.push((session, Text::new(text)));
        }
        let taken = self.halves[0].len() + self.halves[1].len();
        self.halves[taken / (LEAF / 2) % 2].push(Row::join(key, payload, &[]));
        Ok(())
    }

    pub(super) fn finish(self) -> Keys {
        let mut keys = Keys { tombstones: self.tombstones, ..Keys::default() };
        for row in self.halves.into_iter().flatten() {
            keys.rows.insert(row);
        }
        for (session, key) in self.held {
            keys.held.entry(session).or_default().insert(key);
        }
        keys
    }
}
