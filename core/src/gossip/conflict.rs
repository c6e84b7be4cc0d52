//! Two agents with one name: the one that most members know stays.

use std::net::SocketAddr;
use std::time::Duration;

use super::Gossip;
use super::packet::Ask;
use super::types::Effect;
use crate::cx::Cx;
use crate::time::Mono;

/// The pool is asked at most this often.
const ASK_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Conflicts {
    asked: Option<Mono>,
    /// The question under way.
    open: Option<Vote>,
}

#[derive(Debug)]
struct Vote {
    id: u64,
    other: SocketAddr,
    ours: usize,
    theirs: usize,
}

impl Gossip {
    /// Another agent at that address has our name.
    pub(super) fn on_conflict(&mut self, cx: &mut Cx<'_, Effect>, other: SocketAddr) {
        self.stats.dropped.refused += 1;
        let now = cx.mono();
        let recently = self.conflicts.asked.is_some_and(|at| now.since(at) < ASK_INTERVAL);
        if recently || self.conflicts.open.is_some() || !self.leaving.is_no() {
            return;
        }
        let own = self.config.address;
        let name = self.config.name.clone();
        cx.emit(Effect::Warn(
            format!("another agent at {other} has the name '{name}' of this one at {own}").into(),
        ));
        self.conflicts.asked = Some(now);
        let id = self.ask(cx, Ask::Where(name.to_string().into()));
        self.conflicts.open = Some(Vote { id, other, ours: 0, theirs: 0 });
    }

    pub(super) fn on_where_answer(&mut self, id: u64, address: Option<SocketAddr>) {
        let own = self.config.address;
        if let Some(vote) = self.conflicts.open.as_mut().filter(|vote| vote.id == id) {
            match address {
                Some(address) if address == own => vote.ours += 1,
                Some(_) => vote.theirs += 1,
                None => {}
            }
        }
    }

    pub(super) fn on_where_over(&mut self, cx: &mut Cx<'_, Effect>, id: u64) {
        if let Some(vote) = self.conflicts.open.take_if(|vote| vote.id == id)
            && vote.theirs > vote.ours
        {
            cx.emit(Effect::NameConflict { other: vote.other });
        }
    }
}
