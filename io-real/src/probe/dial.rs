//! Connects, and says why not.

use tokio::net::{TcpStream, lookup_host};

use crate::words::io_reason;

/// Connects to `host:port`, trying every address of the host in turn. Fails with words that name the address.
pub(super) async fn dial(address: &str) -> Result<TcpStream, String> {
    if !has_port(address) {
        return Err(format!("dial tcp: address {address}: missing port in address"));
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let Ok(addresses) = lookup_host(address).await else {
        return Err(format!("dial tcp: lookup {host}: no such host"));
    };
    let mut failure = format!("dial tcp: lookup {host}: no such host");
    let mut addresses = addresses.collect::<Vec<_>>();
    // IPv4 first: most services that are checked by name listen there, and its error is the one people expect.
    addresses.sort_by_key(std::net::SocketAddr::is_ipv6);
    addresses.reverse();
    while let Some(target) = addresses.pop() {
        match TcpStream::connect(target).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = format!("dial tcp {target}: connect: {}", io_reason(&error)),
        }
    }
    Err(failure)
}

fn has_port(address: &str) -> bool {
    match address.rsplit_once(':') {
        Some((host, port)) => {
            !port.is_empty() && !port.contains(']') && (!host.contains(':') || host.ends_with(']'))
        }
        None => false,
    }
}
