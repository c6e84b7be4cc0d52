//! What members say to each other, and its bytes.
//!
//! A packet is a version byte, a byte that says whether it is sealed, and a body. A body is a byte for the pool and
//! then, in a datagram, any number of messages; over a stream, one request or one answer. Messages are postcard and
//! borrow from the packet, so that news that is no news costs no allocation.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::keyring::{Key, KeysChange, SEAL_BYTES};
use super::member::State;
use super::types::{Pool, UserEvent};
use crate::coordinate::Coordinate;
use crate::ids::Uuid;

/// Version of the format of packets.
pub const VERSION: u8 = 1;
/// Largest datagram, sealed, in bytes: fits the smallest MTU in use together with its headers.
pub const PACKET_BYTES_MAX: usize = 1400;
/// Largest request or answer over a stream, in bytes.
pub const STREAM_BYTES_MAX: usize = 20 << 20;

/// Second byte of a packet that is not sealed; the CRC-32C of its body follows in four bytes, big-endian.
pub(super) const PLAIN: u8 = 0;
/// Second byte of a packet that is sealed.
pub(super) const SEALED: u8 = 1;
/// Room for messages in a datagram, the byte of the pool included.
pub(super) const BODY_BYTES_MAX: usize = PACKET_BYTES_MAX - 2 - SEAL_BYTES;

/// A packet that is not sealed, of this body.
pub(super) fn plain(body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(2 + 4 + body.len());
    packet.extend_from_slice(&[VERSION, PLAIN]);
    packet.extend_from_slice(&crc32c::crc32c(body).to_be_bytes());
    packet.extend_from_slice(body);
    packet
}

/// The body of what follows a plain packet's two first bytes; `None` if it is not what was sent.
pub(super) fn checked(rest: &[u8]) -> Option<&[u8]> {
    let (sum, body) = rest.split_first_chunk()?;
    (u32::from_be_bytes(*sum) == crc32c::crc32c(body)).then_some(body)
}

/// First byte of a body.
pub(super) fn label(pool: Pool) -> u8 {
    match pool {
        Pool::Lan => b'L',
        Pool::Wan => b'W',
    }
}

/// One message of a datagram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Message<'a> {
    /// Are you there? Answered by `Ack`, unless another agent listens at the address.
    Ping { seq: u32, target: &'a str },
    /// Ping that member for me; answered by `Ack`, or by `Nack` when it takes too long.
    PingRequest { seq: u32, target: &'a str, address: SocketAddr },
    /// I am, or it is, there.
    Ack { seq: u32, coordinate: Option<Coordinate> },
    /// I am well, but it did not answer me either.
    Nack { seq: u32 },
    /// I was refused a connection there: see for yourself, and say so.
    Verify { target: &'a str },
    /// A member is there and says this of itself.
    Alive(Alive<'a>),
    /// A member cannot be reached.
    Suspect { incarnation: u32, name: &'a str, from: &'a str, refused: bool },
    /// A member has failed, or, when it says so itself, has left.
    Dead { incarnation: u32, name: &'a str, from: &'a str },
    /// A member means to be in the pool.
    Join { time: u64, name: &'a str },
    /// A member means to leave the pool, or an operator says that it has.
    Leave { time: u64, name: &'a str, prune: bool },
    /// A user event.
    Event(Event<'a>),
    /// A question to every member, answered to `address` directly.
    Query { time: u64, id: u64, from: &'a str, address: SocketAddr, ask: Ask<'a> },
    /// The answer of one member.
    Answer { id: u64, from: &'a str, reply: Reply<'a> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Alive<'a> {
    pub incarnation: u32,
    pub name: &'a str,
    pub address: SocketAddr,
    pub meta: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Event<'a> {
    pub time: u64,
    pub id: Uuid,
    pub name: &'a str,
    pub payload: &'a [u8],
    pub node_filter: &'a str,
    pub service_filter: &'a str,
    pub tag_filter: &'a str,
}

impl<'a> Event<'a> {
    pub fn of(event: &'a UserEvent) -> Event<'a> {
        Event {
            time: event.ltime,
            id: event.id,
            name: &event.name,
            payload: &event.payload,
            node_filter: &event.node_filter,
            service_filter: &event.service_filter,
            tag_filter: &event.tag_filter,
        }
    }

    pub fn owned(&self) -> UserEvent {
        UserEvent {
            id: self.id,
            name: self.name.into(),
            payload: bytes::Bytes::copy_from_slice(self.payload),
            node_filter: self.node_filter.into(),
            service_filter: self.service_filter.into(),
            tag_filter: self.tag_filter.into(),
            ltime: self.time,
        }
    }
}

/// What every member is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask<'a> {
    /// Change your ring of keys, and say what is on it.
    Keys(KeysChange),
    /// Where is the member of this name, as far as you know?
    #[serde(borrow)]
    Where(Cow<'a, str>),
}

/// What a member answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply<'a> {
    /// My ring, the key that seals first, and why it did not change.
    Keys { error: Option<&'a str>, keys: Vec<Key> },
    /// It is there; nothing when the name is unknown here.
    Where(Option<SocketAddr>),
}

/// A request over a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Request<'a> {
    /// Are you there? For when datagrams do not get through.
    Ping(&'a str),
    /// This is all I know; tell me all you know.
    Exchange(#[serde(borrow)] Exchange<'a>),
    /// Do we know the same?
    Compare(Digest),
    /// This is what I know of the members in these parts, and of all else; tell me the same.
    Parts(u64, #[serde(borrow)] Exchange<'a>),
}

/// The answer over a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer<'a> {
    /// I am there.
    Pong,
    /// Another agent is.
    NotMe,
    /// This is all I know.
    Exchange(#[serde(borrow)] Exchange<'a>),
    /// We do not belong together, for this reason. Nothing was merged.
    Refused {
        reason: &'a str,
        /// Where the member is that has the asker's name.
        taken_by: Option<SocketAddr>,
    },
    /// We know the same.
    Same,
    /// We do not: the members in these parts differ, or something else.
    Differs(u64),
}

/// All that a member knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Exchange<'a> {
    /// Whether the sender asks to join.
    pub join: bool,
    /// Who sends it; its own row is among `members`.
    pub from: &'a str,
    pub member_time: u64,
    pub event_time: u64,
    pub query_time: u64,
    /// The sender's keys; only in a sealed packet.
    pub ring: Option<Ring>,
    #[serde(borrow)]
    pub members: Vec<Row<'a>>,
    #[serde(borrow)]
    pub events: Vec<Event<'a>>,
}

/// A ring of keys, and when it was changed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ring {
    /// Lamport time of queries at the last change; zero: as configured.
    pub time: u64,
    /// The key that seals first.
    pub keys: Vec<Key>,
}

/// What is known of one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row<'a> {
    #[serde(borrow)]
    pub alive: Alive<'a>,
    pub state: State,
    pub leaving: bool,
    pub intent_time: u64,
    /// For how long it has been in `state`, in seconds; told of dead and left members only.
    pub age: u32,
}

/// Appends a message.
pub(super) fn encode(message: &impl Serialize, to: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(message, to).expect("messages always encode")
}

/// The messages of a datagram's body, up to the first that cannot be read.
pub(super) struct Messages<'a> {
    pub rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, postcard::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(self.rest) {
            Ok((message, rest)) => {
                self.rest = rest;
                Some(Ok(message))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// A request or an answer that fills the whole of a body.
pub(super) fn decode_whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The encoding is a promise to agents of other versions: whoever changes it raises [`VERSION`].
    #[test]
    fn the_encoding_is_the_recorded_one() {
        let address: SocketAddr = "10.0.0.1:8301".parse().unwrap();
        let alive = Alive { incarnation: 300, name: "a", address, meta: &[1, 2] };
        let cases = [
            (Message::Ping { seq: 1, target: "b" }, "00010162"),
            (Message::PingRequest { seq: 2, target: "b", address }, "01020162000a000001ed40"),
            (Message::Ack { seq: 3, coordinate: None }, "020300"),
            (Message::Nack { seq: 4 }, "0304"),
            (Message::Verify { target: "b" }, "040162"),
            (Message::Alive(alive.clone()), "05ac020161000a000001ed40020102"),
            (Message::Suspect { incarnation: 1, name: "a", from: "b", refused: true }, "06010161016201"),
            (Message::Dead { incarnation: 1, name: "a", from: "b" }, "070101610162"),
            (Message::Join { time: 5, name: "a" }, "08050161"),
            (Message::Leave { time: 6, name: "a", prune: false }, "0906016100"),
            (
                Message::Event(Event {
                    time: 7,
                    id: Uuid(1),
                    name: "e",
                    payload: &[9],
                    node_filter: "",
                    service_filter: "s",
                    tag_filter: "",
                }),
                "0a07010165010900017300",
            ),
            (
                Message::Query { time: 8, id: 9, from: "a", address, ask: Ask::Where("x".into()) },
                "0b08090161000a000001ed40010178",
            ),
            (Message::Answer { id: 9, from: "a", reply: Reply::Where(None) }, "0c0901610100"),
        ];
        for (message, expected) in cases {
            let bytes = encode(&message, Vec::new());
            assert_eq!(hex(&bytes), expected, "{message:?}");
            let read: Vec<_> = Messages { rest: &bytes }.map(Result::unwrap).collect();
            assert_eq!(read, [message]);
        }
        let exchange = Exchange {
            join: true,
            from: "a",
            member_time: 1,
            event_time: 2,
            query_time: 3,
            ring: Some(Ring { time: 4, keys: vec![Key::new(&[7; 16]).unwrap()] }),
            members: vec![Row { alive, state: State::Suspect, leaving: false, intent_time: 5, age: 6 }],
            events: Vec::new(),
        };
        let request = Request::Exchange(exchange);
        let bytes = encode(&request, Vec::new());
        assert_eq!(
            hex(&bytes),
            "010101610102030104011007070707070707070707070707070707\
             01ac020161000a000001ed400201020100050600"
        );
        assert_eq!(decode_whole::<Request<'_>>(&bytes), Some(request));
    }
}
