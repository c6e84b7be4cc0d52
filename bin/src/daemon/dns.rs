//! From the configuration to DNS listeners.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use proconsul_core::Text;
use proconsul_core::dns::{DnsConfig, Order, Recursors, Soa};
use proconsul_core::rng::Rng;
use proconsul_io_real::dns::{DnsListener, NodeResponder, PrivateListener, Responder as _, Settings, Within};
use proconsul_io_real::engine::random;
use proconsul_io_real::gate::Gate;
use proconsul_io_real::tls::{Acceptor, ServerTls, TlsError};
use tokio::runtime::Runtime;

use super::DaemonError;
use crate::config::Config;

/// Where DNS servers listen.
const PORT: u16 = 53;

/// Binds all addresses, over UDP and TCP.
pub(super) fn bind(runtime: &Runtime, addresses: &[SocketAddr]) -> Result<Vec<DnsListener>, DaemonError> {
    let bind = |address: &SocketAddr| {
        let bound = runtime.block_on(DnsListener::bind(*address));
        bound.map_err(|error| DaemonError::Dns { address: *address, error })
    };
    addresses.iter().map(bind).collect()
}

/// DNS within TLS.
pub(super) struct Private {
    listeners: Vec<PrivateListener>,
    /// What they show, to be replaced when certificates are read again.
    pub(super) acceptors: Vec<(Within, Acceptor)>,
}

/// Binds the addresses of DNS over TLS and over HTTPS.
pub(super) fn bind_private(runtime: &Runtime, config: &Config) -> Result<Private, DaemonError> {
    let mut private = Private { listeners: Vec::new(), acceptors: Vec::new() };
    for (within, addresses) in
        [(Within::Stream, &config.dns_tls_listen), (Within::Http, &config.dns_https_listen)]
    {
        if addresses.is_empty() {
            continue;
        }
        let tls = config.tls.https.as_ref().ok_or(DaemonError::DnsCertificate)?;
        let acceptor = acceptor(tls, within)?;
        for address in addresses {
            let bound = PrivateListener::bind(*address, within, acceptor.clone(), config.tls.handshake);
            let bound = runtime.block_on(bound);
            let bound = bound.map_err(|error| DaemonError::Dns { address: *address, error })?;
            private.listeners.push(bound);
        }
        private.acceptors.push((within, acceptor));
    }
    Ok(private)
}

/// What listeners of DNS show, with their own protocols.
pub(super) fn acceptor(tls: &ServerTls, within: Within) -> Result<Acceptor, TlsError> {
    Acceptor::new(&ServerTls { protocols: within.protocols(), ..tls.clone() })
}

/// Answers questions from what the node publishes.
pub(super) fn serve(
    runtime: &Runtime,
    listeners: Vec<DnsListener>,
    private: Private,
    settings: &Settings,
    gate: &Gate,
) -> io::Result<()> {
    let mut seed = [0; 32];
    random(&mut seed)?;
    let rng = Rng::from_bytes(seed);
    let responder = NodeResponder::new(gate.clone(), settings.clone(), rng);
    for (label, listener) in (0u64..).zip(listeners) {
        // What a client agent keeps is kept once.
        runtime.spawn(listener.serve(responder.fork(label))?);
    }
    for (label, listener) in (0x100u64..).zip(private.listeners) {
        runtime.spawn(listener.serve(responder.fork(label)));
    }
    Ok(())
}

/// How names are served.
///
/// # Errors
/// A recursor's name or port means nothing.
pub(super) fn settings(config: &Config) -> Result<DnsConfig, String> {
    let dns = &config.dns;
    let [refresh, retry, expire, min_ttl] = dns.soa;
    let recursors = dns.recursors.iter().map(|text| recursor(text)).collect::<Result<_, _>>()?;
    Ok(DnsConfig {
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
        allow_stale: dns.allow_stale,
        max_stale: dns.max_stale,
        recursors: Recursors {
            addresses: recursors,
            timeout: dns.recursor_timeout,
            order: if dns.recursors_in_random_order { Order::Random } else { Order::Sequential },
        },
    })
}

/// Where a recursor listens: an address or a name, perhaps with a port.
fn recursor(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok((address, PORT).into());
    }
    let found = match text.rsplit_once(':') {
        Some((host, "")) => (host, PORT).to_socket_addrs(),
        Some(_) => text.to_socket_addrs(),
        None => (text, PORT).to_socket_addrs(),
    };
    let found = found.map_err(|error| error.to_string()).map(|mut found| found.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(format!("Invalid recursor address: {text} has no address")),
        Err(error) => Err(format!("Invalid recursor address: {text}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recursors_are_written_with_or_without_a_port() {
        for (text, means) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("192.0.2.1:", "192.0.2.1:53"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(recursor(text), Ok(means.parse().expect("an address")), "{text}");
        }
        for bad in ["192.0.2.1:99999", "192.0.2.1:x", ""] {
            assert!(recursor(bad).is_err(), "{bad}");
        }
    }
}
