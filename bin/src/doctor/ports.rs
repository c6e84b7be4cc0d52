//! Whether the agent can have its ports.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::Report;
use super::holders::{Transport, holder};
use crate::config::{Config, Listen};

const LOOK: &str = "ports";

/// A listener that is configured.
struct Wanted {
    /// What it is for.
    name: &'static str,
    /// The setting of its port.
    setting: &'static str,
    transport: Transport,
    address: SocketAddr,
}

/// Looks whether all ports are free, or the agent's whose process this is.
pub fn look(config: &Config, agent: Option<u32>, report: &mut Report) {
    let wanted = wanted(config);
    let mut bad = 0;
    for Wanted { name, setting, transport, address } in &wanted {
        let protocol = match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        let Err(error) = bind(*transport, *address) else { continue };
        let by = holder(*transport, address.ip(), address.port());
        if by.as_ref().is_some_and(|by| Some(by.pid) == agent) {
            continue;
        }
        bad += 1;
        let remedy = format!("stop that program, or set another port with {setting}");
        match (error.kind(), by) {
            (io::ErrorKind::AddrInUse, Some(by)) => {
                report.error(
                    LOOK,
                    format!("{name}: {address} ({protocol}) is taken by {} (process {})", by.name, by.pid),
                    remedy,
                );
            }
            (io::ErrorKind::AddrInUse, None) => {
                let found = format!(
                    "{name}: {address} ({protocol}) is taken, by a process that this user may not see"
                );
                report.error(LOOK, found, format!("look with `ss -lptun` as root; {remedy}"));
            }
            (io::ErrorKind::AddrNotAvailable, _) => {
                let found = format!("{name}: {} is no address of this machine", address.ip());
                report.error(LOOK, found, "correct bind_addr, client_addr or addresses");
            }
            (io::ErrorKind::PermissionDenied, _) => {
                let found = format!("{name}: this user may not listen on port {}", address.port());
                let remedy = format!(
                    "set a port above 1023 with {setting}, or give the program the capability cap_net_bind_service"
                );
                report.error(LOOK, found, remedy);
            }
            _ => report.error(LOOK, format!("{name}: {address} ({protocol}): {error}"), remedy),
        }
    }
    if bad == 0 {
        let whose = if agent.is_some() { "free, or the running agent's" } else { "free" };
        report.ok(LOOK, format!("{} listeners: all {whose}", wanted.len()));
    }
}

fn bind(transport: Transport, address: SocketAddr) -> io::Result<()> {
    match transport {
        Transport::Tcp => TcpListener::bind(address).map(drop),
        Transport::Udp => UdpSocket::bind(address).map(drop),
    }
}

fn wanted(config: &Config) -> Vec<Wanted> {
    use Transport::{Tcp, Udp};
    let mut wanted = Vec::new();
    let mut add =
        |name, setting, transport, address| wanted.push(Wanted { name, setting, transport, address });
    for (name, setting, list) in [
        ("HTTP", "ports.http (-http-port)", &config.http),
        ("HTTPS", "ports.https (-https-port)", &config.https),
    ] {
        for listen in list {
            if let Listen::Tcp(address) = listen {
                add(name, setting, Tcp, *address);
            }
        }
    }
    for address in &config.dns_listen {
        add("DNS", "ports.dns (-dns-port)", Tcp, *address);
        add("DNS", "ports.dns (-dns-port)", Udp, *address);
    }
    let mut gossip = vec![("LAN gossip", "ports.serf_lan (-serf-lan-port)", config.serf_lan_bind)];
    if config.server {
        add("RPC", "ports.server (-server-port)", Tcp, config.rpc_bind);
        gossip.extend(config.serf_wan_bind.map(|at| ("WAN gossip", "ports.serf_wan (-serf-wan-port)", at)));
    }
    for (name, setting, address) in gossip {
        add(name, setting, Tcp, address);
        add(name, setting, Udp, address);
    }
    wanted
}
