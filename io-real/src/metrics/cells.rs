//! What is measured while requests are served: nothing here allocates or waits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::interval::Stats;

/// Counts and sums of one kind of event: of the interval that runs, and of all before it.
///
/// The parts of one event may fall into two intervals; nobody could tell, and nothing is lost.
#[derive(Debug)]
pub(super) struct Cell {
    count: AtomicU64,
    failed: AtomicU64,
    /// Nanoseconds.
    sum: AtomicU64,
    /// Squared microseconds.
    squares: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    former_count: AtomicU64,
    former_sum: AtomicU64,
}

impl Default for Cell {
    fn default() -> Cell {
        let zero = || AtomicU64::new(0);
        Cell {
            count: zero(),
            failed: zero(),
            sum: zero(),
            squares: zero(),
            min: AtomicU64::new(u64::MAX),
            max: zero(),
            former_count: zero(),
            former_sum: zero(),
        }
    }
}

impl Cell {
    /// Something happened.
    pub(super) fn add(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    /// Something took so long.
    pub(super) fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let micros = nanos / 1_000;
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
        // Looking costs less than an exchange on a line that other cores use, and there is seldom anything to change.
        if micros > 0 {
            self.squares.fetch_add(micros.saturating_mul(micros), Relaxed);
        }
        if nanos < self.min.load(Relaxed) {
            self.min.fetch_min(nanos, Relaxed);
        }
        if nanos > self.max.load(Relaxed) {
            self.max.fetch_max(nanos, Relaxed);
        }
    }

    /// What was recorded last was an error.
    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// How often it happened in this interval.
    pub(super) fn events(&self) -> Stats {
        Stats::of_events(self.count.load(Relaxed))
    }

    /// How often it went wrong in this interval.
    pub(super) fn failures(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// How long it took in this interval, in milliseconds.
    pub(super) fn times(&self) -> Stats {
        let count = self.count.load(Relaxed);
        if count == 0 {
            return Stats::default();
        }
        let millis = |nanos: u64| nanos as f64 / 1e6;
        Stats {
            count,
            sum: millis(self.sum.load(Relaxed)),
            squares: self.squares.load(Relaxed) as f64 / 1e6,
            // Another thread may be between its count and its minimum.
            min: millis(Some(self.min.load(Relaxed)).filter(|min| *min < u64::MAX).unwrap_or(0)),
            max: millis(self.max.load(Relaxed)),
        }
    }

    /// Count and milliseconds since the start.
    pub(super) fn totals(&self) -> (u64, f64) {
        let count = self.former_count.load(Relaxed) + self.count.load(Relaxed);
        let nanos = self.former_sum.load(Relaxed) + self.sum.load(Relaxed);
        (count, nanos as f64 / 1e6)
    }

    /// Begins another interval.
    pub(super) fn rotate(&self) {
        self.former_count.fetch_add(self.count.swap(0, Relaxed), Relaxed);
        self.former_sum.fetch_add(self.sum.swap(0, Relaxed), Relaxed);
        self.failed.store(0, Relaxed);
        self.squares.store(0, Relaxed);
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_starts_from_nothing_and_totals_go_on() {
        let cell = Cell::default();
        for millis in [1, 2, 3] {
            cell.record(Duration::from_millis(millis));
        }
        let times = cell.times();
        assert_eq!((times.count, times.sum, times.min, times.max), (3, 6.0, 1.0, 3.0));
        assert_eq!((times.mean(), times.deviation()), (2.0, 1.0));
        cell.rotate();
        assert_eq!(cell.times(), Stats::default());
        cell.record(Duration::from_millis(4));
        assert_eq!(cell.totals(), (4, 10.0));
        assert_eq!(cell.times().min, 4.0);
    }
}
