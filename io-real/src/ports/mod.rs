//! What the driver loop needs of the world. Production and the simulator implement the same traits.
//!
//! Nothing here decides anything: an implementation carries, keeps order within its lane, and reports.

mod checkpoints;
mod clock;
mod disk;
#[cfg(test)]
pub(crate) mod disk_suite;
mod gossip;
mod prober;
mod resolver;
mod wire;

pub use checkpoints::{Checkpoints, Loaded};
pub use clock::{Clock, Spawn};
pub use disk::{Disk, is_full};
pub use gossip::{GossipEvent, GossipPort};
pub use prober::Prober;
pub use resolver::Resolver;
pub use wire::{Wire, WireEvent};
