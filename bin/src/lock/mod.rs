//! `lock`: a command that runs while a lock, or a place in a semaphore, is held.
//!
//! [`claim`] takes and gives back by the formats that Consul's clients share; [`holder`] decides what becomes of the child.

pub mod claim;
pub mod clock;
pub mod holder;
