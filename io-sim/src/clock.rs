//! Clocks that are wrong: an offset, a drift, and jumps of the wall clock.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proconsul_core::time::{Mono, Now, Wall};
use proconsul_io_real::ports::Clock;
use serde::{Deserialize, Serialize};

use crate::time::{sim_now, sim_sleep_until};

/// How a host's clocks differ from the simulation's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockError {
    /// What the monotonic clock shows when the simulation begins, in nanoseconds.
    pub origin_ns: u64,
    /// How much faster than real time the clocks run, in parts per million; negative is slower.
    pub drift_ppm: i64,
    /// How far the wall clock is ahead, in milliseconds.
    pub wall_offset_ms: i64,
}

/// Midnight of the first of January 2026, when every simulation begins.
const EPOCH_MS: i64 = 1_767_225_600_000;

/// A host's clocks. Clones share them; they go on while the host's process is down.
#[derive(Clone, Debug)]
pub struct SimClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Simulated time at which the drift last changed, and what the monotonic clock showed then.
    anchor: (u64, u64),
    drift_ppm: i64,
    wall_offset_ms: i64,
}

impl SimClock {
    /// Clocks with an error that lasts until it is changed.
    #[must_use]
    pub fn new(error: ClockError) -> SimClock {
        SimClock(Arc::new(Mutex::new(State {
            anchor: (0, error.origin_ns),
            drift_ppm: error.drift_ppm,
            wall_offset_ms: error.wall_offset_ms,
        })))
    }

    /// Changes the drift. The monotonic clock goes on from what it shows.
    pub fn set_drift(&self, drift_ppm: i64) {
        let mut state = self.lock();
        let now = sim_now();
        state.anchor = (now, state.local(now));
        state.drift_ppm = drift_ppm;
    }

    /// Makes the wall clock jump, forwards or backwards. The monotonic clock does not notice.
    pub fn jump_wall(&self, by_ms: i64) {
        self.lock().wall_offset_ms += by_ms;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("a simulation runs on one thread and ends with its first panic")
    }
}

impl State {
    /// What the monotonic clock shows at a simulated time not before the anchor.
    fn local(&self, at: u64) -> u64 {
        let elapsed = i128::from(at - self.anchor.0);
        let local = i128::from(self.anchor.1) + elapsed + elapsed * i128::from(self.drift_ppm) / 1_000_000;
        u64::try_from(local).expect("clocks run forwards, and for less than five centuries")
    }

    /// A simulated time at which the monotonic clock shows `local` or, because of rounding, a little less.
    fn global(&self, local: u64) -> u64 {
        let elapsed = i128::from(local.saturating_sub(self.anchor.1));
        let global =
            i128::from(self.anchor.0) + elapsed * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        u64::try_from(global).unwrap_or(u64::MAX)
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Now {
        let state = self.lock();
        let mono = state.local(sim_now());
        let wall_ms = EPOCH_MS + i64::try_from(mono / 1_000_000).unwrap_or(0) + state.wall_offset_ms;
        Now { mono: Mono(mono), wall: Wall(u64::try_from(wall_ms).unwrap_or(0)) }
    }

    async fn sleep_until(&self, at: Mono) {
        if at == Mono::NEVER {
            return std::future::pending().await;
        }
        while self.now().mono < at {
            let global = self.lock().global(at.0);
            // At least a microsecond: rounding must not turn this into a loop that stops time.
            sim_sleep_until(global.max(sim_now() + 1_000)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::in_sim;
    use crate::time::sim_sleep;

    #[test]
    fn a_fast_clock_wakes_early_and_a_slow_one_late() {
        let (fast, slow) = in_sim(1, || async {
            let mut took = Vec::new();
            for drift_ppm in [10_000, -10_000] {
                let clock = SimClock::new(ClockError { origin_ns: 77, drift_ppm, wall_offset_ms: 0 });
                let (from, began) = (clock.now().mono, sim_now());
                clock.sleep_until(from + Duration::from_secs(100)).await;
                assert!(clock.now().mono >= from + Duration::from_secs(100));
                took.push((sim_now() - began) / 1_000_000);
            }
            (took[0], took[1])
        });
        assert!((99_009..99_015).contains(&fast), "{fast}");
        assert!((101_010..101_016).contains(&slow), "{slow}");
    }

    #[test]
    fn a_change_of_drift_and_a_jump_of_the_wall_clock_leave_the_monotonic_clock_where_it_was() {
        in_sim(1, || async {
            let clock = SimClock::new(ClockError::default());
            sim_sleep(Duration::from_secs(5)).await;
            let before = clock.now();
            clock.set_drift(-500_000);
            clock.jump_wall(-3_600_000);
            let after = clock.now();
            assert_eq!(before.mono, after.mono);
            assert_eq!(before.wall.0 - after.wall.0, 3_600_000);
            sim_sleep(Duration::from_secs(10)).await;
            let passed = clock.now().mono.since(after.mono).as_millis();
            assert!((5_000..5_010).contains(&passed), "{passed}");
        });
    }
}
