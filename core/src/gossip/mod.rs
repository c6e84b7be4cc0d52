//! Gossip: who is there, who has failed, what is to be told to everybody.
//!
//! SWIM (Das, Gupta, Motivala 2002) with the extensions of Lifeguard (Dadgar, Phillips, Currey 2017), and above it
//! lamport-clocked intents, user events and queries. One machine is one pool: agents have one for their datacenter
//! (LAN), servers a second one that spans datacenters (WAN).

mod keyring;
mod types;

pub use keyring::{Key, KeysChange, KeysReport};
pub use types::{CallError, EVENT_BYTES_MAX, Effect, Member, MemberChange, Pool, Status, UserEvent, tag};
