//! The order of probes: everybody once per round, in an order that differs from round to round (SWIM, section 4.3).
//!
//! The order is computed, not stored: a Feistel network permutes the next larger power of four, and what falls outside
//! of the table is walked over (Black and Rogaway 2002, cycle walking). So a member costs no memory for it.

use crate::rng::Rng;

#[derive(Clone, Debug)]
pub(super) struct Round {
    keys: [u64; 4],
    size: u32,
    half_bits: u32,
    next: u32,
}

impl Round {
    /// A new order of the numbers below `size`.
    pub fn new(rng: &mut Rng, size: u32) -> Round {
        let bits = u32::BITS - size.saturating_sub(1).leading_zeros();
        let keys = [rng.next_u64(), rng.next_u64(), rng.next_u64(), rng.next_u64()];
        Round { keys, size, half_bits: bits.div_ceil(2).max(1), next: 0 }
    }

    fn permute(&self, number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

impl Iterator for Round {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.next >= self.size {
            return None;
        }
        let mut number = u64::from(self.next);
        loop {
            number = self.permute(number);
            if number < u64::from(self.size) {
                break;
            }
        }
        self.next += 1;
        Some(number as u32)
    }
}

/// Spreads every bit of the input over the output (the finalizer of `SplitMix64`).
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_visits_everybody_once_in_its_own_order() {
        let mut rng = Rng::from_seed(1);
        for size in [0, 1, 2, 3, 4, 5, 16, 17, 100, 1_000] {
            let first: Vec<u32> = Round::new(&mut rng, size).collect();
            let second: Vec<u32> = Round::new(&mut rng, size).collect();
            let mut sorted = first.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..size).collect::<Vec<u32>>());
            assert!(size < 16 || first != second);
        }
    }
}
