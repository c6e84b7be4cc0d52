//! Local health: a member that gets no answers from anybody should first doubt itself (Lifeguard, section IV.A).

use std::time::Duration;

/// The worst score: timeouts are nine times as long.
const SCORE_MAX: u32 = 8;

/// How well this member itself seems to do; 0 is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Awareness {
    score: u32,
    enabled: bool,
}

impl Awareness {
    pub fn new(enabled: bool) -> Awareness {
        Awareness { score: 0, enabled }
    }

    /// Bad signs are positive, good signs negative.
    pub fn apply(&mut self, delta: i32) {
        if self.enabled {
            self.score = self.score.saturating_add_signed(delta).min(SCORE_MAX);
        }
    }

    pub fn score(self) -> u32 {
        self.score
    }

    /// Whether this member had better not judge others.
    pub fn is_unwell(self) -> bool {
        self.score >= SCORE_MAX / 2
    }

    /// A timeout, stretched by the score.
    pub fn scale(self, timeout: Duration) -> Duration {
        timeout * (self.score + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_stays_between_well_and_worst() {
        let mut awareness = Awareness::new(true);
        for (delta, score) in [(-1, 0), (3, 3), (-1, 2), (100, 8), (-100, 0)] {
            awareness.apply(delta);
            assert_eq!(awareness.score(), score);
        }
        awareness.apply(2);
        assert_eq!(awareness.scale(Duration::from_secs(1)), Duration::from_secs(3));
        let mut off = Awareness::new(false);
        off.apply(5);
        assert_eq!(off.scale(Duration::from_secs(1)), Duration::from_secs(1));
    }
}
