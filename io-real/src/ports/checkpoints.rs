//! Where checkpoints of the state machine, and the agent's own state, are kept.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::boundary::Checkpoint;
use proconsul_core::raft::SnapshotMeta;
use proconsul_core::store::Store;

/// Atomic, durable storage of rows. Used by one lane, one call at a time.
#[async_trait]
pub trait Checkpoints: Send + 'static {
    /// What the last completed saves left.
    ///
    /// # Errors
    /// The storage cannot be read, or holds what this version does not understand; the text names the place.
    async fn load(&mut self) -> io::Result<Loaded>;

    /// Saves a checkpoint. Either all of it is durable on return, or nothing has changed.
    ///
    /// # Errors
    /// The environment's; the node halts. If there is no room ([`super::is_full`]), the same may be called again.
    async fn save(&mut self, checkpoint: &Checkpoint) -> io::Result<()>;

    /// Changes the agent's own state. Either all changes are durable on return, or none.
    ///
    /// # Errors
    /// As above.
    async fn save_local(&mut self, changes: &[(Text, Option<Bytes>)]) -> io::Result<()>;
}

/// What a restart begins with.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What the state stands for.
    pub meta: SnapshotMeta,
    /// The state.
    pub store: Store,
    /// The agent's own state.
    pub local: Vec<(Text, Bytes)>,
}
