//! Health checks.

use async_trait::async_trait;
use proconsul_core::agent::{Probe, ProbeOutcome};

/// Runs health checks.
#[async_trait]
pub trait Prober: Send + Sync + 'static {
    /// Runs one check, within its limit of time.
    async fn probe(&self, probe: &Probe) -> ProbeOutcome;
}
