//! Logical time (Lamport 1978): what was caused by something has a later time than it.

/// A time this far ahead was never reached by counting: it is forged, and following it would end the clock.
const LEAP_MAX: u64 = 1 << 40;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lamport(u64);

impl Lamport {
    /// The time of the last thing that was done or heard of.
    pub fn time(self) -> u64 {
        self.0
    }

    /// The time of something that is done now.
    pub fn tick(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    /// Something was heard of. False: its time is absurd, and the clock is unchanged.
    #[must_use]
    pub fn witness(&mut self, time: u64) -> bool {
        if time > self.0.saturating_add(LEAP_MAX) || time > u64::MAX / 2 {
            return false;
        }
        self.0 = self.0.max(time);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_follows_what_is_heard_but_not_absurdities() {
        let mut clock = Lamport::default();
        assert!(clock.witness(7));
        assert!(clock.witness(3));
        assert_eq!(clock.tick(), 8);
        assert!(!clock.witness(u64::MAX));
        assert_eq!(clock.time(), 8);
    }
}
