//! What a pool counts, for `info`, for auditors, for experiments.

/// Counters since the start, and a few gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Members that are alive, this one included.
    pub alive: usize,
    /// Members that have failed and are not forgotten.
    pub failed: usize,
    /// Members that have left and are not forgotten.
    pub left: usize,
    /// Health, queues and clocks.
    pub gauges: Gauges,
    /// This member's incarnation.
    pub incarnation: u32,

    /// Datagrams sent.
    pub packets_sent: u64,
    /// Bytes in them.
    pub bytes_sent: u64,
    /// Datagrams received, good or not.
    pub packets_received: u64,
    /// Bytes in them.
    pub bytes_received: u64,
    /// Requests and answers sent over streams.
    pub streams_sent: u64,
    /// Bytes in them.
    pub stream_bytes_sent: u64,
    /// What was dropped, and why.
    pub dropped: Dropped,

    /// Probes begun.
    pub probes: u64,
    /// Probes that ended without a sign of life.
    pub probes_failed: u64,
    /// Suspicions begun here, whoever voiced them.
    pub suspicions: u64,
    /// Members that this one declared to have failed.
    pub failures_declared: u64,
    /// Members that became failed here, whoever declared it.
    pub failures_seen: u64,
    /// Claims against this member that it refuted.
    pub refuted: u64,
    /// Exchanges of full state that were merged.
    pub merges: u64,
}

/// How a pool is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Lifeguard's local health: 0 is well, 8 is worst.
    pub health_score: u32,
    /// Broadcasts of membership waiting.
    pub member_queue: usize,
    /// Intents, events and queries waiting.
    pub event_queue: usize,
    /// Lamport clock of joins and leaves.
    pub member_time: u64,
    /// Lamport clock of user events.
    pub event_time: u64,
    /// Lamport clock of queries.
    pub query_time: u64,
    /// Whether packets are sealed.
    pub encrypted: bool,
}

/// What came in and was dropped, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// No key of the ring opens it.
    pub seal: u64,
    /// It is not sealed, and must be.
    pub plain: u64,
    /// It is sealed, and there are no keys.
    pub sealed: u64,
    /// Another version of the format.
    pub version: u64,
    /// It is not what was sent: its checksum is wrong.
    pub damaged: u64,
    /// It is meant for another pool.
    pub pool: u64,
    /// It cannot be decoded, or makes no sense.
    pub malformed: u64,
    /// It is larger than anything a member sends.
    pub oversized: u64,
    /// It speaks of a member of another datacenter, with a name, an identity or an address that is taken.
    pub refused: u64,
    /// It comes from an address where no member may be.
    pub outside: u64,
}

impl Dropped {
    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Dropped { seal, plain, sealed, version, damaged, pool, malformed, oversized, refused, outside } =
            self;
        seal + plain + sealed + version + damaged + pool + malformed + oversized + refused + outside
    }
}
