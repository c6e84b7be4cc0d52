//! Other datacenters: which servers they have, and requests that servers there answer.
//!
//! A request is parsed and completed where it came in. A server of its datacenter sends it to one of the datacenter that it
//! is for, which treats it as its own client's. It ends there: what comes from another datacenter is never sent on to a
//! third, because what would have to travel for that ([`Serve::Elsewhere`]) is taken from agents of the own one only.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Node;
use super::asks::NOT_FOR_OTHERS;
use super::failover::Failing;
use super::forward::LATE_MAX;
use super::jobs::{Job, JobId, Origin, Stage, Work};
use super::peer::{Ask, PeerMessage, Serve};
use super::servers::{Known, Servers, formats_of};
use crate::Text;
use crate::api::{self, Elsewhere, Forwarded, HttpReply, NO_PATH};
use crate::cx::Timer;
use crate::format::Format;
use crate::gossip::{self, Member, MemberChange, Status, tag};
use crate::ids::{RequestId, ServerId};
use crate::rng::Rng;
use crate::time::{Mono, Now};

/// Servers of this datacenter that are missing among those of all datacenters are joined there so often (Consul: 60 s).
const FLOOD_EVERY: Duration = Duration::from_secs(60);

/// The servers of other datacenters, as the pool of all servers shows them.
#[derive(Debug, Default)]
pub struct Abroad {
    datacenters: BTreeMap<Text, Servers>,
}

impl Abroad {
    /// Follows a change of the pool. Answers whether a server came, went or moved.
    pub fn follow(&mut self, change: &MemberChange, own: &str) -> bool {
        let (MemberChange::Upsert(member) | MemberChange::Reaped(member)) = change;
        let datacenter = member.tag(tag::DATACENTER);
        if datacenter.is_empty() || datacenter == own {
            return false;
        }
        let servers = self.datacenters.entry(datacenter.into()).or_default();
        // One of a version that knows no other datacenters is none that could be asked.
        let changed = if formats_of(member).newest < Format::FEDERATED {
            servers.follow(&MemberChange::Reaped(member.clone()), datacenter)
        } else {
            servers.follow(change, datacenter)
        };
        if !servers.any() {
            self.datacenters.remove(datacenter);
        }
        changed
    }

    /// A server and its datacenter.
    #[must_use]
    pub fn get(&self, id: ServerId) -> Option<(&Text, &Known)> {
        let found = |(datacenter, servers)| Some((datacenter, Servers::get(servers, id)?));
        // One that has moved is known in two datacenters for a while.
        let mut known: Vec<_> = self.datacenters.iter().filter_map(found).collect();
        known.sort_by_key(|(_, server)| !server.alive);
        known.first().copied()
    }

    /// Whether a datacenter has servers that are believed to be well.
    fn any_alive(&self, datacenter: &str) -> bool {
        self.datacenters.get(datacenter).is_some_and(Servers::any_alive)
    }

    fn choose(
        &mut self,
        datacenter: &str,
        now: Mono,
        rng: &mut Rng,
        suspected: impl Fn(&Text) -> bool,
    ) -> Option<ServerId> {
        self.datacenters.get_mut(datacenter)?.choose(now, rng, suspected)
    }

    /// A server did not answer: others first.
    pub fn avoid(&mut self, id: ServerId, now: Mono) {
        for servers in self.datacenters.values_mut() {
            servers.avoid(id, now);
        }
    }

    /// A server answered. True if it had not before.
    pub fn on_answer(&mut self, id: ServerId) -> bool {
        self.datacenters.values_mut().any(|servers| servers.on_answer(id))
    }

    /// When the next of the avoided servers may be asked again.
    #[must_use]
    pub fn next_deadline(&self, now: Mono) -> Option<Mono> {
        self.datacenters.values().filter_map(|servers| servers.next_deadline(now)).min()
    }
}

/// A request on its way to another datacenter.
#[derive(Clone, Debug)]
pub struct Errand {
    /// What is asked, and where.
    pub there: Elsewhere,
    /// It is one of several that look for a service.
    pub failover: Option<Box<Failing>>,
}

impl Node {
    /// Has another datacenter answer a client's request.
    pub(super) fn ask_elsewhere(&mut self, now: Now, request: RequestId, there: Elsewhere) {
        self.send_abroad(now, Origin::Client(request), Errand { there, failover: None });
    }

    pub(super) fn send_abroad(&mut self, now: Now, origin: Origin, errand: Errand) {
        let give_up = self.give_up_at(now, &errand.there.request);
        self.begin_until(now, origin, Work::Abroad(Box::new(errand)), give_up);
    }

    /// When the answer to a request that was sent to another agent comes at the latest.
    pub(super) fn give_up_at(&self, now: Now, request: &Forwarded) -> Mono {
        let wait = request.wait();
        now.mono + self.config.hold_timeout + wait + wait / super::requests::WAIT_JITTER_DIVISOR + LATE_MAX
    }

    /// Sends a job to a server of its datacenter, or keeps it until one is worth another try.
    pub(super) fn ask_abroad(&mut self, now: Now, id: JobId, job: Job) {
        let Work::Abroad(errand) = &job.work else { unreachable!("the caller has looked") };
        let datacenter = &errand.there.datacenter;
        if !self.abroad.any_alive(datacenter) {
            return self.fail(now, job, NO_PATH);
        }
        let wan = self.wan.as_ref();
        let suspected = |name: &Text| wan.is_some_and(|wan| wan.state(name) == Some(gossip::State::Suspect));
        let Some(server) = self.abroad.choose(datacenter, now.mono, &mut self.rng, suspected) else {
            return self.jobs.put(id, Job { stage: Stage::Held, ..job });
        };
        if self.servers.get(server).is_some() {
            let why = format!(
                "rpc error: a server of {datacenter} and one of this datacenter have the same identity, {server}: give one \
                 of them another node_id"
            );
            return self.fail(now, job, &why);
        }
        let request = Box::new(errand.there.request.clone());
        self.put_asked(job, server, Ask::Serve(Serve::Request(request)));
    }

    /// What waits for a server of another datacenter may go on.
    pub(super) fn retry_abroad(&mut self, now: Now) {
        let waits = |job: &Job| job.stage == Stage::Held && matches!(job.work, Work::Abroad(_));
        for id in self.jobs.those(waits) {
            let job = self.jobs.take(id).expect("just listed");
            self.advance(now, id, job);
        }
    }

    /// A server of another datacenter has answered.
    pub(super) fn answered_abroad(&mut self, now: Now, job: Job, reply: HttpReply) {
        let Work::Abroad(errand) = job.work else { unreachable!("the caller has looked") };
        let Errand { there, failover } = *errand;
        match failover {
            Some(failing) => self.answered_failover(now, job.origin, *failing, reply),
            None => self.reply_to(job.origin, api::from_elsewhere(&there.request, reply)),
        }
    }

    /// Nobody there has answered, and nobody tries any more.
    pub(super) fn failed_abroad(&mut self, now: Now, job: Job, why: &str) {
        let Work::Abroad(errand) = job.work else { unreachable!("the caller has looked") };
        match errand.failover {
            Some(failing) => self.fail_over(now, job.origin, *failing),
            None => self.reply_to(job.origin, HttpReply::text(500, why.to_owned())),
        }
    }

    pub(super) fn reply_to(&mut self, origin: Origin, reply: HttpReply) {
        if let Origin::Client(request) = origin {
            self.reply(request, reply);
        }
    }

    /// Something is said by a server of another datacenter: it asks and answers requests of clients, and nothing else.
    pub(super) fn on_foreign_message(&mut self, now: Now, peer: ServerId, message: PeerMessage) {
        match message {
            PeerMessage::Answer { id, answer } => self.on_answer(now, peer, id, answer),
            PeerMessage::Forget { id } => self.forget_guest(peer, id),
            PeerMessage::Greeting(formats) => self.on_greeting(peer, formats),
            PeerMessage::Ask { id, ask } => {
                if !self.about.server || !self.asked.is_new(peer, id) {
                    return;
                }
                match ask {
                    Ask::Serve(serve @ Serve::Request(_)) => self.serve(now, peer, id, serve),
                    Ask::Serve(Serve::Command(_) | Serve::Catalog(_) | Serve::Elsewhere(_))
                    | Ask::Propose(_)
                    | Ask::ReadIndex { .. }
                    | Ask::Lead(_) => {
                        self.refuse(peer, id, 400, NOT_FOR_OTHERS);
                    }
                }
            }
            // No group has members in two datacenters.
            PeerMessage::Raft(_) => {}
        }
    }

    /// What is believed of a server of any datacenter changed.
    pub(super) fn on_wan_change(&mut self, now: Now, change: &MemberChange) {
        if !self.abroad.follow(change, &self.about.datacenter) {
            return;
        }
        let (MemberChange::Upsert(member) | MemberChange::Reaped(member)) = change;
        match member.id() {
            Some(id) if self.abroad.get(id).is_none_or(|(_, known)| !known.alive) => self.ask_others(now, id),
            _ => self.retry_abroad(now),
        }
    }

    /// Arms the timer of [`Node::flood`].
    pub(super) fn start_flood(&mut self, now: Now) {
        if self.wan.is_some() {
            self.timers.set(Timer::Flood, now.mono + FLOOD_EVERY);
        }
    }

    /// Joins the servers of this datacenter that are missing in the pool of all datacenters.
    pub(super) fn flood(&mut self, now: Now) {
        let servers: Vec<Member> =
            self.cluster.lan.values().filter(|member| member.status == Status::Alive).cloned().collect();
        for member in servers {
            self.join_wan(now, &member);
        }
        self.start_flood(now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::Formats;
    use crate::ids::Uuid;

    fn change(id: u128, datacenter: &str, status: Status, formats: &str) -> MemberChange {
        let tags = [
            (tag::ROLE, tag::ROLE_SERVER.to_owned()),
            (tag::DATACENTER, datacenter.to_owned()),
            (tag::ID, Uuid(id).to_string()),
            (tag::PORT, "8300".to_owned()),
            (tag::FORMATS, formats.to_owned()),
        ];
        MemberChange::Upsert(Member {
            name: Text::new(format!("n{id}.{datacenter}")),
            address: ([10, 0, 0, 1], 8302).into(),
            tags: Arc::new(tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect()),
            status,
        })
    }

    #[test]
    fn servers_are_known_by_datacenter_and_the_own_one_is_none_of_them() {
        let known = Formats::KNOWN.to_string();
        let mut abroad = Abroad::default();
        assert!(!abroad.follow(&change(1, "dc1", Status::Alive, &known), "dc1"));
        assert!(abroad.follow(&change(2, "dc2", Status::Alive, &known), "dc1"));
        assert!(abroad.follow(&change(3, "dc3", Status::Failed, &known), "dc1"));
        assert!(abroad.any_alive("dc2") && !abroad.any_alive("dc3") && !abroad.any_alive("dc1"));
        assert_eq!(abroad.get(Uuid(2)).map(|(datacenter, _)| datacenter.as_str()), Some("dc2"));
        assert!(abroad.get(Uuid(1)).is_none());
        let mut rng = Rng::from_seed(1);
        assert_eq!(abroad.choose("dc2", Mono(0), &mut rng, |_| false), Some(Uuid(2)));
        abroad.avoid(Uuid(2), Mono(0));
        assert_eq!(abroad.choose("dc2", Mono(1), &mut rng, |_| false), None);
        assert!(abroad.next_deadline(Mono(1)).is_some() && abroad.on_answer(Uuid(2)));
        assert!(abroad.choose("dc2", Mono(1), &mut rng, |_| false).is_some());
    }

    #[test]
    fn a_server_of_a_version_that_knows_no_other_datacenters_is_not_asked() {
        let mut abroad = Abroad::default();
        for old in ["", "1-2"] {
            assert!(!abroad.follow(&change(2, "dc2", Status::Alive, old), "dc1"));
            assert!(!abroad.any_alive("dc2"));
        }
        assert!(abroad.follow(&change(2, "dc2", Status::Alive, "1-3"), "dc1") && abroad.any_alive("dc2"));
        assert!(abroad.follow(&change(2, "dc2", Status::Alive, "1-2"), "dc1"), "it was downgraded");
        assert!(abroad.datacenters.is_empty());
    }
}
