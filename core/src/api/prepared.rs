//! `/v1/query`: prepared queries.

use crate::agent::decode::Object;
use crate::agent::definition::check_meta;
use crate::ids::Uuid;
use crate::store::query::Query;
use crate::store::{Execute, Failover, PreparedCommand, PreparedQuery, ServiceQuery, Template};
use crate::{Text, duration};

use super::catalog::{Bad, object};
use super::params::parse_bool;
use super::route::{Context, Handled};
use super::{Call, HttpReply, Write};

/// What stands in for a token that is not to be seen.
const HIDDEN: &str = "<hidden>";
/// The only kind of template.
const BY_PREFIX: &str = "name_prefix_match";

pub(super) fn all(context: &Context<'_>) -> Handled {
    if context.request.method == "GET" {
        return read(context, Query::PreparedQueries);
    }
    context.params.check_datacenter()?;
    let given = Given::read(&context.request.body)?;
    if !given.id.is_empty() {
        return Err(HttpReply::text(500, "ID must be empty when creating a new prepared query"));
    }
    let query = given.checked(Uuid::default(), true)?;
    write(context, PreparedCommand::Create(Box::new(query)))
}

pub(super) fn one(context: &Context<'_>) -> Handled {
    let id = |prefix: &str| {
        Uuid::parse(context.rest).ok_or_else(|| {
            let why = if context.rest.len() == 36 { "Invalid UUID" } else { "UUID must be 36 characters" };
            HttpReply::text(500, format!("{prefix}failed prepared query lookup: index error: {why}"))
        })
    };
    const CHANGING: &str = "Prepared Query lookup failed: ";
    match context.request.method {
        "GET" => read(context, Query::PreparedQuery(id("")?)),
        "DELETE" => {
            context.params.check_datacenter()?;
            write(context, PreparedCommand::Delete(id(CHANGING)?))
        }
        _ => {
            context.params.check_datacenter()?;
            let given = Given::read(&context.request.body)?;
            let query = given.checked(id(CHANGING)?, false)?;
            write(context, PreparedCommand::Update(Box::new(query)))
        }
    }
}

pub(super) fn execute(context: &Context<'_>) -> Handled {
    let connect = match context.params.filled("connect") {
        None => false,
        Some(word) => parse_bool(word).ok_or_else(|| {
            let why = format!("strconv.ParseBool: parsing {word:?}: invalid syntax");
            HttpReply::text(500, format!("Error parsing 'connect' value: {why}"))
        })?,
    };
    let run = Execute {
        query: context.rest.into(),
        limit: limit(context)?,
        near: context.params.get("near").unwrap_or("").into(),
        connect,
        // The agent's node is near to nothing in another datacenter.
        agent: match context.params.elsewhere() {
            None => context.about().node.clone(),
            Some(_) => Text::default(),
        },
        client: client(context),
        // Whoever asks at another time gets another order.
        seed: context.now.mono.0,
    };
    read(context, Query::Execute(Box::new(run)))
}

pub(super) fn explain(context: &Context<'_>) -> Handled {
    limit(context)?;
    read(context, Query::Explain(context.rest.into()))
}

fn read(context: &Context<'_>, query: Query) -> Handled {
    let mut read = context.params.read(query, context.about())?;
    read.filter = Text::default();
    read.near = Text::default();
    if matches!(read.query, Query::Execute(_) | Query::Explain(_)) {
        read.blocking = None;
    }
    context.read(read)
}

fn write(context: &Context<'_>, command: PreparedCommand) -> Handled {
    Ok(context.ask(Call::Write(Write::Prepared(command))))
}

/// Most instances that are wanted. Zero and what is below it are no limit.
fn limit(context: &Context<'_>) -> Result<Option<u64>, HttpReply> {
    let Some(text) = context.params.filled("limit") else { return Ok(None) };
    let limit: i64 = text.parse().map_err(|_| {
        let is_number = text.strip_prefix(['+', '-']).unwrap_or(text).bytes().all(|b| b.is_ascii_digit());
        let why = if is_number { "value out of range" } else { "invalid syntax" };
        HttpReply::text(500, format!("Bad limit: strconv.Atoi: parsing {text:?}: {why}"))
    })?;
    Ok(u64::try_from(limit).ok().filter(|limit| *limit > 0))
}

/// The client's address: where the first proxy says that the request came from, or where it did come from.
fn client(context: &Context<'_>) -> Text {
    let forwarded = context.request.headers.forwarded_for.split(',').next().unwrap_or("").trim();
    if !forwarded.is_empty() {
        return forwarded.into();
    }
    context.request.client.map_or_else(Text::default, |address| address.to_string().into())
}

/// A query as it was given, with what is to be checked after its form.
struct Given {
    id: Text,
    session: Text,
    template_kind: Text,
    nearest_n: i64,
    sameness_group: Text,
    peered: bool,
    query: PreparedQuery,
}

impl Given {
    fn read(body: &[u8]) -> Result<Given, HttpReply> {
        object(body).and_then(Given::of).map_err(HttpReply::from)
    }

    fn of(mut body: Object) -> Result<Given, Bad> {
        let mut given = Given {
            id: body.text("id")?,
            session: body.text("session")?,
            template_kind: Text::default(),
            nearest_n: 0,
            sameness_group: Text::default(),
            peered: false,
            query: PreparedQuery {
                name: body.text("name")?,
                token: body.text("token")?,
                ..PreparedQuery::default()
            },
        };
        if let Some(service) = body.object("service")? {
            given.service(service)?;
        }
        if let Some(mut dns) = body.object("dns")? {
            given.query.dns_ttl = dns.text("ttl")?;
            dns.finish()?;
        }
        if let Some(mut template) = body.object("template")? {
            given.template_kind = template.text("type")?;
            given.query.template = Template {
                by_prefix: given.template_kind == BY_PREFIX,
                regexp: template.text("regexp")?,
                remove_empty_tags: template.flag("remove_empty_tags")?,
            };
            template.finish()?;
        }
        // What a read shows may be sent back.
        for ignored in ["create_index", "modify_index"] {
            body.take(ignored);
        }
        body.finish()?;
        Ok(given)
    }

    fn service(&mut self, mut body: Object) -> Result<(), Bad> {
        self.sameness_group = body.text("sameness_group")?;
        self.peered |= !body.text("peer")?.is_empty();
        self.query.service = ServiceQuery {
            service: body.text("service")?,
            failover: body.object("failover")?.map_or(Ok(Failover::default()), |body| self.failover(body))?,
            only_passing: body.flag("only_passing")?,
            ignore_check_ids: if_given(&mut body, "ignore_check_ids", Object::texts)?,
            near: body.text("near")?,
            tags: if_given(&mut body, "tags", Object::texts)?,
            node_meta: if_given(&mut body, "node_meta", Object::map)?,
            service_meta: if_given(&mut body, "service_meta", Object::map)?,
            connect: body.flag("connect")?,
        };
        body.take("enterprise_meta");
        Ok(body.finish()?)
    }

    fn failover(&mut self, mut body: Object) -> Result<Failover, Bad> {
        self.nearest_n = body.integer("nearest_n")?.unwrap_or(0);
        let mut targets = None;
        for mut target in if_given(&mut body, "targets", Object::objects)?.into_iter().flatten() {
            targets.get_or_insert_with(Vec::new).push(target.text("datacenter")?);
            self.peered |= !target.text("peer")?.is_empty();
            target.take("partition");
            target.finish()?;
        }
        let datacenters = if_given(&mut body, "datacenters", Object::texts)?;
        body.finish()?;
        Ok(Failover { nearest_n: u64::try_from(self.nearest_n).unwrap_or(0), datacenters, targets })
    }

    /// The query, if nothing is wrong with it as far as that can be told without the state.
    fn checked(self, id: Uuid, fresh: bool) -> Result<PreparedQuery, HttpReply> {
        let mut query = PreparedQuery { id, ..self.query };
        let failed = |why: String| Err(HttpReply::text(500, why));
        let invalid = |why: &str| failed(format!("Invalid prepared query: {why}"));
        // That one to be replaced exists is of more interest, and for the state to say.
        if fresh && self.session.is_empty() && !query.is_bound() {
            return invalid("Must be bound to a session");
        }
        if query.token == HIDDEN {
            return invalid(
                "Bad Token '<hidden>', it looks like a query definition with a redacted token was submitted",
            );
        }
        if !self.sameness_group.is_empty() {
            return invalid("Sameness groups are a Consul Enterprise feature");
        }
        if self.peered {
            return invalid("Cluster peering is not supported: leave out Peer");
        }
        let service = &query.service;
        if service.service.is_empty() {
            return invalid("Must provide a Service name to query");
        }
        if self.nearest_n < 0 {
            return invalid(&format!("Bad NearestN '{}', must be >= 0", self.nearest_n));
        }
        let failover = &service.failover;
        let by_distance_or_name =
            failover.nearest_n > 0 || failover.datacenters.as_ref().is_some_and(|list| !list.is_empty());
        if by_distance_or_name && failover.targets.as_ref().is_some_and(|list| !list.is_empty()) {
            return invalid("Targets cannot be populated with NearestN or Datacenters");
        }
        if let Some(meta) = &service.node_meta
            && let Err(why) = check_meta(meta)
        {
            return invalid(&why);
        }
        if !query.dns_ttl.is_empty() {
            let ttl = &query.dns_ttl;
            match duration::parse(ttl) {
                None => return invalid(&format!("Bad DNS TTL '{ttl}': time: invalid duration {ttl:?}")),
                Some(nanos) if nanos < 0 => {
                    return invalid(&format!("DNS TTL '{nanos}', must be >=0"));
                }
                Some(_) => {}
            }
        }
        if !self.session.is_empty() {
            let Some(session) = Uuid::parse(&self.session) else {
                let why =
                    if self.session.len() == 36 { "Invalid UUID" } else { "UUID must be 36 characters" };
                return failed(format!("invalid session: index error: {why}"));
            };
            query.session = Some(session);
        }
        if !matches!(self.template_kind.as_str(), "" | BY_PREFIX) {
            return failed(format!("failed compiling template: Bad Template.Type '{}'", self.template_kind));
        }
        query.check_template().map_err(|why| HttpReply::text(500, why))?;
        Ok(query)
    }
}

/// What was not given is shown as it was not given.
fn if_given<T, E>(
    body: &mut Object,
    key: &str,
    read: impl Fn(&mut Object, &str) -> Result<T, E>,
) -> Result<Option<T>, E> {
    if body.has(key) {
        return read(body, key).map(Some);
    }
    body.take(key);
    Ok(None)
}
