//! How far a command is, for somebody who looks at a terminal.

use std::time::{Duration, Instant};

use super::Terminal;

/// It is drawn anew at most so often.
const PACE: Duration = Duration::from_millis(100);
/// Letters of the bar.
const WIDTH: u64 = 30;

/// A line on a terminal's standard error; elsewhere nothing is written.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    /// How much there is to do, if that is known.
    total: Option<u64>,
    drawn: Option<Instant>,
}

impl Progress {
    /// Nothing is done yet.
    #[must_use]
    pub fn new(what: &'static str, total: Option<u64>) -> Progress {
        Progress { what, total, drawn: None }
    }

    /// So much is done.
    pub fn show(&mut self, done: u64, terminal: &mut Terminal<'_>) {
        if !terminal.err_is_terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < PACE) {
            return;
        }
        self.drawn = Some(Instant::now());
        let line = line(self.what, done, self.total);
        let _ = write!(terminal.err, "\r\x1b[K{line}").and_then(|()| terminal.err.flush());
    }

    /// Takes the line away, so that another one can be written.
    pub fn clear(&mut self, terminal: &mut Terminal<'_>) {
        if self.drawn.is_some() {
            let _ = write!(terminal.err, "\r\x1b[K").and_then(|()| terminal.err.flush());
        }
    }
}

fn line(what: &str, done: u64, total: Option<u64>) -> String {
    let Some(total) = total else { return format!("{what}: {done}") };
    let full = (done.min(total) * WIDTH).checked_div(total).unwrap_or(WIDTH);
    let bar: String = (0..WIDTH).map(|at| if at < full { '#' } else { '.' }).collect();
    format!("{what}: [{bar}] {done} of {total}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows_with_what_is_done() {
        assert_eq!(line("keys", 5, None), "keys: 5");
        let bar = |done| line("keys", done, Some(60)).matches('#').count();
        assert_eq!([bar(0), bar(30), bar(60), bar(99)], [0, 15, 30, 30]);
        assert!(line("keys", 0, Some(0)).contains("0 of 0"));
    }
}
