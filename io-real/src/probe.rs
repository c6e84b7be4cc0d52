//! Health checks that really run: requests, connections, programs.
//!
//! The texts are those that operators know from Consul, and their alerts look for.

mod command;
mod dial;
mod docker;
mod h2;
mod http;
mod tls;
mod udp;

use async_trait::async_trait;
use proconsul_core::agent::{Probe, ProbeKind, ProbeOutcome, Tls};
use proconsul_core::store::model::Health;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::tls::Secure;
use crate::ports::Prober;
use crate::tls::{ClientTls, TlsError};

/// Probes that run at the same time. More wait for their turn, and their limit of time begins with it: an agent with
/// thousands of dead targets gets slow at checking, but does not run out of sockets.
const CONCURRENT_MAX: usize = 512;

/// Runs health checks with real sockets. A probe whose future is dropped closes its connection.
#[derive(Debug)]
pub struct SocketProber {
    turns: Semaphore,
    /// What checks over TLS show and trust, if they are to be the agent.
    own: Option<ClientConfig>,
}

impl SocketProber {
    /// One whose checks over TLS show the agent's certificate and trust its authorities (Consul:
    /// `enable_agent_tls_for_checks`).
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn with_tls(tls: &ClientTls) -> Result<SocketProber, TlsError> {
        Ok(SocketProber { own: Some(tls.config()?), ..SocketProber::default() })
    }
}

impl Default for SocketProber {
    fn default() -> Self {
        SocketProber { turns: Semaphore::new(CONCURRENT_MAX), own: None }
    }
}

#[async_trait]
impl Prober for SocketProber {
    async fn probe(&self, probe: &Probe) -> ProbeOutcome {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let own = self.own.as_ref();
        match &probe.kind {
            ProbeKind::Tcp { address, tls } => {
                match timeout(probe.timeout, tls::connect(address, secure(tls, own), None)).await {
                    Ok(Ok(_)) => outcome(Health::Passing, format!("TCP connect {address}: Success")),
                    Ok(Err(error)) => outcome(Health::Critical, error),
                    Err(_) => outcome(Health::Critical, format!("dial tcp {address}: i/o timeout")),
                }
            }
            ProbeKind::Http { .. } => http::probe(probe, own).await,
            ProbeKind::Udp { address } => udp::probe(address, probe.timeout).await,
            ProbeKind::Script { args } => command::script(args, probe.timeout, probe.output_max).await,
            ProbeKind::OsService { name } => command::os_service(name, probe.timeout).await,
            ProbeKind::Docker { container, shell, args } => {
                let limits = (probe.timeout, probe.output_max);
                docker::probe(container, shell, args, limits).await
            }
            ProbeKind::Grpc { target, tls } => h2::health(target, secure(tls, own), probe.timeout).await,
            ProbeKind::H2Ping { address, tls } => h2::ping(address, secure(tls, own), probe.timeout).await,
        }
    }
}

fn secure<'a>(tls: &'a Option<Tls>, own: Option<&'a ClientConfig>) -> Option<Secure<'a>> {
    tls.as_ref().map(|tls| Secure { tls, own })
}

fn outcome(status: Health, output: String) -> ProbeOutcome {
    ProbeOutcome { status, output }
}

#[cfg(test)]
mod tests;
