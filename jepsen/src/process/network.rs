//! Addresses of one's own on loopback.
//!
//! All of 127.0.0.0/8 is this machine's own (RFC 1122, section 3.2.1.3), and Linux answers on every address of it. So
//! each agent of a cluster gets an address, as on machines of their own, and all may use the same ports.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use super::ports::Ports;

/// The ports that agents have unless told otherwise; all below those that systems give to outgoing connections.
const STANDARD: Ports = Ports { http: 8500, dns: 8600, server: 8300, serf_lan: 8301, serf_wan: 8302 };

/// Blocks of 256 addresses: 127.64.0.0 to 127.255.255.0.
const BLOCKS: u32 = 192 * 256;

/// The host number on which a block is claimed.
const CLAIM: u8 = 254;

static OFFSET: AtomicU32 = AtomicU32::new(0);

/// 256 addresses on loopback that no other [`Network`] of this machine has, in this process or another.
#[derive(Debug)]
pub struct Network {
    block: [u8; 3],
    ports: Ports,
    last: u8,
    /// Whoever listens here has the block. The system gives it back when the process ends, however it ends.
    _claim: TcpListener,
}

impl Network {
    /// Claims a block.
    ///
    /// # Errors
    ///
    /// If none is free.
    pub fn claim() -> io::Result<Network> {
        let start = std::process::id().wrapping_mul(7);
        for _ in 0..BLOCKS {
            let number = start.wrapping_add(OFFSET.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
            let high = u8::try_from(64 + number / 256).expect("below 256");
            let low = u8::try_from(number % 256).expect("below 256");
            let block = [127, high, low];
            let Ok(claim) = TcpListener::bind((in_block(block, CLAIM), STANDARD.server)) else { continue };
            // A program that listens on all addresses takes a port from everybody.
            let ports = if all_free(in_block(block, 1), STANDARD) { STANDARD } else { Ports::choose()? };
            return Ok(Network { block, ports, last: 0, _claim: claim });
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free block of addresses on loopback"))
    }

    /// An address that was not handed out before.
    ///
    /// # Panics
    ///
    /// After 253 of them.
    pub fn address(&mut self) -> Ipv4Addr {
        self.last += 1;
        assert!(self.last < CLAIM, "the block is used up");
        in_block(self.block, self.last)
    }

    /// The ports that every agent of this network uses.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.ports
    }
}

fn in_block(block: [u8; 3], host: u8) -> Ipv4Addr {
    Ipv4Addr::new(block[0], block[1], block[2], host)
}

fn all_free(address: Ipv4Addr, ports: Ports) -> bool {
    [ports.http, ports.dns, ports.server, ports.serf_lan, ports.serf_wan]
        .into_iter()
        .all(|port| TcpListener::bind((address, port)).is_ok() && UdpSocket::bind((address, port)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_given_twice() {
        let (mut a, mut b) = (Network::claim().unwrap(), Network::claim().unwrap());
        let all = [a.address(), a.address(), b.address(), b.address()];
        assert_ne!(a.block, b.block);
        assert_eq!(all.map(|address| address.octets()[3]), [1, 2, 1, 2]);
        assert!(all.iter().all(|address| address.is_loopback()));
    }
}
