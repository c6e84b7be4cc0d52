//! How far a long command is.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// A line on standard error that is written over. Where that is no terminal, somebody wants to read what else is written
/// there: nothing then, or a line now and then if that is asked for.
pub struct Progress {
    begun: Instant,
    shown: Option<Instant>,
    total: u64,
    done: u64,
    failed: u64,
    is_terminal: bool,
    is_wanted: bool,
}

const WIDTH: u64 = 30;

impl Progress {
    /// So much is to be done.
    pub fn of(total: u64, is_wanted: bool) -> Progress {
        let is_terminal = std::io::stderr().is_terminal();
        Progress {
            begun: Instant::now(),
            shown: None,
            total,
            done: 0,
            failed: 0,
            is_terminal,
            is_wanted: is_wanted || is_terminal,
        }
    }

    /// One more is done.
    pub fn advance(&mut self, failed: bool) {
        self.done += 1;
        self.failed += u64::from(failed);
        if !self.is_wanted {
            return;
        }
        let pause = if self.is_terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.done == self.total || self.shown.is_none_or(|at| at.elapsed() >= pause) {
            self.show();
        }
    }

    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64().max(1e-9)
    }

    /// Seeds in a second so far.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.seconds()
    }

    fn show(&mut self) {
        self.shown = Some(Instant::now());
        let left = (self.total - self.done) as f64 / self.rate();
        let full = self.done * WIDTH / self.total.max(1);
        let bar: String = (0..WIDTH).map(|at| if at < full { '#' } else { '.' }).collect();
        let Progress { done, total, failed, .. } = *self;
        let line = format!(
            "[{bar}] {done}/{total} seeds, {failed} failed, {:.1} seeds/s, {left:.0} s left",
            self.rate()
        );
        if self.is_terminal {
            let mut err = std::io::stderr();
            // Nothing depends on whether anybody sees it.
            let _ = write!(err, "\r{line}\x1b[K").and_then(|()| err.flush());
        } else {
            eprintln!("{line}");
        }
    }

    /// Makes room for a line of something else.
    pub fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
