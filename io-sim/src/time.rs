//! The one clock of the simulation, which no host ever sees directly.

use std::time::Duration;

use madsim::time::TimeHandle;

/// Nanoseconds since the simulation began. All hosts' clocks, all latencies and all faults are derived from this.
#[must_use]
pub fn sim_now() -> u64 {
    nanos(TimeHandle::current().elapsed())
}

/// Waits until the simulation has reached `at`, in nanoseconds. The simulator wakes at most a millisecond late.
pub async fn sim_sleep_until(at: u64) {
    loop {
        let now = sim_now();
        if now >= at {
            return;
        }
        madsim::time::sleep(Duration::from_nanos(at - now)).await;
    }
}

/// Waits for a time of the simulation.
pub async fn sim_sleep(time: Duration) {
    madsim::time::sleep(time).await;
}

/// Whole nanoseconds, saturating after five centuries.
#[must_use]
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
