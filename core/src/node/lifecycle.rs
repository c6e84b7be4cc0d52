//! How an agent comes to its cluster, and how it leaves it.

use std::net::SocketAddr;

use super::duties::Facts;
use super::{FormingPolicy, Node, forming, leaving};
use crate::Text;
use crate::api::HttpReply;
use crate::boundary::Outbox;
use crate::cx::Cx;
use crate::gossip::{Member, Pool, Status, tag};
use crate::ids::{LogIndex, Term};
use crate::time::Now;

impl Node {
    /// The first step: joins, founds the group if that is this server's part, arms timers, publishes.
    pub fn start(&mut self, now: Now, out: &mut Outbox) {
        self.gossip(now, Pool::Lan, |gossip, cx| gossip.start(cx));
        self.gossip(now, Pool::Wan, |gossip, cx| gossip.start(cx));
        let is_new = self.raft.last_index() == LogIndex(0) && self.raft.term() <= Term(1);
        match self.config.forming.clone() {
            FormingPolicy::Found(membership) if is_new => self.raft(now, |raft, cx| {
                raft.bootstrap(cx, membership).expect("a new server may found a group of voters");
            }),
            _ => self.raft(now, |raft, cx| raft.start(cx)),
        }
        self.tell_group(now);
        self.form(now, |forming, cx, facts| forming.start(cx, facts));
        self.agent(now, |agent, cx| agent.start(cx));
        if self.config.lan.coordinates {
            self.locating.start(&mut self.timers, now.mono);
        }
        for pool in [Pool::Lan, Pool::Wan] {
            let steps = self.joining.attempt(pool);
            self.perform_joining(now, steps);
        }
        self.seek_if_alone(now);
        self.start_flood(now);
        self.settle(now, out);
    }

    /// Founds the group, if it is time. Only servers do.
    pub(super) fn form(
        &mut self,
        now: Now,
        act: impl FnOnce(&mut forming::Forming, &mut Cx<'_, forming::Effect>, &Facts<'_>),
    ) {
        if !self.about.server {
            return;
        }
        let mut effects = Vec::new();
        let mut cx = Cx { now, timers: &mut self.timers, effects: &mut effects };
        let facts =
            Facts { store: &self.store, members: &self.cluster.lan, raft: &self.raft, about: &self.about };
        act(&mut self.forming, &mut cx, &facts);
        for effect in effects {
            match effect {
                // A refusal means that another founder was faster; it is tried again or not needed any more.
                forming::Effect::Found(membership) => {
                    let _ = self.raft(now, |raft, cx| raft.found(cx, membership));
                }
                forming::Effect::Withdraw => self.raft(now, |raft, cx| raft.stop_founding(cx)),
            }
        }
    }

    /// Once the group has an identity, members of the pools are told: groups that meet by mistake do not mix.
    pub(super) fn tell_group(&mut self, now: Now) {
        let group = self.store.group();
        if group == self.told_group {
            return;
        }
        self.told_group = group;
        for pool in [Pool::Lan, Pool::Wan] {
            let config = match pool {
                Pool::Lan => Some(&self.config.lan),
                Pool::Wan => self.config.wan.as_ref(),
            };
            let Some(mut tags) = config.map(|config| config.tags.clone()) else { continue };
            if let Some(group) = group {
                tags.insert(Text::new_static(tag::GROUP), Text::new(group.to_string()));
            }
            self.gossip(now, pool, |gossip, cx| gossip.set_tags(cx, tags));
        }
    }

    /// Servers of one datacenter know each other in the pool of all datacenters, too.
    pub(super) fn join_wan(&mut self, now: Now, member: &Member) {
        if self.wan.is_none() || !member.is_server() || member.status != Status::Alive {
            return;
        }
        let Ok(port) = member.tag(tag::WAN_PORT).parse::<u16>() else { return };
        let name = format!("{}.{}", member.name, self.about.datacenter);
        let known = self.cluster.wan.get(name.as_str());
        if member.name == self.about.node || known.is_some_and(|known| known.status == Status::Alive) {
            return;
        }
        let address = SocketAddr::new(member.ip(), port);
        self.gossip(now, Pool::Wan, |gossip, cx| gossip.join(cx, vec![address], 0));
    }

    /// Leaves the cluster in good order.
    pub(super) fn begin_leave(&mut self, now: Now) {
        self.leave(now, |leaving, cx, raft| leaving.begin(cx, raft));
    }

    pub(super) fn leave(
        &mut self,
        now: Now,
        act: impl FnOnce(&mut leaving::Leaving, &mut Cx<'_, leaving::Effect>, &crate::raft::Raft),
    ) {
        let mut effects = Vec::new();
        let mut cx = Cx { now, timers: &mut self.timers, effects: &mut effects };
        act(&mut self.leaving, &mut cx, &self.raft);
        for effect in effects {
            match effect {
                leaving::Effect::TransferLeadership => {
                    // Without a successor that can take over, leaving goes on when its time is up.
                    let _ = self.raft(now, |raft, cx| raft.transfer_leadership(cx, None));
                }
                leaving::Effect::LeaveGossip => {
                    self.leaving_pools = if self.wan.is_some() { 2 } else { 1 };
                    self.gossip(now, Pool::Wan, |gossip, cx| gossip.leave(cx));
                    self.gossip(now, Pool::Lan, |gossip, cx| gossip.leave(cx));
                }
                leaving::Effect::Done => {
                    self.left = true;
                    for client in std::mem::take(&mut self.leave_asked_by) {
                        self.reply(client, HttpReply::empty(200));
                    }
                }
            }
        }
    }

    /// A pool has been told.
    pub(super) fn on_pool_left(&mut self, now: Now) {
        self.leaving_pools = self.leaving_pools.saturating_sub(1);
        if self.leaving_pools == 0 {
            self.leave(now, |leaving, cx, raft| leaving.on_gossip_left(cx, raft));
        }
    }
}
