//! From the configuration to DNS listeners.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use proconsul_core::Text;
use proconsul_core::dns::{DnsConfig, Soa};
use proconsul_core::rng::Rng;
use proconsul_io_real::dns::{DnsListener, NodeResponder};
use proconsul_io_real::engine::random;
use proconsul_io_real::gate::Gate;
use tokio::runtime::Runtime;

use super::DaemonError;
use crate::config::Config;

/// Binds all addresses, over UDP and TCP.
pub(super) fn bind(runtime: &Runtime, addresses: &[SocketAddr]) -> Result<Vec<DnsListener>, DaemonError> {
    let bind = |address: &SocketAddr| {
        let bound = runtime.block_on(DnsListener::bind(*address));
        bound.map_err(|error| DaemonError::Dns { address: *address, error })
    };
    addresses.iter().map(bind).collect()
}

/// Answers questions from what the node publishes.
pub(super) fn serve(
    runtime: &Runtime,
    listeners: Vec<DnsListener>,
    config: &Config,
    gate: &Gate,
) -> io::Result<()> {
    let mut seed = [0; 32];
    random(&mut seed)?;
    let rng = Rng::from_bytes(seed);
    let settings = Arc::new(settings(config));
    for (label, listener) in (0u64..).zip(listeners) {
        let responder = NodeResponder::new(gate.clone(), Arc::clone(&settings), rng.fork(label));
        runtime.spawn(listener.serve(responder));
    }
    Ok(())
}

fn settings(config: &Config) -> DnsConfig {
    let dns = &config.dns;
    let [refresh, retry, expire, min_ttl] = dns.soa;
    DnsConfig {
        domain: Text::new(&dns.domain),
        alt_domain: dns.alt_domain.as_deref().map(Text::new),
        node_ttl: dns.node_ttl,
        service_ttl: dns.service_ttl.iter().map(|(name, ttl)| (Text::new(name), *ttl)).collect(),
        only_passing: dns.only_passing,
        enable_truncate: dns.enable_truncate,
        udp_answer_limit: dns.udp_answer_limit,
        a_record_limit: dns.a_record_limit,
        disable_compression: dns.disable_compression,
        node_meta_txt: dns.node_meta_txt,
        soa: Soa { refresh, retry, expire, min_ttl },
        ..DnsConfig::default()
    }
}
