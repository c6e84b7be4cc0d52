//! Agents, requests and waiting.

mod agent;
pub mod cluster;
pub mod dns;
mod http;

use std::time::{Duration, Instant};

pub use agent::{Agent, BINARY};
pub use cluster::Cluster;
pub use http::Http;

/// The longest wait for a condition. It is only ever reached when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tries until it succeeds, and returns what came out.
///
/// # Panics
/// When that takes too long, with the last reason.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) => assert!(started.elapsed() < PATIENCE, "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
