//! The UDP check: a datagram is sent, and nobody says that nobody listens.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::time::Duration;

use proconsul_core::agent::ProbeOutcome;
use proconsul_core::store::model::Health;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use super::outcome;
use crate::words::io_reason;

/// Whether a port takes datagrams. Silence passes: most services do not answer what makes no sense to them, and where
/// nobody listens the target's system says so.
pub(super) async fn probe(address: &str, limit: Duration) -> ProbeOutcome {
    match timeout(limit, exchange(address)).await {
        Ok(Err(error)) => outcome(Health::Critical, error),
        Ok(Ok(())) | Err(_) => outcome(Health::Passing, format!("UDP connect {address}: Success")),
    }
}

async fn exchange(address: &str) -> Result<(), String> {
    let mut found = lookup_host(address).await.map_err(|error| format!("dial udp: {}", io_reason(&error)))?;
    let target = found.next().ok_or_else(|| format!("dial udp: lookup {address}: no such host"))?;
    let failed = |error| format!("dial udp {target}: {}", io_reason(&error));
    let local = match target.is_ipv4() {
        true => (Ipv4Addr::UNSPECIFIED, 0).into(),
        false => std::net::SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(local).await.map_err(failed)?;
    socket.connect(target).await.map_err(failed)?;
    socket.send(b"\n").await.map_err(failed)?;
    socket.recv(&mut [0; 512]).await.map_err(failed)?;
    Ok(())
}
