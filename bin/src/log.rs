//! The agent's log: one line per event, levels as Consul names them, JSON on request, to standard output and, where that
//! is asked for, to files and to the system's log.

mod file;
mod syslog;

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use proconsul_core::api::LogLevel;
use tokio::sync::mpsc;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use self::file::Files;
pub use self::file::LogFile;
pub use self::syslog::Facility;
use self::syslog::Syslog;

/// Levels, from the most talkative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator wants to know.
    #[default]
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

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Level {
        match level {
            LogLevel::Trace => Level::Trace,
            LogLevel::Debug => Level::Debug,
            LogLevel::Info => Level::Info,
            LogLevel::Warn => Level::Warn,
            LogLevel::Error => Level::Err,
        }
    }
}

type Handle = reload::Handle<EnvFilter, Registry>;

/// What can be changed about the log of this process.
struct Control {
    outputs: Vec<Handle>,
    text: (Handle, &'static Taps),
    json: (Handle, &'static Taps),
}

static CONTROL: OnceLock<Control> = OnceLock::new();
static TEXT: Taps = Taps::new();
static JSON: Taps = Taps::new();

/// Starts logging for the rest of the process. A second call changes nothing.
///
/// Events of the libraries underneath appear one level later than ours: their details are rarely wanted.
///
/// # Errors
/// The log's file cannot be made.
pub fn start(config: &crate::config::LogConfig) -> io::Result<()> {
    let mut outputs = Vec::new();
    let mut layers = Vec::new();
    let mut add = |layer: &dyn Fn(reload::Layer<EnvFilter, Registry>) -> Boxed, level| {
        let (filter, handle) = reload::Layer::new(filter(level));
        layers.push(layer(filter));
        handle
    };
    let plain = |writer: BoxMakeWriter, filter| {
        let layer = fmt::layer().with_ansi(false).with_writer(writer);
        if config.json { layer.json().with_filter(filter).boxed() } else { layer.with_filter(filter).boxed() }
    };
    outputs.push(add(&|filter| plain(BoxMakeWriter::new(io::stdout), filter), Some(config.level)));
    if let Some(file) = &config.file {
        // For the rest of the process, as is the log.
        let files: &'static Files = Box::leak(Box::new(Files::begin(file.clone())?));
        outputs.push(add(&|filter| plain(BoxMakeWriter::new(files), filter), Some(config.level)));
    }
    let mut warning = None;
    if let Some(facility) = config.syslog {
        let syslog: &'static Syslog = Box::leak(Box::new(Syslog::of_system(facility)));
        warning =
            (!syslog.listens()).then_some("enable_syslog: nobody listens at /dev/log; lines for it are lost");
        let layer = |filter| {
            // The system's log has times of its own.
            fmt::layer().with_ansi(false).without_time().with_writer(syslog).with_filter(filter).boxed()
        };
        outputs.push(add(&layer, Some(config.level)));
    }
    let text = |filter| fmt::layer().with_ansi(false).with_writer(&TEXT).with_filter(filter).boxed();
    let json = |filter| fmt::layer().json().with_ansi(false).with_writer(&JSON).with_filter(filter).boxed();
    let (text, json) = (add(&text, None), add(&json, None));
    // Only a test or an embedding program has a subscriber already; it then decides what is shown.
    if Registry::default().with(layers).try_init().is_ok() {
        let control = Control { outputs, text: (text, &TEXT), json: (json, &JSON) };
        // Nobody else sets it: there is one subscriber in a process.
        let _ = CONTROL.set(control);
    }
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    Ok(())
}

type Boxed = Box<dyn tracing_subscriber::Layer<Registry> + Send + Sync>;

/// What is shown at a level; `None` shows nothing.
fn filter(level: Option<Level>) -> EnvFilter {
    let (ours, theirs) = match level {
        None => return EnvFilter::new("off"),
        Some(Level::Trace) => (Level::Trace, Level::Debug),
        Some(Level::Debug) => (Level::Debug, Level::Info),
        Some(Level::Info) => (Level::Info, Level::Warn),
        Some(other) => (other, other),
    };
    EnvFilter::new(format!(
        "{},proconsul={1},proconsul_core={1},proconsul_io_real={1}",
        theirs.directive(),
        ours.directive()
    ))
}

/// Logs from another level on.
pub fn set_level(level: Level) {
    if let Some(control) = CONTROL.get() {
        for output in &control.outputs {
            // It fails when the subscriber is gone, and the log with it.
            let _ = output.reload(filter(Some(level)));
        }
    }
}

/// The log's lines from this level on, for as long as the receiver lives. Lines that it does not take in time are
/// dropped, and their number is told.
pub fn monitor(level: Level, json: bool) -> mpsc::Receiver<Bytes> {
    let (sender, lines) = mpsc::channel(LINES_MAX);
    let Some(control) = CONTROL.get() else { return lines };
    let (handle, taps) = if json { &control.json } else { &control.text };
    taps.add(Tap { level, sender: sender.clone(), dropped: 0 });
    // It fails when the subscriber is gone, and the log with it.
    let _ = handle.reload(filter(taps.lowest()));
    tokio::spawn(async move {
        sender.closed().await;
        taps.remove_closed();
        let _ = handle.reload(filter(taps.lowest()));
    });
    lines
}

/// Lines that wait for somebody who reads the log from afar.
const LINES_MAX: usize = 512;

/// Those who read the log from afar, in one format.
struct Taps(Mutex<Vec<Tap>>);

struct Tap {
    level: Level,
    sender: mpsc::Sender<Bytes>,
    dropped: u64,
}

impl Taps {
    const fn new() -> Taps {
        Taps(Mutex::new(Vec::new()))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Tap>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, tap: Tap) {
        self.all().push(tap);
    }

    fn lowest(&self) -> Option<Level> {
        self.all().iter().map(|tap| tap.level).min()
    }

    fn remove_closed(&self) {
        self.all().retain(|tap| !tap.sender.is_closed());
    }

    fn offer(&self, level: Level, line: &[u8]) {
        let line = Bytes::copy_from_slice(line);
        for tap in self.all().iter_mut().filter(|tap| tap.level <= level) {
            if tap.dropped > 0 {
                let text = format!("[WARN] Monitor dropped {} logs during monitor request\n", tap.dropped);
                if tap.sender.try_send(text.into()).is_ok() {
                    tap.dropped = 0;
                }
            }
            if tap.sender.try_send(line.clone()).is_err() {
                tap.dropped += 1;
            }
        }
    }
}

/// One line on its way to those who want its level.
struct Line {
    taps: &'static Taps,
    level: Level,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.taps.offer(self.level, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for &'static Taps {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { taps: self, level: Level::Err }
    }

    fn make_writer_for(&self, about: &tracing::Metadata<'_>) -> Line {
        let level = match *about.level() {
            tracing::Level::TRACE => Level::Trace,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::INFO => Level::Info,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::ERROR => Level::Err,
        };
        Line { taps: self, level }
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

    #[test]
    fn a_reader_from_afar_gets_its_level_and_learns_what_it_missed() {
        let taps = Taps::new();
        let (sender, mut lines) = mpsc::channel(1);
        taps.add(Tap { level: Level::Info, sender, dropped: 0 });
        assert_eq!(taps.lowest(), Some(Level::Info));
        taps.offer(Level::Debug, b"no");
        for line in [b"1", b"2", b"3"] {
            taps.offer(Level::Info, line);
        }
        assert_eq!(lines.try_recv().expect("the first"), "1");
        taps.offer(Level::Warn, b"4");
        let told = lines.try_recv().expect("a line");
        assert!(told.starts_with(b"[WARN] Monitor dropped 2 logs"), "{told:?}");
        drop(lines);
        taps.remove_closed();
        assert_eq!(taps.lowest(), None);
    }
}
