//! Requests that are under way: what each waits for, and until when.

use std::collections::{BTreeMap, BTreeSet};

use super::abroad::Errand;
use super::peer::{AskId, Serve};
use crate::Text;
use crate::api::{ClusterCall, Read, Write};
use crate::dns::Question;
use crate::ids::{LogIndex, RequestId, ServerId, Uuid};
use crate::store::PreparedQuery;
use crate::store::command::Command;
use crate::time::Mono;

/// A request under way. Also its ticket at Raft and its identifier at other servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client of this agent.
    Client(RequestId),
    /// Another server, with its identifier.
    Peer(ServerId, AskId),
    /// A client agent, with its identifier.
    Guest(ServerId, AskId),
    /// The agent's anti-entropy, with its ticket.
    Agent(u64),
    /// A duty of the leader; nobody waits.
    Duty,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Work {
    /// Replicate a command. The write is kept for rendering; the others need none.
    Propose(Box<Command>, Option<Box<Write>>),
    /// Read for a client, after renewing a session if one is named.
    Read(Box<Read>, Option<Uuid>),
    /// Find the index for another server's read, after renewing a session if one is named.
    Confirm {
        /// Through a quorum, even if there is a lease.
        consistent: bool,
        /// The session.
        renew: Option<Uuid>,
    },
    /// Read what the catalog has of a node.
    Catalog(Text),
    /// Answer a DNS question, perhaps with a prepared query of another datacenter, from a state that is not too old.
    Name(Box<(Question, Option<PreparedQuery>)>),
    /// Do what only the leader can do.
    Lead(ClusterCall),
    /// Have a server do it; on client agents only.
    Serve(Box<Serve>),
    /// Have a server of another datacenter do it; on servers only.
    Abroad(Box<Errand>),
}

impl Work {
    /// Whether being done twice makes no difference.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Work::Propose(..) => false,
            Work::Lead(call) => call.is_repeatable(),
            Work::Read(..) | Work::Confirm { .. } | Work::Catalog(_) | Work::Name(_) => true,
            Work::Serve(serve) => serve.is_repeatable(),
            Work::Abroad(errand) => errand.there.request.is_repeatable(),
        }
    }
}

/// What the job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A leader.
    Held,
    /// The answer of this server.
    Asked(ServerId),
    /// Its entry to be committed.
    Proposed(LogIndex),
    /// Raft to confirm that this server leads.
    Confirming,
    /// This server to have applied an index that the leader named.
    CatchingUp(LogIndex),
}

/// A request under way.
#[derive(Clone, Debug)]
pub struct Job {
    /// Who waits.
    pub origin: Origin,
    /// What is to be done.
    pub work: Work,
    /// What it waits for.
    pub stage: Stage,
    /// When it is given up, unless it is proposed: those are answered when leadership ends at the latest.
    pub give_up: Mono,
}

/// All requests under way, with the look-ups that events need.
#[derive(Debug, Default)]
pub struct Jobs {
    next: u64,
    all: BTreeMap<JobId, Job>,
    proposed: BTreeMap<LogIndex, JobId>,
    catching_up: BTreeSet<(LogIndex, JobId)>,
    /// Of jobs in any stage but `Proposed`.
    deadlines: BTreeSet<(Mono, JobId)>,
    clients: BTreeMap<RequestId, JobId>,
}

impl Jobs {
    /// Draws an identifier.
    pub fn id(&mut self) -> JobId {
        self.next += 1;
        JobId(self.next)
    }

    /// Adds or returns a job to the table.
    pub fn put(&mut self, id: JobId, job: Job) {
        match job.stage {
            Stage::Proposed(index) => {
                self.proposed.insert(index, id);
            }
            Stage::CatchingUp(index) => {
                self.catching_up.insert((index, id));
                self.deadlines.insert((job.give_up, id));
            }
            Stage::Held | Stage::Asked(_) | Stage::Confirming => {
                self.deadlines.insert((job.give_up, id));
            }
        }
        if let Origin::Client(request) = job.origin
            && !matches!(job.stage, Stage::Proposed(_))
        {
            self.clients.insert(request, id);
        }
        let former = self.all.insert(id, job);
        assert!(former.is_none(), "a job is in one stage at a time");
    }

    /// Takes a job out of the table.
    pub fn take(&mut self, id: JobId) -> Option<Job> {
        let job = self.all.remove(&id)?;
        match job.stage {
            Stage::Proposed(index) => {
                self.proposed.remove(&index);
            }
            Stage::CatchingUp(index) => {
                self.catching_up.remove(&(index, id));
                self.deadlines.remove(&(job.give_up, id));
            }
            Stage::Held | Stage::Asked(_) | Stage::Confirming => {
                self.deadlines.remove(&(job.give_up, id));
            }
        }
        if let Origin::Client(request) = job.origin {
            self.clients.remove(&request);
        }
        Some(job)
    }

    /// Takes the job whose entry was committed at `index`.
    pub fn take_proposed(&mut self, index: LogIndex) -> Option<Job> {
        if self.proposed.is_empty() {
            return None;
        }
        let id = *self.proposed.get(&index)?;
        self.take(id)
    }

    /// Takes a job that a state including `applied` satisfies.
    pub fn take_caught_up(&mut self, applied: LogIndex) -> Option<(JobId, Job)> {
        let (index, id) = *self.catching_up.first()?;
        if index > applied {
            return None;
        }
        self.take(id).map(|job| (id, job))
    }

    /// Takes a job whose time is up.
    pub fn take_expired(&mut self, now: Mono) -> Option<Job> {
        let (at, id) = *self.deadlines.first()?;
        if at > now {
            return None;
        }
        self.take(id)
    }

    /// Forgets what a client waits for. A command that was proposed or sent stays under way.
    pub fn abandon(&mut self, request: RequestId) -> Option<(JobId, Job)> {
        let id = *self.clients.get(&request)?;
        self.take(id).map(|job| (id, job))
    }

    /// Forgets the jobs of whom nobody is left to tell, unless they have been proposed or sent on.
    pub fn drop_idle(&mut self, of: impl Fn(&Origin) -> bool) {
        let idle = |job: &Job| matches!(job.stage, Stage::Held | Stage::Confirming | Stage::CatchingUp(_));
        let dropped: Vec<JobId> =
            self.all.iter().filter(|(_, job)| of(&job.origin) && idle(job)).map(|(id, _)| *id).collect();
        for id in dropped {
            self.take(id);
        }
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The jobs that are `wanted`, oldest first.
    #[must_use]
    pub fn those(&self, wanted: impl Fn(&Job) -> bool) -> Vec<JobId> {
        self.all.iter().filter(|(_, job)| wanted(job)).map(|(id, _)| *id).collect()
    }

    /// How many requests are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }
}
