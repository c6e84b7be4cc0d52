//! Jobs of `exec` that this agent was told of.

use proconsul_core::node::RemoteJob;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::remote::{Place, worker};

/// So many run at a time.
const JOBS_MAX: usize = 16;

/// Runs jobs for as long as the node does.
pub(super) async fn run(mut jobs: Receiver<RemoteJob>, client: Client, node: String) {
    let mut running = JoinSet::new();
    while let Some(job) = jobs.recv().await {
        while running.try_join_next().is_some() {}
        let RemoteJob { event, prefix, session } = job;
        if running.len() >= JOBS_MAX {
            tracing::warn!(%event, "not run, for {JOBS_MAX} jobs of exec run already");
            continue;
        }
        tracing::info!(%event, %prefix, %session, "exec runs a job");
        let (client, node) = (client.clone(), node.clone());
        let place = Place { prefix: prefix.to_string(), session: session.to_string() };
        running.spawn(async move {
            if let Err(why) = worker::work(&client, &node, &place).await {
                tracing::warn!("a job of exec was not run, or not to its end: {why}");
            }
        });
    }
}
