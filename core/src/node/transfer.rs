//! Snapshots on their way between servers: rows in chunks, so that neither side ever stops for one.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::ids::ServerId;
use crate::raft::SnapshotMeta;
use crate::store::{RowKey, Store, StoreBuilder};

/// Rows of about so many bytes travel in one chunk.
const CHUNK_BYTES: usize = 256 << 10;

/// A chunk as the receiver takes it.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// What the snapshot stands for.
    pub meta: SnapshotMeta,
    /// Encoded rows.
    pub data: Bytes,
    /// Whether it is the last one.
    pub last: bool,
}

/// Snapshots that are being sent, by receiver.
#[derive(Debug, Default)]
pub struct Outgoing {
    transfers: BTreeMap<ServerId, Transfer>,
}

#[derive(Debug)]
struct Transfer {
    meta: SnapshotMeta,
    /// Let go with the last chunk.
    store: Store,
    /// Last row of the chunks made so far.
    cursor: Option<RowKey>,
    /// The newest chunk, kept for being asked again.
    newest: Option<(u64, Chunk)>,
}

impl Outgoing {
    /// The chunk `seq` of a snapshot for `to`. A transfer begins, from `current`, when chunk 0 is asked for.
    ///
    /// `None` when the chunk is neither the newest nor the next one: the receiver has to begin again.
    pub fn chunk(
        &mut self,
        to: ServerId,
        seq: u64,
        current: impl FnOnce() -> (SnapshotMeta, Store),
    ) -> Option<Chunk> {
        if seq == 0 {
            let (meta, store) = current();
            self.transfers.insert(to, Transfer { meta, store, cursor: None, newest: None });
        }
        let transfer = self.transfers.get_mut(&to)?;
        if let Some((newest, chunk)) = &transfer.newest {
            if *newest == seq {
                return Some(chunk.clone());
            }
            if chunk.last || newest + 1 != seq {
                return None;
            }
        }
        let (rows, cursor) = transfer.store.rows_after(transfer.cursor.as_ref(), CHUNK_BYTES);
        let rows: Vec<(&[u8], &[u8])> =
            rows.iter().map(|(key, row)| (key.as_bytes(), row.as_slice())).collect();
        let data = Bytes::from(postcard::to_stdvec(&rows).expect("memory is the only sink"));
        let chunk = Chunk { meta: transfer.meta.clone(), data, last: cursor.is_none() };
        if chunk.last {
            transfer.store = Store::default();
        }
        transfer.cursor = cursor;
        transfer.newest = Some((seq, chunk.clone()));
        Some(chunk)
    }
}

/// A snapshot that is being received.
#[derive(Default)]
pub struct Incoming {
    /// What it stands for, the number of the chunk that comes next, the rows so far.
    building: Option<(SnapshotMeta, u64, StoreBuilder)>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Incoming").field(&self.building.as_ref().map(|(meta, next, _)| (meta, next))).finish()
    }
}

impl Incoming {
    /// Takes a chunk. With the last one, answers with the whole state.
    ///
    /// # Errors
    /// A row that this version does not understand; what was received is dropped.
    pub fn take(
        &mut self,
        meta: SnapshotMeta,
        seq: u64,
        data: &[u8],
        last: bool,
    ) -> Result<Option<(SnapshotMeta, Store)>, String> {
        if seq == 0 {
            self.building = Some((meta.clone(), 0, StoreBuilder::default()));
        }
        let Some((building, next, _)) = &self.building else { return Ok(None) };
        if *building != meta || *next != seq {
            return Ok(None);
        }
        let (_, _, mut builder) = self.building.take().expect("matched above");
        let rows: Vec<(&[u8], &[u8])> = postcard::from_bytes(data)
            .map_err(|_| "garbled rows in a snapshot from the leader".to_owned())?;
        for (key, row) in rows {
            builder.put_row(key, row).map_err(|bad| bad.to_string())?;
        }
        if last {
            return Ok(Some((meta, builder.finish())));
        }
        self.building = Some((meta, seq + 1, builder));
        Ok(None)
    }
}
