//! Prepared queries that find nothing in this datacenter look in others, one after the other.
//!
//! Source: Consul's documentation, «Automate geo-failover with prepared queries». The query is lent: a server there runs it on
//! its own state, without failing over in its turn.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Node;
use super::abroad::Errand;
use super::jobs::{Origin, Work};
use crate::Text;
use crate::api::{self, Elsewhere, Forwarded, HttpReply, QueryMeta, Read};
use crate::dns::{Answered, Question};
use crate::ids::RequestId;
use crate::store::query::Query;
use crate::store::{Execute, Executed, Failover, Found, Lent, PreparedQuery, Rows};
use crate::time::{Mono, Now};

/// A prepared query that has found nothing so far.
#[derive(Clone, Debug)]
pub struct Failing {
    query: Arc<PreparedQuery>,
    sought: Sought,
    /// Datacenters that have not been asked.
    rest: VecDeque<Text>,
    /// So many have been.
    tried: u64,
}

/// How it was asked, and the answer of this datacenter.
#[derive(Clone, Debug)]
enum Sought {
    Http { run: Execute, read: Box<Read>, found: Box<Found>, meta: QueryMeta },
    Dns { question: Box<Question>, nothing: Bytes },
}

impl Failing {
    /// What a server of the next datacenter is asked.
    fn request(&self) -> Forwarded {
        let mut query = PreparedQuery::clone(&self.query);
        // The nodes that instances would be near to are here.
        query.service.near = Text::default();
        match &self.sought {
            Sought::Http { run, read, .. } => {
                let lent = Lent { query, run: run.clone(), failovers: self.tried };
                let query = Query::ExecuteLent(Box::new(lent));
                Forwarded::Read(Read { query, ..read.as_ref().clone() })
            }
            Sought::Dns { question, .. } => Forwarded::DnsLent(Box::new((question.as_ref().clone(), query))),
        }
    }
}

impl Node {
    /// Looks in other datacenters for what a prepared query has not found here.
    pub(super) fn begin_failover(
        &mut self,
        now: Now,
        request: RequestId,
        read: Box<Read>,
        found: Found,
        query: Arc<PreparedQuery>,
    ) {
        let Query::Execute(run) = &read.query else { unreachable!("the caller has looked") };
        let run = Execute { near: Text::default(), agent: Text::default(), ..run.as_ref().clone() };
        let meta = self.meta_of(now, &read, found.index);
        let sought = Sought::Http { run, read, found: Box::new(found), meta };
        self.fail_over_at_first(now, request, query, sought);
    }

    /// A DNS question that came in here, or to a client agent, or, with a query of its own, to another datacenter.
    pub(super) fn on_question(
        &mut self,
        now: Now,
        id: RequestId,
        question: Box<Question>,
        lent: Option<&PreparedQuery>,
    ) {
        let published = self.published(now);
        let (answered, body) = question.answer(&published, lent, now, &mut self.rng);
        if answered == Answered::Stale {
            let work = Work::Name(Box::new((*question, lent.cloned())));
            return self.begin(now, Origin::Client(id), work);
        }
        self.answered_question(now, id, question, lent.is_some(), answered, body);
    }

    /// The leader has said that the state here is as new as its own.
    pub(super) fn on_fresh_question(
        &mut self,
        now: Now,
        id: RequestId,
        (question, lent): (Question, Option<PreparedQuery>),
    ) {
        let mut published = self.published(now);
        published.lease.until = Mono::NEVER;
        let (answered, body) = question.answer(&published, lent.as_ref(), now, &mut self.rng);
        self.answered_question(now, id, Box::new(question), lent.is_some(), answered, body);
    }

    fn answered_question(
        &mut self,
        now: Now,
        id: RequestId,
        question: Box<Question>,
        is_lent: bool,
        answered: Answered,
        body: Bytes,
    ) {
        let is_foreign = self.guests.whose(id).is_some_and(|guest| self.foreign.contains_key(&guest));
        match answered {
            Answered::Elsewhere(datacenter) if !is_foreign => {
                self.ask_elsewhere(now, id, Elsewhere { datacenter, request: Forwarded::Dns(question) });
            }
            Answered::Further(query) => {
                self.fail_over_at_first(now, id, query, Sought::Dns { question, nothing: body });
            }
            Answered::Here | Answered::Never | Answered::Open | Answered::Stale | Answered::Elsewhere(_) => {
                let status = if is_lent && !crate::dns::finds(&body) { 404 } else { 200 };
                self.reply(id, HttpReply { body, ..HttpReply::empty(status) });
            }
        }
    }

    fn fail_over_at_first(
        &mut self,
        now: Now,
        request: RequestId,
        query: Arc<PreparedQuery>,
        sought: Sought,
    ) {
        let rest = self.failover_order(&query.service.failover);
        self.fail_over(now, Origin::Client(request), Failing { query, sought, rest, tried: 0 });
    }

    /// The datacenters that a prepared query fails over to, in order: known ones, each once, and never this one.
    fn failover_order(&self, failover: &Failover) -> VecDeque<Text> {
        let own = &self.about.datacenter;
        let known = self.cluster.datacenters_by_distance(&self.about.node, own);
        let nearest = usize::try_from(failover.nearest_n).unwrap_or(usize::MAX);
        let nearest = known.iter().skip(1).take(nearest);
        let named = failover.datacenters.iter().flatten().chain(failover.targets.iter().flatten());
        let mut order = VecDeque::new();
        for datacenter in nearest.chain(named) {
            if datacenter != own && known.contains(datacenter) && !order.contains(datacenter) {
                order.push_back(datacenter.clone());
            }
        }
        order
    }

    /// A datacenter has answered: with 404 if it has found nothing either.
    pub(super) fn answered_failover(&mut self, now: Now, origin: Origin, failing: Failing, reply: HttpReply) {
        match reply.status {
            200 => self.reply_to(origin, reply),
            // It is the last one, and that it has found nothing is the answer.
            404 if failing.rest.is_empty() => self.reply_to(origin, HttpReply { status: 200, ..reply }),
            _ => self.fail_over(now, origin, failing),
        }
    }

    /// Asks the next datacenter, or answers that there is nothing anywhere.
    pub(super) fn fail_over(&mut self, now: Now, origin: Origin, mut failing: Failing) {
        if let Some(datacenter) = failing.rest.pop_front() {
            failing.tried += 1;
            let there = Elsewhere { datacenter, request: failing.request() };
            return self.send_abroad(now, origin, Errand { there, failover: Some(Box::new(failing)) });
        }
        let reply = match failing.sought {
            Sought::Http { read, mut found, meta, .. } => {
                if let Rows::Executed(Ok(Executed { failovers, .. })) = &mut found.rows {
                    *failovers = failing.tried;
                }
                api::render_rows(&self.about, &read, &found, meta)
            }
            Sought::Dns { nothing, .. } => HttpReply { body: nothing, ..HttpReply::empty(200) },
        };
        self.reply_to(origin, reply);
    }
}
