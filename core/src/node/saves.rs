//! States that client agents save: kept as they were at one moment, and handed out in pieces.

use std::collections::VecDeque;

use super::Node;
use crate::api::{HttpReply, QueryMeta, SavedState};
use crate::ids::Uuid;
use crate::store::{Pieces, Store};
use crate::time::Now;

/// So many are kept at a time. One more takes the place of the oldest, whose client is told that it is gone.
const KEPT_MAX: usize = 4;
/// So many pieces are measured at once, so that nobody waits for long.
const MEASURED: usize = 8;

/// The states that are being saved, oldest first.
#[derive(Debug, Default)]
pub struct Saves {
    kept: VecDeque<Saving>,
}

#[derive(Debug)]
struct Saving {
    id: Uuid,
    /// An archive begins with its length: the state is walked once to measure it.
    measuring: Pieces,
    /// And once to send it.
    sending: Pieces,
}

impl Saves {
    fn keep(&mut self, id: Uuid, store: &Store) {
        while self.kept.len() >= KEPT_MAX {
            self.kept.pop_front();
        }
        let (measuring, sending) = (Pieces::of(store.clone()), Pieces::of(store.clone()));
        self.kept.push_back(Saving { id, measuring, sending });
    }

    /// The lengths of the next pieces together; zero after the last one.
    fn measure(&mut self, id: Uuid) -> Option<u64> {
        let saving = self.kept.iter_mut().find(|saving| saving.id == id)?;
        Some(saving.measuring.by_ref().take(MEASURED).map(|piece| piece.len() as u64).sum())
    }

    /// The next piece; empty after the last one, with which the state is let go.
    fn send(&mut self, id: Uuid) -> Option<bytes::Bytes> {
        let saving = self.kept.iter_mut().find(|saving| saving.id == id)?;
        let piece = saving.sending.next();
        if piece.is_none() {
            self.kept.retain(|saving| saving.id != id);
        }
        Some(piece.unwrap_or_default())
    }
}

impl Node {
    /// Keeps the state as it is, for a client agent to fetch.
    pub(super) fn keep_to_save(&mut self, now: Now, meta: QueryMeta) -> HttpReply {
        let id = Uuid::random(&mut self.rng);
        let store = self.store.to_save();
        let index = store.newest_index().max(self.applied.0);
        let saved = SavedState { id, index, term: self.published(now).lease.term.0 };
        self.saves.keep(id, &store);
        let body = postcard::to_stdvec(&saved).expect("memory is the only sink");
        HttpReply { body: body.into(), meta: Some(meta), ..HttpReply::empty(200) }
    }

    /// The next of what a client agent fetches.
    pub(super) fn fetch_saved(&mut self, id: Uuid, measure: bool) -> HttpReply {
        let body = if measure {
            self.saves.measure(id).map(|bytes| bytes::Bytes::copy_from_slice(&bytes.to_le_bytes()))
        } else {
            self.saves.send(id)
        };
        match body {
            Some(body) => HttpReply { body, ..HttpReply::empty(200) },
            None => HttpReply::text(500, "the server keeps this state no more: save it again"),
        }
    }
}
