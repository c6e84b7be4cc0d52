//! The clock of this machine, compared with those of the servers.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::parse_http_date;
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
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let ours = SystemTime::now();
    Some((seconds(parse_http_date(&answer.date?).ok()?), seconds(ours)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::doctor::Level;

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
