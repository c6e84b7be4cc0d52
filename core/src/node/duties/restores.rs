//! A restore that nobody goes on with is given up: its pieces are in the memory and the checkpoints of every server.
//!
//! Whoever restores gives it up itself when its client goes away. If that agent dies instead, nobody is left who would.

use std::time::Duration;

use super::{DutyTimer, Effect};
use crate::cx::{Cx, Timer};
use crate::ids::Uuid;
use crate::store::command::Command;
use crate::store::{Restore, Store};
use crate::time::Mono;

/// A piece is on its way for seconds; the client that sends the archive may be slow.
const IDLE: Duration = Duration::from_secs(300);
/// How often is looked whether pieces come.
const LOOK: Duration = Duration::from_secs(30);

/// How far the restore under way has come.
#[derive(Debug, Default)]
pub(super) struct Restores {
    /// The restore, how many pieces it has, since when.
    seen: Option<(Uuid, u64, Mono)>,
}

impl Restores {
    /// Begins to look when a restore is under way.
    pub(super) fn follow(&mut self, cx: &mut Cx<'_, Effect>, store: &Store) {
        let timer = Timer::Duty(DutyTimer::Restore);
        if store.restoring().is_some() && cx.timers.deadline(&timer).is_none() {
            self.look(cx, store);
        }
    }

    /// Gives up a restore to which no piece has come for long.
    pub(super) fn look(&mut self, cx: &mut Cx<'_, Effect>, store: &Store) {
        let now = cx.mono();
        let Some((id, pieces)) = store.restoring() else {
            self.seen = None;
            return;
        };
        match self.seen {
            Some((seen, before, since)) if (seen, before) == (id, pieces) => {
                if now.since(since) >= IDLE {
                    cx.emit(Effect::Propose(Command::Restore(Restore::Abort { id })));
                }
            }
            _ => self.seen = Some((id, pieces, now)),
        }
        cx.timers.set(Timer::Duty(DutyTimer::Restore), now + LOOK);
    }
}
