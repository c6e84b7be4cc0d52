//! The median of the last latencies of each peer: one delayed packet must not move a coordinate.

use std::collections::BTreeMap;

use crate::Text;

/// How many measurements the median is taken of.
const SAMPLES: usize = 3;
/// Of how many peers measurements are kept. With one probe a second, a peer that is displaced was measured more than an
/// hour ago.
pub(super) const PEERS_MAX: usize = 4_096;

/// The last measurements of one peer, in seconds.
#[derive(Clone, Debug)]
struct Samples {
    /// In the order in which their slots were last written; only the first `len` are meant.
    slots: [f64; SAMPLES],
    len: usize,
    next: usize,
    /// The filter's count of measurements when the last one was taken.
    taken: u64,
}

/// Measurements of a bounded number of peers.
#[derive(Clone, Debug, Default)]
pub(super) struct LatencyFilter {
    peers: BTreeMap<Text, Samples>,
    taken: u64,
}

impl LatencyFilter {
    /// Takes a measurement; the median of this peer's last ones, the longer one of two.
    pub(super) fn median(&mut self, peer: &Text, rtt: f64) -> f64 {
        self.taken += 1;
        if !self.peers.contains_key(peer) && self.peers.len() >= PEERS_MAX {
            self.displace();
        }
        let samples = self.peers.entry(peer.clone()).or_insert(Samples {
            slots: [0.0; SAMPLES],
            len: 0,
            next: 0,
            taken: 0,
        });
        samples.taken = self.taken;
        samples.slots[samples.next] = rtt;
        samples.next = (samples.next + 1) % SAMPLES;
        samples.len = SAMPLES.min(samples.len + 1);
        let mut sorted = samples.slots;
        let sorted = &mut sorted[..samples.len];
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    /// Forgets a peer.
    pub(super) fn forget(&mut self, peer: &str) {
        self.peers.remove(peer);
    }

    /// Forgets the peer that was not measured for the longest.
    fn displace(&mut self) {
        let oldest = self.peers.iter().min_by_key(|(_, samples)| samples.taken).map(|(peer, _)| peer.clone());
        if let Some(peer) = oldest {
            self.peers.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outlier_in_three_is_not_seen() {
        let mut filter = LatencyFilter::default();
        let peer = Text::new("a");
        let medians: Vec<f64> = [1.0, 9.0, 2.0, 2.0, 9.0, 3.0].map(|rtt| filter.median(&peer, rtt)).into();
        assert_eq!(medians, [1.0, 9.0, 2.0, 2.0, 2.0, 3.0]);
        assert_eq!(filter.median(&Text::new("b"), 7.0), 7.0);
        filter.forget("a");
        assert_eq!(filter.median(&peer, 5.0), 5.0);
    }

    #[test]
    fn the_peers_that_are_kept_are_bounded_and_the_stalest_goes_first() {
        let mut filter = LatencyFilter::default();
        let name = |number: usize| Text::from(format!("peer-{number}"));
        for number in 0..PEERS_MAX {
            filter.median(&name(number), 1.0);
        }
        filter.median(&name(0), 5.0);
        filter.median(&name(PEERS_MAX), 1.0);
        assert_eq!(filter.peers.len(), PEERS_MAX);
        assert!(filter.peers.contains_key(&name(0)) && !filter.peers.contains_key(&name(1)));
    }
}
