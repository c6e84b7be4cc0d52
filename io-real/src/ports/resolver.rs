//! Names of hosts.

use std::io;
use std::net::IpAddr;

use async_trait::async_trait;

/// Looks up names of hosts.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of a host, in the order of preference.
    ///
    /// # Errors
    /// There is no such host, or nobody who knows answers.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}
