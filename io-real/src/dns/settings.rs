//! How names are served, as all who answer share it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use proconsul_core::dns::DnsConfig;

/// How names are served. Clones see the same; reading costs almost nothing, and what is set holds for the next question.
#[derive(Clone, Debug)]
pub struct Settings(Arc<ArcSwap<DnsConfig>>);

impl Settings {
    /// Begins with these.
    #[must_use]
    pub fn new(config: DnsConfig) -> Settings {
        Settings(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// As of now. Not to be kept longer than for one answer.
    #[must_use]
    pub fn get(&self) -> Guard<Arc<DnsConfig>> {
        self.0.load()
    }

    /// As of now, to be kept.
    #[must_use]
    pub fn snapshot(&self) -> Arc<DnsConfig> {
        self.0.load_full()
    }

    /// Replaces them. The zones stay what they were: they are the names under which others know us.
    pub fn set(&self, config: DnsConfig) {
        let before = self.snapshot();
        let (domain, alt_domain) = (before.domain.clone(), before.alt_domain.clone());
        self.0.store(Arc::new(DnsConfig { domain, alt_domain, ..config }));
    }
}
