//! The log of one simulated run: kept in memory, stamped with simulated time, and with a memory for errors.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use madsim::time::TimeHandle;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, Layer};

/// So many last lines are kept.
const LINES_MAX: usize = 400;

/// What a run logs. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct RunLog(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    errors: Vec<String>,
    echo: bool,
    filter: Option<String>,
}

impl RunLog {
    /// A log that is also written to standard error as it comes, if `echo`.
    #[must_use]
    pub fn new(echo: bool) -> RunLog {
        RunLog(Arc::new(Mutex::new(State { echo, ..State::default() })))
    }

    /// The same, with its own idea of what is logged, in the form of `tracing`'s environment filters.
    #[must_use]
    pub fn filtered(self, filter: Option<String>) -> RunLog {
        self.lock().filter = filter;
        self
    }

    /// What to install as the default subscriber of the run's thread. `SIM_LOG` says what is logged, in the form of
    /// `tracing`'s environment filters; without it, `info` and what is worse.
    #[must_use]
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        let filter = match &self.lock().filter {
            Some(filter) => EnvFilter::new(filter),
            None => EnvFilter::try_from_env("SIM_LOG").unwrap_or_else(|_| EnvFilter::new("info,madsim=warn")),
        };
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_timer(SimTime)
            .with_writer(self.clone())
            .with_filter(filter);
        tracing_subscriber::registry().with(lines).with(ErrorCatcher(self.clone()))
    }

    /// The last lines.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    /// Everything that was logged as an error.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        self.lock().errors.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A run that panicked while it logged is reported with what it had logged before.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Simulated time, in seconds and microseconds.
struct SimTime;

impl FormatTime for SimTime {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        match TimeHandle::try_current() {
            Some(time) => {
                let elapsed = time.elapsed();
                write!(w, "{:>4}.{:06}", elapsed.as_secs(), elapsed.subsec_micros())
            }
            None => w.write_str("   -.------"),
        }
    }
}

impl<'a> MakeWriter<'a> for RunLog {
    type Writer = RunLog;

    fn make_writer(&'a self) -> RunLog {
        self.clone()
    }
}

impl io::Write for RunLog {
    /// The formatter hands over whole lines.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).trim_end().to_owned();
        let mut state = self.lock();
        if state.echo {
            eprintln!("{line}");
        }
        if state.lines.len() == LINES_MAX {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Remembers errors, whatever the filter lets through: an error must not happen, so it fails the run.
struct ErrorCatcher(RunLog);

impl<S: Subscriber> Layer<S> for ErrorCatcher {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            let mut text = format!("{}:", event.metadata().target());
            event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                let _ = write!(text, " {}={value:?}", field.name());
            });
            self.0.lock().errors.push(text);
        }
    }
}
