//! What happened, as one number.

use std::hash::Hasher as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fnv::FnvHasher;

use crate::net::HostId;
use crate::time::sim_now;

/// A running hash of everything that crossed a host's boundary: frames, bytes of streams, disk operations, faults,
/// each with its simulated time. Two runs of the same plan on the same code end with the same hash; if they do not,
/// something in them was not deterministic.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    hash: u64,
    events: u64,
    stop: Option<Stop>,
    /// Whether the end that was asked for was reached. Whatever is recorded later is part of the tear-down.
    is_stopped: bool,
}

impl Default for State {
    fn default() -> State {
        State { hash: FnvHasher::default().finish(), events: 0, stop: None, is_stopped: false }
    }
}

/// Where somebody who looks into a run wants it to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// With this event, counted from 1.
    Event(u64),
    /// With the first event at or after this simulated time.
    Time(Duration),
}

impl Trace {
    /// Adds an event.
    pub fn record(&self, what: &'static str, host: HostId, bytes: &[u8]) {
        let now = sim_now();
        let mut state = self.lock();
        if state.is_stopped {
            return;
        }
        state.events += 1;
        state.mix(&now.to_le_bytes());
        state.mix(&host.0.to_le_bytes());
        state.mix(what.as_bytes());
        state.mix(bytes);
        tracing::trace!(target: "trace", event = state.events, %host, what, len = bytes.len(), hash = state.hash);
        let is_over = match state.stop {
            Some(Stop::Event(event)) => state.events >= event,
            Some(Stop::Time(time)) => u128::from(now) >= time.as_nanos(),
            None => false,
        };
        if is_over {
            state.is_stopped = true;
            drop(state);
            panic!("the run ends here, as it was asked to");
        }
    }

    /// Ends the run there, by a panic: nothing that would end it otherwise leaves what comes before untouched.
    pub fn stop_at(&self, stop: Stop) {
        self.lock().stop = Some(stop);
    }

    /// Whether the run was ended by [`Trace::stop_at`].
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hash
    }

    /// How many events there were so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.lock().events
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a simulation runs on one thread, and nothing panics with this lock held")
    }
}

impl State {
    fn mix(&mut self, bytes: &[u8]) {
        // Collisions do not matter here, speed and stability between platforms do.
        let mut hasher = FnvHasher::with_key(self.hash);
        hasher.write(bytes);
        hasher.write_u8(0xff);
        self.hash = hasher.finish();
    }
}
