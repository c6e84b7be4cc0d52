//! Whether those whom the agent is to join have a name that is known, and can be reached.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use proconsul_io_real::words::io_reason;

use super::Report;
use crate::config::Config;
use crate::config::join::{Host, Join};

/// How long an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at the addresses of `retry_join` and `retry_join_wan`.
pub fn look(config: &Config, report: &mut Report) {
    for (setting, join, is_used) in
        [("retry_join", &config.join_lan, true), ("retry_join_wan", &config.join_wan, config.server)]
    {
        if is_used {
            joined(setting, join, report);
        }
    }
    let expected = config.bootstrap_expect > 1 && !config.bootstrap;
    if config.join_lan.addresses.is_empty() && (expected || !config.server) {
        report.warn(
            "join",
            "retry_join is not set: this agent finds others only when it is joined by hand",
            "set retry_join to the addresses of the servers, or run `proconsul join`",
        );
    }
}

fn joined(setting: &str, join: &Join, report: &mut Report) {
    let mut reached = 0;
    let mut answers = Vec::new();
    for address in &join.addresses {
        let found: io::Result<Vec<SocketAddr>> = match &address.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, address.port)]),
            Host::Name(name) => (name.as_str(), address.port).to_socket_addrs().map(Iterator::collect),
        };
        match found {
            Ok(found) if !found.is_empty() => {
                for to in found {
                    answers.push((address.to_string(), to, reach(to)));
                }
            }
            Ok(_) => report.error(
                "names",
                format!("{setting}: {address} has no addresses"),
                "correct the name, or its records",
            ),
            Err(error) => {
                let reason = io_reason(&error);
                report.error(
                    "names",
                    format!("{setting}: {address} cannot be looked up: {reason}"),
                    "correct the name, or the system's resolver (/etc/resolv.conf)",
                );
            }
        }
    }
    for (name, to, answer) in &answers {
        match answer {
            Ok(()) => reached += 1,
            Err(error) => {
                let reason = io_reason(error);
                report.warn(
                    "peers",
                    format!("{setting}: {name} ({to}) cannot be reached: {reason}"),
                    "start the agent there, or open its gossip port for TCP and UDP in the firewall",
                );
            }
        }
    }
    if reached > 0 {
        report.ok("peers", format!("{setting}: {reached} of {} addresses can be reached", answers.len()));
    } else if !answers.is_empty() {
        report.error(
            "peers",
            format!("{setting}: none of {} addresses can be reached", answers.len()),
            "this agent stays alone until one of them answers",
        );
    }
}

/// Opens a connection, and closes it.
pub(super) fn reach(to: SocketAddr) -> io::Result<()> {
    TcpStream::connect_timeout(&to, PATIENCE).map(drop)
}
