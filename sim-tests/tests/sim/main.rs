//! The simulator's tests: the machinery with a toy, then the real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod gossip;
mod planted;
mod real;
mod toy;
mod toy_test;
