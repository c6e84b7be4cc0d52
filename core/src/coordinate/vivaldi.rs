//! How a node finds its own coordinate.

use std::time::Duration;

use super::filter::LatencyFilter;
use super::{Coordinate, DIMENSIONS, ERROR_MAX, HEIGHT_MIN};
use crate::Text;
use crate::rng::Rng;

/// How far one measurement may move the error (Vivaldi's c_e).
const ERROR_SHARE: f64 = 0.25;
/// How far one measurement may move the position (Vivaldi's c_c).
const MOVE_SHARE: f64 = 0.25;
/// Of how many measurements the adjustment is the mean.
const ADJUSTMENT_WINDOW: usize = 20;
/// The weaker the larger: at this distance from the origin, in seconds, gravity would pull by one second.
const GRAVITY_RHO: f64 = 150.0;
/// Longer round trips are no measurements.
const RTT_MAX: Duration = Duration::from_secs(10);
/// What counts as zero where something is divided, in seconds or as a ratio.
const ZERO: f64 = 1e-6;

/// A node's own coordinate, improved by every measured round trip.
#[derive(Clone, Debug)]
pub struct Vivaldi {
    /// Always plausible.
    coordinate: Coordinate,
    /// By how much the last distances fell short of the measurements, in seconds; a ring.
    residuals: [f64; ADJUSTMENT_WINDOW],
    /// Where the next residual goes.
    next_residual: usize,
    filter: LatencyFilter,
    rng: Rng,
}

impl Vivaldi {
    /// A node that knows nothing: at the origin, with the largest error.
    #[must_use]
    pub fn new(rng: Rng) -> Vivaldi {
        Vivaldi {
            coordinate: Coordinate::default(),
            residuals: [0.0; ADJUSTMENT_WINDOW],
            next_residual: 0,
            filter: LatencyFilter::default(),
            rng,
        }
    }

    /// Where this node is believed to be.
    #[must_use]
    pub fn get(&self) -> &Coordinate {
        &self.coordinate
    }

    /// Forgets the latencies of a peer that is gone.
    pub fn forget(&mut self, peer: &str) {
        self.filter.forget(peer);
    }

    /// Learns from a measured round trip to a peer that says it is at `peer`. False: measurement or coordinate are not
    /// plausible, and nothing was learned.
    pub fn update(&mut self, peer: &Coordinate, peer_name: &Text, rtt: Duration) -> bool {
        if rtt > RTT_MAX || !peer.is_plausible() {
            return false;
        }
        let rtt = self.filter.median(peer_name, rtt.as_secs_f64()).max(ZERO);
        self.approach(peer, rtt);
        self.adjust(peer, rtt);
        self.fall();
        if !self.coordinate.is_plausible() {
            // Each peer was plausible and all together were not: it is better to start again than to mislead others.
            self.coordinate = Coordinate::default();
            self.residuals = [0.0; ADJUSTMENT_WINDOW];
        }
        true
    }

    /// Vivaldi's algorithm (section 3, figure 4 of the paper): a spring between the nodes, as stiff as the peer's
    /// confidence deserves.
    fn approach(&mut self, peer: &Coordinate, rtt: f64) {
        let distance = self.coordinate.distance(peer);
        let wrong = (distance - rtt).abs() / rtt;
        let weight = self.coordinate.error / (self.coordinate.error + peer.error).max(ZERO);
        let share = ERROR_SHARE * weight;
        self.coordinate.error = (share * wrong + (1.0 - share) * self.coordinate.error).min(ERROR_MAX);
        self.push(peer, MOVE_SHARE * weight * (rtt - distance));
    }

    /// The mean of what distances without adjustments lack, half for each end.
    fn adjust(&mut self, peer: &Coordinate, rtt: f64) {
        self.residuals[self.next_residual] = rtt - self.coordinate.raw_distance(peer);
        self.next_residual = (self.next_residual + 1) % ADJUSTMENT_WINDOW;
        let windows = ADJUSTMENT_WINDOW as f64;
        self.coordinate.adjustment = self.residuals.iter().sum::<f64>() / (2.0 * windows);
    }

    /// Gravity towards the origin, so that the cluster as a whole does not drift away from it.
    fn fall(&mut self) {
        let origin = Coordinate::default();
        let pull = self.coordinate.distance(&origin) / GRAVITY_RHO;
        self.push(&origin, -pull * pull);
    }

    /// Moves away from `from` by so many seconds, or towards it if they are negative; height moves along.
    fn push(&mut self, from: &Coordinate, force: f64) {
        let (direction, distance) = self.direction(from);
        for (position, part) in self.coordinate.vec.iter_mut().zip(direction) {
            *position += part * force;
        }
        if distance > ZERO {
            let height = self.coordinate.height + (self.coordinate.height + from.height) * force / distance;
            self.coordinate.height = height.max(HEIGHT_MIN);
        }
    }

    /// The unit vector from `from` to here and how far that is; a random direction where both are at the same place.
    fn direction(&mut self, from: &Coordinate) -> ([f64; DIMENSIONS], f64) {
        let mut vector = self.coordinate.vec;
        for (ours, theirs) in vector.iter_mut().zip(from.vec) {
            *ours -= theirs;
        }
        let length = norm(&vector);
        if length > ZERO {
            return (vector.map(|part| part / length), length);
        }
        loop {
            // Uniform in the ball by rejection, so that no direction is favoured.
            let drawn: [f64; DIMENSIONS] = core::array::from_fn(|_| self.signed_unit());
            let length = norm(&drawn);
            if (ZERO..=1.0).contains(&length) {
                return (drawn.map(|part| part / length), 0.0);
            }
        }
    }

    /// A uniform number in [-1, 1) with as many bits as a float holds.
    fn signed_unit(&mut self) -> f64 {
        const BITS: u32 = 53;
        let drawn = self.rng.next_u64() >> (u64::BITS - BITS);
        drawn as f64 / (1u64 << (BITS - 1)) as f64 - 1.0
    }
}

fn norm(vector: &[f64; DIMENSIONS]) -> f64 {
    vector.iter().map(|part| part * part).sum::<f64>().sqrt()
}

#[cfg(test)]
#[path = "vivaldi_test.rs"]
mod tests;
