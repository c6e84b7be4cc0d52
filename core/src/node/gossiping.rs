//! Between the pools of gossip and the rest of the node.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::events::{self, RemoteJob};
use super::{Node, forming};
use crate::Text;
use crate::agent::persist::{BadPersisted, decode, encode};
use crate::boundary::{Outbox, Output};
use crate::cx::Cx;
use crate::gossip::{
    self, Clocks, Gossip, Key, KeysChange, KeysReport, Member, MemberChange, Pool, Status, tag,
};
use crate::ids::{OpId, RequestId, ServerId};
use crate::time::Now;

/// Keys of gossip among what the agent keeps for itself.
const KEPT: &str = "gossip/";

/// What a pool had kept when the agent started.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) keys: Option<Vec<Key>>,
    pub(super) known: Vec<SocketAddr>,
    /// Absent in what versions before kept.
    pub(super) clocks: Clocks,
}

fn kept_key(pool: Pool, what: &str) -> Text {
    let pool = match pool {
        Pool::Lan => "lan",
        Pool::Wan => "wan",
    };
    Text::new(format!("{KEPT}{pool}/{what}"))
}

/// What this pool has kept.
///
/// # Errors
/// A value that cannot be read, with a remedy.
pub(super) fn kept(pool: Pool, local: &[(Text, Bytes)]) -> Result<Kept, BadPersisted> {
    fn read<T: serde::de::DeserializeOwned>(
        pool: Pool,
        what: &str,
        local: &[(Text, Bytes)],
    ) -> Result<Option<T>, BadPersisted> {
        let key = kept_key(pool, what);
        let value = local.iter().find(|(known, _)| *known == key);
        value.map(|(_, value)| decode(&key, value)).transpose()
    }
    Ok(Kept {
        keys: read(pool, "keys", local)?,
        known: read(pool, "known", local)?.unwrap_or_default(),
        clocks: read(pool, "clocks", local)?.unwrap_or_default(),
    })
}

/// A change of keys that pools are still busy with.
#[derive(Debug)]
pub(super) struct KeysWait {
    request: RequestId,
    change: KeysChange,
    /// Pools that have been asked, each with its ticket; `None` until it has reported.
    asked: Vec<(Pool, u64, Option<KeysReport>)>,
}

impl Node {
    /// Acts on a pool, if this agent is in it.
    pub(super) fn gossip<T>(
        &mut self,
        now: Now,
        pool: Pool,
        act: impl FnOnce(&mut Gossip, &mut Cx<'_, gossip::Effect>) -> T,
    ) -> Option<T> {
        let (gossip, effects) = match pool {
            Pool::Lan => (Some(&mut self.lan), &mut self.lan_effects),
            Pool::Wan => (self.wan.as_mut(), &mut self.wan_effects),
        };
        let mut cx = Cx { now, timers: &mut self.timers, effects };
        gossip.map(|gossip| act(gossip, &mut cx))
    }

    pub(super) fn on_gossip_effect(
        &mut self,
        now: Now,
        pool: Pool,
        effect: gossip::Effect,
        out: &mut Outbox,
    ) {
        match effect {
            gossip::Effect::Datagram { to, bytes } => out.push(Output::Datagram { pool, to, bytes }),
            gossip::Effect::Call { call, to, bytes, timeout } => {
                out.push(Output::GossipCall { pool, call, to, bytes, timeout });
            }
            gossip::Effect::Answer { caller, bytes } => {
                out.push(Output::GossipAnswer { pool, caller, bytes });
            }
            gossip::Effect::Member(change) => self.on_member_change(now, pool, change),
            gossip::Effect::Suspected(name) => {
                let suspect = match pool {
                    Pool::Lan => self.cluster.lan.get(&name).filter(|_| !self.about.server),
                    Pool::Wan => {
                        let is_foreign = |it: &&Member| it.tag(tag::DATACENTER) != self.about.datacenter;
                        self.cluster.wan.get(&name).filter(is_foreign)
                    }
                };
                if let Some(id) = suspect.and_then(Member::id) {
                    // It may have been stopped, and then says nothing for as long as anybody waits.
                    self.ask_others(now, id);
                }
            }
            gossip::Effect::UserEvent(event) => {
                let concerns =
                    pool == Pool::Lan && events::concerns(&event, &self.about.node, &self.agent.view());
                if concerns && event.name == events::REMOTE_EXEC {
                    // Off unless it was asked for: whoever reaches the agents may run programs then.
                    let job = RemoteJob::of(&event).filter(|_| self.config.agent.remote_exec);
                    out.0.extend(job.map(Output::Execute));
                } else if concerns {
                    events::remember(Arc::make_mut(&mut self.cluster), event);
                    self.publish = true;
                    self.answer_event_waits(now.mono);
                }
            }
            gossip::Effect::Joined { ticket, contacted, error } => {
                let steps = self.joining.on_joined(now.mono, ticket, contacted, error.as_deref());
                self.perform_joining(now, steps);
            }
            gossip::Effect::Left => self.on_pool_left(now),
            gossip::Effect::Keys { ticket, report } => self.on_keys_report(ticket, report),
            gossip::Effect::NameConflict { other } => {
                let reason = format!(
                    "another agent at {other} has this agent's name, and most members know that one by it: give one \
                     of them another node_name"
                );
                self.halt(reason, out);
            }
            gossip::Effect::Warn(text) => out.push(Output::Warn(text)),
            gossip::Effect::SaveKeys(keys) => {
                if self.config.keeps_keys {
                    self.keep([(kept_key(pool, "keys"), Some(encode(&keys)))], None);
                }
            }
            gossip::Effect::SaveKnown(known) => {
                self.keep([(kept_key(pool, "known"), Some(encode(&known)))], None);
            }
            gossip::Effect::SaveClocks(clocks) => {
                self.keep([(kept_key(pool, "clocks"), Some(encode(&clocks)))], None);
            }
        }
    }

    /// What is believed of a member changed.
    fn on_member_change(&mut self, now: Now, pool: Pool, change: MemberChange) {
        self.publish = true;
        let cluster = Arc::make_mut(&mut self.cluster);
        let members = match pool {
            Pool::Lan => &mut cluster.lan,
            Pool::Wan => &mut cluster.wan,
        };
        let is_alive = |member: &Member| member.status == Status::Alive;
        let (former, alive) = match &change {
            MemberChange::Upsert(member) => {
                (members.insert(member.name.clone(), member.clone()), is_alive(member))
            }
            MemberChange::Reaped(member) => (members.remove(&member.name), false),
        };
        if pool == Pool::Lan {
            self.alive = self.alive + usize::from(alive) - usize::from(former.as_ref().is_some_and(is_alive));
            self.on_lan_change(now, &change);
        } else {
            self.on_wan_change(now, &change);
        }
    }

    fn on_lan_change(&mut self, now: Now, change: &MemberChange) {
        self.agent.set_cluster_size(u32::try_from(self.alive).unwrap_or(u32::MAX));
        let had_servers = self.servers.any_alive();
        if self.servers.follow(change, &self.about.datacenter) {
            self.on_servers_changed(now, change);
        }
        if !self.about.server && !had_servers && self.servers.any_alive() {
            self.agent(now, |agent, cx| agent.on_leader_known(cx));
        }
        if self.about.server {
            self.form(now, |forming, cx, facts| forming.look(cx, facts));
            if let MemberChange::Upsert(member) = change {
                self.join_wan(now, member);
            }
            self.duties(now, |duties, cx, facts| duties.on_member(cx, facts, change));
        }
        self.seek_if_alone(now);
    }

    /// A server came, went or moved. What a client agent asked of one that is gone is asked of another.
    fn on_servers_changed(&mut self, now: Now, change: &MemberChange) {
        if self.about.server {
            return;
        }
        let (MemberChange::Upsert(member) | MemberChange::Reaped(member)) = change;
        match member.id() {
            Some(id) if self.servers.get(id).is_none_or(|known| !known.alive) => self.ask_others(now, id),
            _ => self.retry_held(now),
        }
    }

    /// Whether this server listens to what that one's Raft says.
    pub(super) fn may_hear(&self, peer: ServerId) -> bool {
        let group_of = |id| self.servers.get(id).and_then(|server| server.group);
        forming::may_hear(&self.raft, self.store.group(), peer, group_of, self.about.formats)
    }

    /// Where an agent takes calls: as gossip says, which knows of moves first, else as the group does; and in which
    /// datacenter, unless that is this one. Empty for client agents, which are only answered.
    pub(super) fn rpc_address(&self, id: ServerId) -> (Text, Option<Text>) {
        let members = &self.raft.membership().servers;
        match (self.servers.get(id), members.get(&id), self.abroad.get(id)) {
            (Some(server), ..) => (server.address.clone(), None),
            (None, Some(member), _) => (member.address.clone(), None),
            (None, None, Some((datacenter, server))) => (server.address.clone(), Some(datacenter.clone())),
            (None, None, None) => (Text::default(), None),
        }
    }

    /// Changes keys in the pools that this agent is in, and answers when all have reported.
    pub(super) fn change_keys(
        &mut self,
        now: Now,
        request: RequestId,
        change: &KeysChange,
        local_only: bool,
    ) {
        let pools: &[Pool] =
            if local_only || self.wan.is_none() { &[Pool::Lan] } else { &[Pool::Wan, Pool::Lan] };
        let mut wait = KeysWait { request, change: change.clone(), asked: Vec::new() };
        for pool in pools {
            let OpId(ticket) = self.op();
            wait.asked.push((*pool, ticket, None));
        }
        let tickets: Vec<(Pool, u64)> = wait.asked.iter().map(|(pool, ticket, _)| (*pool, *ticket)).collect();
        self.keys_waits.push(wait);
        for (pool, ticket) in tickets {
            let change = change.clone();
            self.gossip(now, pool, |gossip, cx| gossip.change_keys(cx, change, ticket));
        }
    }

    fn on_keys_report(&mut self, ticket: u64, report: KeysReport) {
        let slot = self.keys_waits.iter_mut().enumerate().find_map(|(at, wait)| {
            let slot = wait.asked.iter_mut().find(|(_, asked, _)| *asked == ticket)?;
            Some((at, &mut slot.2))
        });
        let Some((at, slot)) = slot else { return };
        *slot = Some(report);
        if self.keys_waits[at].asked.iter().all(|(_, _, report)| report.is_some()) {
            let wait = self.keys_waits.swap_remove(at);
            let reports: Vec<(Pool, KeysReport)> =
                wait.asked.into_iter().filter_map(|(pool, _, report)| Some((pool, report?))).collect();
            let reply = crate::api::render_keys(&wait.change, &self.about.datacenter, &reports);
            self.reply(wait.request, reply);
        }
    }

    /// Looks up a name for the joiner.
    pub(super) fn resolve(&mut self, ticket: u64, name: Text) {
        let op = self.op();
        self.resolving.insert(op, (ticket, name.clone()));
        self.pending.push(Output::Resolve { op, name });
    }

    pub(super) fn on_resolved(&mut self, now: Now, op: OpId, result: Result<Vec<std::net::IpAddr>, String>) {
        if let Some((ticket, name)) = self.resolving.remove(&op) {
            let steps = self.joining.on_resolved(ticket, &name, result);
            self.perform_joining(now, steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gossip_keeps_is_read_with_and_without_clocks() {
        let known: Vec<SocketAddr> = vec![([10, 0, 0, 1], 8301).into()];
        let mut local = vec![(Text::new("gossip/lan/known"), encode(&known))];
        let before = kept(Pool::Lan, &local).expect("as versions before wrote it");
        assert_eq!((before.known, before.clocks), (known, Clocks::default()));
        let clocks = Clocks { member: 3, event: 300, query: 2 };
        assert_eq!(encode(&clocks).as_ref(), [1, 3, 172, 2, 2], "the format is stable");
        local.push((Text::new("gossip/lan/clocks"), encode(&clocks)));
        assert_eq!(kept(Pool::Lan, &local).expect("as this version writes it").clocks, clocks);
        assert_eq!(kept(Pool::Wan, &local).expect("of another pool").clocks, Clocks::default());
        local.push((Text::new("gossip/wan/clocks"), Bytes::from_static(&[2, 0])));
        assert!(kept(Pool::Wan, &local).is_err());
    }
}
