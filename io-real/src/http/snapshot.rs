//! `/v1/snapshot`: an archive of the state, written as the client takes it and restored as it comes.

use std::fmt::Display;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use proconsul_core::api::{Authorizer, Call, HttpReply, QueryMeta, Request, Write};
use proconsul_core::ids::Uuid;
use proconsul_core::store::Restore;

use super::{ask, discard};
use crate::gate::Gate;
use crate::snapshot::{BadArchive, Meta, Packer, Unpacker};

/// An archive to be sent, with the headers that tell how fresh it is.
pub(super) struct Saved {
    pub(super) packer: Packer,
    pub(super) meta: QueryMeta,
}

/// Begins to save the state, once it is as fresh as `barrier` demands.
///
/// # Errors
/// The reply to a client whose wish cannot be met.
pub(super) async fn save(gate: &Gate, barrier: Request) -> Result<Saved, HttpReply> {
    let reply = ask(gate, barrier).await;
    let Some(fresh) = reply.meta.filter(|_| reply.status == 200) else { return Err(reply) };
    let published = gate.published();
    if !published.about.server {
        return Err(HttpReply::text(500, "this client agent has no state to save: ask a server"));
    }
    let millis = gate.now().wall.0;
    let store = published.view.to_save();
    let meta = Meta::new(&store, published.lease.applied.0, published.lease.term.0, millis);
    let fresh = QueryMeta { index: meta.index, ..fresh };
    Ok(Saved { packer: Packer::new(store, meta, millis / 1_000), meta: fresh })
}

/// Restores the archive that a body is. The pieces are handed on as they come, and become the state only when the
/// whole archive has proved good.
pub(super) async fn restore<B>(gate: &Gate, body: &mut B) -> HttpReply
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let mut restore = Restoring { gate, id: None, pieces: 0 };
    match restore.run(body).await {
        Ok(()) => HttpReply::empty(200),
        Err(reply) => {
            discard(body).await;
            reply
        }
    }
}

/// A restore under way; given up when dropped.
struct Restoring<'a> {
    gate: &'a Gate,
    id: Option<Uuid>,
    pieces: u64,
}

fn refused(bad: &BadArchive) -> HttpReply {
    HttpReply::text(500, bad.to_string())
}

fn request(write: Write) -> Request {
    Request { call: Call::Write(write), authorizer: Authorizer }
}

impl Restoring<'_> {
    async fn run<B>(&mut self, body: &mut B) -> Result<(), HttpReply>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let mut unpacker = Unpacker::new();
        let mut ready = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| HttpReply::text(400, format!("Cannot read the body: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            unpacker.push(&data, &mut ready).map_err(|bad| refused(&bad))?;
            for rows in ready.drain(..) {
                self.piece(rows).await?;
            }
        }
        let whole = unpacker.finish().map_err(|bad| refused(&bad))?;
        let id = self.begun().await?;
        assert_eq!(whole.pieces, self.pieces, "every piece was handed on");
        self.step(Restore::Finish { id, pieces: whole.pieces }).await?;
        self.id = None;
        Ok(())
    }

    async fn begun(&mut self) -> Result<Uuid, HttpReply> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let reply = ask(self.gate, request(Write::RestoreBegin)).await;
        let id = std::str::from_utf8(&reply.body).ok().and_then(Uuid::parse);
        match id.filter(|_| reply.status == 200) {
            Some(id) => {
                self.id = Some(id);
                Ok(id)
            }
            None => Err(reply),
        }
    }

    async fn piece(&mut self, rows: Bytes) -> Result<(), HttpReply> {
        let id = self.begun().await?;
        self.step(Restore::Piece { id, number: self.pieces, rows }).await?;
        self.pieces += 1;
        Ok(())
    }

    async fn step(&self, step: Restore) -> Result<(), HttpReply> {
        let reply = ask(self.gate, request(Write::Restore(step))).await;
        if reply.status == 200 { Ok(()) } else { Err(reply) }
    }
}

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.gate.tell(request(Write::Restore(Restore::Abort { id })));
        }
    }
}
