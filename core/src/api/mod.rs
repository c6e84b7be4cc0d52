//! The semantics of the HTTP interface.
