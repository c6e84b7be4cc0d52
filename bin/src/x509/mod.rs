//! Certificates: making them, reading them, and saying what is wrong with them.
//!
//! Keys are ECDSA on P-256, in the form `EC PRIVATE KEY` (RFC 5915), as Consul's own commands write them.

pub mod authority;
pub mod key;
pub mod pem;
