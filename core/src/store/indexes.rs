//! The newest Raft index that touched each table.
//!
//! A list's index is its table's, and so is the index of what is not there: whatever comes or goes moves its table, so
//! the index of an absent row is never below what it was while the row existed.

/// One index per table. Each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    /// Keys: writes, lock changes and deletions.
    pub(super) kv: u64,
    /// Nodes: rows that came, changed or went.
    pub(super) nodes: u64,
    /// Instances: rows that came, changed or went.
    pub(super) services: u64,
    /// Checks: rows that came, changed or went.
    pub(super) checks: u64,
    /// Sessions: rows that came or went.
    pub(super) sessions: u64,
    /// The newest deletion whose tombstone was reaped. A prefix's index is never below it: the tombstone that held the
    /// prefix's index up may be one of those.
    pub(super) reaped: u64,
    /// Coordinates: rows that came, changed or went.
    pub(super) coordinates: u64,
    /// The newest restore; no answer has a lower index.
    pub(super) restored: u64,
    /// Configuration entries: rows that came, changed or went.
    pub(super) config_entries: u64,
    /// Prepared queries: rows that came, changed or went.
    pub(super) prepared: u64,
}

/// Names one of the [`Indexes`] in checkpoints. The numbers are format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum TableIndex {
    /// [`Indexes::kv`]
    Kv = 1,
    /// [`Indexes::nodes`]
    Nodes = 2,
    /// [`Indexes::services`]
    Services = 3,
    /// [`Indexes::checks`]
    Checks = 4,
    /// [`Indexes::sessions`]
    Sessions = 5,
    /// [`Indexes::reaped`]
    Reaped = 6,
    /// [`Indexes::coordinates`]
    Coordinates = 7,
    /// [`Indexes::restored`]
    Restored = 8,
    /// [`Indexes::config_entries`]
    ConfigEntries = 9,
    /// [`Indexes::prepared`]
    Prepared = 10,
}

impl TableIndex {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [TableIndex; 10] = [
        TableIndex::Kv,
        TableIndex::Nodes,
        TableIndex::Services,
        TableIndex::Checks,
        TableIndex::Sessions,
        TableIndex::Reaped,
        TableIndex::Coordinates,
        TableIndex::Restored,
        TableIndex::ConfigEntries,
        TableIndex::Prepared,
    ];
}

impl Indexes {
    /// Reads one.
    #[must_use]
    pub(super) fn get(&self, table: TableIndex) -> u64 {
        match table {
            TableIndex::Kv => self.kv,
            TableIndex::Nodes => self.nodes,
            TableIndex::Services => self.services,
            TableIndex::Checks => self.checks,
            TableIndex::Sessions => self.sessions,
            TableIndex::Reaped => self.reaped,
            TableIndex::Coordinates => self.coordinates,
            TableIndex::Restored => self.restored,
            TableIndex::ConfigEntries => self.config_entries,
            TableIndex::Prepared => self.prepared,
        }
    }

    /// Moves one up to `index`; it never moves down.
    pub(super) fn raise(&mut self, table: TableIndex, index: u64) {
        let slot = match table {
            TableIndex::Kv => &mut self.kv,
            TableIndex::Nodes => &mut self.nodes,
            TableIndex::Services => &mut self.services,
            TableIndex::Checks => &mut self.checks,
            TableIndex::Sessions => &mut self.sessions,
            TableIndex::Reaped => &mut self.reaped,
            TableIndex::Coordinates => &mut self.coordinates,
            TableIndex::Restored => &mut self.restored,
            TableIndex::ConfigEntries => &mut self.config_entries,
            TableIndex::Prepared => &mut self.prepared,
        };
        *slot = index.max(*slot);
    }
}
