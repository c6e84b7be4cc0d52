//! What the group of servers knows about itself: its identity, its format, and autopilot's settings.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::change::Change;
use super::command::Response;
use super::rows::RowKey;
use crate::Text;
use crate::format::Format;
use crate::ids::Uuid;

/// How autopilot decides (Consul: «Autopilot», configuration).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutopilotSettings {
    /// Whether servers that have failed are removed when others can do without them.
    pub cleanup_dead_servers: bool,
    /// A server that the leader has not heard for this long is not healthy.
    pub last_contact_threshold: Duration,
    /// A server whose log lags behind the leader's by more entries than this is not healthy.
    pub max_trailing_logs: u64,
    /// A new server must have been healthy for this long before it votes.
    pub server_stabilization_time: Duration,
    /// Servers that have failed are not removed if fewer voters than this would be left.
    pub min_quorum: u64,
    /// Kept for clients; only Consul Enterprise acts on it.
    pub redundancy_zone_tag: Text,
    /// Kept for clients; only Consul Enterprise acts on it.
    pub disable_upgrade_migration: bool,
    /// Kept for clients; only Consul Enterprise acts on it.
    pub upgrade_version_tag: Text,
}

impl Default for AutopilotSettings {
    fn default() -> Self {
        AutopilotSettings {
            cleanup_dead_servers: true,
            last_contact_threshold: Duration::from_millis(200),
            max_trailing_logs: 250,
            server_stabilization_time: Duration::from_secs(10),
            min_quorum: 0,
            redundancy_zone_tag: Text::default(),
            disable_upgrade_migration: false,
            upgrade_version_tag: Text::default(),
        }
    }
}

/// Autopilot's settings as they are replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autopilot {
    /// The settings.
    pub settings: AutopilotSettings,
    /// Raft index of creation.
    pub create_index: u64,
    /// Raft index of the last change.
    pub modify_index: u64,
}

/// Names a row of this table in checkpoints. The numbers are format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum SystemRow {
    /// [`Autopilot`]
    Autopilot = 1,
    /// The group's identity.
    Group = 2,
    /// The format of commands; without a row the first one.
    Format = 3,
    /// By how much indexes are ahead of the log's; without a row by nothing.
    IndexOffset = 4,
    /// The restore that is under way; its pieces are rows of their own.
    Restore = 5,
}

impl SystemRow {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [SystemRow; 5] = [
        SystemRow::Autopilot,
        SystemRow::Group,
        SystemRow::Format,
        SystemRow::IndexOffset,
        SystemRow::Restore,
    ];
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(super) struct System {
    pub(super) autopilot: Option<Arc<Autopilot>>,
    /// Which group of servers this is the state of. Set once; never changes.
    pub(super) group: Option<Uuid>,
    /// The format of commands. Never lowered.
    pub(super) format: Format,
    /// What is added to the log's index: a restored state may come from further ahead. Only grows.
    pub(super) index_offset: u64,
}

impl System {
    /// Replaces the settings. With an index only if they were last changed there; zero: only if there are none.
    pub(super) fn set_autopilot(
        &mut self,
        change: &mut Change,
        settings: &AutopilotSettings,
        cas: Option<u64>,
    ) -> Response {
        let old = self.autopilot.as_deref();
        let at = old.map_or(0, |old| old.modify_index);
        if cas.is_some_and(|index| index != at) {
            return Response::Held(false);
        }
        if old.is_none_or(|old| old.settings != *settings) {
            let create_index = old.map_or(change.index, |old| old.create_index);
            let row = Autopilot { settings: settings.clone(), create_index, modify_index: change.index };
            self.autopilot = Some(Arc::new(row));
            change.dirty(RowKey::system(SystemRow::Autopilot));
        }
        Response::Held(true)
    }

    /// Gives the group its identity, unless it has one.
    pub(super) fn name_group(&mut self, change: &mut Change, id: Uuid) -> Response {
        if self.group.is_some() {
            return Response::Held(false);
        }
        self.group = Some(id);
        change.dirty(RowKey::system(SystemRow::Group));
        Response::Held(true)
    }

    /// Every server knows this format.
    pub(super) fn raise_format(&mut self, change: &mut Change, to: Format) -> Response {
        if to <= self.format {
            return Response::Held(false);
        }
        self.format = to;
        change.dirty(RowKey::system(SystemRow::Format));
        Response::Held(true)
    }
}
