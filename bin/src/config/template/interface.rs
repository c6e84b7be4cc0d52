//! The addresses of this machine's interfaces, and what is known of them.

use std::net::{IpAddr, Ipv4Addr};

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// The interface's name.
    pub(crate) name: String,
    /// The address.
    pub(crate) address: IpAddr,
    /// How many bits of it are those of the network.
    pub(crate) bits: u8,
    /// `up`, `broadcast`, `loopback`, `pointtopoint`, `multicast`.
    pub(crate) flags: Vec<&'static str>,
    /// Whether packets to nowhere in particular leave by this interface.
    pub(crate) is_default: bool,
}

impl Interface {
    /// First and last address of the network, as numbers.
    pub(super) fn range(&self) -> (u128, u128) {
        let width = self.width();
        let host =
            if u32::from(self.bits) >= width { 0 } else { u128::MAX >> (128 - width + u32::from(self.bits)) };
        let first = number(self.address) & !host;
        (first, first | host)
    }

    /// How many bits an address of this family has.
    pub(super) fn width(&self) -> u32 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// An address of the same family.
    pub(super) fn like(&self, number: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::from(number).into(),
        }
    }

    /// `10.0.0.0/8`.
    pub(super) fn network(&self) -> String {
        format!("{}/{}", self.like(self.range().0), self.bits)
    }
}

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Everything that the system tells.
pub(crate) fn interfaces() -> Vec<Interface> {
    let default = default_interface(&std::fs::read_to_string("/proc/net/route").unwrap_or_default());
    let list = if_addrs::get_if_addrs().unwrap_or_default();
    let read = |one: if_addrs::Interface| {
        let bits = match &one.addr {
            if_addrs::IfAddr::V4(v4) => u32::from(v4.netmask).count_ones(),
            if_addrs::IfAddr::V6(v6) => u128::from(v6.netmask).count_ones(),
        };
        let flags = std::fs::read_to_string(format!("/sys/class/net/{}/flags", one.name)).unwrap_or_default();
        Interface {
            address: one.ip(),
            bits: u8::try_from(bits).unwrap_or(u8::MAX),
            flags: flags_of(&flags),
            is_default: default.as_ref() == Some(&one.name),
            name: one.name,
        }
    };
    list.into_iter().map(read).collect()
}

/// Names of the bits that the kernel shows in hexadecimal (netdevice(7)).
fn flags_of(text: &str) -> Vec<&'static str> {
    let bits = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap_or(0);
    let names =
        [(0x1, "up"), (0x2, "broadcast"), (0x8, "loopback"), (0x10, "pointtopoint"), (0x1000, "multicast")];
    names.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect()
}

/// The interface of the default route, in a table such as `/proc/net/route`.
fn default_interface(table: &str) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, destination) = (fields.next()?, fields.next()?);
        (destination == "00000000").then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_understood() {
        assert_eq!(flags_of("0x1003\n"), ["up", "broadcast", "multicast"]);
        assert_eq!(flags_of("rubbish"), [""; 0]);
        let table = "Iface\tDestination\tGateway\nlo\t0000007F\t0\neth0\t00000000\t010200C0\n";
        assert_eq!(default_interface(table), Some("eth0".to_owned()));
        assert_eq!(default_interface(""), None);
    }
}
