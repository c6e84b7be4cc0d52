//! The lane of bulk work: checkpoints and the agent's own state, one job at a time, apart from the log.

use std::collections::VecDeque;

use bytes::Bytes;
use proconsul_core::Text;
use proconsul_core::boundary::{Checkpoint, Input, Lane};
use proconsul_core::ids::OpId;
use tokio::sync::mpsc;

use crate::ports::{Checkpoints, is_full};

/// So many jobs may wait: the node hands out one checkpoint, one installation and one save of local state at a time, and
/// asks once a second to try again.
pub const JOBS_MAX: usize = 8;

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
    /// The job that found no room may find some now.
    TryAgain,
}

/// Performs jobs in order until the node is gone. One that finds no room is kept, and tried again when that is asked for;
/// those behind it wait.
pub async fn run(
    mut checkpoints: impl Checkpoints,
    mut jobs: mpsc::Receiver<BulkJob>,
    done: mpsc::UnboundedSender<Input>,
) {
    let mut waiting: VecDeque<BulkJob> = VecDeque::new();
    while let Some(job) = jobs.recv().await {
        let waits = !waiting.is_empty();
        match job {
            BulkJob::TryAgain => {}
            job => {
                waiting.push_back(job);
                if waits {
                    continue;
                }
            }
        }
        while let Some(job) = waiting.front() {
            let (op, result) = match job {
                BulkJob::Checkpoint { op, checkpoint } => (*op, checkpoints.save(checkpoint).await),
                BulkJob::Local { op, changes } => (*op, checkpoints.save_local(changes).await),
                BulkJob::TryAgain => unreachable!("never kept"),
            };
            let completion = match result {
                Err(error) if is_full(&error) => Input::Full { lane: Lane::State, reason: error.to_string() },
                result => {
                    waiting.pop_front();
                    Input::Saved { op, result: result.map_err(|error| error.to_string()) }
                }
            };
            let stays = matches!(completion, Input::Full { .. });
            if done.send(completion).is_err() {
                return;
            }
            if stays {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;

    use super::*;
    use crate::ports::Loaded;

    /// Storage without room for the first saves; notes which were done.
    struct Cramped {
        refuses: u32,
        kept: Arc<Mutex<Vec<Text>>>,
    }

    #[async_trait]
    impl Checkpoints for Cramped {
        async fn load(&mut self) -> io::Result<Loaded> {
            Ok(Loaded::default())
        }

        async fn save(&mut self, _: &Checkpoint) -> io::Result<()> {
            Ok(())
        }

        async fn save_local(&mut self, changes: &[(Text, Option<Bytes>)]) -> io::Result<()> {
            if self.refuses > 0 {
                self.refuses -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.kept.lock().expect("no panic").extend(changes.iter().map(|(key, _)| key.clone()));
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_finds_no_room_is_kept_and_nothing_overtakes_it() {
        let kept = Arc::default();
        let cramped = Cramped { refuses: 2, kept: Arc::clone(&kept) };
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let (done, mut completions) = mpsc::unbounded_channel();
        let lane = tokio::spawn(run(cramped, queue, done));
        let local = |op, key: &str| BulkJob::Local { op: OpId(op), changes: vec![(key.into(), None)] };
        jobs.send(local(1, "a")).await.expect("it runs");
        assert!(matches!(completions.recv().await, Some(Input::Full { lane: Lane::State, .. })));
        jobs.send(local(2, "b")).await.expect("it runs");
        jobs.send(BulkJob::TryAgain).await.expect("it runs");
        assert!(matches!(completions.recv().await, Some(Input::Full { lane: Lane::State, .. })));
        jobs.send(BulkJob::TryAgain).await.expect("it runs");
        for op in [1, 2] {
            let completion = completions.recv().await;
            assert!(matches!(completion, Some(Input::Saved { op: OpId(it), result: Ok(()) }) if it == op));
        }
        drop(jobs);
        lane.await.expect("no panic");
        assert_eq!(*kept.lock().expect("no panic"), ["a", "b"]);
    }
}
