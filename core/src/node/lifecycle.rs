//! How an agent comes to its cluster, and how it leaves it.

use super::{FormingPolicy, Node};
use crate::boundary::Outbox;
use crate::gossip::{MemberChange, Pool, Status};
use crate::ids::{LogIndex, Term};
use crate::time::Now;

/// Port of the pool of servers, as members of the datacenter's pool tell it.
const WAN_PORT_TAG: &str = "wan_join_port";

impl Node {
    /// The first step: joins, founds the group if that is this server's part, arms timers, publishes.
    pub fn start(&mut self, now: Now, out: &mut Outbox) {
        self.gossip(now, Pool::Lan, |gossip, cx| gossip.start(cx));
        self.gossip(now, Pool::Wan, |gossip, cx| gossip.start(cx));
        self.raft(now, |raft, cx| raft.start(cx));
        self.form(now);
        self.agent(now, |agent, cx| agent.start(cx));
        if self.config.lan.coordinates {
            self.locating.start(&mut self.timers, now.mono);
        }
        for pool in [Pool::Lan, Pool::Wan] {
            let steps = self.joining.attempt(pool);
            self.perform_joining(now, steps);
        }
        self.settle(now, out);
    }

    /// Founds the group, if the log is empty and it is time.
    pub(super) fn form(&mut self, now: Now) {
        let is_new = self.raft.last_index() == LogIndex(0) && self.raft.term() == Term(0);
        if !is_new {
            return;
        }
        let membership = match &self.config.forming {
            FormingPolicy::Found(membership) => membership.clone(),
            FormingPolicy::Wait | FormingPolicy::Expect(_) => return,
        };
        self.raft(now, |raft, cx| {
            raft.bootstrap(cx, membership).expect("a new server may found a group of voters");
        });
    }

    /// Servers of one datacenter know each other in the pool of all datacenters, too.
    pub(super) fn join_wan(&mut self, now: Now, change: &MemberChange) {
        let MemberChange::Upsert(member) = change else { return };
        if self.wan.is_none() || !member.is_server() || member.status != Status::Alive {
            return;
        }
        let Ok(port) = member.tag(WAN_PORT_TAG).parse::<u16>() else { return };
        let name = format!("{}.{}", member.name, self.about.datacenter);
        let known = self.cluster.wan.get(name.as_str());
        if member.name == self.about.node || known.is_some_and(|known| known.status == Status::Alive) {
            return;
        }
        let address = std::net::SocketAddr::new(member.ip(), port);
        self.gossip(now, Pool::Wan, |gossip, cx| gossip.join(cx, vec![address], 0));
    }

    /// Leaves the cluster in good order.
    pub(super) fn begin_leave(&mut self, now: Now) {
        self.gossip(now, Pool::Wan, |gossip, cx| gossip.leave(cx));
        self.gossip(now, Pool::Lan, |gossip, cx| gossip.leave(cx));
    }

    pub(super) fn on_pool_left(&mut self, _now: Now, pool: Pool) {
        if pool == Pool::Lan {
            self.left = true;
        }
    }
}
