//! The log to the system's own: one datagram per line, as RFC 3164 has it, to `/dev/log`.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use tracing_subscriber::fmt::MakeWriter;

/// What the lines are filed under (RFC 3164, section 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

/// Names of facilities, by their numbers; those without a name cannot be written.
const FACILITIES: [&str; 24] = [
    "KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP", "",
    "", "", "", "LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5", "LOCAL6", "LOCAL7",
];

impl Facility {
    /// Reads a name, in any letter case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Facility> {
        let at = FACILITIES.iter().position(|known| !known.is_empty() && known.eq_ignore_ascii_case(name))?;
        u8::try_from(at).ok().map(Facility)
    }
}

/// The system's log.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: Option<UnixDatagram>,
    path: PathBuf,
    facility: Facility,
    tag: String,
}

impl Syslog {
    /// The log of this system. Lines for which nobody listens are lost.
    pub(super) fn of_system(facility: Facility) -> Syslog {
        Syslog::at("/dev/log".into(), facility)
    }

    fn at(path: PathBuf, facility: Facility) -> Syslog {
        let tag = format!("consul[{}]", std::process::id());
        Syslog { socket: UnixDatagram::unbound().ok(), path, facility, tag }
    }

    /// Whether somebody listens.
    pub(super) fn listens(&self) -> bool {
        self.path.exists()
    }

    fn send(&self, severity: u8, line: &[u8]) {
        let priority = self.facility.0 * 8 + severity;
        let mut datagram = format!("<{priority}>{}: ", self.tag).into_bytes();
        datagram.extend_from_slice(line.trim_ascii_end());
        if let Some(socket) = &self.socket {
            // To each datagram anew: the system's log may be started again.
            let _ = socket.send_to(&datagram, &self.path);
        }
    }
}

/// A line on its way, with the severity of its level.
pub(super) struct Line {
    syslog: &'static Syslog,
    severity: u8,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.syslog.send(self.severity, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for &'static Syslog {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { syslog: self, severity: 6 }
    }

    fn make_writer_for(&self, about: &tracing::Metadata<'_>) -> Line {
        // Severities of RFC 3164: 3 error, 4 warning, 6 informational, 7 debug.
        let severity = match *about.level() {
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 6,
            tracing::Level::DEBUG | tracing::Level::TRACE => 7,
        };
        Line { syslog: self, severity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facilities_are_known_by_name() {
        assert_eq!(Facility::parse("local0"), Some(Facility(16)));
        assert_eq!(Facility::parse("DAEMON"), Some(Facility(3)));
        assert_eq!([Facility::parse(""), Facility::parse("LOCAL8")], [None, None]);
    }

    #[test]
    fn a_line_becomes_a_datagram_with_its_priority() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let syslog = Syslog::at(path.clone(), Facility(16));
        assert!(!syslog.listens());
        syslog.send(6, b"lost\n");
        let there = UnixDatagram::bind(&path).expect("bound");
        assert!(syslog.listens());
        syslog.send(4, b"a line\n");
        let mut datagram = [0; 100];
        let length = there.recv(&mut datagram).expect("received");
        let text = String::from_utf8_lossy(&datagram[..length]);
        assert_eq!(text, format!("<132>consul[{}]: a line", std::process::id()));
    }
}
