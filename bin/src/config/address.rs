//! Addresses: reading lists of them, and finding out which one to tell others.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::ConfigError;

/// One element of an address list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Ip(IpAddr),
    Unix(PathBuf),
}

/// Reads addresses that are separated by blanks.
pub(crate) fn list(key: &str, text: &str) -> Result<Vec<Address>, String> {
    text.split_whitespace()
        .map(|word| match word.strip_prefix("unix://") {
            Some(path) => Ok(Address::Unix(PathBuf::from(path))),
            None => ip(word).map(Address::Ip).ok_or_else(|| format!("{key}: invalid ip address: {word}")),
        })
        .collect()
}

/// Reads one address.
pub(crate) fn single(key: &str, text: &str) -> Result<IpAddr, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [] => Err(format!("{key}: no address found")),
        [word] => ip(word).ok_or_else(|| format!("{key}: invalid ip address: {word}")),
        _ => Err(format!("{key}: multiple addresses found: {}", words.join(" "))),
    }
}

/// An IP address, IPv6 perhaps in brackets.
pub(crate) fn ip(word: &str) -> Option<IpAddr> {
    word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).unwrap_or(word).parse().ok()
}

/// The address to tell others when the agent listens on all of them: the only private one of this kind.
pub(crate) fn only_private(all: IpAddr, interfaces: &[IpAddr]) -> Result<IpAddr, ConfigError> {
    let (kind, fits): (&str, fn(&IpAddr) -> bool) = match all {
        IpAddr::V4(_) => ("private IPv4", |a| matches!(a, IpAddr::V4(v4) if is_private(*v4))),
        IpAddr::V6(_) => {
            ("public IPv6", |a| matches!(a, IpAddr::V6(v6) if (v6.segments()[0] & 0xe000) == 0x2000))
        }
    };
    let mut found: Vec<IpAddr> = interfaces.iter().copied().filter(fits).collect();
    found.sort();
    found.dedup();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(ConfigError::new(format!("No {kind} address found")).hint(
            "Say with advertise_addr (-advertise) or bind_addr (-bind) which address others shall use.",
        )),
        several => {
            let several: Vec<String> = several.iter().map(IpAddr::to_string).collect();
            Err(ConfigError::new(format!(
                "Multiple {kind} addresses found ({}). Please configure one with 'bind' and/or 'advertise'.",
                several.join(", ")
            )))
        }
    }
}

/// Addresses that the Internet does not route (RFC 6890): private, shared, documentation and benchmarking networks.
fn is_private(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
        || (a, b, c) == (192, 0, 0)
}

/// Addresses of this machine's interfaces.
pub(crate) fn interfaces() -> Vec<IpAddr> {
    if_addrs::get_if_addrs().map(|list| list.into_iter().map(|i| i.ip()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|t| t.parse().expect(t)).collect()
    }

    #[test]
    fn the_only_private_address_is_advertised() {
        let any = "0.0.0.0".parse().expect("an address");
        let chosen = only_private(any, &ips(&["127.0.0.1", "8.8.8.8", "10.1.2.3", "fe80::1"]));
        assert_eq!(chosen, Ok("10.1.2.3".parse().expect("an address")));
        let none = only_private(any, &ips(&["127.0.0.1", "8.8.8.8"])).expect_err("none is private");
        assert!(none.to_string().contains("-advertise"), "{none}");
        let two = only_private(any, &ips(&["192.168.0.2", "10.1.2.3"])).expect_err("two are private");
        assert!(two.to_string().contains("10.1.2.3, 192.168.0.2"), "{two}");
    }

    #[test]
    fn lists_of_addresses_name_what_is_wrong() {
        assert_eq!(list("k", "127.0.0.1 [::1]").map(|l| l.len()), Ok(2));
        assert_eq!(list("k", "unix:///a/b"), Ok(vec![Address::Unix("/a/b".into())]));
        assert_eq!(list("k", "not an ip"), Err("k: invalid ip address: not".to_owned()));
        assert_eq!(
            single("k", "1.1.1.1 2.2.2.2"),
            Err("k: multiple addresses found: 1.1.1.1 2.2.2.2".to_owned())
        );
    }
}
