//! The real world around the core: tokio, sockets, files, and the driver loop over the ports.

pub mod ports;
