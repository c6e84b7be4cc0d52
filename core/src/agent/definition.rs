//! Definitions of services and checks, as requests and configuration files bring them, read and validated.
//!
//! Source: Consul's documentation, «Register Service», «Register Check», «Define services» and «Define health checks»;
//! the texts of errors are those that its clients know.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::CallError;
pub use super::decode::DecodeError;
use super::decode::{Object, Source};
use super::kinds::FurtherKinds;
pub use super::kinds::{CheckKind, Schedule, Tls};
use super::proxy;
use crate::api::render::errors;
use crate::store::model::{Health, Service, ServiceAddress, ServiceKind, Weights};
use crate::{Text, duration};

/// Output of a check is cut to this many bytes unless the check asks for less (Consul: `check_output_max_size`).
pub const OUTPUT_MAX_SIZE: usize = 4096;
/// Limit of one run of a check that names none.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of one run of a program that names none.
pub const SCRIPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Checks are not run more often than this.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Services are not deregistered sooner than after this time in critical state.
pub const DEREGISTER_AFTER_MIN: Duration = Duration::from_secs(60);

const META_PAIRS_MAX: usize = 64;
const META_KEY_MAX: usize = 128;
const META_VALUE_MAX: usize = 512;

/// A service with its checks. Indexes of the service are zero, its tagged addresses are completed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDefinition {
    /// What is registered.
    pub service: Service,
    /// Its checks, in the order given: `check` first, then `checks`.
    pub checks: Vec<CheckDefinition>,
    /// The token to register with; empty for the agent's own.
    pub token: Text,
    /// The sidecar proxy that comes with it.
    pub sidecar: Option<Box<ServiceDefinition>>,
}

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDefinition {
    /// Identity within the node; empty: derived from name or service.
    pub id: Text,
    /// For people; empty: derived from the service.
    pub name: Text,
    /// For people.
    pub notes: Text,
    /// The instance that it is about; empty for a check of the node.
    pub service_id: Text,
    /// State before the first result; critical when absent.
    pub status: Option<Health>,
    /// How it is run.
    pub kind: CheckKind,
    /// Consecutive results other than critical before the check passes or warns.
    pub success_before_passing: u32,
    /// Consecutive failures before it warns; no more than `failures_before_critical`.
    pub failures_before_warning: u32,
    /// Consecutive failures before it is critical.
    pub failures_before_critical: u32,
    /// Removes the service after this long in critical state.
    pub deregister_after: Option<Duration>,
    /// Output is cut to this many bytes.
    pub output_max_size: u32,
    /// The token to register with; empty for the agent's own.
    pub token: Text,
}

/// Why a definition is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DefinitionError {
    /// It cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A service without a name.
    #[error("Missing service name")]
    ServiceName,
    /// A service that listens nowhere in particular.
    #[error("Invalid service address")]
    ServiceAddress,
    /// A port beyond 65535 or below zero.
    #[error("Invalid service port {0}: must be between 0 and 65535")]
    ServicePort(i64),
    /// DNS weights out of range.
    #[error("Invalid Weights: {0}")]
    Weights(&'static str),
    /// Metadata that is too much or too long.
    #[error("Invalid Service Meta: {0}")]
    Meta(String),
    /// A check with contradictory or missing fields.
    #[error("Invalid check: {0}")]
    Check(String),
    /// A check without a name.
    #[error("Missing check name")]
    CheckName,
    /// An unknown initial state.
    #[error("{0}")]
    Status(&'static str),
    /// Mesh parts that make no sense.
    #[error("{}", errors(.0))]
    Mesh(Vec<String>),
}

impl DefinitionError {
    /// The HTTP answer to a request with such a definition.
    #[must_use]
    pub fn into_call_error(self) -> CallError {
        match self {
            DefinitionError::Decode(DecodeError::UnknownKeys(keys)) => {
                let key = keys.first().map_or("", |path| path.rsplit('.').next().unwrap_or(path));
                CallError::new(400, format!("Request decode failed: json: unknown field {key:?}"))
            }
            DefinitionError::Decode(error) => CallError::new(400, format!("Request decode failed: {error}")),
            error @ (DefinitionError::ServiceName
            | DefinitionError::ServiceAddress
            | DefinitionError::ServicePort(_)
            | DefinitionError::Weights(_)
            | DefinitionError::Meta(_)
            | DefinitionError::Check(_)
            | DefinitionError::CheckName
            | DefinitionError::Status(_)
            | DefinitionError::Mesh(_)) => CallError::new(400, error.to_string()),
        }
    }
}

/// Reads the body of `/v1/agent/service/register`.
///
/// # Errors
/// Status and text as Consul answers; nothing was changed.
pub fn service_from_request(body: &[u8]) -> Result<ServiceDefinition, CallError> {
    ServiceDefinition::read(Source::Api, "", &json(body)?).map_err(DefinitionError::into_call_error)
}

/// Reads the body of `/v1/agent/check/register`.
///
/// # Errors
/// Status and text as Consul answers; nothing was changed.
pub fn check_from_request(body: &[u8]) -> Result<CheckDefinition, CallError> {
    let mut object =
        Object::new(Source::Api, "", &json(body)?).map_err(|e| DefinitionError::from(e).into_call_error())?;
    let read = CheckDefinition::read(&mut object);
    if let Err(DefinitionError::Decode(_)) = read {
    } else if let Err(unknown) = object.finish() {
        return Err(DefinitionError::from(unknown).into_call_error());
    }
    match read {
        Ok(check) if check.name.is_empty() => Err(DefinitionError::CheckName.into_call_error()),
        Ok(check) => Ok(check),
        Err(DefinitionError::Status(_)) => Err(CallError::new(400, "Bad check status")),
        Err(error) => Err(error.into_call_error()),
    }
}

fn json(body: &[u8]) -> Result<Value, CallError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(CallError::new(400, "Request decode failed: EOF"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let text = if error.is_eof() { "unexpected EOF".into() } else { error.to_string() };
        CallError::new(400, format!("Request decode failed: {text}"))
    })
}

/// Reads one `service` block of a configuration file. `path` is what errors call it: `service`, `services[1]`.
///
/// # Errors
/// Names the key or the rule; the agent refuses to start.
pub fn service_from_config(path: &str, value: &Value) -> Result<ServiceDefinition, DefinitionError> {
    ServiceDefinition::read(Source::File, path, value)
}

/// Reads one `check` block of a configuration file. `path` is what errors call it: `check`, `checks[1]`.
///
/// # Errors
/// Names the key or the rule; the agent refuses to start.
pub fn check_from_config(path: &str, value: &Value) -> Result<CheckDefinition, DefinitionError> {
    let object = Object::new(Source::File, path, value)?;
    let check = read_check(object)?;
    if check.name.is_empty() && check.id.is_empty() {
        return Err(DefinitionError::CheckName);
    }
    Ok(check)
}

impl ServiceDefinition {
    fn read(source: Source, path: &str, value: &Value) -> Result<ServiceDefinition, DefinitionError> {
        ServiceDefinition::read_object(Object::new(source, path, value)?, None)
    }

    /// `parent` is the service whose sidecar is read.
    fn read_object(
        mut object: Object,
        parent: Option<&Service>,
    ) -> Result<ServiceDefinition, DefinitionError> {
        let mut definition = ServiceDefinition::default();
        let service = &mut definition.service;
        service.service = object.text("name")?;
        service.id = object.text("id")?;
        let id_given = !service.id.is_empty();
        service.tags = object.texts("tags")?;
        service.address = object.text("address")?;
        service.tagged_addresses = tagged_addresses(&mut object)?;
        service.meta = object.map("meta")?;
        let port = object.integer("port")?.unwrap_or(0);
        service.enable_tag_override = object.flag("enable_tag_override")?;
        service.kind = kind(&object.text("kind")?)?;
        let weights = object.object("weights")?.map(read_weights).transpose()?;
        definition.token = object.text("token")?;
        let tenancy = (object.text("namespace")?, object.text("partition")?);
        let unsupported =
            ["ports", "socket_path", "locality"].into_iter().find(|key| object.take(key).is_some());
        // Everything is read before anything is judged, so that an unknown key is reported first.
        let single = object.object("check")?.filter(|check| !check.says_nothing());
        let list = object.objects("checks")?;
        let checks = single.into_iter().chain(list).map(read_check).collect::<Vec<_>>();
        let proxy = object.object("proxy")?.map(proxy::read).transpose()?.map(proxy::Proxy::completed);
        let mut sidecar = None;
        if let Some(mut connect) = object.object("connect")? {
            service.connect_native = connect.flag("native")?;
            sidecar = connect.object("sidecar_service")?;
            connect.finish()?;
        }
        let source = object.source();
        object.finish()?;

        if let Some(error) = checks.iter().find_map(|check| match check {
            Err(DefinitionError::Decode(error)) => Some(error.clone()),
            _ => None,
        }) {
            return Err(error.into());
        }
        if service.service.is_empty() && parent.is_none() {
            return Err(DefinitionError::ServiceName);
        }
        if service.id.is_empty() {
            service.id = service.service.clone();
        }
        if source == Source::Api && is_unspecified(&service.address) {
            return Err(DefinitionError::ServiceAddress);
        }
        service.port = u16::try_from(port).map_err(|_| DefinitionError::ServicePort(port))?;
        service.weights = weights.map_or(Ok(Weights::default()), check_weights)?;
        check_meta(&service.meta).map_err(DefinitionError::Meta)?;
        definition.checks = checks.into_iter().collect::<Result<_, _>>()?;
        if !(tenancy.0.is_empty() && tenancy.1.is_empty()) {
            return Err(DefinitionError::Check(
                "namespaces and partitions are a Consul Enterprise feature".into(),
            ));
        }
        if let Some(key) = unsupported {
            return Err(DefinitionError::Mesh(vec![format!("{key} is not supported by this version")]));
        }
        let Some(parent) = parent else {
            service.proxy = proxy::validate(service, proxy)?;
            complete_addresses(service);
            if let Some(sidecar) = sidecar {
                let sidecar = ServiceDefinition::read_object(sidecar, Some(&definition.service))?;
                definition.sidecar = Some(Box::new(sidecar));
            }
            return Ok(definition);
        };
        if id_given {
            let why = match source {
                Source::Api => "A SidecarService cannot specify an ID as this is managed by the agent",
                Source::File => "sidecar_service can't specify an ID",
            };
            return Err(DefinitionError::Mesh(vec![why.into()]));
        }
        if sidecar.is_some() {
            return Err(DefinitionError::Mesh(vec![
                "A SidecarService cannot have a nested SidecarService".into(),
            ]));
        }
        complete_addresses(service);
        proxy::sidecar_of(parent, definition, proxy)
    }
}

fn read_check(mut object: Object) -> Result<CheckDefinition, DefinitionError> {
    let check = CheckDefinition::read(&mut object);
    if !matches!(check, Err(DefinitionError::Decode(_))) {
        object.finish()?;
    }
    check
}

fn kind(word: &str) -> Result<ServiceKind, DefinitionError> {
    let known = if word == "typical" { Some(ServiceKind::Typical) } else { ServiceKind::parse(word) };
    known.ok_or_else(|| DefinitionError::Mesh(vec![format!("unknown service kind {word:?}")]))
}

fn read_weights(mut object: Object) -> Result<(i64, i64), DefinitionError> {
    let passing = object.integer("passing")?;
    let warning = object.integer("warning")?;
    let source = object.source();
    object.finish()?;
    // An absent weight is the default in a file; in a request it is zero, as it always was.
    let absent = i64::from(source == Source::File);
    Ok((passing.unwrap_or(absent), warning.unwrap_or(absent)))
}

fn check_weights((passing, warning): (i64, i64)) -> Result<Weights, DefinitionError> {
    if passing < 1 {
        return Err(DefinitionError::Weights("Passing must be greater than 0"));
    }
    if warning < 0 {
        return Err(DefinitionError::Weights("Warning must be greater or equal than 0"));
    }
    if passing > 65_535 || warning > 65_535 {
        return Err(DefinitionError::Weights("DNS Weight must be between 0 and 65535"));
    }
    Ok(Weights { passing: passing as u32, warning: warning as u32 })
}

fn tagged_addresses(object: &mut Object) -> Result<BTreeMap<Text, ServiceAddress>, DefinitionError> {
    let source = object.source();
    let path = object.path_of("tagged_addresses");
    let mut addresses = BTreeMap::new();
    for (tag, value) in object.entries("tagged_addresses")? {
        let mut entry = Object::new(source, &format!("{path}.{tag}"), &value)?;
        let address = entry.text("address")?;
        let port = entry.integer("port")?.unwrap_or(0);
        entry.finish()?;
        let port = u16::try_from(port).map_err(|_| DefinitionError::ServicePort(port))?;
        addresses.insert(tag.into(), ServiceAddress { address, port });
    }
    Ok(addresses)
}

/// Whether an address stands for all of a machine's; IPv6 may be in brackets.
fn is_unspecified(address: &str) -> bool {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Adds the addresses by family that follow from the service's own address.
fn complete_addresses(service: &mut Service) {
    let family = match service.address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => "ipv4",
        Ok(IpAddr::V6(_)) => "ipv6",
        Err(_) => return,
    };
    let own = ServiceAddress { address: service.address.clone(), port: service.port };
    for network in ["lan", "wan"] {
        service.tagged_addresses.entry(format!("{network}_{family}").into()).or_insert_with(|| own.clone());
    }
}

/// Whether pairs may be metadata of a node or a service.
///
/// # Errors
/// What is wrong with them, as Consul says it.
pub(crate) fn check_meta(meta: &BTreeMap<Text, Text>) -> Result<(), String> {
    if meta.len() > META_PAIRS_MAX {
        return Err(format!("Node metadata cannot contain more than {META_PAIRS_MAX} key/value pairs"));
    }
    for (key, value) in meta {
        let trouble = if key.is_empty() {
            "Key cannot be blank".into()
        } else if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            "Key contains invalid characters".into()
        } else if key.len() > META_KEY_MAX {
            format!("Key is too long (limit: {META_KEY_MAX} characters)")
        } else if value.len() > META_VALUE_MAX {
            format!("Value is too long (limit: {META_VALUE_MAX} characters)")
        } else {
            continue;
        };
        return Err(format!("Couldn't load metadata pair ('{key}', '{value}'): {trouble}"));
    }
    Ok(())
}

impl CheckDefinition {
    /// A check of a kind with nothing else said about it.
    #[must_use]
    pub fn new(id: impl Into<Text>, name: impl Into<Text>, kind: CheckKind) -> CheckDefinition {
        CheckDefinition {
            id: id.into(),
            name: name.into(),
            notes: Text::default(),
            service_id: Text::default(),
            status: None,
            kind,
            success_before_passing: 0,
            failures_before_warning: 0,
            failures_before_critical: 0,
            deregister_after: None,
            output_max_size: OUTPUT_MAX_SIZE as u32,
            token: Text::default(),
        }
    }

    fn read(object: &mut Object) -> Result<CheckDefinition, DefinitionError> {
        let id = object.text("id")?;
        let check_id = object.text("check_id")?;
        let id = if check_id.is_empty() { id } else { check_id };
        let name = object.text("name")?;
        let mut check = CheckDefinition::new(id, name, CheckKind::Maintenance);
        check.notes = object.text("notes")?;
        check.service_id = object.text("service_id")?;
        check.token = object.text("token")?;
        let status = object.text("status")?;
        let interval = object.duration("interval")?;
        let timeout = object.duration("timeout")?;
        let ttl = object.duration("ttl")?;
        let deregister_after = object.duration("deregister_critical_service_after")?;
        let thresholds = ["success_before_passing", "failures_before_warning", "failures_before_critical"];
        let [success, warning, critical] = thresholds.map(|key| threshold(object, key));
        check.success_before_passing = success?;
        check.failures_before_critical = critical?;
        check.failures_before_warning = match warning? {
            0 => check.failures_before_critical,
            given => given,
        };
        let output_max_size = object.integer("output_max_size")?;
        let url = object.text("http")?;
        let method = object.text("method")?;
        let headers = object.headers("header")?;
        let body = object.text("body")?;
        let disable_redirects = object.flag("disable_redirects")?;
        let tls_skip_verify = object.flag("tls_skip_verify")?;
        let tls_server_name = object.text("tls_server_name")?;
        let tls = Tls { skip_verify: tls_skip_verify, server_name: tls_server_name.clone() };
        let tcp = object.text("tcp")?;
        let alias_node = object.text("alias_node")?;
        let alias_service = object.text("alias_service")?;
        let further = FurtherKinds::read(object)?;

        check.status =
            match status.as_str() {
                "" => None,
                word => Some(Health::parse(word).ok_or(DefinitionError::Status(
                    "Status for checks must 'passing', 'warning', 'critical'",
                ))?),
            };
        if !deregister_after.is_zero() {
            check.deregister_after = Some(deregister_after.max(DEREGISTER_AFTER_MIN));
        }
        check.output_max_size = match output_max_size {
            None | Some(0) => OUTPUT_MAX_SIZE as u32,
            Some(size) if size < 0 => {
                return Err(DefinitionError::Check("MaxOutputMaxSize must be positive".into()));
            }
            Some(size) => u32::try_from(size).unwrap_or(u32::MAX),
        };
        if check.failures_before_warning > check.failures_before_critical {
            return Err(DefinitionError::Check(
                "FailuresBeforeWarning can't be higher than FailuresBeforeCritical".into(),
            ));
        }
        let is_alias = !alias_node.is_empty() || !alias_service.is_empty();
        let is_run = !url.is_empty() || !tcp.is_empty() || further.is_any();
        let refuse = |text: &str| Err(DefinitionError::Check(text.into()));
        if is_alias {
            if is_run {
                return refuse("Alias checks can't be of another type as well");
            }
            if !ttl.is_zero() {
                return refuse("TTL must be not be set for Alias checks");
            }
            check.kind = CheckKind::Alias { node: alias_node, service: alias_service };
            return Ok(check);
        }
        if !interval.is_zero() && !ttl.is_zero() {
            return refuse("Interval and TTL cannot both be specified");
        }
        if is_run && interval.is_zero() {
            return refuse("Interval must be > 0 for Script, HTTP, or TCP checks");
        }
        if !is_run && ttl.is_zero() {
            return refuse("TTL must be > 0 for TTL checks");
        }
        let schedule = Schedule { interval, timeout: (!timeout.is_zero()).then_some(timeout) };
        let tcp_over_tls = further.tcp_over_tls.then(|| tls.clone());
        check.kind = match further.kind(schedule, tls)? {
            Some(kind) => kind,
            None if !url.is_empty() => CheckKind::Http {
                url,
                method,
                headers,
                body,
                disable_redirects,
                tls_skip_verify,
                tls_server_name,
                schedule,
            },
            None if !tcp.is_empty() => CheckKind::Tcp { address: tcp, schedule }.over(tcp_over_tls),
            None => CheckKind::Ttl { ttl },
        };
        Ok(check)
    }

    /// The interval as the HTTP API shows it; empty when there is none.
    #[must_use]
    pub fn interval_text(&self) -> Text {
        self.kind.schedule().map(|schedule| duration::format(schedule.interval).into()).unwrap_or_default()
    }

    /// The timeout as the HTTP API shows it; empty when there is none.
    #[must_use]
    pub fn timeout_text(&self) -> Text {
        self.kind
            .schedule()
            .and_then(|s| s.timeout)
            .map(|limit| duration::format(limit).into())
            .unwrap_or_default()
    }
}

fn threshold(object: &mut Object, key: &'static str) -> Result<u32, DefinitionError> {
    let given = object.integer(key)?.unwrap_or(0);
    u32::try_from(given).map_err(|_| DefinitionError::Check(format!("{key} must not be negative")))
}

#[cfg(test)]
#[path = "definition_test.rs"]
mod tests;
