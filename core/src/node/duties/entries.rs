//! Configuration entries that an operator wants to be there from the beginning (Consul: `config_entries.bootstrap`).

use super::{Effect, Facts};
use crate::config_entry::Draft;
use crate::cx::Cx;
use crate::store::command::Command;

/// Entries that a leader writes when it begins, unless there are such.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) wanted: Vec<Draft>,
}

impl Entries {
    /// Leadership has begun: what is missing is written. What somebody has written in the meantime stays.
    pub(super) fn begin(&self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        let missing =
            self.wanted.iter().filter(|entry| facts.store.config_entry(entry.kind, &entry.name).is_none());
        for entry in missing {
            let entry = Box::new(entry.clone());
            cx.emit(Effect::Propose(Command::ConfigSet { entry, cas: Some(0) }));
        }
    }
}
