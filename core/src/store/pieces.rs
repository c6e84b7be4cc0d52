//! A state in pieces, as archives hold it.

use bytes::Bytes;

use super::{RowKey, Store, encode_rows};

/// Rows of about so many bytes make a piece.
const PIECE_BYTES: usize = 256 << 10;

/// The rows of a state in their order, in pieces: the length of each (32 bits, little-endian), and what
/// [`encode_rows`] made of it. There is at least one. Two walks over the same state find the same.
#[derive(Debug)]
pub struct Pieces {
    store: Store,
    cursor: Option<RowKey>,
    ended: bool,
}

impl Pieces {
    /// All pieces of a state, which is kept as it is for as long as there are more.
    #[must_use]
    pub fn of(store: Store) -> Pieces {
        Pieces { store, cursor: None, ended: false }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let (rows, next) = self.store.rows_after(self.cursor.as_ref(), PIECE_BYTES);
        self.ended = next.is_none();
        if self.ended {
            self.store = Store::default();
        }
        self.cursor = next;
        let rows = encode_rows(&rows);
        let length = u32::try_from(rows.len()).expect("a piece ends with the row that makes it large enough");
        Some([&length.to_le_bytes()[..], &rows].concat().into())
    }
}
