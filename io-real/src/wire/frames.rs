//! Frames on a stream: each behind its length and the CRC-32C of length and content, four bytes each, big-endian.
//!
//! The checksums of TCP miss one damaged segment in some ten thousand, and a damaged frame may well decode to another
//! one: an entry of the log that nobody proposed.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Largest frame.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 20;
/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// A read into less room than this is not worth its call.
const READ_BYTES_MIN: usize = 4 << 10;
const HEAD_BYTES: usize = 8;

fn sum(len: [u8; 4], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len), body)
}

/// A frame on its way out.
#[derive(Debug)]
pub(super) struct Outbound {
    head: [u8; HEAD_BYTES],
    body: Bytes,
}

impl Outbound {
    /// A frame with its length; `None` when it is too large.
    pub(super) fn new(body: Bytes) -> Option<Outbound> {
        let len = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_BYTES_MAX)?;
        let (mut head, len) = ([0; HEAD_BYTES], len.to_be_bytes());
        head[..4].copy_from_slice(&len);
        head[4..].copy_from_slice(&sum(len, &body).to_be_bytes());
        Some(Outbound { head, body })
    }

    /// Bytes on the stream.
    pub(super) fn len(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }
}

/// Frames that are written together, without being copied.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) frames: VecDeque<Outbound>,
    /// So much of the first one is written.
    written: usize,
}

impl Batch {
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.written;
        self.frames.iter().flat_map(|frame| [&frame.head[..], &frame.body[..]]).filter_map(move |slice| {
            let skipped = skip.min(slice.len());
            skip -= skipped;
            (skipped < slice.len()).then(|| &slice[skipped..])
        })
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.frames.iter().map(Outbound::len).sum::<usize>() - self.written
    }

    fn chunk(&self) -> &[u8] {
        self.slices().next().unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, target: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (place, slice) in target.iter_mut().zip(self.slices()) {
            *place = IoSlice::new(slice);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        self.written += count;
        while let Some(first) = self.frames.front()
            && first.len() <= self.written
        {
            self.written -= first.len();
            self.frames.pop_front();
        }
    }
}

/// Cuts a stream into frames that share its buffer.
pub(super) struct Frames<R> {
    reader: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(reader: R) -> Frames<R> {
        Frames { reader, buffer: BytesMut::with_capacity(READ_BYTES) }
    }

    /// The next frame; `None` at the stream's end.
    ///
    /// # Errors
    /// The stream's, or a frame that is too large, damaged or cut short.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let missing = match self.cut()? {
                Ok(frame) => return Ok(Some(frame)),
                Err(missing) => missing,
            };
            // More than one frame when they are small; exactly one when it is large. What is only announced gets room as
            // what came before it gets used, so that eight bytes do not cost 64 MiB.
            let room = self.buffer.len().max(READ_BYTES);
            self.buffer.reserve(missing.min(room).max(READ_BYTES_MIN));
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// A whole frame from the buffer, or how many bytes are missing at least.
    fn cut(&mut self) -> io::Result<Result<Bytes, usize>> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(Err(HEAD_BYTES - self.buffer.len()));
        };
        let [l0, l1, l2, l3, expected @ ..] = *head;
        let head = [l0, l1, l2, l3];
        let len = u32::from_be_bytes(head) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too large"));
        }
        if rest.len() < len {
            return Ok(Err(len - rest.len()));
        }
        if sum(head, &rest[..len]) != u32::from_be_bytes(expected) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is damaged"));
        }
        self.buffer.advance(HEAD_BYTES);
        Ok(Ok(self.buffer.split_to(len).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proconsul_core::testing::fuzz::{cases, damaged};
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn batch(sizes: &[usize]) -> (Batch, Vec<Bytes>) {
        let frames: Vec<_> =
            sizes.iter().enumerate().map(|(n, size)| Bytes::from(vec![n as u8; *size])).collect();
        let outbound = frames.iter().map(|frame| Outbound::new(frame.clone()).expect("not too large"));
        (Batch { frames: outbound.collect(), written: 0 }, frames)
    }

    proptest! {
        #![proptest_config(cases(64))]

        #[test]
        fn frames_come_back_whatever_the_pieces(sizes in prop::collection::vec(0..300_usize, 0..40), piece in 1..500_usize) {
            let (mut batch, frames) = batch(&sizes);
            let came = tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
                let (mut near, far) = tokio::io::duplex(piece);
                let write = async {
                    while batch.has_remaining() {
                        near.write_buf(&mut batch).await.expect("it is read");
                    }
                    drop(near);
                };
                let read = async {
                    let (mut frames, mut came) = (Frames::new(far), Vec::new());
                    while let Some(frame) = frames.next().await.expect("good frames") {
                        came.push(frame);
                    }
                    came
                };
                futures_util::future::join(write, read).await.1
            });
            prop_assert_eq!(came, frames);
        }

        #[test]
        fn what_was_damaged_on_its_way_ends_the_stream_and_costs_little(
            (sent, bytes) in damaged(prop::collection::vec(0..300_usize, 1..20).prop_map(|sizes| {
                let mut batch = batch(&sizes).0;
                batch.copy_to_bytes(batch.remaining()).to_vec()
            })),
        ) {
            let read_all = |bytes: Vec<u8>| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                runtime.block_on(async {
                    let (mut frames, mut came) = (Frames::new(&bytes[..]), Vec::new());
                    let end = loop {
                        match frames.next().await {
                            Ok(Some(frame)) => came.push(frame),
                            Ok(None) => break Ok(()),
                            Err(error) => break Err(error),
                        }
                    };
                    (came, end)
                })
            };
            let (good, end) = read_all(sent.clone());
            prop_assert!(end.is_ok());
            let mut result = None;
            let held = allocation_counter::measure(|| result = Some(read_all(bytes.clone()))).bytes_max;
            prop_assert!(held < (1 << 20), "{} bytes", held);
            let (came, _) = result.expect("it was read");
            // Whole frames may be missing at the end, or come twice; none is another than was sent.
            for frame in &came {
                prop_assert!(good.contains(frame), "{:?} was not sent", frame);
            }
        }

        #[test]
        fn a_batch_is_the_same_whether_looked_at_in_one_or_in_many_slices(sizes in prop::collection::vec(0..20_usize, 0..10), skip in 0..100_usize) {
            let (mut batch, _) = batch(&sizes);
            batch.advance(skip.min(batch.remaining()));
            let mut slices = [IoSlice::new(&[]); 64];
            let filled = batch.chunks_vectored(&mut slices);
            let all: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
            prop_assert_eq!(all.len(), batch.remaining());
            let rest = batch.copy_to_bytes(batch.remaining());
            prop_assert_eq!(all, rest);
        }
    }

    #[tokio::test]
    async fn a_frame_that_is_too_large_or_cut_short_is_an_error() {
        let mut stream = &b"\xff\0\0\0\0\0\0\0"[..];
        assert_eq!(
            Frames::new(&mut stream).next().await.expect_err("large").kind(),
            io::ErrorKind::InvalidData
        );
        for short in [&b"\0\0\0\x05\0\0\0\0four"[..], b"\0\0"] {
            let error = Frames::new(short).next().await.expect_err("short");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert_eq!(Frames::new(&b""[..]).next().await.expect("the end"), None);
    }
}
