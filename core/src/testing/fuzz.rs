//! Hostile input for decoders: any bytes, and good ones that were damaged.
//!
//! Every decoder of what comes from outside has tests that end in these: it must not panic, must not take memory that
//! the input has not paid for, and where a checksum promises it, must not accept what is not what was sent. They run
//! with every test run, briefly; `PROPTEST_CASES=25600 cargo test fuzz hostile` runs all of them a hundred times as
//! long (256 is proptest's own default, to which [`cases`] is relative).

use std::ops::Range;

use proptest::collection::{SizeRange, vec};
use proptest::prelude::*;
use proptest::sample::Index;

/// One change to some bytes.
#[derive(Clone, Debug)]
enum Damage {
    /// One bit is another.
    Flip(Index, u8),
    /// One byte becomes one that decoders have reasons to fear.
    Set(Index, u8),
    /// Some bytes are missing.
    Cut(Index, usize),
    /// The end is missing.
    Truncate(Index),
    /// Other bytes stand between.
    Insert(Index, Vec<u8>),
    /// Some bytes come twice.
    Repeat(Index, usize),
    /// A length of four bytes is huge or tiny.
    Length(Index, u32),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        let range = |at: &Index, count: usize| -> Range<usize> {
            let from = at.index(len + 1);
            from..from.saturating_add(count).min(len)
        };
        match self {
            Damage::Insert(at, more) => {
                let from = at.index(len + 1);
                bytes.splice(from..from, more.iter().copied());
            }
            Damage::Truncate(at) => bytes.truncate(at.index(len + 1)),
            Damage::Cut(at, count) => drop(bytes.drain(range(at, *count))),
            Damage::Repeat(at, count) => {
                let range = range(at, *count);
                let copy = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, copy);
            }
            Damage::Flip(..) | Damage::Set(..) | Damage::Length(..) if len == 0 => {}
            Damage::Flip(at, bit) => bytes[at.index(len)] ^= 1 << (bit % 8),
            Damage::Set(at, byte) => bytes[at.index(len)] = *byte,
            Damage::Length(at, value) => {
                let from = at.index(len);
                let until = (from + 4).min(len);
                bytes[from..until].copy_from_slice(&value.to_be_bytes()[..until - from]);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let odd = prop_oneof![Just(0_u8), Just(1), Just(0x7f), Just(0x80), Just(0xfe), Just(0xff), any::<u8>()];
    let length = prop_oneof![
        Just(0_u32),
        Just(1),
        Just(0x7fff_ffff),
        Just(0xffff_ffff),
        Just(0x0100_0000),
        any::<u32>()
    ];
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (any::<Index>(), odd).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => (any::<Index>(), 1..40_usize).prop_map(|(at, count)| Damage::Cut(at, count)),
        1 => any::<Index>().prop_map(Damage::Truncate),
        1 => (any::<Index>(), vec(any::<u8>(), 1..20)).prop_map(|(at, more)| Damage::Insert(at, more)),
        1 => (any::<Index>(), 1..40_usize).prop_map(|(at, count)| Damage::Repeat(at, count)),
        1 => (any::<Index>(), length).prop_map(|(at, value)| Damage::Length(at, value)),
    ]
}

/// Good bytes and what becomes of them by some of these changes.
fn changed(
    good: impl Strategy<Value = Vec<u8>>,
    changes: impl Into<SizeRange>,
) -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (good, vec(damage(), changes)).prop_map(|(good, changes)| {
        let mut bytes = good.clone();
        for change in changes {
            change.apply(&mut bytes);
        }
        (good, bytes)
    })
}

/// Good bytes with what became of them: never the same.
pub fn damaged(good: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    changed(good, 1..5).prop_map(|(good, mut bytes)| {
        if bytes == good {
            bytes.push(0);
        }
        (good, bytes)
    })
}

/// Bytes that may arrive: good ones, damaged ones, and any up to this many.
pub fn hostile(good: impl Strategy<Value = Vec<u8>>, len_max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => vec(any::<u8>(), 0..=len_max),
        7 => changed(good, 0..5).prop_map(|(_, bytes)| bytes),
    ]
}

/// Text that may arrive: good, damaged, any.
pub fn hostile_text(good: impl Strategy<Value = String>, len_max: usize) -> impl Strategy<Value = String> {
    hostile(good.prop_map(String::into_bytes), len_max)
        .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// So many cases, or as many times as many as `PROPTEST_CASES` is of 256.
#[must_use]
pub fn cases(normally: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = u64::from(normally) * u64::from(asked.cases) / 256;
    ProptestConfig { cases: u32::try_from(cases).unwrap_or(u32::MAX).max(1), ..asked }
}
