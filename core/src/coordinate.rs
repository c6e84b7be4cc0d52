//! Network coordinates: round-trip times between any two nodes, estimated from few measurements.
//!
//! Vivaldi (Dabek, Cox, Kaashoek, Morris 2004) with height vectors, adjustment terms (Lee et al. 2006) and gravity
//! (Ledlie, Gardner, Seltzer 2007).

use serde::{Deserialize, Serialize};

/// How many dimensions the space has besides height.
pub const DIMENSIONS: usize = 8;

/// A point of the space; all values are seconds but for the error, which is a ratio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
        Coordinate { vec: [0.0; DIMENSIONS], error: 1.5, adjustment: 0.0, height: 10e-6 }
    }
}
