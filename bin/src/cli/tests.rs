//! Whole command lines against an agent that is played by the test.
