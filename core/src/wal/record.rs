//! Records as they stand in a frame: postcard, one after the other.
//!
//! The stored form is a type of its own, so that a change of Raft's vocabulary does not change the format unnoticed,
//! and so that a command's bytes are read as a slice of their frame. Variants are only ever added at the end.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{LogIndex, Term};
use crate::raft::{Entry, HardState, Membership, Payload, Record};

#[derive(Serialize, Deserialize)]
enum Stored<'a> {
    HardState(HardState),
    Entry(#[serde(borrow)] StoredEntry<'a>),
    Truncate(LogIndex),
    Reset { index: LogIndex, term: Term },
}

#[derive(Serialize, Deserialize)]
struct StoredEntry<'a> {
    term: Term,
    index: LogIndex,
    #[serde(borrow)]
    payload: StoredPayload<'a>,
}

#[derive(Serialize, Deserialize)]
enum StoredPayload<'a> {
    Noop,
    Command(#[serde(borrow, serialize_with = "as_bytes")] &'a [u8]),
    Membership(Membership),
}

/// Slices are sequences to serde; this writes the same format in one piece.
fn as_bytes<S: serde::Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Appends a record to a frame's buffer.
pub(super) fn encode(record: &Record, mut buffer: Vec<u8>) -> Vec<u8> {
    let stored = match record {
        Record::HardState(hard) => Stored::HardState(*hard),
        Record::Entry(entry) => Stored::Entry(StoredEntry {
            term: entry.term,
            index: entry.index,
            payload: match &entry.payload {
                Payload::Noop => StoredPayload::Noop,
                Payload::Command(bytes) => {
                    buffer.reserve(bytes.len() + 64);
                    StoredPayload::Command(bytes)
                }
                Payload::Membership(members) => StoredPayload::Membership(members.clone()),
            },
        }),
        Record::Truncate(index) => Stored::Truncate(*index),
        Record::Reset { index, term } => Stored::Reset { index: *index, term: *term },
    };
    postcard::to_extend(&stored, buffer).expect("a growing buffer takes every record")
}

/// The records of a frame's body. Commands are slices of it.
///
/// # Errors
/// The words of the decoder, if the body holds something else. Records before it are lost with the result.
pub(super) fn decode(body: &Bytes) -> Result<Vec<Record>, postcard::Error> {
    let mut records = Vec::new();
    let mut rest: &[u8] = body;
    while !rest.is_empty() {
        let (stored, after) = postcard::take_from_bytes(rest)?;
        records.push(own(stored, body));
        rest = after;
    }
    Ok(records)
}

/// The records that can be read before the first one that cannot.
pub(super) fn decode_what_can_be(body: &Bytes) -> Vec<Record> {
    let mut records = Vec::new();
    let mut rest: &[u8] = body;
    while let Ok((stored, after)) = postcard::take_from_bytes(rest) {
        records.push(own(stored, body));
        rest = after;
    }
    records
}

fn own(stored: Stored<'_>, body: &Bytes) -> Record {
    match stored {
        Stored::HardState(hard) => Record::HardState(hard),
        Stored::Entry(entry) => Record::Entry(Entry {
            term: entry.term,
            index: entry.index,
            payload: match entry.payload {
                StoredPayload::Noop => Payload::Noop,
                StoredPayload::Command(bytes) => Payload::Command(body.slice_ref(bytes)),
                StoredPayload::Membership(members) => Payload::Membership(members),
            },
        }),
        Stored::Truncate(index) => Record::Truncate(index),
        Stored::Reset { index, term } => Record::Reset { index, term },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uuid;
    use crate::raft::Member;

    fn one_of_each() -> Vec<Record> {
        let entry = |index, payload| Record::Entry(Entry { term: Term(3), index: LogIndex(index), payload });
        let member = Member { address: "10.0.0.1:8300".into(), voter: true };
        vec![
            Record::HardState(HardState { term: Term(3), vote: Some(Uuid(5)) }),
            entry(1, Payload::Noop),
            entry(2, Payload::Command(Bytes::from_static(b"set"))),
            entry(300, Payload::Membership(Membership { servers: [(Uuid(5), member)].into() })),
            Record::Truncate(LogIndex(2)),
            Record::Reset { index: LogIndex(7), term: Term(3) },
        ]
    }

    #[test]
    fn records_read_back_and_commands_share_the_frame() {
        let records = one_of_each();
        let body = Bytes::from(records.iter().fold(Vec::new(), |buffer, record| encode(record, buffer)));
        let read = decode(&body).expect("just encoded");
        assert_eq!(read, records);
        let Record::Entry(Entry { payload: Payload::Command(command), .. }) = &read[2] else { panic!() };
        assert!(body.as_ptr_range().contains(&command.as_ptr()));
    }

    #[test]
    fn the_format_of_records_is_fixed() {
        let hex: Vec<String> = one_of_each()
            .iter()
            .map(|record| encode(record, Vec::new()).iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        assert_eq!(
            hex,
            [
                "00030105",
                "01030100",
                "0103020103736574",
                "0103ac020201050d31302e302e302e313a3833303001",
                "0202",
                "030703",
            ]
        );
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        assert!(decode(&Bytes::from_static(&[9])).is_err());
        assert!(decode(&Bytes::from_static(&[1, 3, 1])).is_err());
        assert_eq!(decode_what_can_be(&Bytes::from_static(&[2, 2, 9])), [Record::Truncate(LogIndex(2))]);
    }
}
