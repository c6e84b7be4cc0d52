//! Time and tasks.

use std::pin::Pin;

use async_trait::async_trait;
use proconsul_core::time::{Mono, Now};

/// Both clocks of a host, and waiting for one of them.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Both clocks now. The monotonic one never goes back.
    fn now(&self) -> Now;

    /// Completes when the monotonic clock has reached `at`.
    async fn sleep_until(&self, at: Mono);
}

/// Starts tasks on whatever executor runs this host.
pub trait Spawn: Send + Sync + 'static {
    /// Starts a task that runs by itself.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>);
}
