//! Bodies of requests that can be watched on their way.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A body is handed over in pieces of so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// A body in memory.
#[derive(Debug)]
pub(super) struct Sent {
    rest: Bytes,
    sent: Counter,
}

/// How many bytes were handed over.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Sent {
    pub(super) fn new(body: Bytes) -> Sent {
        Sent { rest: body, sent: Counter::default() }
    }

    pub(super) fn counter(&self) -> Counter {
        self.sent.clone()
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        self.sent.0.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn a_body_is_sent_as_it_is_and_counted() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for length in [0, 1, PIECE_BYTES, 3 * PIECE_BYTES + 5] {
            let bytes: Bytes = (0..length).map(|at| (at % 251) as u8).collect();
            let body = Sent::new(bytes.clone());
            let counter = body.counter();
            assert_eq!((body.size_hint().exact(), counter.get()), (Some(length as u64), 0));
            let sent = runtime.block_on(body.collect()).expect("it cannot fail").to_bytes();
            assert_eq!(sent, bytes);
            assert_eq!(counter.get(), length as u64);
        }
    }
}
