//! What front-ends can ask of the process around the node, besides the node itself.

use async_trait::async_trait;
use bytes::Bytes;
use proconsul_core::api::LogLevel;
use tokio::sync::mpsc;

/// The process around the node.
#[async_trait]
pub trait Process: Send + Sync + 'static {
    /// Reads the configuration again and applies what may change while the agent runs.
    ///
    /// # Errors
    /// In words for the operator; the former configuration goes on.
    async fn reload(&self) -> Result<(), String>;

    /// The log's lines from now on, for as long as the receiver lives.
    fn monitor(&self, level: LogLevel, json: bool) -> mpsc::Receiver<Bytes>;
}

/// A node without a process of its own, as in the simulator.
#[derive(Debug)]
pub struct NoProcess;

#[async_trait]
impl Process for NoProcess {
    async fn reload(&self) -> Result<(), String> {
        Err("this agent has no configuration that could be read again".to_owned())
    }

    fn monitor(&self, _level: LogLevel, _json: bool) -> mpsc::Receiver<Bytes> {
        mpsc::channel(1).1
    }
}
