//! A clock that goes on while the machine is suspended.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::holder::Moment;

/// Timers of the system do not count a suspension, so nobody sleeps for longer than this without looking at the clock.
pub const LOOK: Duration = Duration::from_millis(250);

/// The time since the machine was started.
#[must_use]
pub fn now() -> Moment {
    #[cfg(target_os = "linux")]
    let id = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let id = ClockId::Monotonic;
    let time = clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).expect("the machine was started before now");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("less than a second"))
}

/// Completes at this moment, or a little earlier when it is far away.
pub async fn until(moment: Option<Moment>) {
    let left = moment.map_or(LOOK, |moment| moment.saturating_sub(now()));
    tokio::time::sleep(left.min(LOOK)).await;
}
