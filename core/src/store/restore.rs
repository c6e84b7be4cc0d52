//! Replacing the whole state by one that was saved before (Consul: «Snapshot»).
//!
//! The rows of the saved state come in pieces, each of them a command, and are kept aside until the last command says
//! that the archive was complete and undamaged. Only then do they become the state, in one step, on every server at the
//! same place in the log. A restore that is given up leaves everything as it was.
//!
//! Rows keep the indexes that they were saved with, and yet no index that a client sees ever goes back: after a restore
//! no answer has an index below that of the restore itself. If the saved state is from further ahead than this
//! group's log (it may be another group's), all indexes from here on are greater by the difference.

use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::command::{Refusal, Response};
use super::indexes::TableIndex;
use super::query::WatchKey;
use super::record::decode_rows;
use super::rows::RowKey;
use super::system::SystemRow;
use super::{Store, StoreBuilder};
use crate::ids::Uuid;

/// A step of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restore {
    /// Begins one, in place of one that may be under way.
    Begin {
        /// Names it in its other steps; drawn by the proposer.
        id: Uuid,
    },
    /// The next piece of rows.
    Piece {
        /// Which restore.
        id: Uuid,
        /// Its number, from zero.
        number: u64,
        /// As [`encode_rows`] wrote them.
        rows: Bytes,
    },
    /// All pieces are there: they become the state.
    Finish {
        /// Which restore.
        id: Uuid,
        /// How many pieces there are.
        pieces: u64,
    },
    /// Gives it up.
    Abort {
        /// Which restore.
        id: Uuid,
    },
}

/// A restore that is under way.
#[derive(Clone, Debug)]
pub(super) struct Staging {
    pub(super) id: Uuid,
    pub(super) pieces: OrdMap<u64, Bytes>,
}

impl Staging {
    pub(super) fn new(id: Uuid) -> Staging {
        Staging { id, pieces: OrdMap::new() }
    }
}

/// Rows as one piece.
#[must_use]
pub fn encode_rows(rows: &[(RowKey, Vec<u8>)]) -> Bytes {
    let rows: Vec<(&[u8], &[u8])> = rows.iter().map(|(key, row)| (key.as_bytes(), row.as_slice())).collect();
    Bytes::from(postcard::to_stdvec(&rows).expect("memory is the only sink"))
}

fn refused(why: impl Into<String>) -> Response {
    Response::Refused(Refusal::Other(why.into()))
}

impl Store {
    pub(super) fn restore(&mut self, change: &mut Change, step: &Restore) -> Response {
        match step {
            Restore::Begin { id } => {
                self.drop_staging(change);
                self.staging = Some(Staging::new(*id));
                change.dirty(RowKey::system(SystemRow::Restore));
                Response::RestoreBegun(*id)
            }
            Restore::Piece { id, number, rows } => {
                let staging = self.staging.as_mut().filter(|staging| staging.id == *id);
                let Some(staging) = staging else {
                    return refused(
                        "the restore was given up: another one has begun, or no piece came for minutes",
                    );
                };
                if staging.pieces.len() as u64 != *number {
                    return refused("pieces of a snapshot must come in order, each once");
                }
                staging.pieces.insert(*number, rows.clone());
                change.dirty(RowKey::staged(*number));
                Response::Done
            }
            Restore::Finish { id, pieces } => self.finish_restore(change, *id, *pieces),
            Restore::Abort { id } => {
                if self.staging.as_ref().is_some_and(|staging| staging.id == *id) {
                    self.drop_staging(change);
                }
                Response::Done
            }
        }
    }

    fn drop_staging(&mut self, change: &mut Change) {
        if let Some(staging) = self.staging.take() {
            change.dirty(RowKey::system(SystemRow::Restore));
            for number in staging.pieces.keys() {
                change.dirty(RowKey::staged(*number));
            }
        }
    }

    fn finish_restore(&mut self, change: &mut Change, id: Uuid, pieces: u64) -> Response {
        let Some(staging) = self.staging.as_ref().filter(|staging| staging.id == id) else {
            return refused("the restore was given up: another one has begun, or no piece came for minutes");
        };
        if staging.pieces.len() as u64 != pieces {
            return refused("pieces of the snapshot are missing");
        }
        let mut builder = StoreBuilder::new();
        for piece in staging.pieces.values() {
            let rows = match decode_rows(piece) {
                Ok(rows) => rows,
                Err(_) => return refused("a piece of the snapshot cannot be read"),
            };
            for (key, row) in rows {
                if let Err(bad) = builder.put_row(key, row) {
                    return refused(format!("the snapshot holds {bad}"));
                }
            }
        }
        let mut next = builder.finish();
        // What the group knows about itself stays: this is its state now, whoever's it was.
        next.system.group = self.system.group;
        next.system.format = self.system.format;
        next.system.index_offset = self.system.index_offset;
        next.staging = None;
        let newest = next.newest_index();
        if newest >= change.index {
            let ahead = newest + 1 - change.index;
            next.system.index_offset += ahead;
            change.index += ahead;
        }
        next.indexes.raise(TableIndex::Restored, change.index);
        *self = next;
        change.touch(WatchKey::All);
        change.replaced = true;
        Response::Done
    }

    /// The restore that is under way, and how many pieces have come.
    #[must_use]
    pub fn restoring(&self) -> Option<(Uuid, u64)> {
        self.staging.as_ref().map(|staging| (staging.id, staging.pieces.len() as u64))
    }

    /// The store as it is to be saved: without what is part of no state but on its way to become one. A cheap clone.
    #[must_use]
    pub fn to_save(&self) -> Store {
        Store { staging: None, ..self.clone() }
    }

    /// The newest index of anything in the store.
    #[must_use]
    pub fn newest_index(&self) -> u64 {
        let tables = TableIndex::ALL.into_iter().map(|table| self.indexes.get(table));
        let autopilot = self.autopilot().map_or(0, |autopilot| autopilot.modify_index);
        tables.max().unwrap_or(0).max(autopilot)
    }
}
