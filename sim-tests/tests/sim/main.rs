//! The simulator's tests: the machinery with a toy, then the real server.

mod planted;
mod real;
mod toy;
mod toy_test;
