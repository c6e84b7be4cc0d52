//! `/v1/snapshot`: an archive of the state, written as the client takes it and restored as it comes.

use std::fmt::Display;
use std::io;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http_body_util::BodyExt;
use hyper::body::Body;
use proconsul_core::Text;
use proconsul_core::api::{Authorizer, Call, ClusterCall, HttpReply, QueryMeta, Request, SavedState, Write};
use proconsul_core::ids::Uuid;
use proconsul_core::store::{Pieces, Restore};

use super::{ask, discard};
use crate::gate::Gate;
use crate::snapshot::{BadArchive, Meta, Packer, Unpacker};

/// An archive to be sent, with the headers that tell how fresh it is.
pub(super) struct Saved {
    pub(super) archive: BoxStream<'static, io::Result<Bytes>>,
    pub(super) meta: QueryMeta,
}

/// Begins to save the state, once it is as fresh as `barrier` demands.
///
/// # Errors
/// The reply to a client whose wish cannot be met.
pub(super) async fn save(
    gate: &Gate,
    barrier: Request,
    datacenter: Option<Text>,
) -> Result<Saved, HttpReply> {
    let reply = ask(gate, barrier).await;
    let Some(fresh) = reply.meta.filter(|_| reply.status == 200) else { return Err(reply) };
    let millis = gate.now().wall.0;
    let (source, length, state) = if gate.published().about.server && datacenter.is_none() {
        let published = gate.published();
        let store = published.view.to_save();
        let index = store.newest_index().max(published.lease.applied.0);
        let state = SavedState { id: Uuid::default(), index, term: published.lease.term.0 };
        let length = Pieces::of(store.clone()).map(|piece| piece.len() as u64).sum();
        (Source::Here(Box::new(Pieces::of(store))), length, state)
    } else {
        let state: SavedState = postcard::from_bytes(&reply.body).map_err(|_| {
            HttpReply::text(500, "the server did not keep its state: it is of another version")
        })?;
        let there = There { gate: gate.clone(), id: state.id, datacenter };
        let length = there.measure().await?;
        (Source::There(there), length, state)
    };
    let index = state.index.max(1);
    let packer = Packer::new(Meta::new(index, state.term, millis), length, millis / 1_000);
    Ok(Saved { archive: archive(packer, source), meta: QueryMeta { index, ..fresh } })
}

/// Where the pieces of a state come from.
enum Source {
    /// This server's state.
    Here(Box<Pieces>),
    /// A server that keeps a state for this client agent, or for this other datacenter.
    There(There),
}

/// A state that a server keeps.
struct There {
    gate: Gate,
    id: Uuid,
    datacenter: Option<Text>,
}

impl Source {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Source::Here(pieces) => Ok(pieces.next()),
            Source::There(there) => {
                let piece = there.fetch(false).await;
                let piece = piece
                    .map_err(|reply| io::Error::other(String::from_utf8_lossy(&reply.body).into_owned()))?;
                Ok(Some(piece).filter(|piece| !piece.is_empty()))
            }
        }
    }
}

/// The archive as it is made. It ends with an error, and so cuts the connection, if the state cannot be had whole.
fn archive(packer: Packer, source: Source) -> BoxStream<'static, io::Result<Bytes>> {
    let stream = stream::try_unfold(Some((packer, source)), |state| async move {
        let Some((mut packer, mut source)) = state else { return Ok(None) };
        while let Some(piece) = source.next().await? {
            packer.add(&piece);
            let bytes = packer.take();
            if !bytes.is_empty() {
                return Ok(Some((bytes, Some((packer, source)))));
            }
        }
        packer.end()?;
        Ok(Some((packer.take(), None)))
    });
    stream.boxed()
}

impl There {
    async fn fetch(&self, measure: bool) -> Result<Bytes, HttpReply> {
        let call =
            Call::Cluster(ClusterCall::Saved { id: self.id, measure }).aimed_at(self.datacenter.as_ref());
        let reply = ask(&self.gate, Request { call, authorizer: Authorizer }).await;
        if reply.status == 200 { Ok(reply.body) } else { Err(reply) }
    }

    /// The length of all pieces.
    async fn measure(&self) -> Result<u64, HttpReply> {
        let mut length = 0;
        loop {
            let body = self.fetch(true).await?;
            let more = body[..].try_into().map(u64::from_le_bytes);
            match more.map_err(|_| HttpReply::text(500, "the server's answer cannot be read"))? {
                0 => return Ok(length),
                more => length += more,
            }
        }
    }
}

/// Restores the archive that a body is. The pieces are handed on as they come, and become the state only when the
/// whole archive has proved good.
pub(super) async fn restore<B>(gate: &Gate, datacenter: Option<Text>, body: &mut B) -> HttpReply
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let mut restore = Restoring { gate, datacenter, id: None, pieces: 0 };
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
    datacenter: Option<Text>,
    id: Option<Uuid>,
    pieces: u64,
}

fn refused(bad: &BadArchive) -> HttpReply {
    HttpReply::text(500, bad.to_string())
}

impl Restoring<'_> {
    fn request(&self, write: Write) -> Request {
        Request { call: Call::Write(write).aimed_at(self.datacenter.as_ref()), authorizer: Authorizer }
    }

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
        let reply = ask(self.gate, self.request(Write::RestoreBegin)).await;
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
        let reply = ask(self.gate, self.request(Write::Restore(step))).await;
        if reply.status == 200 { Ok(()) } else { Err(reply) }
    }
}

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.gate.tell(self.request(Write::Restore(Restore::Abort { id })));
        }
    }
}
