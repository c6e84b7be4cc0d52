//! What happened, as one number.

use std::sync::{Arc, Mutex};

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
}

impl Default for State {
    fn default() -> State {
        State { hash: FNV_OFFSET, events: 0 }
    }
}

// Fowler, Noll, Vo: FNV-1a, 64 bits. Collisions do not matter here, speed and stability between platforms do.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl Trace {
    /// Adds an event.
    pub fn record(&self, what: &'static str, host: HostId, bytes: &[u8]) {
        let now = sim_now();
        let mut state = self.0.lock().expect("a simulation runs on one thread and ends with its first panic");
        state.events += 1;
        state.mix(&now.to_le_bytes());
        state.mix(&host.0.to_le_bytes());
        state.mix(what.as_bytes());
        state.mix(bytes);
        tracing::trace!(target: "trace", event = state.events, %host, what, len = bytes.len(), hash = state.hash);
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.0.lock().expect("a simulation runs on one thread and ends with its first panic").hash
    }

    /// How many events there were so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.lock().expect("a simulation runs on one thread and ends with its first panic").events
    }
}

impl State {
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
        self.hash = (self.hash ^ 0xff).wrapping_mul(FNV_PRIME);
    }
}
