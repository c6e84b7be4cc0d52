//! Distinct types for things that would otherwise all be numbers or strings.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// A Raft term (Ongaro, section 3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term(pub u64);

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in the Raft log; the first entry has index 1, zero is «before the log».
///
/// The same number is the modify index that clients see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }

    /// The position before this one; zero stays zero.
    #[must_use]
    pub fn prev(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A request that entered the node, quoted by its reply. Never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// Work that the core asked an adapter for, quoted by its completion. Never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A 128-bit identifier in the form of a random UUID (RFC 9562, version 4): of agents, sessions, queries, tokens.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uuid(pub u128);

/// An agent's identity. Addresses may change, this does not: servers are known to Raft by it.
pub type ServerId = Uuid;

impl Uuid {
    /// A random identifier.
    pub fn random(rng: &mut Rng) -> Uuid {
        let bits = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
        Uuid((bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62))
    }

    /// Reads the 36-character form, in either letter case. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Uuid> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return None;
        }
        let mut bits = 0u128;
        for (at, byte) in bytes.iter().enumerate() {
            match (at, byte) {
                (8 | 13 | 18 | 23, b'-') => {}
                (8 | 13 | 18 | 23, _) => return None,
                (_, digit) => bits = (bits << 4) | u128::from((*digit as char).to_digit(16)?),
            }
        }
        Some(Uuid(bits))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (hex >> 96) as u32,
            (hex >> 80) as u16,
            (hex >> 64) as u16,
            (hex >> 48) as u16,
            (hex as u64) & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_reads_back_what_it_prints() {
        let id = Uuid::random(&mut Rng::from_seed(7));
        let text = id.to_string();
        assert_eq!(Uuid::parse(&text), Some(id));
        assert_eq!(Uuid::parse(&text.to_uppercase()), Some(id));
        assert_eq!(&text[14..15], "4");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"));
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        for text in
            ["", "abc", "00000000-0000-0000-0000-00000000000g", "00000000_0000-0000-0000-000000000000"]
        {
            assert_eq!(Uuid::parse(text), None, "{text}");
        }
    }
}
