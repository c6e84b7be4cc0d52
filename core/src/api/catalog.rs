//! `/v1/catalog`

use serde_json::Value;

use super::cluster::{ClusterCall, answer_everywhere};
use super::health::selector;
use super::render::json::Json;
use super::route::{Context, Handled};
use super::{Call, HttpReply, Write};
use crate::Text;
use crate::agent::decode::{DecodeError, Object, Source};
use crate::agent::definition::{DefinitionError, check_meta};
use crate::agent::{CallError, proxy};
use crate::ids::Uuid;
use crate::node::{About, Published};
use crate::store::command::{Deregistration, Registration};
use crate::store::model::{Check, CheckDefinition, Health, Service, ServiceAddress, ServiceKind, Weights};
use crate::store::query::Query;

pub(super) fn nodes(context: &Context<'_>) -> Handled {
    read(context, Query::Nodes { meta: context.params.node_meta() })
}

pub(super) fn services(context: &Context<'_>) -> Handled {
    read(context, Query::Services { meta: context.params.node_meta() })
}

pub(super) fn service(context: &Context<'_>) -> Handled {
    read(context, Query::ServiceNodes(selector(context, false)?))
}

pub(super) fn connect(context: &Context<'_>) -> Handled {
    read(context, Query::ServiceNodes(selector(context, true)?))
}

pub(super) fn node(context: &Context<'_>) -> Handled {
    read(context, Query::Node(context.name("Missing node name")?))
}

pub(super) fn node_services(context: &Context<'_>) -> Handled {
    let query = Query::Node(context.name("Missing node name")?);
    let mut read = context.params.read(query, context.about())?;
    read.shape.list = true;
    context.read(read)
}

fn read(context: &Context<'_>, query: Query) -> Handled {
    let read = context.params.read(query, context.about())?;
    context.read(read)
}

pub(super) fn datacenters(context: &Context<'_>) -> Handled {
    answer_everywhere(context, ClusterCall::Datacenters)
}

/// The names of all datacenters, the nearest first.
pub(super) fn render_datacenters(published: &Published) -> HttpReply {
    let about = &published.about;
    let mut json = Json::with_capacity(64);
    json.strings(published.cluster.datacenters_by_distance(&about.node, &about.datacenter));
    HttpReply::json(200, json.into_bytes())
}

pub(super) fn register(context: &Context<'_>) -> Handled {
    let registration = read_registration(&context.request.body, context.about())?;
    let datacenter = registration.datacenter.clone();
    context.ask_in(&datacenter, Call::Write(Write::Register(Box::new(registration))))
}

pub(super) fn deregister(context: &Context<'_>) -> Handled {
    let (deregistration, datacenter) = read_deregistration(&context.request.body)?;
    context.ask_in(&datacenter, Call::Write(Write::Deregister(deregistration)))
}

/// Why a body was refused.
pub(super) enum Bad {
    /// It cannot be read: 400.
    Decode(DecodeError),
    /// It breaks a rule of the catalog: 500, as Consul answers.
    Rule(String),
    /// For any other reason.
    Reply(HttpReply),
}

impl From<DecodeError> for Bad {
    fn from(error: DecodeError) -> Bad {
        Bad::Decode(error)
    }
}

impl From<DefinitionError> for Bad {
    fn from(error: DefinitionError) -> Bad {
        match error {
            DefinitionError::Decode(error) => Bad::Decode(error),
            other => Bad::Rule(other.to_string()),
        }
    }
}

impl From<Bad> for HttpReply {
    fn from(bad: Bad) -> HttpReply {
        match bad {
            Bad::Decode(error) => {
                let CallError { status, text } = DefinitionError::Decode(error).into_call_error();
                HttpReply::text(status, text)
            }
            Bad::Rule(text) => HttpReply::text(500, text),
            Bad::Reply(reply) => reply,
        }
    }
}

fn rule(text: impl Into<String>) -> Bad {
    Bad::Rule(text.into())
}

/// The object that a body is.
pub(super) fn object(body: &[u8]) -> Result<Object, Bad> {
    let failed = |why: String| Bad::Reply(HttpReply::text(400, format!("Request decode failed: {why}")));
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(failed("EOF".into()));
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| failed(error.to_string()))?;
    Ok(Object::new(Source::Api, "", &value)?)
}

fn read_registration(body: &[u8], about: &About) -> Result<Registration, HttpReply> {
    registration(object(body)?, about).map_err(HttpReply::from)
}

fn registration(mut body: Object, about: &About) -> Result<Registration, Bad> {
    let id = body.text("id")?;
    let mut registration = Registration {
        id: None,
        node: body.text("node")?,
        address: body.text("address")?,
        tagged_addresses: body.map("tagged_addresses")?,
        node_meta: body.map("node_meta")?,
        datacenter: body.text("datacenter")?,
        service: body.object("service")?.map(service_of).transpose()?,
        checks: Vec::new(),
        skip_node_update: body.flag("skip_node_update")?,
    };
    let single = body.object("check")?;
    for check in body.objects("checks")?.into_iter().chain(single) {
        registration.checks.push(check_of(check)?);
    }
    // Fields that older clients send and that mean nothing here.
    for ignored in ["token", "write_request", "enterprise_meta", "peer_name", "locality"] {
        body.take(ignored);
    }
    body.finish()?;
    if registration.node.is_empty() {
        return Err(rule("Must provide node"));
    }
    if registration.address.is_empty() && !registration.skip_node_update {
        return Err(rule("Must provide address if SkipNodeUpdate is not set"));
    }
    if let Some(service) = &registration.service
        && let Err(why) = check_meta(&service.meta)
    {
        let (node, id) = (&registration.node, &service.id);
        let why = format!(
            "failed inserting service: Invalid Service Meta for node {node} and serviceID {id}: {why}"
        );
        return Err(rule(why));
    }
    if !id.is_empty() {
        let parsed = Uuid::parse(&id)
            .ok_or_else(|| rule(format!("Bad node ID: {id:?} is not a UUID of 36 characters")))?;
        registration.id = Some(parsed);
    }
    if registration.datacenter.is_empty() {
        registration.datacenter = about.datacenter.clone();
    }
    for check in &mut registration.checks {
        if check.node.is_empty() {
            check.node = registration.node.clone();
        }
        if !check.node.eq_ignore_ascii_case(&registration.node) {
            return Err(rule(format!(
                "check node {:?} does not match node {:?}",
                check.node, registration.node
            )));
        }
        if check.id.is_empty() {
            check.id = check.name.clone();
        }
    }
    Ok(registration)
}

fn service_of(body: Object) -> Result<Service, Bad> {
    let (service, proxy) = service_fields(body)?;
    checked_service(service, proxy)
}

/// Reads an instance as it stands, its proxy part apart.
pub(super) fn service_fields(mut body: Object) -> Result<(Service, Option<proxy::Proxy>), Bad> {
    let kind_text = body.text("kind")?;
    let mut service = Service {
        kind: ServiceKind::parse(&kind_text)
            .ok_or_else(|| rule(format!("Invalid service kind {kind_text:?}")))?,
        id: body.text("id")?,
        service: body.text("service")?,
        tags: body.texts("tags")?,
        address: body.text("address")?,
        meta: body.map("meta")?,
        port: port(&mut body)?,
        enable_tag_override: body.flag("enable_tag_override")?,
        ..Service::default()
    };
    for (tag, value) in body.entries("tagged_addresses")? {
        let mut entry = Object::new(Source::Api, &format!("TaggedAddresses.{tag}"), &value)?;
        let address = ServiceAddress { address: entry.text("address")?, port: port(&mut entry)? };
        entry.finish()?;
        service.tagged_addresses.insert(tag.into(), address);
    }
    if let Some(mut weights) = body.object("weights")? {
        service.weights =
            Weights { passing: weight(&mut weights, "passing")?, warning: weight(&mut weights, "warning")? };
        weights.finish()?;
    }
    let proxy_part = body.object("proxy")?.map(proxy::read).transpose()?;
    if let Some(mut connect) = body.object("connect")? {
        service.connect_native = connect.flag("native")?;
        connect.take("sidecar_service");
        connect.finish()?;
    }
    let ignored = [
        "create_index",
        "modify_index",
        "enterprise_meta",
        "locally_registered_as_sidecar",
        "socket_path",
        "peer_name",
        "locality",
    ];
    for ignored in ignored {
        body.take(ignored);
    }
    body.finish()?;
    Ok((service, proxy_part))
}

/// An instance that may be registered, with what follows from the rest filled in.
pub(super) fn checked_service(
    mut service: Service,
    proxy_part: Option<proxy::Proxy>,
) -> Result<Service, Bad> {
    if service.service.is_empty() {
        return Err(rule("Must provide service name with ID"));
    }
    if service.id.is_empty() {
        service.id = service.service.clone();
    }
    service.proxy = proxy::validate(&service, proxy_part)?;
    Ok(service)
}

fn port(body: &mut Object) -> Result<u16, Bad> {
    let port = body.integer("port")?.unwrap_or(0);
    u16::try_from(port).map_err(|_| rule(format!("Invalid port {port}: it must be between 0 and 65535")))
}

fn weight(body: &mut Object, key: &str) -> Result<u32, Bad> {
    let weight = body.integer(key)?.unwrap_or(1);
    u32::try_from(weight)
        .map_err(|_| rule(format!("Invalid Weights: {key} is {weight}, it must not be negative")))
}

/// Reads a check.
pub(super) fn check_of(mut body: Object) -> Result<Check, Bad> {
    let status = body.text("status")?;
    let mut check = Check {
        node: body.text("node")?,
        id: body.text("check_id")?,
        name: body.text("name")?,
        status: match status.as_str() {
            "" => Health::Critical,
            word => Health::parse(word).ok_or_else(|| {
                rule(format!("Invalid check status {word:?}: it must be passing, warning or critical"))
            })?,
        },
        notes: body.text("notes")?,
        output: body.text("output")?,
        service_id: body.text("service_id")?,
        service_name: body.text("service_name")?,
        service_tags: body.texts("service_tags")?,
        kind: body.text("type")?,
        interval: body.text("interval")?,
        timeout: body.text("timeout")?,
        ..Check::default()
    };
    if let Some(definition) = body.object("definition")? {
        check.definition = definition_of(definition)?;
    }
    for ignored in ["create_index", "modify_index", "enterprise_meta", "exposed_port", "peer_name"] {
        body.take(ignored);
    }
    body.finish()?;
    if check.kind.is_empty() {
        check.kind = if !check.definition.http.is_empty() {
            "http".into()
        } else if !check.definition.tcp.is_empty() {
            "tcp".into()
        } else {
            Text::default()
        };
    }
    Ok(check)
}

fn definition_of(mut body: Object) -> Result<CheckDefinition, Bad> {
    let mut duration =
        |key: &str| -> Result<_, Bad> { Ok(Some(body.duration(key)?).filter(|value| !value.is_zero())) };
    let interval = duration("interval")?;
    let timeout = duration("timeout")?;
    let deregister_critical_service_after = duration("deregister_critical_service_after")?;
    let definition = CheckDefinition {
        http: body.text("http")?,
        header: body.headers("header")?,
        method: body.text("method")?,
        body: body.text("body")?,
        tls_skip_verify: body.flag("tls_skip_verify")?,
        tcp: body.text("tcp")?,
        interval,
        timeout,
        deregister_critical_service_after,
    };
    // Kinds of checks that are kept by their agents only, and derived fields.
    let ignored = [
        "interval_duration",
        "timeout_duration",
        "deregister_critical_service_after_duration",
        "tls_server_name",
        "output_max_size",
        "script_args",
        "docker_container_id",
        "shell",
        "grpc",
        "grpc_use_tls",
        "alias_node",
        "alias_service",
        "ttl",
        "udp",
        "h2_ping",
        "h2_ping_use_tls",
        "os_service",
        "tcp_use_tls",
        "disable_redirects",
    ];
    for ignored in ignored {
        body.take(ignored);
    }
    body.finish()?;
    Ok(definition)
}

/// What is to be deregistered, and in which datacenter; the empty name is this one.
fn read_deregistration(body: &[u8]) -> Result<(Deregistration, Text), HttpReply> {
    deregistration(object(body)?).map_err(HttpReply::from)
}

fn deregistration(mut body: Object) -> Result<(Deregistration, Text), Bad> {
    let some = |text: Text| (!text.is_empty()).then_some(text);
    let deregistration = Deregistration {
        node: body.text("node")?,
        service_id: some(body.text("service_id")?),
        check_id: some(body.text("check_id")?),
    };
    let datacenter = body.text("datacenter")?;
    for ignored in ["address", "token", "write_request", "enterprise_meta", "peer_name"] {
        body.take(ignored);
    }
    body.finish()?;
    if deregistration.node.is_empty() {
        return Err(rule("Must provide node"));
    }
    Ok((deregistration, datacenter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { datacenter: "dc1".into(), ..About::default() }
    }

    fn registered(body: &str) -> Result<Registration, HttpReply> {
        read_registration(body.as_bytes(), &about())
    }

    #[test]
    fn a_whole_registration_is_read() {
        let registration = registered(
            r#"{"Datacenter":"dc1","ID":"40e4a748-2192-161a-0510-9bf59fe950b5","node":"n1","Address":"10.0.0.1",
                "TaggedAddresses":{"wan":"1.2.3.4"},"nodemeta":{"rack":"r1"},
                "Service":{"ID":"web1","Service":"web","Tags":["a"],"Port":80,"Weights":{"Passing":10,"Warning":2},
                           "TaggedAddresses":{"lan":{"Address":"10.1.0.1","Port":8000}},"Connect":{"Native":true}},
                "Check":{"Name":"x","Status":"passing","ServiceID":"web1","Definition":{"HTTP":"http://a","Interval":"10s"}},
                "Checks":[{"Node":"N1","CheckID":"c","Name":"y"}],"SkipNodeUpdate":true}"#,
        )
        .unwrap();
        assert_eq!(registration.id, Uuid::parse("40e4a748-2192-161a-0510-9bf59fe950b5"));
        assert_eq!(registration.node_meta["rack"], "r1");
        assert!(registration.skip_node_update);
        let service = registration.service.unwrap();
        assert_eq!((service.weights.passing, service.weights.warning), (10, 2));
        assert_eq!(service.tagged_addresses["lan"].port, 8000);
        assert!(service.connect_native);
        let [first, second] = registration.checks.as_slice() else { panic!("two checks") };
        assert_eq!((first.id.as_str(), first.status), ("c", Health::Critical));
        assert_eq!((second.id.as_str(), second.node.as_str(), second.kind.as_str()), ("x", "n1", "http"));
    }

    #[test]
    fn what_is_refused_is_refused_with_the_texts_of_consul() {
        let cases = [
            (r#"{"Address":"10.0.0.1"}"#, 500, "Must provide node"),
            (r#"{"Node":"n"}"#, 500, "Must provide address if SkipNodeUpdate is not set"),
            (r#"{"Node":"n","Address":"a","Service":{"ID":"x"}}"#, 500, "Must provide service name with ID"),
            (
                r#"{"Node":"n","Address":"a","Service":{"Service":"s","Meta":{"a b":"c"}}}"#,
                500,
                "failed inserting service: Invalid Service Meta for node n and serviceID s: \
                 Couldn't load metadata pair ('a b', 'c'): Key contains invalid characters",
            ),
            (
                r#"{"Node":"n","Address":"a","Check":{"Node":"other","CheckID":"x"}}"#,
                500,
                "check node \"other\" does not match node \"n\"",
            ),
            (
                r#"{"Node":"n","Address":"a","Frob":1}"#,
                400,
                "Request decode failed: json: unknown field \"Frob\"",
            ),
            ("", 400, "Request decode failed: EOF"),
        ];
        for (body, status, text) in cases {
            assert_eq!(registered(body), Err(HttpReply::text(status, text)), "{body}");
        }
        for body in [
            "{",
            r#"{"Node":"n","Address":5}"#,
            r#"{"Node":"n","Address":"a","Service":{"Service":"t","Tags":"a"}}"#,
        ] {
            let reply = registered(body).unwrap_err();
            assert_eq!(reply.status, 400);
            assert!(reply.body.starts_with(b"Request decode failed: "), "{body}");
        }
    }

    #[test]
    fn the_catalog_keeps_upstreams_as_they_were_given() {
        let registration = registered(
            r#"{"Node":"n","Address":"a","Service":{"Kind":"connect-proxy","Service":"p","Port":1,
                "Proxy":{"DestinationServiceName":"w","Upstreams":[{"DestinationName":"db","LocalBindPort":1}]}}}"#,
        )
        .unwrap();
        let proxy: Value = serde_json::from_str(&registration.service.unwrap().proxy).unwrap();
        assert_eq!(
            proxy["Upstreams"],
            serde_json::json!([{"DestinationType":"","DestinationName":"db","Datacenter":"","LocalBindPort":1,"Config":null,"MeshGateway":{}}])
        );
    }

    #[test]
    fn a_deregistration_says_what_goes() {
        let read = |body: &str| read_deregistration(body.as_bytes());
        assert_eq!(
            read(r#"{"Node":"d","ServiceID":"later"}"#),
            Ok((
                Deregistration { node: "d".into(), service_id: Some("later".into()), check_id: None },
                Text::default()
            ))
        );
        assert_eq!(read("{}"), Err(HttpReply::text(500, "Must provide node")));
        assert_eq!(
            read(r#"{"Node":"a","Frob":1}"#),
            Err(HttpReply::text(400, "Request decode failed: json: unknown field \"Frob\""))
        );
    }
}
