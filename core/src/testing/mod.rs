//! What tests of several crates share. Only in test builds and with the feature `testing`.

#[cfg(test)]
mod frugal;
pub mod fuzz;

#[cfg(test)]
pub use frugal::frugal;
