//! Where agents live: addresses of their own, on loopback or in network namespaces of this process alone.
//!
//! All of 127.0.0.0/8 is this machine's own (RFC 1122, section 3.2.1.3), and Linux answers on every address of it. So
//! each agent of a cluster gets an address, as on machines of their own, and all may use the same ports. That needs no
//! rights, but a link between two agents cannot be cut there.
//!
//! Inside [namespaces of one's own](super::isolation) every agent gets a network stack of its own on a bridge. A link
//! is cut in one direction by a permanent neighbour entry with a hardware address that nobody has (ip-neighbour(8)):
//! frames leave, and nobody takes them. It works on established connections, says nothing to either end, and needs
//! neither a packet filter nor a traffic shaper in the kernel.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::ports::Ports;

/// The ports that agents have unless told otherwise; all below those that systems give to outgoing connections.
const STANDARD: Ports = Ports { http: 8500, dns: 8600, server: 8300, serf_lan: 8301, serf_wan: 8302 };

/// Blocks of 256 addresses: 127.64.0.0 to 127.255.255.0.
const BLOCKS: u32 = 192 * 256;

/// The host number on which a block is claimed.
const CLAIM: u8 = 254;

/// The block that is used inside namespaces, where nobody else is.
const INSIDE: [u8; 3] = [10, 77, 0];

/// The host number of this program inside namespaces.
const HERE: u8 = 254;

/// A locally administered hardware address (IEEE 802, section 8.4) that no interface has.
const NOBODY: &str = "02:00:00:00:00:ff";

static OFFSET: AtomicU32 = AtomicU32::new(0);

/// Where an agent lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address that it binds.
    pub address: Ipv4Addr,
    /// The ports that it uses there.
    pub ports: Ports,
    /// The program, with arguments, that brings a program there; empty if nothing is needed.
    pub launcher: Vec<String>,
}

impl Place {
    /// 127.0.0.1 with free ports.
    ///
    /// # Errors
    ///
    /// If there are no free ports.
    pub fn localhost() -> io::Result<Place> {
        Ok(Place { address: Ipv4Addr::LOCALHOST, ports: Ports::choose()?, launcher: Vec::new() })
    }

    /// [`Place::localhost`] for a process that ends when this one does, whatever ends it.
    ///
    /// # Errors
    ///
    /// If there are no free ports.
    pub fn tied() -> io::Result<Place> {
        Ok(Place { launcher: tie(), ..Place::localhost()? })
    }

    /// A command that runs a program there. Its process id is the program's.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        match self.launcher.split_first() {
            None => Command::new(program),
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(program);
                command
            }
        }
    }
}

/// Lets the kernel end a process when the thread that started it ends (PR_SET_PDEATHSIG(2const)), where setpriv(1) is
/// there to ask for it. Whoever starts an agent from a thread that ends early would lose it.
fn tie() -> Vec<String> {
    let tie = ["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned);
    let works = Command::new(&tie[0])
        .args(&tie[1..])
        .arg("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if works.is_ok_and(|status| status.success()) { tie.to_vec() } else { Vec::new() }
}

/// 250 places that no other [`Network`] of this machine has, in this process or another.
#[derive(Debug)]
pub struct Network {
    kind: Kind,
    block: [u8; 3],
    ports: Ports,
    last: u8,
}

#[derive(Debug)]
enum Kind {
    Loopback {
        launcher: Vec<String>,
        /// Whoever listens here has the block. The system gives it back when the process ends, however it ends.
        _claim: TcpListener,
    },
    Namespaces,
}

impl Network {
    /// Claims a block of addresses on loopback.
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
            let kind = Kind::Loopback { launcher: Vec::new(), _claim: claim };
            return Ok(Network { kind, block, ports, last: 0 });
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free block of addresses on loopback"))
    }

    /// [`Network::claim`] for processes that end when this one does, whatever ends it.
    ///
    /// # Errors
    ///
    /// If no block is free.
    pub fn claim_tied() -> io::Result<Network> {
        let mut network = Network::claim()?;
        if let Kind::Loopback { launcher, .. } = &mut network.kind {
            *launcher = tie();
        }
        Ok(network)
    }

    /// A bridge in the namespaces of this process, which are its own. See [`super::isolation`].
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn inside() -> io::Result<Network> {
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", "bridge", "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", in_block(INSIDE, HERE)), "dev", "bridge"])?;
        ip(&["link", "set", "bridge", "up"])?;
        Ok(Network { kind: Kind::Namespaces, block: INSIDE, ports: STANDARD, last: 0 })
    }

    /// A place that was not handed out before.
    ///
    /// # Errors
    ///
    /// If the system refuses to make it.
    ///
    /// # Panics
    ///
    /// After 253 of them.
    pub fn place(&mut self) -> io::Result<Place> {
        self.last += 1;
        assert!(self.last < CLAIM, "the block is used up");
        let address = in_block(self.block, self.last);
        let launcher = match &self.kind {
            Kind::Loopback { launcher, .. } => launcher.clone(),
            Kind::Namespaces => stack(self.last, address)?,
        };
        Ok(Place { address, ports: self.ports, launcher })
    }

    /// Whether links can be cut.
    #[must_use]
    pub fn can_cut(&self) -> bool {
        matches!(self.kind, Kind::Namespaces)
    }

    /// From now on nothing that one address sends reaches the other one. This program always reaches both.
    ///
    /// # Errors
    ///
    /// If the system refuses, as it does where links [cannot be cut](Network::can_cut).
    pub fn cut(&self, from: Ipv4Addr, to: Ipv4Addr) -> io::Result<()> {
        let to = to.to_string();
        self.neighbour(from, &["replace", &to, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"])
    }

    /// Mends a link that was [cut](Network::cut).
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn mend(&self, from: Ipv4Addr, to: Ipv4Addr) -> io::Result<()> {
        self.neighbour(from, &["delete", &to.to_string(), "dev", "eth0"])
    }

    fn neighbour(&self, of: Ipv4Addr, arguments: &[&str]) -> io::Result<()> {
        if !self.can_cut() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "links on loopback cannot be cut"));
        }
        let namespace = namespace(of.octets()[3]);
        ip(&[&["-n", namespace.as_str(), "neighbour"], arguments].concat())
    }
}

fn namespace(host: u8) -> String {
    format!("agent-{host}")
}

/// Makes a network stack with one interface on the bridge; returns what brings a program into it.
fn stack(host: u8, address: Ipv4Addr) -> io::Result<Vec<String>> {
    let name = namespace(host);
    let port = format!("port-{host}");
    ip(&["netns", "add", &name])?;
    ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
    ip(&["link", "set", &port, "master", "bridge", "up"])?;
    ip(&["-n", &name, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
    ip(&["-n", &name, "link", "set", "lo", "up"])?;
    ip(&["-n", &name, "link", "set", "eth0", "up"])?;
    Ok(vec!["nsenter".to_owned(), format!("--net=/run/netns/{name}"), "--".to_owned()])
}

/// Runs ip(8).
fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {}: {}", arguments.join(" "), said.trim())))
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
        let all = [&mut a, &mut b].map(|network| [network.place().unwrap(), network.place().unwrap()]);
        let all = all.concat();
        assert_ne!(a.block, b.block);
        assert_eq!(all.iter().map(|place| place.address.octets()[3]).collect::<Vec<_>>(), [1, 2, 1, 2]);
        assert!(all.iter().all(|place| place.address.is_loopback()));
    }

    #[test]
    fn links_on_loopback_are_not_cut() {
        let mut network = Network::claim().unwrap();
        let (a, b) = (network.place().unwrap().address, network.place().unwrap().address);
        assert!(!network.can_cut());
        assert_eq!(network.cut(a, b).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
