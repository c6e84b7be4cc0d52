//! Agents as processes of this machine: start them, ask them over HTTP, kill them.
//!
//! Everything stays on loopback. What was started is ended by its process id when its [`server::Server`] or
//! [`agent::Agent`] goes out of scope, and its directory is removed.

pub mod agent;
pub mod client;
pub mod cluster;
pub mod faults;
pub mod isolation;
pub mod kill;
pub mod kv;
pub mod network;
pub mod ports;
pub mod recorder;
pub mod server;
pub mod trial;

/// Waits until this program is asked to end, by SIGINT or SIGTERM, so that it can end what it started.
///
/// # Errors
///
/// If the system does not let it listen for signals.
pub async fn asked_to_end() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
