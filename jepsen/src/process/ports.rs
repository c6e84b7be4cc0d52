//! Ports for agents.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports below those that systems hand out to outgoing connections: a client that connects to an ephemeral port of
/// a dead server can end up connected to itself.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

static OFFSET: AtomicU16 = AtomicU16::new(0);

/// The ports of one agent, all free on 127.0.0.1 for TCP and UDP when they were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// HTTP interface.
    pub http: u16,
    /// DNS interface.
    pub dns: u16,
    /// RPC among servers.
    pub server: u16,
    /// Gossip within the datacenter.
    pub serf_lan: u16,
    /// Gossip among datacenters.
    pub serf_wan: u16,
}

impl Ports {
    /// Chooses free ports.
    ///
    /// # Errors
    ///
    /// If there are not five free ports.
    pub fn choose() -> io::Result<Ports> {
        Ok(Ports {
            http: free_port()?,
            dns: free_port()?,
            server: free_port()?,
            serf_lan: free_port()?,
            serf_wan: free_port()?,
        })
    }
}

/// A port that is free on 127.0.0.1 for TCP and UDP. No two calls in one process return the same.
///
/// # Errors
///
/// If there is none.
pub fn free_port() -> io::Result<u16> {
    let range = LAST - FIRST;
    let start = (std::process::id() % u32::from(range)) as u16;
    for _ in 0..range {
        let offset = OFFSET.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(offset)) % range;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no free port from {FIRST} to {LAST}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ() {
        let a = Ports::choose().unwrap();
        let b = Ports::choose().unwrap();
        let mut all = vec![a.http, a.dns, a.server, a.serf_lan, a.serf_wan];
        all.extend([b.http, b.dns, b.server, b.serf_lan, b.serf_wan]);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10);
    }
}
