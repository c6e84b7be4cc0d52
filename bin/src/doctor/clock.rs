//! The clock of this machine, compared with those of the servers.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;

use super::Report;
use super::network::PATIENCE;
use crate::client::{Client, runtime};

const LOOK: &str = "clock";
/// The `Date` of an answer has whole seconds, and the answer takes its time.
const APART_MAX: u64 = 3;

/// Asks the servers on these machines for their time, in the way in which the client asks its agent; behind this port, where
/// that does not say.
pub fn look(client: &Client, servers: &[IpAddr], port: u16, report: &mut Report) {
    let mut agreed = 0;
    for server in servers {
        let Some((theirs, ours)) = time_of(&client.elsewhere(*server, port)) else { continue };
        let apart = theirs.abs_diff(ours);
        if apart > APART_MAX {
            let way = if ours < theirs { "behind" } else { "ahead of" };
            report.warn(
                LOOK,
                format!("this machine's clock is {apart} s {way} that of {server}"),
                "set both by an NTP client such as chrony: certificates and times in the log depend on them",
            );
        } else {
            agreed += 1;
        }
    }
    if agreed > 0 {
        report.ok(LOOK, format!("agrees with {agreed} of {} servers", servers.len()));
    }
}

/// A server's time and this machine's, in seconds; `None` if the server does not say.
fn time_of(server: &Client) -> Option<(u64, u64)> {
    let runtime = runtime().ok()?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, server.ask(Method::GET, "/v1/status/leader", &[], "")).await
    });
    let answer = answer.ok()?.ok()?;
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    Some((seconds(&answer.date?)?, ours))
}

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn seconds(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let fields: Vec<&str> = date.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = fields.as_slice() else { return None };
    let day: u64 = day.parse().ok()?;
    let month = 1 + MONTHS.iter().position(|known| known == month)? as u64;
    let year: u64 = year.parse().ok().filter(|year| *year >= 1970)?;
    // Days since 1970 of the first of March and of what follows: leap days then come last.
    let (march_year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = march_year * 365 + march_year / 4 - march_year / 100 + march_year / 400;
    let days = days + (march_month * 153 + 2) / 5 + day - 1 - 719_468;
    let parts: Vec<u64> = time.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hours, minutes, seconds] = parts.as_slice() else { return None };
    Some(days * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::doctor::Level;

    #[test]
    fn dates_of_http_are_read() {
        for (date, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000)),
            ("Sat, 21 Nov 2026 18:00:00 GMT", Some(1_795_284_000)),
            ("yesterday", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
        ] {
            assert_eq!(seconds(date), expected, "{date}");
        }
    }

    #[test]
    fn a_server_with_another_time_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut request = [0; 1000];
            let _ = stream.read(&mut request).expect("a request");
            stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n",
                )
                .expect("sent");
        });
        let mut report = Report::default();
        let client = Client::of(&address.to_string());
        look(&client, &[address.ip()], 0, &mut report);
        answering.join().expect("no panic");
        assert_eq!(report.worst(), Level::Warning);
        assert!(report.text().contains("ahead of that of 127.0.0.1"), "{}", report.text());
    }
}
