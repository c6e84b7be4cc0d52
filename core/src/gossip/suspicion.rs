//! How long a suspicion lasts: the more members confirm it independently, the shorter (Lifeguard, section IV.B).

use std::time::Duration;

use crate::Text;
use crate::time::Mono;

/// So many members must have been refused a connection before a suspicion is cut short: one may be mistaken about the
/// address, or be cut off in a way that refuses.
const REFUSALS_NEEDED: usize = 2;

/// The bounds of a suspicion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// With enough confirmations it lasts this long.
    pub min: Duration,
    /// Without any it lasts this long.
    pub max: Duration,
    /// So many confirmations are enough.
    pub confirmations: u32,
    /// Remaining time once enough members were refused a connection, and at least after any confirmation: voices that
    /// come late and together must leave time to object.
    pub refused: Duration,
}

/// A member under suspicion.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    bounds: Bounds,
    begun: Mono,
    /// Who suspects it, and whether a connection was refused to them.
    voices: Vec<(Text, bool)>,
    deadline: Mono,
    /// Whether it was prolonged because this member itself is not well.
    pub prolonged: bool,
}

impl Suspicion {
    pub fn new(bounds: Bounds, from: &str, refused: bool, now: Mono) -> Suspicion {
        let deadline = now + duration(&bounds, 0);
        Suspicion { bounds, begun: now, voices: vec![(from.into(), refused)], deadline, prolonged: false }
    }

    /// When it becomes certainty.
    pub fn deadline(&self) -> Mono {
        self.deadline
    }

    /// How long it lasts at least.
    pub fn length_min(&self) -> Duration {
        self.bounds.min
    }

    /// Puts the end off, once: whoever was stopped has not heard the objections yet.
    pub fn prolong(&mut self, until: Mono) {
        assert!(!self.prolonged, "a suspicion is prolonged once");
        self.prolonged = true;
        self.deadline = until;
    }

    /// Another voice, or the same with better evidence. False: it is nothing new.
    pub fn hear(&mut self, from: &str, refused: bool, now: Mono) -> bool {
        let refusals = self.refusals();
        match self.voices.iter_mut().find(|(name, _)| name == from) {
            Some((_, known)) if *known || !refused || refusals >= REFUSALS_NEEDED => return false,
            Some((_, known)) => *known = true,
            None => {
                let counts = self.confirmations() < self.bounds.confirmations;
                if !(counts || refused && refusals < REFUSALS_NEEDED) {
                    return false;
                }
                self.voices.push((from.into(), refused));
            }
        }
        let soonest = now + self.bounds.refused;
        let mut deadline = self.begun + duration(&self.bounds, self.confirmations());
        if refusals < REFUSALS_NEEDED && self.refusals() >= REFUSALS_NEEDED {
            deadline = deadline.min(soonest);
        }
        if !self.prolonged {
            self.deadline = self.deadline.min(deadline.max(soonest));
        }
        true
    }

    fn confirmations(&self) -> u32 {
        self.voices.len() as u32 - 1
    }

    fn refusals(&self) -> usize {
        self.voices.iter().filter(|(_, refused)| *refused).count()
    }
}

/// How long a suspicion lasts after so many confirmations: `max - (max - min) * log(c + 1) / log(k + 1)`.
fn duration(bounds: &Bounds, confirmations: u32) -> Duration {
    let Bounds { min, max, confirmations: enough, .. } = *bounds;
    if enough == 0 || confirmations >= enough || max <= min {
        return min;
    }
    let share = libm::log(f64::from(confirmations) + 1.0) / libm::log(f64::from(enough) + 1.0);
    let cut = ((max - min).as_micros() as f64 * share) as u64;
    (max - Duration::from_micros(cut)).max(min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds(confirmations: u32) -> Bounds {
        let seconds = Duration::from_secs;
        Bounds { min: seconds(4), max: seconds(24), confirmations, refused: seconds(1) }
    }

    fn secs(seconds: u64) -> Mono {
        Mono(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn confirmations_shorten_by_the_logarithm() {
        for (confirmations, millis) in [(0, 24_000), (1, 14_000), (2, 8_150), (3, 4_000), (9, 4_000)] {
            let found = duration(&bounds(3), confirmations).as_millis();
            assert!(found.abs_diff(millis) <= 1, "{confirmations}: {found}");
        }
        assert_eq!(duration(&bounds(0), 0), Duration::from_secs(4));
    }

    #[test]
    fn the_same_voice_counts_once() {
        let mut suspicion = Suspicion::new(bounds(2), "a", false, secs(10));
        assert!(!suspicion.hear("a", false, secs(11)));
        assert!(suspicion.hear("b", false, secs(11)));
        assert!(!suspicion.hear("b", false, secs(11)));
        assert!(suspicion.deadline() < secs(34));
        assert!(suspicion.hear("c", false, secs(12)));
        assert_eq!(suspicion.deadline(), secs(14));
        assert!(!suspicion.hear("d", false, secs(12)));
    }

    #[test]
    fn two_refusals_leave_a_second_but_silence_never_does() {
        let mut suspicion = Suspicion::new(bounds(2), "a", true, secs(10));
        assert!(suspicion.hear("b", false, secs(10)));
        assert!(suspicion.deadline() > secs(14));
        assert!(suspicion.hear("b", true, secs(11)), "better evidence from the same voice");
        assert_eq!(suspicion.deadline(), secs(12));
        assert!(!suspicion.hear("c", true, secs(11)) || suspicion.deadline() == secs(12));
    }

    proptest! {
        #[test]
        fn a_suspicion_lasts_no_longer_than_max_and_no_shorter_than_min_unless_refused(
            enough in 0u32..5,
            voices in proptest::collection::vec((0u8..8, any::<bool>(), 0u64..30), 0..20),
        ) {
            let mut times: Vec<u64> = voices.iter().map(|(_, _, at)| *at).collect();
            times.sort_unstable();
            let mut suspicion = Suspicion::new(bounds(enough), "first", false, secs(0));
            let mut refusers = std::collections::BTreeSet::new();
            for ((voice, refused, _), at) in voices.iter().zip(times) {
                let before = suspicion.deadline();
                suspicion.hear(&format!("v{voice}"), *refused, secs(at));
                if *refused { refusers.insert(*voice); }
                prop_assert!(suspicion.deadline() <= before);
                prop_assert!(suspicion.deadline() <= secs(24));
                if refusers.len() < REFUSALS_NEEDED {
                    prop_assert!(suspicion.deadline() >= secs(4));
                }
            }
        }
    }
}
