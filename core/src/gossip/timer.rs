//! What a pool waits for.

/// A deadline of a pool. Ties fire in this order: what was learnt comes before what is concluded from silence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Broadcasts are sent; armed only while there are some.
    Gossip,
    /// The answer to a direct ping is late: others are asked to try.
    PingLate,
    /// A ping made for somebody else stayed without an answer: say so. The number is that of our own ping.
    Relay(u32),
    /// The probe under way ends, the next one begins.
    Probe,
    /// The suspicion of the member in this slot becomes certainty.
    Suspicion(u32),
    /// Full state is exchanged with a random member.
    PushPull,
    /// An internal query is asked again of those who did not answer, or ends.
    Query(u64),
    /// A leave ends, however far it was spread.
    Leave,
    /// Failed and left members are forgotten when their time is over.
    Reap,
    /// A random failed member is tried again.
    Reconnect,
    /// The addresses of known members and the lamport times are saved.
    SaveKnown,
}
