//! The real clocks, and tokio as the executor.

use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use proconsul_core::time::{Mono, Now, Wall};

use crate::ports::{Clock, Spawn};

/// The machine's clocks. The monotonic one counts from the clock's creation.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    origin: Instant,
}

impl RealClock {
    /// A clock that begins now, at one second, so that «a moment ago» is never before its origin.
    #[must_use]
    pub fn new() -> RealClock {
        let now = Instant::now();
        RealClock { origin: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        RealClock::new()
    }
}

#[async_trait]
impl Clock for RealClock {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: Mono(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            wall: Wall(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    async fn sleep_until(&self, at: Mono) {
        tokio::time::sleep_until((self.origin + Duration::from_nanos(at.0)).into()).await;
    }
}

/// Starts tasks on a tokio runtime.
#[derive(Clone, Debug)]
pub struct TokioSpawn(pub tokio::runtime::Handle);

impl Spawn for TokioSpawn {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }
}
