//! The group's format is raised once every one of its servers knows a newer one.

use super::{Effect, Facts, member_formats};
use crate::cx::Cx;
use crate::format::Format;
use crate::store::command::Command;

/// What was asked for last, so that it is asked for once.
#[derive(Debug, Default)]
pub(super) struct Raising {
    asked: Option<Format>,
}

impl Raising {
    /// Gossip says something new of a server, or the group has changed.
    pub(super) fn look(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        let Some(to) = known_to_all(facts) else { return };
        if to > facts.store.format() && self.asked.is_none_or(|asked| asked < to) {
            self.asked = Some(to);
            cx.emit(Effect::Propose(Command::FormatRaised { to }));
        }
    }
}

/// The newest format that each member of the group knows; `None` while there is one of which that is not known. Members
/// that have failed count: they may come back.
fn known_to_all(facts: &Facts<'_>) -> Option<Format> {
    let own = facts.raft.id();
    let mut newest = facts.about.formats.newest;
    for id in facts.raft.membership().servers.keys().filter(|id| **id != own) {
        newest = newest.min(member_formats(facts, *id)?.newest);
    }
    Some(newest)
}
