//! The semantics of the DNS interface.
