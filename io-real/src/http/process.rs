//! Answers about the process around the node: metrics, log, machine, configuration.

use std::io::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use hyper::Response;
use proconsul_core::Text;
use proconsul_core::api::{HttpReply, Wish, indented};

use super::body::Body;
use super::{encode, ui};
use crate::gate::Gate;
use crate::host;

/// Says that the format of Prometheus was switched off.
const NO_PROMETHEUS: &str = "Prometheus is not enabled since its retention time is not positive";

/// Does what is wished.
pub(super) async fn answer(gate: &Gate, wish: Wish, indent: bool, gzip: bool) -> Response<Body> {
    let reply = match wish {
        Wish::Metrics { prometheus: false } => {
            HttpReply::json(200, gate.metrics().last(&gate.published(), gate.now()).json())
        }
        Wish::Metrics { prometheus: true } if gate.metrics().serves_prometheus() => {
            let metrics = gate.metrics().so_far(&gate.published(), gate.now());
            let mut reply = HttpReply::empty(200);
            let content_type = Text::new_static("text/plain; version=0.0.4; charset=utf-8");
            reply.headers.push((Text::new_static("Content-Type"), content_type));
            reply.body = metrics.prometheus().into();
            reply
        }
        Wish::Metrics { prometheus: true } => HttpReply::text(415, NO_PROMETHEUS),
        Wish::MetricsStream => return encode::stream(intervals(gate), "application/json", gzip),
        Wish::Monitor { level, json } => {
            let lines = gate.process().monitor(level, json);
            let lines = stream::unfold(lines, |mut lines| async move {
                let line = lines.recv().await?;
                Some((line, lines))
            });
            return encode::stream(lines.boxed(), "text/plain; charset=utf-8", gzip);
        }
        Wish::Page => ui::page(),
        Wish::Host => HttpReply::json(200, host::describe().to_string()),
        Wish::Reload => match gate.process().reload().await {
            Ok(()) => HttpReply::empty(200),
            Err(why) => HttpReply::text(500, format!("Reload failed: {why}")),
        },
    };
    let is_json = matches!(wish, Wish::Metrics { prometheus: false } | Wish::Host);
    encode::response(if indent && is_json { indented(reply) } else { reply }, gzip)
}

/// One line of JSON for every interval that ends.
fn intervals(gate: &Gate) -> BoxStream<'static, Bytes> {
    let intervals = gate.metrics().intervals();
    let stream = stream::unfold(intervals, |mut intervals| async move {
        intervals.changed().await.ok()?;
        let interval = Arc::clone(&intervals.borrow_and_update());
        let mut line = interval.json();
        line.push(b'\n');
        Some((Bytes::from(line), intervals))
    });
    stream.boxed()
}

/// Compresses a stream piece by piece, so that each can be read when it comes.
pub(super) fn compressed(pieces: BoxStream<'static, Bytes>) -> BoxStream<'static, io::Result<Bytes>> {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let stream = stream::try_unfold(Some((pieces, encoder)), |state| async move {
        let Some((mut pieces, mut encoder)) = state else { return Ok(None) };
        let Some(piece) = pieces.next().await else {
            return Ok(Some((Bytes::from(encoder.finish()?), None)));
        };
        encoder.write_all(&piece)?;
        encoder.flush()?;
        let bytes = Bytes::from(std::mem::take(encoder.get_mut()));
        Ok(Some((bytes, Some((pieces, encoder)))))
    });
    stream.boxed()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::MultiGzDecoder;

    use super::*;

    #[tokio::test]
    async fn compressed_pieces_can_be_read_as_they_come() {
        let pieces = stream::iter(["one\n", "two\n"].map(Bytes::from)).boxed();
        let mut compressed = compressed(pieces);
        let mut sent = compressed.next().await.expect("a piece").expect("memory").to_vec();
        let mut text = vec![0; 4];
        MultiGzDecoder::new(&*sent).read_exact(&mut text).expect("the first piece is whole");
        assert_eq!(text, b"one\n");
        while let Some(piece) = compressed.next().await {
            sent.extend(piece.expect("memory"));
        }
        let mut text = String::new();
        MultiGzDecoder::new(&*sent).read_to_string(&mut text).expect("all of it");
        assert_eq!(text, "one\ntwo\n");
    }
}
