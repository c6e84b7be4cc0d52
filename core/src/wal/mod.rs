//! The durable log: framing, segments, recovery.
