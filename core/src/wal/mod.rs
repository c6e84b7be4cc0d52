//! The durable log: framing, segments, recovery.

/// One durable append.
#[derive(Debug)]
pub struct Write {
    /// Quoted by the completion.
    pub id: u64,
}
