//! How many bytes of broadcasts may leave: a token bucket, so that the load on the network does not depend on how much
//! there is to tell or how large the pool is.

use std::time::Duration;

use crate::time::Mono;

#[derive(Clone, Debug)]
pub(super) struct Pacer {
    /// Bytes per second.
    rate: u64,
    /// Bytes that may leave at `at`.
    tokens: u64,
    at: Mono,
}

impl Pacer {
    /// A full bucket: one second's worth.
    pub fn new(rate: u32, now: Mono) -> Pacer {
        Pacer { rate: u64::from(rate), tokens: u64::from(rate), at: now }
    }

    /// How many bytes may leave now.
    pub fn available(&mut self, now: Mono) -> usize {
        let elapsed = now.since(self.at).min(Duration::from_secs(1));
        let earned = elapsed.as_micros() as u64 * self.rate / 1_000_000;
        if earned > 0 {
            self.tokens = (self.tokens + earned).min(self.rate);
            self.at = now;
        }
        self.tokens as usize
    }

    /// So many have left.
    pub fn spend(&mut self, bytes: usize) {
        self.tokens = self.tokens.saturating_sub(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_lets_more_through_than_a_burst_and_the_rate() {
        let mut pacer = Pacer::new(1_000, Mono(0));
        let mut sent = 0;
        for step in 0..1_000u64 {
            let now = Mono(step * 3_000_000);
            let bytes = pacer.available(now).min(70);
            pacer.spend(bytes);
            sent += bytes;
        }
        assert!((3_900..=4_000).contains(&sent), "{sent}");
    }
}
