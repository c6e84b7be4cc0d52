//! Randomness as the core sees it: a seeded ChaCha generator, forked per machine.
//!
//! One more draw in one machine does not change what another machine draws. In production the seed comes from the
//! operating system, so that identifiers cannot be guessed; in the simulator it comes from the plan.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// A deterministic stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// A generator for tests and plans, where sixty-four bits of seed are enough.
    #[must_use]
    pub fn from_seed(seed: u64) -> Rng {
        Rng(ChaCha12Rng::seed_from_u64(seed))
    }

    /// A generator from a full seed, as production uses it.
    #[must_use]
    pub fn from_bytes(seed: [u8; 32]) -> Rng {
        Rng(ChaCha12Rng::from_seed(seed))
    }

    /// An independent generator for one machine. Different labels give unrelated streams.
    #[must_use]
    pub fn fork(&self, label: u64) -> Rng {
        let mut seed = self.0.get_seed();
        for (byte, salt) in seed.iter_mut().zip(label.to_le_bytes().into_iter().chain(*b"proconsul.machin")) {
            *byte ^= salt;
        }
        let mut fork = ChaCha12Rng::from_seed(seed);
        fork.set_stream(label ^ 0x9e37_79b9_7f4a_7c15);
        Rng(fork)
    }

    /// Sixty-four uniformly random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform number below `bound`, by rejection, so that no value is favoured. Zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let zone = u64::MAX - (u64::MAX % bound);
        loop {
            let drawn = self.next_u64();
            if drawn < zone {
                return drawn % bound;
            }
        }
    }

    /// A uniform duration in `[0, bound)`.
    pub fn duration_below(&mut self, bound: core::time::Duration) -> core::time::Duration {
        core::time::Duration::from_nanos(self.below(u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Puts a slice into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).expect("below a slice index");
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_are_independent_of_draws_from_their_parent() {
        let mut parent = Rng::from_seed(1);
        let before = parent.fork(3).next_u64();
        parent.next_u64();
        assert_eq!(parent.fork(3).next_u64(), before);
        assert_ne!(parent.fork(4).next_u64(), before);
    }

    #[test]
    fn a_shuffle_puts_each_item_first_about_equally_often() {
        let mut rng = Rng::from_seed(2);
        let mut firsts = [0u32; 5];
        for _ in 0..5_000 {
            let mut items = [0usize, 1, 2, 3, 4];
            rng.shuffle(&mut items);
            firsts[items[0]] += 1;
        }
        assert!(firsts.iter().all(|n| (850..1150).contains(n)), "{firsts:?}");
    }
}
