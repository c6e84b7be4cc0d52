//! `/v1/operator`

pub(super) mod autopilot;
pub(super) mod keyring;
pub(super) mod raft;
pub(super) mod usage;
