//! Checkpoints in memory, kept by whoever owns the world: they outlive the process that saved them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::boundary::Checkpoint;
use proconsul_core::raft::SnapshotMeta;
use proconsul_core::rng::Rng;
use proconsul_core::store::{RowKey, StoreBuilder};
use proconsul_io_real::ports::{Checkpoints, Loaded};

use crate::net::HostId;
use crate::time::sim_sleep;
use crate::trace::Trace;

/// A host's storage of checkpoints. Clones share it.
///
/// It keeps rows, and of a checkpoint that names what has changed it takes only that, as production does: a row that
/// was changed and not named is found by a restart. A save takes its time and then happens all at once: a process that
/// dies before has saved nothing.
#[derive(Clone)]
pub struct SimCheckpoints {
    host: HostId,
    trace: Trace,
    state: Arc<Mutex<State>>,
}

struct State {
    rng: Rng,
    latency_max: Duration,
    meta: SnapshotMeta,
    rows: BTreeMap<RowKey, Vec<u8>>,
    local: BTreeMap<Text, Bytes>,
}

impl SimCheckpoints {
    /// Empty storage whose saves take up to `latency_max`.
    #[must_use]
    pub fn new(host: HostId, rng: Rng, latency_max: Duration, trace: Trace) -> SimCheckpoints {
        let state = State {
            rng,
            latency_max,
            meta: SnapshotMeta::default(),
            rows: BTreeMap::new(),
            local: BTreeMap::new(),
        };
        SimCheckpoints { host, trace, state: Arc::new(Mutex::new(state)) }
    }

    /// What the last completed save of a checkpoint stands for.
    #[must_use]
    pub fn meta(&self) -> SnapshotMeta {
        self.lock().meta.clone()
    }

    /// Everything that was saved is gone.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.meta = SnapshotMeta::default();
        state.rows.clear();
        state.local.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a simulation runs on one thread and ends with its first panic")
    }

    async fn take_time(&self) {
        let latency = {
            let mut state = self.lock();
            let max = state.latency_max;
            state.rng.duration_below(max)
        };
        sim_sleep(latency).await;
    }
}

impl State {
    fn save(&mut self, checkpoint: &Checkpoint) {
        let store = &checkpoint.store;
        match &checkpoint.dirty {
            None => self.rows = store.rows_after(None, usize::MAX).0.into_iter().collect(),
            Some(dirty) => {
                for key in dirty {
                    match store.row(key) {
                        Some(value) => self.rows.insert(key.clone(), value),
                        None => self.rows.remove(key),
                    };
                }
            }
        }
        self.meta = checkpoint.meta.clone();
    }
}

#[async_trait]
impl Checkpoints for SimCheckpoints {
    async fn load(&mut self) -> io::Result<Loaded> {
        let state = self.lock();
        let mut store = StoreBuilder::new();
        for (key, value) in &state.rows {
            store.put_row(key.as_bytes(), value).map_err(io::Error::other)?;
        }
        Ok(Loaded {
            meta: state.meta.clone(),
            store: store.finish(),
            local: state.local.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        })
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.take_time().await;
        self.trace.record("checkpoint", self.host, &checkpoint.meta.index.0.to_le_bytes());
        self.lock().save(checkpoint);
        Ok(())
    }

    async fn save_local(&mut self, changes: &[(Text, Option<Bytes>)]) -> io::Result<()> {
        self.take_time().await;
        let mut state = self.lock();
        for (key, value) in changes {
            self.trace.record("local", self.host, key.as_bytes());
            match value {
                Some(value) => state.local.insert(key.clone(), value.clone()),
                None => state.local.remove(key),
            };
        }
        Ok(())
    }
}
