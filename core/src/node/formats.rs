//! Which format this agent speaks with whom, and what it does not understand.

use bytes::Bytes;

use super::{Config, Node, PeerMessage};
use crate::Text;
use crate::format::{Format, Formats};
use crate::gossip::tag;
use crate::ids::ServerId;
use crate::store::command::{BadCommand, Command};

/// The state is of a format that this agent does not know. Going on would let it differ from the other servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the group of servers uses format {found}, this version understands {known}: start the newer version again, \
     nothing is lost"
)]
pub struct NewerFormat {
    found: Format,
    known: Formats,
}

/// Whether a state of this format can be used.
pub(super) fn check(known: Formats, found: Format) -> Result<(), NewerFormat> {
    if found <= known.newest { Ok(()) } else { Err(NewerFormat { found, known }) }
}

/// Servers tell everybody what they understand.
pub(super) fn tell(config: &mut Config) {
    if config.about.server {
        let formats = Text::new(config.about.formats.to_string());
        for pool in std::iter::once(&mut config.lan).chain(config.wan.as_mut()) {
            pool.tags.insert(Text::new_static(tag::FORMATS), formats.clone());
        }
    }
}

impl Node {
    /// A command, if this agent understands it.
    pub(super) fn decode(&self, payload: &Bytes) -> Result<Command, BadCommand> {
        Command::decode(payload, self.about.formats)
    }

    /// Whether this agent understands a state of this format.
    pub(super) fn understands(&self, format: Format) -> Result<(), NewerFormat> {
        check(self.about.formats, format)
    }

    /// A connection came up: the other side is told what this one understands.
    pub(super) fn greet(&mut self, peer: ServerId) {
        self.peer_formats.remove(&peer);
        self.frames.push((peer, PeerMessage::Greeting(self.about.formats)));
    }

    /// Another agent says what it understands.
    pub(super) fn on_greeting(&mut self, peer: ServerId, theirs: Formats) {
        match self.about.formats.common(theirs) {
            Some(format) => {
                self.peer_formats.insert(peer, format);
            }
            None => self.warn(format!(
                "agent {peer} speaks formats {theirs}, this agent {}: they do not understand each other until the \
                 older one is upgraded",
                self.about.formats
            )),
        }
    }

    /// What frames for this agent are written in: the first format until it has said what it understands.
    pub(super) fn format_of(&self, peer: ServerId) -> Format {
        self.peer_formats.get(&peer).copied().unwrap_or(Format::FIRST)
    }
}
