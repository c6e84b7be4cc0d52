//! `/v1/agent` where it is about the process around the node: its metrics, its log, its machine, its configuration.

use super::HttpReply;
use super::route::{Context, Handled, Routed};

/// What the process is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The metrics of the last interval.
    Metrics {
        /// In the text format of Prometheus instead of JSON.
        prometheus: bool,
    },
    /// The metrics of every interval from now on.
    MetricsStream,
    /// The log from now on.
    Monitor {
        /// Lowest level.
        level: LogLevel,
        /// One JSON object per line.
        json: bool,
    },
    /// What the machine is.
    Host,
    /// To read the configuration again.
    Reload,
    /// The web page.
    Page,
}

/// Levels of the log, from the most talkative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What may need attention.
    Warn,
    /// What needs attention.
    Error,
}

impl LogLevel {
    /// Reads a level in any letter case.
    #[must_use]
    pub fn parse(text: &str) -> Option<LogLevel> {
        Some(match text.to_ascii_lowercase().as_str() {
            "trace" => LogLevel::Trace,
            "debug" => LogLevel::Debug,
            "info" => LogLevel::Info,
            "warn" | "warning" => LogLevel::Warn,
            "err" | "error" => LogLevel::Error,
            _ => return None,
        })
    }
}

fn wish(context: &Context<'_>, wish: Wish) -> Handled {
    Ok(Routed::Process { wish, indent: context.params.pretty(context.about()) })
}

pub(super) fn metrics(context: &Context<'_>) -> Handled {
    wish(context, Wish::Metrics { prometheus: context.params.get("format") == Some("prometheus") })
}

pub(super) fn metrics_stream(context: &Context<'_>) -> Handled {
    wish(context, Wish::MetricsStream)
}

pub(super) fn monitor(context: &Context<'_>) -> Handled {
    let word = context.params.filled("loglevel").unwrap_or("INFO");
    let level = LogLevel::parse(word)
        .ok_or_else(|| HttpReply::text(400, format!("Bad request: Unknown log level: {word}")))?;
    wish(context, Wish::Monitor { level, json: context.params.has("logjson") })
}

pub(super) fn host(context: &Context<'_>) -> Handled {
    wish(context, Wish::Host)
}

pub(super) fn reload(context: &Context<'_>) -> Handled {
    wish(context, Wish::Reload)
}
