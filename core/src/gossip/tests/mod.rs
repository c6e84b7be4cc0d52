//! The machine in small worlds: an event heap, no async.

mod conflicts;
mod failures;
mod hostile;
mod keys;
mod membership;
mod net;
