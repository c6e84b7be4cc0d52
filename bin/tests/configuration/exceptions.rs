//! Inputs that come out otherwise than recorded, and why. One that is none any more fails the test.

/// Inputs, by file and name.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[("node/pid-bad", "the file is made when the agent starts")];
