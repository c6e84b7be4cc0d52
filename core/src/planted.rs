//! Deliberate defects. A checker that finds nothing proves nothing: the simulation must find each of these.
//!
//! Without the feature `planted` every question is answered `false` at compile time, and no trace of a defect is left
//! in the program.

/// A defect that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Bug {
    /// Recovery of the log keeps what it can decode of a frame whose checksum is wrong.
    TornTailKept = 1,
    /// A log write is reported durable although nothing was synced.
    SyncSkipped,
    /// The log does not record that a follower's conflicting entries are void.
    TruncateForgotten,
}

impl Bug {
    /// Every defect, for a sweep over all of them.
    pub const ALL: &[Bug] = &[Bug::TornTailKept, Bug::SyncSkipped, Bug::TruncateForgotten];
}

#[cfg(feature = "planted")]
mod switch {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Bug;

    static PLANTED: AtomicU32 = AtomicU32::new(0);

    /// Plants one defect in the whole process, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(0, |bug| bug as u32), Ordering::Relaxed);
    }

    /// Whether this defect is planted.
    #[must_use]
    pub fn planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u32
    }
}

#[cfg(feature = "planted")]
pub use switch::{plant, planted};

/// Whether this defect is planted: never, in a build without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn planted(_: Bug) -> bool {
    false
}
