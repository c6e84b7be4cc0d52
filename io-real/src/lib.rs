//! The real world around the core: tokio, sockets, files, and the driver loop over the ports.

pub mod bulk;
pub mod gate;
pub mod ports;
