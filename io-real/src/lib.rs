//! The real world around the core: tokio, sockets, files, and the driver loop over the ports.

// The shared suites name this crate as others do.
#[cfg(test)]
extern crate self as proconsul_io_real;

pub mod bulk;
pub mod checkpoints;
pub mod clock;
pub mod dns;
pub mod driver;
pub mod engine;
pub mod files;
pub mod gate;
pub mod gossip;
pub mod host;
pub mod http;
pub mod log_writer;
pub mod metrics;
pub mod owner;
pub mod ports;
pub mod probe;
pub mod process;
pub mod resolver;
pub mod snapshot;
pub mod tls;
pub mod wire;
pub mod words;
