//! Network coordinates: round-trip times between any two nodes, estimated from few measurements.
//!
//! Vivaldi (Dabek, Cox, Kaashoek, Morris 2004) with height vectors, adjustment terms (Lee, Saroiu, Steiner, Liu 2006),
//! gravity and a median filter over each peer's latencies (Ledlie, Gardner, Seltzer 2007).

mod filter;
mod vivaldi;

use core::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use vivaldi::Vivaldi;

/// How many dimensions the space has besides height.
pub const DIMENSIONS: usize = 8;
/// The error of a coordinate about which nothing is known, and the largest one.
pub const ERROR_MAX: f64 = 1.5;
/// The least height, in seconds: no packet is faster through a host's own stack.
pub const HEIGHT_MIN: f64 = 10e-6;
/// The largest value of a component, height or adjustment, in seconds, that is believed of a peer. Round trips longer
/// than ten seconds are no measurements, so honest coordinates stay well below.
const PLAUSIBLE_MAX: f64 = 60.0;
/// Changes below this many seconds are less than what [`HEIGHT_MIN`] assumes.
const MOVE_MIN: f64 = 10e-6;
/// Changes of the error below this are noise.
const ERROR_MOVE_MIN: f64 = 0.1;

/// A point of the space; all values are seconds but for the error, which is a ratio.
///
/// Equality and order are those of the bits (IEEE 754, totalOrder), so that a coordinate can be part of a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Coordinate {
    /// Position.
    pub vec: [f64; DIMENSIONS],
    /// Confidence; smaller is better.
    pub error: f64,
    /// Correction of distances, learned from past errors.
    pub adjustment: f64,
    /// Distance to the core of the network, part of every distance.
    pub height: f64,
}

impl Default for Coordinate {
    fn default() -> Self {
        Coordinate { vec: [0.0; DIMENSIONS], error: ERROR_MAX, adjustment: 0.0, height: HEIGHT_MIN }
    }
}

impl Ord for Coordinate {
    fn cmp(&self, other: &Coordinate) -> Ordering {
        self.values()
            .zip(other.values())
            .map(|(ours, theirs)| ours.total_cmp(&theirs))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Coordinate {
    fn partial_cmp(&self, other: &Coordinate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Coordinate {
    fn eq(&self, other: &Coordinate) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Coordinate {}

impl Coordinate {
    /// The estimated round-trip time between two nodes: the distance of their positions and both heights, with both
    /// adjustments unless these made it negative. Zero when the coordinates are not finite.
    #[must_use]
    pub fn distance_to(&self, other: &Coordinate) -> Duration {
        seconds(self.distance(other))
    }

    /// Whether all values are finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.values().all(f64::is_finite)
    }

    /// Whether an honest peer could be there: anything else may be a mistake or an attack and must not move anybody.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.is_finite()
            && self.vec.iter().chain([&self.adjustment]).all(|value| value.abs() <= PLAUSIBLE_MAX)
            && (0.0..=PLAUSIBLE_MAX).contains(&self.height)
            && (0.0..=2.0 * ERROR_MAX).contains(&self.error)
    }

    /// Whether the difference would be noticed in an estimate; less is not worth telling others.
    #[must_use]
    pub fn moved_from(&self, before: &Coordinate) -> bool {
        let moved = self.position_distance(before) >= MOVE_MIN
            || (self.height - before.height).abs() >= MOVE_MIN
            || (self.adjustment - before.adjustment).abs() >= MOVE_MIN
            || (self.error - before.error).abs() >= ERROR_MOVE_MIN;
        // Whatever is not a number is neither larger nor smaller, and then the difference counts.
        moved || !(self.is_finite() && before.is_finite() || self == before)
    }

    /// [`Coordinate::distance_to`] in seconds.
    pub(crate) fn distance(&self, other: &Coordinate) -> f64 {
        let raw = self.raw_distance(other);
        let adjusted = raw + self.adjustment + other.adjustment;
        if adjusted > 0.0 { adjusted } else { raw }
    }

    /// Distance of the positions and both heights, in seconds.
    fn raw_distance(&self, other: &Coordinate) -> f64 {
        self.position_distance(other) + self.height + other.height
    }

    /// Euclidean distance of the positions, in seconds.
    fn position_distance(&self, other: &Coordinate) -> f64 {
        self.vec
            .iter()
            .zip(&other.vec)
            .map(|(ours, theirs)| (ours - theirs) * (ours - theirs))
            .sum::<f64>()
            .sqrt()
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.vec.into_iter().chain([self.error, self.adjustment, self.height])
    }
}

/// A duration of so many seconds; what is negative or no number is none at all, what is too long is the longest.
fn seconds(seconds: f64) -> Duration {
    if seconds.is_nan() || seconds <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(x: f64, height: f64) -> Coordinate {
        let mut coordinate = Coordinate { height, ..Coordinate::default() };
        coordinate.vec[0] = x;
        coordinate
    }

    #[test]
    fn distance_is_position_and_heights_and_adjustments_unless_these_make_it_negative() {
        let (a, mut b) = (at(0.0, 0.001), at(0.010, 0.002));
        assert_eq!(a.distance_to(&b), Duration::from_millis(13));
        b.adjustment = -0.003;
        assert_eq!(a.distance_to(&b), Duration::from_millis(10));
        b.adjustment = -0.014;
        assert_eq!(a.distance_to(&b), Duration::from_millis(13));
        assert_eq!(Coordinate::default().distance_to(&Coordinate::default()), Duration::from_micros(20));
    }

    #[test]
    fn what_is_no_number_has_no_distance_and_is_not_plausible() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let hostile = at(value, HEIGHT_MIN);
            let distance = Coordinate::default().distance_to(&hostile);
            assert!(distance.is_zero() || distance == Duration::MAX);
            assert!(!hostile.is_finite() && !hostile.is_plausible());
            assert!(hostile.moved_from(&Coordinate::default()));
            assert_eq!(hostile, hostile.clone());
            assert!(!hostile.moved_from(&hostile.clone()));
        }
        assert!(!at(1e9, HEIGHT_MIN).is_plausible() && !at(0.0, -1.0).is_plausible());
        assert!(!Coordinate { error: -1.0, ..Coordinate::default() }.is_plausible());
        assert!(Coordinate::default().is_plausible());
        assert_eq!(at(1e300, 0.0).distance_to(&at(-1e300, 0.0)), Duration::MAX);
    }

    #[test]
    fn a_microsecond_is_no_move() {
        assert!(!at(0.1, 0.001).moved_from(&at(0.100_001, 0.001_001)));
        assert!(at(0.1, 0.001).moved_from(&at(0.100_02, 0.001)));
        assert!(at(0.1, 0.001).moved_from(&at(0.1, 0.002)));
        assert!(Coordinate { error: 0.5, ..Coordinate::default() }.moved_from(&Coordinate::default()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn distances_are_symmetric_and_orders_total(a in any::<[u64; 11]>(), b in any::<[u64; 11]>()) {
            let make = |bits: [u64; 11]| {
                let mut coordinate = Coordinate::default();
                for (slot, bits) in coordinate.vec.iter_mut().zip(bits) {
                    *slot = f64::from_bits(bits);
                }
                coordinate.error = f64::from_bits(bits[8]);
                coordinate.adjustment = f64::from_bits(bits[9]);
                coordinate.height = f64::from_bits(bits[10]);
                coordinate
            };
            let (a, b) = (make(a), make(b));
            prop_assert_eq!(a.distance_to(&b), b.distance_to(&a));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(&a, &a.clone());
            let bytes = postcard::to_allocvec(&a).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<Coordinate>(&bytes).unwrap(), &a);
        }
    }
}
