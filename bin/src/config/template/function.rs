//! The functions of templates.

use std::cmp::Ordering;
use std::net::IpAddr;

use proconsul_core::network::Network;
use regex_lite::Regex;

use super::Piece;
use super::interface::{Interface, number};

/// Networks that packets are not forwarded from or to (RFC 6890, column «Forwardable»).
const NOT_FORWARDABLE: &[&str] = &[
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "100::/64",
    "2001:db8::/32",
    "2001:10::/28",
    "fe80::/10",
];

/// Networks by the RFC that names them.
const RFCS: &[(u32, &[&str])] = &[
    (1112, &["224.0.0.0/4"]),
    (1122, &["0.0.0.0/8", "127.0.0.0/8"]),
    (1918, &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]),
    (2544, &["198.18.0.0/15"]),
    (3849, &["2001:db8::/32"]),
    (3927, &["169.254.0.0/16"]),
    (4193, &["fc00::/7"]),
    (4291, &["::/128", "::1/128", "fe80::/10", "ff00::/8"]),
    (5737, &["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"]),
    (6598, &["100.64.0.0/10"]),
    (
        6890,
        &[
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "240.0.0.0/4",
            "255.255.255.255/32",
            "::1/128",
            "::/128",
            "64:ff9b::/96",
            "::ffff:0:0/96",
            "100::/64",
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "fc00::/7",
            "fe80::/10",
        ],
    ),
];

/// Calls a function. The last argument is what the pipeline hands on.
pub(super) fn call(name: &str, arguments: Vec<Piece>, all: &[Interface]) -> Result<Piece, String> {
    let mut arguments = Arguments { function: name, list: arguments.into_iter() };
    let result = match name {
        "GetAllInterfaces" => Piece::Interfaces(all.to_vec()),
        "GetDefaultInterfaces" => Piece::Interfaces(default(all)),
        "GetPrivateInterfaces" => Piece::Interfaces(routable(all, true)),
        "GetPublicInterfaces" => Piece::Interfaces(routable(all, false)),
        "GetPrivateIP" => first_of(&routable(all, true)),
        "GetPublicIP" => first_of(&routable(all, false)),
        "GetPrivateIPs" => joined(&routable(all, true)),
        "GetPublicIPs" => joined(&routable(all, false)),
        "GetInterfaceIP" => {
            let name = arguments.text()?;
            first_of(&sorted(select(all, |one| one.name == name && forwardable(one)), "type,size")?)
        }
        "GetInterfaceIPs" => {
            let name = arguments.text()?;
            joined(&sorted(select(all, |one| one.name == name), "type,size")?)
        }
        "include" | "exclude" => {
            let (selector, wanted) = (arguments.text()?, arguments.text()?);
            let list = arguments.interfaces()?;
            let fits = fits(name, &selector, &wanted)?;
            Piece::Interfaces(select(&list, |one| fits(one) == (name == "include")))
        }
        "sort" => {
            let keys = arguments.text()?;
            Piece::Interfaces(sorted(arguments.interfaces()?, &keys)?)
        }
        "limit" => {
            let most = arguments.number()?;
            let most = usize::try_from(most).map_err(|_| format!("limit {most} is below zero"))?;
            let mut list = arguments.interfaces()?;
            list.truncate(most);
            Piece::Interfaces(list)
        }
        "offset" => {
            let offset = arguments.number()?;
            let mut list = arguments.interfaces()?;
            let from = if offset < 0 {
                list.len().checked_sub(usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX))
            } else {
                usize::try_from(offset).ok().filter(|from| *from <= list.len())
            };
            let from =
                from.ok_or_else(|| format!("offset {offset}: there are only {} addresses", list.len()))?;
            Piece::Interfaces(list.split_off(from))
        }
        "unique" => {
            let by = arguments.text()?;
            let mut seen = Vec::new();
            let mut unique = Vec::new();
            for one in arguments.interfaces()? {
                let value = attribute(&by, &one)?;
                if !seen.contains(&value) {
                    seen.push(value);
                    unique.push(one);
                }
            }
            Piece::Interfaces(unique)
        }
        "attr" => {
            let wanted = arguments.text()?;
            let list = arguments.interfaces()?;
            // A name that does not exist is a mistake also where there is nothing to look at.
            known_attribute(&wanted)?;
            Piece::Text(list.first().map(|one| attribute(&wanted, one)).transpose()?.unwrap_or_default())
        }
        "join" => {
            let (wanted, between) = (arguments.text()?, arguments.text()?);
            known_attribute(&wanted)?;
            let list = arguments.interfaces()?;
            let list: Result<Vec<String>, String> = list.iter().map(|one| attribute(&wanted, one)).collect();
            Piece::Text(list?.join(&between))
        }
        "math" => {
            let (operation, by) = (arguments.text()?, arguments.text()?);
            let list = arguments.interfaces()?;
            let list: Result<Vec<Interface>, String> =
                list.iter().map(|one| math(&operation, &by, one)).collect();
            Piece::Interfaces(list?)
        }
        "with" | "range" | "if" | "else" | "end" | "define" | "template" | "block" => {
            return Err(format!(
                "{name} is not known here: write a pipeline such as GetPrivateInterfaces | attr \"address\""
            ));
        }
        _ => return Err(format!("function {name:?} not defined")),
    };
    arguments.none_left()?;
    Ok(result)
}

/// The arguments of one call, taken in order.
struct Arguments<'a> {
    function: &'a str,
    list: std::vec::IntoIter<Piece>,
}

impl Arguments<'_> {
    fn next(&mut self) -> Result<Piece, String> {
        self.list.next().ok_or_else(|| format!("wrong number of args for {}", self.function))
    }

    fn text(&mut self) -> Result<String, String> {
        match self.next()? {
            Piece::Text(text) => Ok(text),
            Piece::Interfaces(_) => Err(format!("{} wants text where interfaces stand", self.function)),
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let text = self.text()?;
        text.parse().map_err(|_| format!("{} wants a number, not {text:?}", self.function))
    }

    fn interfaces(&mut self) -> Result<Vec<Interface>, String> {
        match self.next()? {
            Piece::Interfaces(list) => Ok(list),
            Piece::Text(_) => {
                Err(format!("{} wants interfaces, such as GetAllInterfaces gives", self.function))
            }
        }
    }

    fn none_left(mut self) -> Result<(), String> {
        if self.list.next().is_some() {
            Err(format!("wrong number of args for {}", self.function))
        } else {
            Ok(())
        }
    }
}

fn select(list: &[Interface], fits: impl Fn(&Interface) -> bool) -> Vec<Interface> {
    list.iter().filter(|one| fits(one)).cloned().collect()
}

fn within(networks: &[&str], address: IpAddr) -> bool {
    networks
        .iter()
        .any(|network| Network::parse(network).expect("the tables hold networks").contains(address))
}

fn forwardable(one: &Interface) -> bool {
    !within(NOT_FORWARDABLE, one.address)
}

fn networks_of(rfc: u32) -> Option<&'static [&'static str]> {
    RFCS.iter().find(|(known, _)| *known == rfc).map(|(_, networks)| *networks)
}

/// Addresses that others can reach, with the private ones or without.
fn routable(all: &[Interface], private: bool) -> Vec<Interface> {
    let networks = networks_of(6890).expect("it is in the table");
    let list = select(all, |one| {
        forwardable(one) && one.flags.contains(&"up") && within(networks, one.address) == private
    });
    sorted(list, "default,type,size").expect("the keys are known")
}

fn default(all: &[Interface]) -> Vec<Interface> {
    let list = select(all, |one| one.is_default && one.flags.contains(&"up"));
    sorted(list, "default,type,size").expect("the keys are known")
}

fn first_of(list: &[Interface]) -> Piece {
    Piece::Text(list.first().map(|one| one.address.to_string()).unwrap_or_default())
}

fn joined(list: &[Interface]) -> Piece {
    let list: Vec<String> = list.iter().map(|one| one.address.to_string()).collect();
    Piece::Text(list.join(" "))
}

type Fits = Box<dyn Fn(&Interface) -> bool>;

/// What `include` and `exclude` look for.
fn fits(function: &str, selector: &str, wanted: &str) -> Result<Fits, String> {
    let regex = || Regex::new(wanted).map_err(|error| format!("{function} {selector:?}: {error}"));
    let words: Vec<String> = wanted.split('|').map(|word| word.trim().to_ascii_lowercase()).collect();
    Ok(match selector.to_ascii_lowercase().as_str() {
        "address" => {
            let regex = regex()?;
            Box::new(move |one| regex.is_match(&one.address.to_string()))
        }
        "name" => {
            let regex = regex()?;
            Box::new(move |one| regex.is_match(&one.name))
        }
        "flag" | "flags" => {
            for word in &words {
                flag(word, None)?;
            }
            Box::new(move |one| words.iter().all(|word| flag(word, Some(one)).unwrap_or(false)))
        }
        "network" => {
            let networks: Option<Vec<Network>> = words.iter().map(|word| Network::parse(word)).collect();
            let networks =
                networks.ok_or_else(|| format!("{function} \"network\": {wanted:?} is no network"))?;
            Box::new(move |one| networks.iter().any(|network| network.contains(one.address)))
        }
        "rfc" | "rfcs" => {
            let mut networks = Vec::new();
            for word in &words {
                let known = word.trim_start_matches("rfc").trim().parse().ok().and_then(networks_of);
                networks.extend(known.ok_or_else(|| {
                    format!("{function} \"rfc\": RFC {word} names no networks that are known here")
                })?);
            }
            Box::new(move |one| within(&networks, one.address))
        }
        "size" => {
            let bits: u8 = wanted
                .trim_start_matches('/')
                .parse()
                .map_err(|_| format!("{function} \"size\": {wanted:?} is no number of bits"))?;
            Box::new(move |one| one.bits == bits)
        }
        "type" => {
            if let Some(odd) =
                words.iter().find(|word| !["ip", "ipv4", "ipv6", "unix"].contains(&word.as_str()))
            {
                return Err(format!("{function} \"type\": {odd:?} is none of ip, ipv4, ipv6 and unix"));
            }
            Box::new(move |one| {
                words.iter().any(|word| match word.as_str() {
                    "ip" => true,
                    "ipv4" => one.address.is_ipv4(),
                    "ipv6" => one.address.is_ipv6(),
                    _ => false,
                })
            })
        }
        _ => return Err(format!("invalid {function} selector {selector:?}")),
    })
}

/// Whether an address has a flag; without an address, whether there is such a flag.
fn flag(word: &str, one: Option<&Interface>) -> Result<bool, String> {
    let holds = |holds: fn(&Interface) -> bool| one.is_some_and(holds);
    Ok(match word {
        "up" => holds(|one| one.flags.contains(&"up")),
        "down" => holds(|one| !one.flags.contains(&"up")),
        "broadcast" => holds(|one| one.flags.contains(&"broadcast")),
        "loopback" => holds(|one| one.address.is_loopback() || one.flags.contains(&"loopback")),
        "pointtopoint" | "point-to-point" => holds(|one| one.flags.contains(&"pointtopoint")),
        "multicast" => holds(|one| one.flags.contains(&"multicast") || one.address.is_multicast()),
        "forwardable" => holds(forwardable),
        "global unicast" => holds(|one| {
            let link_local = within(&["169.254.0.0/16", "fe80::/10"], one.address);
            !(one.address.is_loopback()
                || one.address.is_unspecified()
                || one.address.is_multicast()
                || link_local)
        }),
        "link-local unicast" => holds(|one| within(&["169.254.0.0/16", "fe80::/10"], one.address)),
        "unspecified" => holds(|one| one.address.is_unspecified()),
        _ => return Err(format!("unknown flag {word:?}")),
    })
}

type Compare = fn(&Interface, &Interface) -> Ordering;

/// Sorts by several keys; `-` before one turns it round.
fn sorted(mut list: Vec<Interface>, keys: &str) -> Result<Vec<Interface>, String> {
    let mut order: Vec<(bool, Compare)> = Vec::new();
    for key in keys.split(',').map(str::trim) {
        let (reverse, name) = match key.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, key.strip_prefix('+').unwrap_or(key)),
        };
        order.push((
            reverse,
            match name {
                "address" => |a, b| number(a.address).cmp(&number(b.address)),
                "default" => |a, b| b.is_default.cmp(&a.is_default),
                "name" => |a, b| a.name.cmp(&b.name),
                "port" => |_, _| Ordering::Equal,
                "private" => |a, b| is_private(b).cmp(&is_private(a)),
                // The larger network comes first.
                "size" => {
                    |a, b| (a.width() - u32::from(a.bits)).cmp(&(b.width() - u32::from(b.bits))).reverse()
                }
                "type" => |a, b| a.width().cmp(&b.width()),
                _ => return Err(format!("unknown sort type: {key:?}")),
            },
        ));
    }
    list.sort_by(|a, b| {
        let one = |(reverse, compare): &(bool, Compare)| {
            if *reverse { compare(b, a) } else { compare(a, b) }
        };
        order.iter().map(one).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
    Ok(list)
}

fn is_private(one: &Interface) -> bool {
    networks_of(6890).is_some_and(|networks| within(networks, one.address))
}

fn known_attribute(name: &str) -> Result<(), String> {
    const KNOWN: [&str; 15] = [
        "address",
        "binary",
        "broadcast",
        "first_usable",
        "flags",
        "hex",
        "host",
        "last_usable",
        "mask_bits",
        "name",
        "netmask",
        "network",
        "size",
        "string",
        "type",
    ];
    match KNOWN.contains(&name.to_ascii_lowercase().as_str()) {
        true => Ok(()),
        false => Err(format!("unsupported attribute name {name:?}")),
    }
}

/// What is known of an address.
fn attribute(name: &str, one: &Interface) -> Result<String, String> {
    known_attribute(name)?;
    let (first, last) = one.range();
    let width = one.width();
    let size = last - first;
    // The first and the last of an IPv4 network are no host's, unless it is as small as that.
    let edge = u128::from(one.address.is_ipv4() && size > 1);
    Ok(match name.to_ascii_lowercase().as_str() {
        "address" | "host" => one.address.to_string(),
        "binary" => format!("{:0width$b}", number(one.address), width = width as usize),
        "hex" => format!("{:0width$x}", number(one.address), width = width as usize / 4),
        "broadcast" => one.like(last).to_string(),
        "first_usable" => one.like(first + edge).to_string(),
        "last_usable" => one.like(last - edge).to_string(),
        "flags" => one.flags.join("|"),
        "mask_bits" => one.bits.to_string(),
        "name" => one.name.clone(),
        "netmask" => {
            let whole = if width == 32 { u128::from(u32::MAX) } else { u128::MAX };
            one.like(whole ^ size).to_string()
        }
        "network" => one.network(),
        "size" => size
            .checked_add(1)
            .map_or_else(|| "340282366920938463463374607431768211456".to_owned(), |size| size.to_string()),
        "string" => format!("{}/{}", one.address, one.bits),
        _ => if one.address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
    })
}

/// Reckons with an address.
fn math(operation: &str, by: &str, one: &Interface) -> Result<Interface, String> {
    let bad = || format!("math {operation:?}: {by:?} is no number");
    let moved = |from: u128, more: i128| -> Result<IpAddr, String> {
        let by: i128 = by.parse().map_err(|_| bad())?;
        let result = from
            .checked_add_signed(by.saturating_add(more))
            .filter(|number| one.width() == 128 || *number <= u32::MAX.into());
        result
            .map(|number| one.like(number))
            .ok_or_else(|| format!("math {operation:?}: {by} leads out of all addresses"))
    };
    let (first, last) = one.range();
    Ok(match operation.to_ascii_lowercase().as_str() {
        "address" => Interface { address: moved(number(one.address), 0)?, ..one.clone() },
        // Backwards from behind the end of the network, as go-sockaddr has it.
        "network" if by.starts_with('-') => Interface { address: moved(last, 1)?, ..one.clone() },
        "network" => Interface { address: moved(first, 0)?, ..one.clone() },
        "mask" => {
            let bits: u8 = by.trim_start_matches('/').parse().map_err(|_| bad())?;
            if u32::from(bits) > one.width() {
                return Err(format!("math \"mask\": {bits} bits are too many"));
            }
            let masked = Interface { bits, ..one.clone() };
            Interface { address: masked.like(masked.range().0), ..masked }
        }
        _ => return Err(format!("unsupported math operation {operation:?}")),
    })
}
