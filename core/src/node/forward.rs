//! Client agents have no state of the cluster: they have servers answer. Both sides of that.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Node;
use super::jobs::{Job, JobId, Origin, Stage, Work};
use super::peer::{Ask, AskId, PeerMessage, Serve};
use crate::Text;
use crate::api::{Elsewhere, Forwarded};
use crate::format::Format;
use crate::gossip;
use crate::ids::{RequestId, ServerId};
use crate::marks::{self, Mark};
use crate::time::Now;

/// A server answers up to so much later than it was asked to: the way, and its own turn.
pub(super) const LATE_MAX: Duration = Duration::from_secs(1);
/// Identifiers of guests' requests have this bit; those that front-ends draw count from zero.
const GUEST_BIT: u64 = 1 << 63;

/// Requests of client agents that this server works on.
#[derive(Debug, Default)]
pub struct Guests {
    next: u64,
    by_request: BTreeMap<RequestId, (ServerId, AskId)>,
    by_guest: BTreeMap<(ServerId, AskId), RequestId>,
}

impl Guests {
    /// Takes a request up.
    pub fn admit(&mut self, guest: ServerId, asked: AskId) -> RequestId {
        self.next += 1;
        let request = RequestId(self.next | GUEST_BIT);
        self.by_request.insert(request, (guest, asked));
        self.by_guest.insert((guest, asked), request);
        request
    }

    /// Whose request it is, if it is a guest's; it is answered.
    pub fn take(&mut self, request: RequestId) -> Option<(ServerId, AskId)> {
        if request.0 & GUEST_BIT == 0 {
            return None;
        }
        let guest = self.by_request.remove(&request)?;
        self.by_guest.remove(&guest);
        Some(guest)
    }

    /// Whose request it is, if it is a guest's.
    #[must_use]
    pub fn whose(&self, request: RequestId) -> Option<ServerId> {
        self.by_request.get(&request).map(|(guest, _)| *guest)
    }

    /// Whether the request is a guest's.
    #[must_use]
    pub fn is_guest(request: RequestId) -> bool {
        request.0 & GUEST_BIT != 0
    }

    /// A guest does not wait for this any more.
    fn forget(&mut self, guest: ServerId, asked: AskId) -> Option<RequestId> {
        let request = self.by_guest.remove(&(guest, asked))?;
        self.by_request.remove(&request);
        Some(request)
    }

    /// All requests of a guest that is gone.
    fn leave(&mut self, guest: ServerId) -> Vec<RequestId> {
        let of_guest = self.by_guest.range((guest, AskId { life: 0, number: 0 })..);
        let asked: Vec<AskId> =
            of_guest.take_while(|((owner, _), _)| *owner == guest).map(|((_, asked), _)| *asked).collect();
        asked.into_iter().filter_map(|asked| self.forget(guest, asked)).collect()
    }
}

impl Node {
    /// Has a server answer a client's request.
    pub(super) fn forward(&mut self, now: Now, request: RequestId, forwarded: Forwarded) {
        let give_up = self.give_up_at(now, &forwarded);
        let work = Work::Serve(Box::new(Serve::Request(Box::new(forwarded))));
        self.begin_until(now, Origin::Client(request), work, give_up);
    }

    /// Has a server find one of another datacenter that answers a client's request.
    pub(super) fn forward_elsewhere(&mut self, now: Now, request: RequestId, there: Box<Elsewhere>) {
        let give_up = self.give_up_at(now, &there.request) + LATE_MAX;
        let work = Work::Serve(Box::new(Serve::Elsewhere(there)));
        self.begin_until(now, Origin::Client(request), work, give_up);
    }

    /// Sends a job of a client agent to a server, or keeps it until there is one that is well.
    pub(super) fn ask_a_server(&mut self, now: Now, id: JobId, job: Job) {
        if !self.servers.any() {
            return self.fail(now, job, "No known Consul servers");
        }
        let Some(server) = self.choose_server(now) else {
            return self.jobs.put(id, Job { stage: Stage::Held, ..job });
        };
        let serve = match &job.work {
            Work::Serve(serve) => serve.as_ref().clone(),
            Work::Propose(command, _) => Serve::Command(command.encode(Format::FIRST)),
            Work::Catalog(node) => Serve::Catalog(node.clone()),
            Work::Read(..) | Work::Name(_) | Work::Confirm { .. } | Work::Lead(_) | Work::Abroad(_) => {
                unreachable!("client agents neither read nor lead")
            }
        };
        if self.servers.get(server).is_some_and(|known| known.formats.newest < serve.needs()) {
            let why = "rpc error: the server is of an older version, which does not know other datacenters";
            return self.fail(now, job, why);
        }
        self.put_asked(job, server, Ask::Serve(serve));
    }

    /// The server that a client agent asks now.
    pub(super) fn choose_server(&mut self, now: Now) -> Option<ServerId> {
        let suspected = |name: &Text| self.lan.state(name) == Some(gossip::State::Suspect);
        self.servers.choose(now.mono, &mut self.rng, suspected)
    }

    /// A client agent does not wait for this any more.
    pub(super) fn forget_guest(&mut self, guest: ServerId, asked: AskId) {
        // It may have overtaken what it is about, which is then as good as done.
        if self.asked.is_new(guest, asked) {
            return marks::hit(Mark::AskForgottenFirst);
        }
        if let Some(request) = self.guests.forget(guest, asked) {
            self.abandon(request);
        }
    }

    /// A client agent is gone. What it asked for and was not begun is dropped: it may ask another server meanwhile, and
    /// must not be overtaken by its own past.
    pub(super) fn drop_guest(&mut self, guest: ServerId) {
        for request in self.guests.leave(guest) {
            self.abandon(request);
        }
        self.jobs.drop_idle(|origin| matches!(origin, Origin::Guest(owner, _) if *owner == guest));
    }

    /// The client went away.
    pub(super) fn abandon(&mut self, request: RequestId) {
        if let Some((id, Job { stage: Stage::Asked(server), work: Work::Serve(_) | Work::Abroad(_), .. })) =
            self.jobs.abandon(request)
        {
            self.frames.push((server, PeerMessage::Forget { id: self.ask_id(id) }));
        }
        self.parked.remove(request);
        self.local_waits.retain(|wait| wait.id != request);
        self.event_waits.retain(|wait| wait.id != request);
    }
}
