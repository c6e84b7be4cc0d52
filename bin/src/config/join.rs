//! Whom to join: the addresses of `retry_join` and `-join`, and how often to try.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Where another agent listens for gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAddress {
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

/// A host, by address or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name that is looked up at every attempt: its addresses may change.
    Name(String),
}

/// As it may be written: `10.0.0.1:8301`, `[::1]:8301`, `server-1:8301`.
impl fmt::Display for JoinAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// How an agent joins a pool at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Tried until one of them answers.
    pub addresses: Vec<JoinAddress>,
    /// Time between attempts.
    pub interval: Duration,
    /// After so many attempts the agent gives up and ends; 0 is never.
    pub attempts_max: u32,
}

/// Reads an address: IPv4, IPv6 with or without brackets, or a name; with or without a port. An error says what is
/// wrong with it.
pub(crate) fn parse(text: &str, default_port: u16) -> Result<JoinAddress, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("an address is missing".to_owned());
    }
    if text.contains("provider=") {
        return Err(format!(
            "{text:?} asks a cloud for addresses, which this version cannot: write addresses, or a DNS name that stands for them"
        ));
    }
    let bad = |why: &str| format!("{text:?} is no address to join: {why}");
    let number = |port: &str| match port.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(bad("a port is a number from 1 to 65535")),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']').ok_or_else(|| bad("the bracket is not closed"))?;
        let ip =
            ip.parse::<std::net::Ipv6Addr>().map_err(|_| bad("between brackets stands an IPv6 address"))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => number(port)?,
            None if rest.is_empty() => default_port,
            None => return Err(bad("only a port may follow the bracket")),
        };
        return Ok(JoinAddress { host: Host::Ip(ip.into()), port });
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(JoinAddress { host: Host::Ip(ip), port: default_port });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, number(port)?),
        None => (text, default_port),
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(JoinAddress { host: Host::Ip(ip), port });
    }
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    // What is made of digits and dots alone was meant as an IPv4 address.
    let is_number = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    if host.is_empty() || host.len() > 253 || !host.chars().all(letter) || is_number {
        return Err(bad("it is neither an IP address nor a host name"));
    }
    Ok(JoinAddress { host: Host::Name(host.to_owned()), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_address_is_read() {
        for (text, written) in [
            ("10.0.0.1", "10.0.0.1:8301"),
            ("10.0.0.1:9000", "10.0.0.1:9000"),
            ("::1", "[::1]:8301"),
            ("[::1]", "[::1]:8301"),
            ("[fe80::2]:9000", "[fe80::2]:9000"),
            ("consul-server-1", "consul-server-1:8301"),
            (" server_2.example.com:9000 ", "server_2.example.com:9000"),
        ] {
            assert_eq!(parse(text, 8301).map(|a| a.to_string()), Ok(written.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, why) in [
            ("", "missing"),
            ("provider=aws tag_key=consul", "asks a cloud"),
            ("[::1", "not closed"),
            ("[10.0.0.1]", "IPv6"),
            ("[::1]9000", "only a port"),
            ("10.0.0.1:0", "a number from 1"),
            ("a:70000", "a number from 1"),
            ("10.0.0.256", "neither"),
            ("a b", "neither"),
            ("http://a", "a number from 1"),
            (":8301", "neither"),
        ] {
            let error = parse(text, 8301).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
