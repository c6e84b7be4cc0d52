//! The grammar of names below the domain.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// Bytes of the longest name, lengths of labels and the root included (RFC 1035, section 2.3.4).
pub(super) const LENGTH_MAX: usize = 255;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Instances of a service, perhaps only those with a tag.
    Service {
        /// Lower case.
        service: String,
        /// Lower case.
        tag: Option<String>,
        /// Which instances.
        role: Role,
    },
    /// A node, in lower case.
    Node(String),
    /// A prepared query, in lower case.
    Query(String),
    /// An address that the name spells.
    Address(IpAddr),
    /// The domain itself, or nothing that exists.
    Nothing,
}

/// Which instances a name of a service stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Its own.
    Itself,
    /// Those that take mesh traffic for it.
    Connect,
    /// Gateways that let traffic in for it.
    Ingress,
}

/// A name of one of the zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) target: Target,
    /// The datacenter in the name, in lower case.
    pub(super) datacenter: Option<String>,
    /// It is of the form of RFC 2782, without `service`.
    pub(super) is_short: bool,
}

/// Labels of a name in lower case, first to last.
pub(super) fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

/// What is left of a name's labels before those of a zone; `None`: it is not in the zone.
pub(super) fn below<'a>(labels: &'a [String], zone: &str) -> Option<&'a [String]> {
    let zone = zone.split('.').filter(|label| !label.is_empty());
    let count = zone.clone().count();
    let (rest, suffix) = labels.split_at(labels.len().checked_sub(count)?);
    (count > 0 && suffix.iter().zip(zone).all(|(has, wants)| has.eq_ignore_ascii_case(wants))).then_some(rest)
}

/// Reads the labels before the domain:
/// `[tag.]<service>.service`, `_<service>._<tag>[.service]`, `<service>.connect`, `<service>.ingress`, `<node>.node`,
/// `<query>.query`, `<hex>.addr`, each followed by nothing, by `<datacenter>` or by `<datacenter>.dc`.
pub(super) fn parse(labels: &[String]) -> Parsed {
    let nothing = Parsed { target: Target::Nothing, datacenter: None, is_short: false };
    let keyword = labels.iter().rposition(|label| {
        matches!(label.as_str(), "service" | "connect" | "node" | "addr" | "query" | "ingress" | "virtual")
    });
    let is_short = keyword.is_none();
    let (parts, keyword, suffix) = match keyword {
        Some(at) => (&labels[..at], labels[at].as_str(), &labels[at + 1..]),
        // The keyword may be left out of the form of RFC 2782.
        None if labels.len() >= 2 && labels[..2].iter().all(|label| label.starts_with('_')) => {
            (&labels[..2], "service", &labels[2..])
        }
        None => return nothing,
    };
    let datacenter = match suffix {
        [] => None,
        [datacenter] => Some(datacenter.clone()),
        [datacenter, dc] if dc == "dc" => Some(datacenter.clone()),
        _ => return nothing,
    };
    let target = match keyword {
        "service" => service(parts),
        "connect" | "ingress" => match parts {
            // As in Consul, labels before the service mean nothing.
            [.., name] => {
                let role = if keyword == "connect" { Role::Connect } else { Role::Ingress };
                Target::Service { service: name.clone(), tag: None, role }
            }
            [] => Target::Nothing,
        },
        "node" if !parts.is_empty() => Target::Node(parts.join(".")),
        "query" if !parts.is_empty() => Target::Query(parts.join(".")),
        "addr" => match parts {
            [hex] => address(hex).map_or(Target::Nothing, Target::Address),
            _ => Target::Nothing,
        },
        _ => Target::Nothing,
    };
    Parsed { target, datacenter, is_short }
}

fn service(parts: &[String]) -> Target {
    let named = |service: &str, tag: Option<String>| Target::Service {
        service: service.into(),
        tag,
        role: Role::Itself,
    };
    match parts {
        [] => Target::Nothing,
        [name] => named(name, None),
        [name, tag] if name.starts_with('_') && tag.starts_with('_') => {
            let tag = &tag[1..];
            named(&name[1..], (!matches!(tag, "tcp" | "")).then(|| tag.to_owned()))
        }
        // Tags may have dots, names of services may not.
        [tag @ .., name] => named(name, Some(tag.join("."))),
    }
}

fn address(hex: &str) -> Option<IpAddr> {
    if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?))),
        32 => Some(IpAddr::V6(Ipv6Addr::from(u128::from_str_radix(hex, 16).ok()?))),
        _ => None,
    }
}

/// The label that spells an address.
pub(super) fn hex(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08x}", u32::from(address)),
        IpAddr::V6(address) => format!("{:032x}", u128::from(address)),
    }
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` asks about.
pub(super) fn reverse(labels: &[String]) -> Option<IpAddr> {
    if let Some(rest) = below(labels, "in-addr.arpa") {
        let [a, b, c, d] = rest else { return None };
        // As numbers are written: without zeros or signs in front.
        let octet = |label: &String| label.parse::<u8>().ok().filter(|octet| octet.to_string() == *label);
        return Some(IpAddr::V4(Ipv4Addr::new(octet(d)?, octet(c)?, octet(b)?, octet(a)?)));
    }
    let rest = below(labels, "ip6.arpa")?;
    if rest.len() != 32 {
        return None;
    }
    let mut bits = 0u128;
    for label in rest.iter().rev() {
        let [digit] = label.as_bytes() else { return None };
        bits = (bits << 4) | u128::from((*digit as char).to_digit(16)?);
    }
    Some(IpAddr::V6(Ipv6Addr::from(bits)))
}

/// A fully qualified name from dotted text, letter for letter. `None` when a label or the whole is too long or empty.
pub(super) fn fqdn(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || text.len() > 253 {
        return None;
    }
    let labels = text.split('.').map(str::as_bytes).collect::<Vec<_>>();
    if labels.iter().any(|label| label.is_empty() || label.len() > 63) {
        return None;
    }
    Name::from_labels(labels).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        text.split('.').filter(|label| !label.is_empty()).map(str::to_owned).collect()
    }

    fn service(service: &str, tag: Option<&str>) -> Target {
        Target::Service { service: service.into(), tag: tag.map(str::to_owned), role: Role::Itself }
    }

    #[test]
    fn names_follow_the_grammar() {
        let cases = [
            ("web.service", service("web", None), None),
            ("web.service.dc1", service("web", None), Some("dc1")),
            ("web.service.dc1.dc", service("web", None), Some("dc1")),
            ("v1.web.service", service("web", Some("v1")), None),
            ("a.v1.web.service", service("web", Some("a.v1")), None),
            ("_web._tcp.service", service("web", None), None),
            ("_web._v1.service.dc1", service("web", Some("v1")), Some("dc1")),
            ("_web._.service", service("web", None), None),
            ("_._tcp.service", service("", None), None),
            ("_web._tcp", service("web", None), None),
            ("_web._udp.dc1", service("web", Some("udp")), Some("dc1")),
            ("_web.service", service("_web", None), None),
            ("service.service", service("service", None), None),
            ("node.service", service("node", None), None),
            ("n.node", Target::Node("n".into()), None),
            ("dot.ted.node.dc1", Target::Node("dot.ted".into()), Some("dc1")),
            ("n.node.dc1.dc1", Target::Nothing, None),
            ("q.query.dc1", Target::Query("q".into()), Some("dc1")),
            ("dot.ted.query", Target::Query("dot.ted".into()), None),
            ("query", Target::Nothing, None),
            ("0a000001.addr", Target::Address([10, 0, 0, 1].into()), None),
            ("x.0a000001.addr", Target::Nothing, None),
            ("+a000001.addr", Target::Nothing, None),
            ("node", Target::Nothing, None),
            ("service", Target::Nothing, None),
            ("n", Target::Nothing, None),
            ("", Target::Nothing, None),
        ];
        for (text, target, datacenter) in cases {
            let parsed = parse(&split(text));
            let is_short = text.starts_with("_web._") && !text.contains("service");
            let datacenter = datacenter.map(str::to_owned);
            assert_eq!(parsed, Parsed { target, datacenter, is_short }, "{text}");
        }
    }

    #[test]
    fn reverse_names_are_read() {
        assert_eq!(reverse(&split("1.0.7.10.in-addr.arpa")), Some([10, 7, 0, 1].into()));
        assert_eq!(reverse(&split("1.0.7.in-addr.arpa")), None);
        for bad in ["x.0.7.10", "001.0.7.10", "+1.0.7.10"] {
            assert_eq!(reverse(&split(&format!("{bad}.in-addr.arpa"))), None, "{bad}");
        }
        let text = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(reverse(&split(text)), Some("2001:db8:7::2".parse().unwrap()));
    }

    #[test]
    fn a_zone_is_matched_by_whole_labels_without_regard_to_case() {
        assert_eq!(below(&split("a.my.corp"), "My.Corp"), Some(&split("a")[..]));
        assert_eq!(below(&split("a.xmy.corp"), "My.Corp"), None);
        assert_eq!(below(&split("corp"), "My.Corp"), None);
        assert_eq!(below(&split("a"), ""), None);
    }
}
