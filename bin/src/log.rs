//! The agent's log: one line per event, levels as Consul names them, JSON on request.

use std::io::Write;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Levels, from the most talkative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What may need attention.
    Warn,
    /// What needs attention.
    Err,
}

impl Level {
    /// Reads a level in any letter case; `error` and `warning` are taken too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Level> {
        match text.to_ascii_lowercase().as_str() {
            "trace" => Some(Level::Trace),
            "debug" => Some(Level::Debug),
            "info" => Some(Level::Info),
            "warn" | "warning" => Some(Level::Warn),
            "err" | "error" => Some(Level::Err),
            _ => None,
        }
    }

    /// The same as a filter directive.
    fn directive(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Err => "error",
        }
    }
}

/// Starts logging to standard output for the rest of the process. A second call changes nothing.
///
/// Events of the libraries underneath appear one level later than ours: their details are rarely wanted.
pub fn start(config: &crate::config::LogConfig) {
    let (ours, theirs) = match config.level {
        Level::Trace => (Level::Trace, Level::Debug),
        Level::Debug => (Level::Debug, Level::Info),
        Level::Info => (Level::Info, Level::Warn),
        other => (other, other),
    };
    let filter = EnvFilter::new(format!(
        "{},proconsul={1},proconsul_core={1},proconsul_io_real={1}",
        theirs.directive(),
        ours.directive()
    ));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(BoxMakeWriter::new(std::io::stdout));
    let started = if config.json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
    if started.is_err() {
        // Only a test or an embedding program has a subscriber already; it then decides what is shown.
        let _ = std::io::stderr().flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_in_any_letter_case() {
        for (text, level) in [
            ("TRACE", Some(Level::Trace)),
            ("err", Some(Level::Err)),
            ("Warn", Some(Level::Warn)),
            ("loud", None),
        ] {
            assert_eq!(Level::parse(text), level, "{text}");
        }
    }
}
