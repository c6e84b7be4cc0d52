//! The lane of bulk work: checkpoints and the agent's own state, one job at a time, apart from the log.

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::boundary::{Checkpoint, Input};
use proconsul_core::ids::OpId;
use tokio::sync::mpsc;

use crate::ports::Checkpoints;

/// What is to be made durable.
#[derive(Debug)]
pub enum BulkJob {
    /// A checkpoint of the state machine.
    Checkpoint {
        /// Quoted by the completion.
        op: OpId,
        /// What to save.
        checkpoint: Box<Checkpoint>,
    },
    /// Changes of the agent's own state.
    Local {
        /// Quoted by the completion.
        op: OpId,
        /// Keys with their new values; `None` removes.
        changes: Vec<(Text, Option<Bytes>)>,
    },
}

/// Performs jobs in order until the node is gone.
pub async fn run(
    mut checkpoints: impl Checkpoints,
    mut jobs: mpsc::UnboundedReceiver<BulkJob>,
    done: mpsc::UnboundedSender<Input>,
) {
    while let Some(job) = jobs.recv().await {
        let (op, result) = match job {
            BulkJob::Checkpoint { op, checkpoint } => (op, checkpoints.save(&checkpoint).await),
            BulkJob::Local { op, changes } => (op, checkpoints.save_local(&changes).await),
        };
        if done.send(Input::Saved { op, result: result.map_err(|error| error.to_string()) }).is_err() {
            return;
        }
    }
}
