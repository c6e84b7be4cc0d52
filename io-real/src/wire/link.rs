//! One connection: its queue, and what runs it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};

use super::frames::{Batch, Frames, Outbound};

/// So much is taken from the queue at once.
const BATCH_BYTES: usize = 1 << 20;
/// The other side has so long to close after this one has said its last.
const LINGER: Duration = Duration::from_secs(1);

/// Frames on their way to a peer over one connection, which may not be there yet.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told when there is something for the writer to look at.
    filled: Notify,
    /// Told when the connection is to end at once.
    cut: Notify,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Outbound>,
    /// Of all frames that are not written, also those that the writer has taken.
    bytes: usize,
    closed: bool,
}

impl Queue {
    /// An empty queue whose connection ends when it would have to hold more than so many bytes.
    pub(super) fn new(bytes_max: usize) -> Queue {
        Queue { state: Mutex::default(), filled: Notify::new(), cut: Notify::new(), bytes_max }
    }

    /// Adds a frame, or ends the connection when there is no room: the loss of one frame could not be told. A single
    /// frame always has room.
    pub(super) fn push(&self, frame: Bytes) {
        let Some(frame) = Outbound::new(frame) else {
            tracing::error!("a frame is too large for the wire and is lost");
            return;
        };
        let mut state = self.lock();
        if state.bytes > 0 && state.bytes + frame.len() > self.bytes_max {
            tracing::warn!(bytes = state.bytes, "a peer takes frames too slowly and is disconnected");
            drop(state);
            return self.cut();
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        let was_empty = state.frames.len() == 1;
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Gives what was not taken by a writer to another queue, in order.
    pub(super) fn move_to(&self, other: &Queue) {
        let frames = {
            let mut state = self.lock();
            let frames = std::mem::take(&mut state.frames);
            state.bytes -= frames.iter().map(Outbound::len).sum::<usize>();
            frames
        };
        let mut state = other.lock();
        state.bytes += frames.iter().map(Outbound::len).sum::<usize>();
        state.frames.extend(frames);
        drop(state);
        other.filled.notify_one();
    }

    /// Ends the connection once all that is queued is written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Ends the connection at once.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }

    /// Completes when the connection is to end at once.
    pub(super) async fn was_cut(&self) {
        self.cut.notified().await;
    }

    /// Waits for frames and takes some; false when there will be none.
    async fn take(&self, into: &mut VecDeque<Outbound>) -> bool {
        loop {
            {
                let mut state = self.lock();
                if !state.frames.is_empty() {
                    if state.bytes <= BATCH_BYTES {
                        std::mem::swap(&mut state.frames, into);
                        return true;
                    }
                    let mut taken = 0;
                    while taken < BATCH_BYTES
                        && let Some(frame) = state.frames.pop_front()
                    {
                        taken += frame.len();
                        into.push_back(frame);
                    }
                    return true;
                }
                if state.closed {
                    return false;
                }
            }
            self.filled.notified().await;
        }
    }

    fn written(&self, bytes: usize) {
        self.lock().bytes -= bytes;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding this")
    }
}

/// Runs an open connection until an end closes it. Every frame that comes is sent to `events` as what `event` makes of
/// it; while there is no room, the other side is held back.
pub(super) async fn run<R, W, E>(
    reader: R,
    mut writer: W,
    queue: &Queue,
    events: &mpsc::Sender<E>,
    event: impl Fn(Bytes) -> E,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let read = async {
        let mut frames = Frames::new(reader);
        while let Some(frame) = frames.next().await? {
            if events.send(event(frame)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        read = read => read,
        written = write(&mut writer, queue) => written,
        () = queue.was_cut() => Ok(()),
    }
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, queue: &Queue) -> io::Result<()> {
    let mut batch = Batch::default();
    while queue.take(&mut batch.frames).await {
        let bytes = batch.remaining();
        while batch.has_remaining() {
            writer.write_buf(&mut batch).await?;
        }
        writer.flush().await?;
        queue.written(bytes);
    }
    writer.shutdown().await?;
    // Closing at once, with something unread, would make the system discard what was just written.
    tokio::time::sleep(LINGER).await;
    Ok(())
}
