//! Which process has a port: the kernel's tables of sockets, and the open files of processes (proc(5)).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// Whether a table is of streams or of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The process that listens on this port, as far as this user may see it.
#[must_use]
pub fn holder(transport: Transport, address: IpAddr, port: u16) -> Option<Holder> {
    let tables: &[&str] = match transport {
        Transport::Tcp => &["/proc/net/tcp", "/proc/net/tcp6"],
        Transport::Udp => &["/proc/net/udp", "/proc/net/udp6"],
    };
    let mut inodes = BTreeSet::new();
    for table in tables {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        inodes.extend(listening(&text, transport, address, port));
    }
    if inodes.is_empty() { None } else { owner(Path::new("/proc"), &inodes) }
}

/// Inodes of the sockets of a table that have this port, at this address or at all addresses.
fn listening(table: &str, transport: Transport, address: IpAddr, port: u16) -> Vec<u64> {
    // 0A is LISTEN; sockets of datagrams are never.
    let state = |state: &str| transport == Transport::Udp || state == "0A";
    let own = hexadecimal(address);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, its_port) = fields.get(1)?.split_once(':')?;
            let fits = local == own || local.bytes().all(|digit| digit == b'0') || address.is_unspecified();
            let its_port = u16::from_str_radix(its_port, 16).ok()?;
            (fits && its_port == port && state(fields.get(3)?)).then(|| fields.get(9)?.parse().ok())?
        })
        .collect()
}

/// An address as the kernel's tables have it: words of 32 bits in the machine's order.
fn hexadecimal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{:08X}", u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            let words =
                octets.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            words.map(|word| format!("{word:08X}")).collect()
        }
    }
}

/// The process that has one of these sockets open.
fn owner(proc: &Path, inodes: &BTreeSet<u64>) -> Option<Holder> {
    for entry in std::fs::read_dir(proc).ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for file in std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = std::fs::read_link(file.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
            if inode.is_some_and(|inode: u64| inodes.contains(&inode)) {
                return Some(Holder { pid, name: name(proc, pid) });
            }
        }
    }
    None
}

fn name(proc: &Path, pid: u32) -> String {
    let name = std::fs::read_to_string(proc.join(pid.to_string()).join("comm"));
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let own = std::process::id();
        let address = IpAddr::from([127, 0, 0, 1]);
        for (transport, port) in [
            (Transport::Tcp, tcp.local_addr().expect("bound").port()),
            (Transport::Udp, udp.local_addr().expect("bound").port()),
        ] {
            assert_eq!(holder(transport, address, port).map(|holder| holder.pid), Some(own), "{transport:?}");
        }
    }

    #[test]
    fn tables_of_the_kernel_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:2134 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
            \x20  1: 0100007F:2134 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
            \x20  2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";
        let look = |address: &str, port| {
            listening(table, Transport::Tcp, address.parse().expect("an address"), port)
        };
        assert_eq!(look("127.0.0.1", 0x2134), [4711]);
        assert_eq!(look("0.0.0.0", 0x2134), [4711]);
        assert_eq!(look("10.0.0.1", 0x2134), [0; 0]);
        assert_eq!(look("10.0.0.1", 80), [4713]);
    }
}
