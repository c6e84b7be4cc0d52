//! From a request to what is to be done about it: one table of all endpoints.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;

use super::answer::{Answer, answer};
use super::elsewhere::{NO_PATH, may_reach};
use super::filter::{self, Fields, Filter, FilterError};
use super::params::{self, Params};
use super::{
    Authorizer, Call, Consistency, ContentType, Forwarded, HttpReply, Permission, Read, Request, Resource,
    Work, agent, catalog, config, connect, coordinate, discovery, event, health, intention, kv, membership,
    operator, prepared, probes, process, refused, session, snapshot, status, txn, ui,
};
use crate::Text;
use crate::node::{About, Published};
use crate::time::Now;

/// Largest body of a request that is no KV write.
pub const BODY_MAX: u64 = 4 * 1024 * 1024;

/// A request as it came, its body read.
#[derive(Clone, Debug)]
pub struct HttpRequest<'a> {
    /// Method, in upper case.
    pub method: &'a str,
    /// Path as it was sent.
    pub path: &'a str,
    /// What follows the question mark, as it was sent; empty when there is none.
    pub query: &'a str,
    /// The client's address, where it has one.
    pub client: Option<IpAddr>,
    /// The headers that matter.
    pub headers: Headers<'a>,
    /// Body; empty for methods that have none.
    pub body: Bytes,
}

/// Headers that matter to the API; empty when absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// `Accept`
    pub accept: &'a str,
    /// `X-Consul-Namespace`
    pub namespace: &'a str,
    /// `X-Consul-Partition`
    pub partition: &'a str,
    /// `X-Forwarded-For`
    pub forwarded_for: &'a str,
    /// `Cache-Control`
    pub cache_control: &'a str,
}

/// What is to be done about a request.
#[derive(Debug)]
pub enum Routed {
    /// Send this.
    Reply(HttpReply),
    /// Ask the node.
    Call {
        /// What to ask.
        request: Request,
        /// The node's reply is to be passed through [`super::render::indented`] first.
        indent: bool,
    },
    /// Send an archive of the published state, once this request has been answered with 200.
    Save {
        /// What is to be asked first.
        barrier: Request,
        /// The datacenter whose state it is, unless it is this one.
        datacenter: Option<Text>,
    },
    /// Restore the archive that the body is.
    Restore {
        /// The datacenter whose state it becomes, unless it is this one.
        datacenter: Option<Text>,
    },
    /// For the process around the node.
    Process {
        /// What it is asked for.
        wish: process::Wish,
        /// JSON is to be indented.
        indent: bool,
    },
}

impl From<HttpReply> for Routed {
    fn from(reply: HttpReply) -> Routed {
        Routed::Reply(reply)
    }
}

/// Whether the body of a request is read by what is to be done about it, however long it is, and the request is to be
/// routed without.
#[must_use]
pub fn streams_body(method: &str, path: &str) -> bool {
    method == "PUT" && path == SNAPSHOT
}

/// How much of a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit {
    /// In bytes; zero: the body is ignored.
    pub max: u64,
    setting: Option<&'static str>,
}

impl BodyLimit {
    /// The reply to a body that is larger; its length if it is known.
    #[must_use]
    pub fn refuse(&self, length: Option<u64>) -> HttpReply {
        let max = self.max;
        let length = length.map(|length| format!("({length} bytes)")).unwrap_or_default();
        let remedy = self.setting.map(|setting| format!(" See {setting} in the agent's configuration."));
        HttpReply::text(
            413,
            format!("Request body{length} too large, max size: {max} bytes.{}", remedy.unwrap_or_default()),
        )
    }
}

/// How much of the body of a request to read before it is routed.
#[must_use]
pub fn body_limit(method: &str, path: &str, about: &About) -> BodyLimit {
    match method {
        "PUT" | "POST" if path.starts_with("/v1/kv/") => {
            BodyLimit { max: about.kv_max_value_size, setting: Some("limits.kv_max_value_size") }
        }
        "PUT" | "POST" if path == TXN => BodyLimit {
            max: about.txn_max_req_len.max(about.kv_max_value_size),
            setting: Some("limits.txn_max_req_len"),
        },
        "PUT" | "POST" => BodyLimit { max: BODY_MAX, setting: None },
        "DELETE" if path == KEYRING => BodyLimit { max: BODY_MAX, setting: None },
        _ => BodyLimit { max: 0, setting: None },
    }
}

/// Which of a server's limits a request counts for; none for what an agent answers out of itself.
#[must_use]
pub fn work(method: &str, path: &str) -> Option<Work> {
    let path = params::decode_path(path).ok()?;
    let pattern = find(&path)?.pattern;
    let own = ["/v1/agent/", "/v1/status/", "/livez", "/readyz"];
    match method {
        _ if own.iter().any(|own| pattern.starts_with(own)) => None,
        "GET" => Some(Work::Read),
        "PUT" | "POST" | "DELETE" => Some(Work::Write),
        _ => None,
    }
}

/// Everything that a handler may look at.
pub(super) struct Context<'a> {
    pub(super) published: &'a Published,
    pub(super) request: &'a HttpRequest<'a>,
    /// What follows the pattern of a prefix endpoint, decoded.
    pub(super) rest: &'a str,
    pub(super) params: Params<'a>,
    pub(super) now: Now,
}

/// What a handler gives back; an error is a reply, too.
pub(super) type Handled = Result<Routed, HttpReply>;

impl Context<'_> {
    pub(super) fn about(&self) -> &About {
        &self.published.about
    }

    /// The rest of the path, which must not be empty.
    pub(super) fn name(&self, missing: &'static str) -> Result<Text, HttpReply> {
        if self.rest.is_empty() { Err(HttpReply::text(400, missing)) } else { Ok(self.rest.into()) }
    }

    /// Answers a read from what is published, or asks the node.
    ///
    /// # Errors
    /// For a filter that makes no sense for these rows.
    pub(super) fn read(&self, mut read: Read) -> Handled {
        self.settle_for_stale(&mut read);
        if !read.filter.is_empty() {
            let fields = filter::of_query(&read.query).ok_or_else(|| unfilterable(self.request.path))?;
            Filter::parse(&read.filter, fields)?;
        }
        if self.params.elsewhere().is_some() {
            return Ok(self.ask(Call::Read(read)));
        }
        Ok(match answer(self.published, &read, self.now) {
            Answer::Reply(reply) => Routed::Reply(reply),
            Answer::Enter => self.ask(Call::Read(read)),
        })
    }

    /// Discovery may be a little old, if the configuration says so and the client says nothing.
    fn settle_for_stale(&self, read: &mut Read) {
        let bound = self.about().front.discovery_max_stale;
        let path = self.request.path;
        if !bound.is_zero()
            && read.consistency == Consistency::Default
            && !self.params.has("leader")
            && (path.starts_with("/v1/catalog/") || path.starts_with("/v1/health/"))
        {
            read.consistency = Consistency::Stale;
            read.max_stale = Some(bound);
        }
    }

    /// The filter that the parameters ask for, of rows with these fields.
    ///
    /// # Errors
    /// For a filter that makes no sense for these rows.
    pub(super) fn filter(&self, fields: Fields) -> Result<Option<Filter>, FilterError> {
        let text = self.params.get("filter").map_or("", str::trim);
        if text.is_empty() { Ok(None) } else { Filter::parse(text, fields).map(Some) }
    }

    /// Asks the node, or a server of the datacenter that is meant.
    pub(super) fn ask(&self, call: Call) -> Routed {
        self.ask_here(call.aimed_at(self.params.elsewhere()))
    }

    /// Asks the node, whatever datacenter is meant.
    pub(super) fn ask_here(&self, call: Call) -> Routed {
        // Reads carry their own shape, so that those who wait for the same one can share its bytes.
        let shaped = match &call {
            Call::Read(_) | Call::LocalService(_) => true,
            Call::Elsewhere(there) => matches!(there.request, Forwarded::Read(_)),
            Call::Write(_) | Call::Agent(_) | Call::Cluster(_) | Call::Dns(..) => false,
        };
        let indent = !shaped && self.params.pretty(self.about());
        Routed::Call { request: Request { call, authorizer: Authorizer }, indent }
    }

    /// Asks a server of the datacenter that a body names; the empty name is this one.
    ///
    /// # Errors
    /// There is no way to it.
    pub(super) fn ask_in(&self, datacenter: &str, call: Call) -> Handled {
        if datacenter.is_empty() || datacenter == self.about().datacenter {
            return Ok(self.ask_here(call));
        }
        if !may_reach(self.published, datacenter) {
            return Err(HttpReply::text(500, NO_PATH));
        }
        Ok(self.ask_here(call.aimed_at(Some(&datacenter.into()))))
    }

    /// The datacenter that is meant.
    pub(super) fn datacenter(&self) -> &Text {
        self.params.elsewhere().unwrap_or(&self.about().datacenter)
    }

    /// A JSON reply from local state, indented if that is wanted.
    pub(super) fn json(&self, status: u16, body: Vec<u8>) -> HttpReply {
        let body = if self.params.pretty(self.about()) { super::render::indent(&body) } else { body };
        HttpReply::json(status, body)
    }
}

fn unfilterable(path: &str) -> HttpReply {
    HttpReply::text(400, format!("Invalid filter: {path} cannot be filtered, leave out ?filter="))
}

/// One endpoint.
struct Endpoint {
    /// The path; one that ends with a slash stands for everything below it, an asterisk for anything.
    pattern: &'static str,
    /// In the order of the `Allow` header.
    methods: &'static [&'static str],
    /// What a client must be allowed to do; reading for GET, writing otherwise.
    resource: Resource,
    handler: fn(&Context<'_>) -> Handled,
}

const fn endpoint(
    pattern: &'static str,
    methods: &'static [&'static str],
    resource: Resource,
    handler: fn(&Context<'_>) -> Handled,
) -> Endpoint {
    Endpoint { pattern, methods, resource, handler }
}

/// All endpoints. The first that fits is the one, so longer patterns stand before their prefixes; what is asked often
/// stands early.
#[rustfmt::skip]
static ENDPOINTS: &[Endpoint] = &[
    endpoint("/v1/kv/", &["GET", "PUT", "DELETE"], Resource::Key, kv::handle),
    endpoint(TXN, PUT, Resource::Key, txn::handle),
    endpoint("/v1/health/service/", GET, Resource::Service, health::service),
    endpoint("/v1/health/connect/", GET, Resource::Service, health::connect),
    endpoint("/v1/health/checks/", GET, Resource::Service, health::checks),
    endpoint("/v1/health/node/", GET, Resource::Node, health::node),
    endpoint("/v1/health/state/", GET, Resource::Node, health::state),
    endpoint("/v1/catalog/service/", GET, Resource::Service, catalog::service),
    endpoint("/v1/catalog/connect/", GET, Resource::Service, catalog::connect),
    endpoint("/v1/catalog/services", GET, Resource::Service, catalog::services),
    endpoint("/v1/catalog/nodes", GET, Resource::Node, catalog::nodes),
    endpoint("/v1/catalog/node/", GET, Resource::Node, catalog::node),
    endpoint("/v1/catalog/node-services/", GET, Resource::Node, catalog::node_services),
    endpoint("/v1/catalog/datacenters", GET, Resource::None, catalog::datacenters),
    endpoint("/v1/catalog/register", PUT, Resource::Node, catalog::register),
    endpoint("/v1/catalog/deregister", PUT, Resource::Node, catalog::deregister),
    endpoint("/v1/catalog/gateway-services/", GET, Resource::Service, discovery::gateway_services),
    endpoint("/v1/health/ingress/", GET, Resource::Service, discovery::ingress),
    endpoint("/v1/discovery-chain/", &["GET", "POST"], Resource::Service, discovery::chain),
    endpoint("/v1/config", PUT, Resource::Config, config::write),
    endpoint("/v1/config/", &["GET", "DELETE"], Resource::Config, config::handle),
    endpoint("/v1/coordinate/datacenters", GET, Resource::None, coordinate::datacenters),
    endpoint("/v1/coordinate/nodes", GET, Resource::Node, coordinate::nodes),
    endpoint("/v1/coordinate/node/", GET, Resource::Node, coordinate::node),
    endpoint("/v1/coordinate/update", PUT, Resource::Node, coordinate::update),
    endpoint("/v1/session/create", PUT, Resource::Session, session::create),
    endpoint("/v1/session/destroy/", PUT, Resource::Session, session::destroy),
    endpoint("/v1/session/renew/", PUT, Resource::Session, session::renew),
    endpoint("/v1/session/info/", GET, Resource::Session, session::info),
    endpoint("/v1/session/node/", GET, Resource::Session, session::node),
    endpoint("/v1/session/list", GET, Resource::Session, session::list),
    endpoint("/v1/query/*/execute", GET, Resource::Query, prepared::execute),
    endpoint("/v1/query/*/explain", GET, Resource::Query, prepared::explain),
    endpoint("/v1/query/", &["GET", "PUT", "DELETE"], Resource::Query, prepared::one),
    endpoint("/v1/query", &["GET", "POST"], Resource::Query, prepared::all),
    endpoint("/v1/agent/check/pass/", PUT, Resource::Service, agent::check_pass),
    endpoint("/v1/agent/check/warn/", PUT, Resource::Service, agent::check_warn),
    endpoint("/v1/agent/check/fail/", PUT, Resource::Service, agent::check_fail),
    endpoint("/v1/agent/check/update/", PUT, Resource::Service, agent::check_update),
    endpoint("/v1/agent/check/register", PUT, Resource::Service, agent::check_register),
    endpoint("/v1/agent/check/deregister/", PUT, Resource::Service, agent::check_deregister),
    endpoint("/v1/agent/service/register", PUT, Resource::Service, agent::service_register),
    endpoint("/v1/agent/service/deregister/", PUT, Resource::Service, agent::service_deregister),
    endpoint("/v1/agent/service/maintenance/", PUT, Resource::Service, agent::service_maintenance),
    endpoint("/v1/agent/service/", GET, Resource::Service, agent::service),
    endpoint("/v1/agent/services", GET, Resource::Service, agent::services),
    endpoint("/v1/agent/checks", GET, Resource::Service, agent::checks),
    endpoint("/v1/agent/health/service/id/", GET, Resource::Service, agent::health_by_id),
    endpoint("/v1/agent/health/service/name/", GET, Resource::Service, agent::health_by_name),
    endpoint("/v1/agent/maintenance", PUT, Resource::Node, agent::maintenance),
    endpoint("/v1/agent/members", GET, Resource::Node, membership::members),
    endpoint("/v1/agent/join/", PUT, Resource::Agent, membership::join),
    endpoint("/v1/agent/leave", PUT, Resource::Agent, membership::leave),
    endpoint("/v1/agent/force-leave/", PUT, Resource::Operator, membership::force_leave),
    endpoint("/v1/agent/self", GET, Resource::Agent, agent::about_self),
    endpoint("/v1/agent/host", GET, Resource::Operator, process::host),
    endpoint("/v1/agent/metrics", GET, Resource::Agent, process::metrics),
    endpoint("/v1/agent/metrics/stream", GET, Resource::Agent, process::metrics_stream),
    endpoint("/v1/agent/monitor", GET, Resource::Agent, process::monitor),
    endpoint("/v1/agent/reload", PUT, Resource::Agent, process::reload),
    endpoint("/v1/agent/token/", PUT, Resource::Agent, refused::acl),
    endpoint("/v1/agent/version", GET, Resource::None, agent::version),
    endpoint("/v1/status/leader", GET, Resource::None, status::leader),
    endpoint("/v1/status/peers", GET, Resource::None, status::peers),
    endpoint(SNAPSHOT, &["GET", "PUT"], Resource::Operator, snapshot::handle),
    endpoint("/v1/event/fire/", PUT, Resource::Event, event::fire),
    endpoint("/v1/event/list", GET, Resource::Event, event::list),
    endpoint("/v1/operator/raft/configuration", GET, Resource::Operator, operator::raft::configuration),
    endpoint("/v1/operator/raft/peer", DELETE, Resource::Operator, operator::raft::remove_peer),
    endpoint("/v1/operator/raft/transfer-leader", &["POST", "PUT"], Resource::Operator, operator::raft::transfer_leader),
    endpoint("/v1/operator/autopilot/configuration", &["GET", "PUT"], Resource::Operator, operator::autopilot::configuration),
    endpoint("/v1/operator/autopilot/health", GET, Resource::Operator, operator::autopilot::health),
    endpoint("/v1/operator/autopilot/state", GET, Resource::Operator, operator::autopilot::state),
    endpoint("/v1/operator/usage", GET, Resource::Operator, operator::usage::handle),
    endpoint("/livez", GET, Resource::None, probes::livez),
    endpoint("/readyz", GET, Resource::None, probes::readyz),
    endpoint(KEYRING, &["GET", "POST", "PUT", "DELETE"], Resource::Keyring, operator::keyring::handle),
];

/// Endpoints of Consul that nobody asks often: the user interface's, and those of what does not exist here.
#[rustfmt::skip]
static RARE: &[Endpoint] = &[
    endpoint("/v1/internal/ui/nodes", GET, Resource::Node, ui::nodes),
    endpoint("/v1/internal/ui/node/", GET, Resource::Node, ui::node),
    endpoint("/v1/internal/ui/services", GET, Resource::Service, ui::services),
    endpoint("/v1/internal/ui/exported-services", GET, Resource::Service, ui::nothing),
    endpoint("/v1/internal/ui/catalog-overview", GET, Resource::Node, ui::catalog_overview),
    endpoint("/v1/internal/ui/service-topology/", GET, Resource::Service, ui::topology),
    endpoint("/v1/internal/ui/gateway-services-nodes/", GET, Resource::Service, ui::gateway_services),
    endpoint("/v1/internal/ui/gateway-intentions/", GET, Resource::Intention, ui::gateway_intentions),
    endpoint("/v1/internal/ui/metrics-proxy/", GET, Resource::None, ui::metrics_proxy),
    endpoint("/v1/internal/federation-states/mesh-gateways", GET, Resource::Operator, ui::federation_gateways),
    endpoint("/v1/internal/federation-states", GET, Resource::Operator, ui::nothing),
    endpoint("/v1/internal/federation-state/", GET, Resource::Operator, ui::federation_state),
    endpoint("/v1/internal/acl/authorize", POST, Resource::None, refused::acl),
    endpoint("/v1/acl/bootstrap", PUT, Resource::None, refused::acl),
    endpoint("/v1/acl/replication", GET, Resource::None, refused::acl),
    endpoint("/v1/acl/login", POST, Resource::None, refused::acl),
    endpoint("/v1/acl/logout", POST, Resource::None, refused::acl),
    endpoint("/v1/acl/policies", GET, Resource::Acl, refused::acl),
    endpoint("/v1/acl/policy", PUT, Resource::Acl, refused::acl),
    endpoint("/v1/acl/policy/name/", GET, Resource::Acl, refused::acl),
    endpoint("/v1/acl/policy/", GET_PUT_DELETE, Resource::Acl, refused::acl),
    endpoint("/v1/acl/roles", GET, Resource::Acl, refused::acl),
    endpoint("/v1/acl/role", PUT, Resource::Acl, refused::acl),
    endpoint("/v1/acl/role/name/", GET, Resource::Acl, refused::acl),
    endpoint("/v1/acl/role/", GET_PUT_DELETE, Resource::Acl, refused::acl),
    endpoint("/v1/acl/tokens", GET, Resource::Acl, refused::acl),
    endpoint("/v1/acl/token", PUT, Resource::Acl, refused::acl),
    endpoint("/v1/acl/token/self", GET, Resource::None, refused::acl),
    endpoint("/v1/acl/token/", GET_PUT_DELETE, Resource::Acl, refused::acl),
    endpoint("/v1/acl/auth-methods", GET, Resource::Acl, refused::acl),
    endpoint("/v1/acl/auth-method", PUT, Resource::Acl, refused::acl),
    endpoint("/v1/acl/auth-method/", GET_PUT_DELETE, Resource::Acl, refused::acl),
    endpoint("/v1/acl/binding-rules", GET, Resource::Acl, refused::acl),
    endpoint("/v1/acl/binding-rule", PUT, Resource::Acl, refused::acl),
    endpoint("/v1/acl/binding-rule/", GET_PUT_DELETE, Resource::Acl, refused::acl),
    endpoint("/v1/acl/templated-policies", GET, Resource::Acl, refused::acl),
    endpoint("/v1/acl/templated-policy/name/", GET, Resource::Acl, refused::acl),
    endpoint("/v1/acl/templated-policy/preview/", POST, Resource::Acl, refused::acl),
    endpoint("/v1/acl/rules/translate/", GET, Resource::Acl, refused::acl),
    endpoint("/v1/acl/rules/translate", POST, Resource::Acl, refused::acl),
    endpoint("/v1/connect/intentions", &["GET", "POST"], Resource::Intention, intention::all),
    endpoint("/v1/connect/intentions/match", GET, Resource::Intention, intention::matching),
    endpoint("/v1/connect/intentions/check", GET, Resource::Intention, intention::check),
    endpoint("/v1/connect/intentions/exact", GET_PUT_DELETE, Resource::Intention, intention::exact),
    endpoint("/v1/connect/intentions/", GET_PUT_DELETE, Resource::Intention, intention::one),
    endpoint("/v1/connect/ca/roots", GET, Resource::None, refused::connect),
    endpoint("/v1/connect/ca/configuration", &["GET", "PUT"], Resource::Operator, connect::configuration),
    endpoint("/v1/agent/connect/ca/roots", GET, Resource::None, refused::connect),
    endpoint("/v1/agent/connect/ca/leaf/", GET, Resource::Service, refused::connect),
    endpoint("/v1/agent/connect/authorize", POST, Resource::Service, connect::authorize),
    endpoint("/v1/internal/service-virtual-ip", PUT, Resource::Service, refused::connect),
    endpoint("/v1/peering/token", POST, Resource::Operator, refused::peering),
    endpoint("/v1/peering/establish", POST, Resource::Operator, refused::peering),
    endpoint("/v1/peering/", &["GET", "DELETE"], Resource::Operator, refused::peering),
    endpoint("/v1/peerings", GET, Resource::Operator, refused::peering),
];

const GET_PUT_DELETE: &[&str] = &["GET", "PUT", "DELETE"];
const POST: &[&str] = &["POST"];
const GET: &[&str] = &["GET"];
const PUT: &[&str] = &["PUT"];
const DELETE: &[&str] = &["DELETE"];

/// Transactions, whose bodies have a limit of their own.
const TXN: &str = "/v1/txn";

/// A prepared query.
const ONE_QUERY: &str = "/v1/query/";

/// The whole state, as an archive.
const SNAPSHOT: &str = "/v1/snapshot";

/// The only endpoint whose DELETE has a body.
const KEYRING: &str = "/v1/operator/keyring";

/// Decides about a request: answers it from what is published, refuses it, or says what to ask the node.
///
/// `now` must have been read after `published`, or the lease is not to be trusted.
#[must_use]
pub fn route(published: &Published, request: &HttpRequest<'_>, now: Now) -> Routed {
    dispatch(published, request, now).unwrap_or_else(Routed::Reply)
}

fn dispatch(published: &Published, request: &HttpRequest<'_>, now: Now) -> Handled {
    let path = params::decode_path(request.path)?;
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain && !path.chars().all(params::is_printable) {
        return Err(HttpReply::text(400, "Invalid URL path: it contains a character that cannot be printed"));
    }
    if let Some(clean) = cleaned(&path) {
        return Ok(redirect(request, &clean).into());
    }
    if let Some(reply) = published.about.front.refuse(request.client, request.method, &path) {
        return Ok(reply.into());
    }
    if let Some(at) = &published.about.front.page
        && let Some(routed) = page(request, &path, at)
    {
        return routed;
    }
    let Some(endpoint) = find(&path) else { return Ok(unknown(request, &path).into()) };
    if let Some(reply) = refuse_method(endpoint, request.method) {
        return Ok(reply.into());
    }
    let mut params = Params::parse(request.query)?;
    // What is asked of an agent about itself is asked of no other.
    if !endpoint.pattern.starts_with("/v1/agent/") {
        params = params.seen_by(published);
    }
    refuse_tenancy(&params, &request.headers)?;
    let rest = endpoint.rest(&path).unwrap_or("");
    if !Authorizer.allows(Permission::of(endpoint.resource, request.method != "GET"), rest) {
        return Err(HttpReply::text(403, "Permission denied"));
    }
    (endpoint.handler)(&Context { published, request, rest, params, now })
}

/// All of them, in their order.
fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    ENDPOINTS.iter().chain(RARE)
}

/// The place of the endpoint of a path among [`endpoint_labels`]; `None` for what is no endpoint.
#[must_use]
pub fn endpoint_place(path: &str) -> Option<usize> {
    endpoints().position(|endpoint| endpoint.rest(path).is_some())
}

/// All endpoints as metrics name them: `v1.kv._`, where the underscore stands for what differs from request to request.
pub fn endpoint_labels() -> impl Iterator<Item = String> {
    endpoints().map(|endpoint| {
        let label = endpoint.pattern[1..].replace('*', "_").replace('/', ".");
        if label.ends_with('.') { format!("{label}_") } else { label }
    })
}

fn find(path: &str) -> Option<&'static Endpoint> {
    endpoints().find(|endpoint| endpoint.rest(path).is_some())
}

impl Endpoint {
    /// What stands in a path where the pattern does not say; `None` for a path that does not fit.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        if let Some((before, behind)) = self.pattern.split_once('*') {
            return path.strip_prefix(before)?.strip_suffix(behind);
        }
        let rest = path.strip_prefix(self.pattern)?;
        (rest.is_empty() || self.pattern.ends_with('/')).then_some(rest)
    }
}

/// The reply to OPTIONS and to methods that an endpoint does not have.
fn refuse_method(endpoint: &Endpoint, method: &str) -> Option<HttpReply> {
    if endpoint.methods.contains(&method) {
        return None;
    }
    let mut reply = if method == "OPTIONS" {
        HttpReply::empty(200)
    } else {
        HttpReply::text(405, format!("method {method} not allowed"))
    };
    let mut allowed = endpoint.methods.join(",");
    // Consul refuses methods here in another place than everywhere else.
    if method == "OPTIONS" || !endpoint.pattern.starts_with(ONE_QUERY) {
        allowed.insert_str(0, "OPTIONS,");
    }
    reply.headers.push(("Allow".into(), allowed.into()));
    Some(reply)
}

/// Namespaces and partitions do not exist here, not even by the name of `default`.
fn refuse_tenancy(params: &Params<'_>, headers: &Headers<'_>) -> Result<(), HttpReply> {
    let refuse = |what: &str, name: &str, kind: &str| {
        let text = format!("Invalid {what}: \"{name}\" - {kind} are a Consul Enterprise feature");
        Err(HttpReply::text(400, text))
    };
    if params.filled("ns").is_some() {
        return refuse("query parameter", "ns", "Namespaces");
    }
    if params.filled("partition").is_some() {
        return refuse("query parameter", "partition", "Partitions");
    }
    if !headers.namespace.is_empty() {
        return refuse("header", "X-Consul-Namespace", "Namespaces");
    }
    if !headers.partition.is_empty() {
        return refuse("header", "X-Consul-Partition", "Partitions");
    }
    Ok(())
}

/// The web page, which stands for everything below its place; `None` for other paths.
fn page(request: &HttpRequest<'_>, path: &str, at: &str) -> Option<Handled> {
    if path == "/" || path == at.trim_end_matches('/') {
        return Some(Ok(redirect(request, at).into()));
    }
    path.strip_prefix(at)?;
    if matches!(request.method, "GET" | "HEAD") {
        return Some(Ok(Routed::Process { wish: process::Wish::Page, indent: false }));
    }
    let mut reply = HttpReply::text(405, format!("method {} not allowed", request.method));
    reply.headers.push(("Allow".into(), "GET,HEAD".into()));
    Some(Err(reply))
}

/// The reply to a path that is no endpoint.
fn unknown(request: &HttpRequest<'_>, path: &str) -> HttpReply {
    if path == "/" {
        return HttpReply::text(
            200,
            "Consul Agent: UI disabled. To enable, set ui_config.enabled=true in the agent configuration and restart.",
        );
    }
    let below = format!("{path}/");
    if endpoints().any(|endpoint| endpoint.pattern == below) {
        return redirect(request, &below);
    }
    HttpReply::text(
        404,
        if path.contains("/v1/") {
            "Invalid URL path: not a recognized HTTP API endpoint"
        } else {
            "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'"
        },
    )
}

/// A path without empty and dot segments, if that is another one. A trailing slash stays.
fn cleaned(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some(format!("/{path}"));
    }
    let dirty = |segment: &str| matches!(segment, "" | "." | "..");
    let (body, trailing) = match path[1..].strip_suffix('/') {
        Some(body) => (body, true),
        None => (&path[1..], false),
    };
    if (body.is_empty() && !trailing) || !body.split('/').any(dirty) {
        return None;
    }
    let mut segments = Vec::new();
    for segment in body.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut clean = String::with_capacity(path.len());
    for segment in &segments {
        clean.push('/');
        clean.push_str(segment);
    }
    if trailing || segments.is_empty() {
        clean.push('/');
    }
    Some(clean)
}

/// Characters that a path in a `Location` header does not escape (Go: `url.EscapedPath`).
const PATH_ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// 301 to another path with the same parameters.
fn redirect(request: &HttpRequest<'_>, path: &str) -> HttpReply {
    let path = percent_encoding::utf8_percent_encode(path, PATH_ESCAPED);
    let query: Cow<'_, str> =
        if request.query.is_empty() { "".into() } else { format!("?{}", request.query).into() };
    let location = format!("{path}{query}");
    let mut reply = HttpReply::empty(301);
    if request.method == "GET" {
        reply.content_type = ContentType::Html;
        let link =
            location.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&lt;").replace('>', "&gt;");
        reply.body = format!("<a href=\"{link}\">Moved Permanently</a>.\n\n").into();
    }
    reply.headers.push(("Location".into(), location.into()));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pattern_hides_behind_an_earlier_one() {
        for endpoint in endpoints() {
            let found = find(endpoint.pattern).expect("its own pattern fits");
            assert_eq!(found.pattern, endpoint.pattern, "an earlier pattern hides {}", endpoint.pattern);
        }
    }

    #[test]
    fn what_an_agent_answers_out_of_itself_is_not_limited() {
        assert_eq!(work("GET", "/v1/kv/a"), Some(Work::Read));
        assert_eq!(work("GET", "/v1/%6bv/a"), Some(Work::Read));
        assert_eq!(work("PUT", "/v1/txn"), Some(Work::Write));
        assert_eq!(work("DELETE", "/v1/kv/a"), Some(Work::Write));
        for path in ["/v1/agent/self", "/v1/status/leader", "/readyz", "/none"] {
            assert_eq!(work("GET", path), None, "{path}");
        }
    }

    #[test]
    fn metrics_name_endpoints_without_what_clients_write() {
        let labels = endpoint_labels().collect::<Vec<_>>();
        let label = |path| endpoint_place(path).map(|place| labels[place].as_str());
        assert_eq!(label("/v1/kv/some/key"), Some("v1.kv._"));
        assert_eq!(label("/v1/agent/self"), Some("v1.agent.self"));
        assert_eq!(label("/v1/nothing"), None);
    }

    #[test]
    fn paths_are_cleaned_as_in_go() {
        let cases = [
            ("/", None),
            ("/v1/kv/a", None),
            ("/v1/kv/a/", None),
            ("/v1//kv/a", Some("/v1/kv/a")),
            ("/v1/kv/a//", Some("/v1/kv/a/")),
            ("//", Some("/")),
            ("/v1/kv/a/../b", Some("/v1/kv/b")),
            ("/v1/./kv/", Some("/v1/kv/")),
            ("/..", Some("/")),
            ("/v1/kv/..", Some("/v1")),
            ("/v1/kv/...", None),
            ("", Some("/")),
        ];
        for (path, expected) in cases {
            assert_eq!(cleaned(path).as_deref(), expected, "{path:?}");
        }
    }
}
