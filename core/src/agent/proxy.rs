//! The mesh part of service definitions: proxies and sidecars. It is kept and shown; nothing here speaks the mesh.
//!
//! Source: Consul's documentation, «Proxy configuration reference» and «Sidecar service registration».

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::decode::Object;
use super::definition::{CheckDefinition, CheckKind, DefinitionError, Schedule, ServiceDefinition};
use crate::Text;
use crate::store::model::{Health, Service, ServiceKind};

/// Sidecars without a port get one from this range, first free first.
pub(crate) const SIDECAR_PORTS: std::ops::RangeInclusive<u16> = 21_000..=21_255;

/// A proxy as the HTTP API shows it: this order of fields, absent ones left out.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Proxy {
    #[serde(skip_serializing_if = "String::is_empty")]
    destination_service_name: String,
    #[serde(rename = "DestinationServiceID", skip_serializing_if = "String::is_empty")]
    destination_service_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    local_service_address: String,
    #[serde(skip_serializing_if = "is_zero")]
    local_service_port: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    mode: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    config: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    upstreams: Vec<Upstream>,
    mesh_gateway: MeshGateway,
    expose: Expose,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Upstream {
    destination_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    destination_name: String,
    datacenter: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    local_bind_address: String,
    #[serde(skip_serializing_if = "is_zero")]
    local_bind_port: i64,
    #[serde(serialize_with = "map_or_null")]
    config: Map<String, Value>,
    mesh_gateway: MeshGateway,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MeshGateway {
    #[serde(skip_serializing_if = "String::is_empty")]
    mode: String,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Expose {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    checks: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<ExposePath>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ExposePath {
    #[serde(skip_serializing_if = "is_zero")]
    listener_port: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(skip_serializing_if = "is_zero")]
    local_path_port: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    protocol: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Upstreams without settings have a null where those would be.
fn map_or_null<S: serde::Serializer>(map: &Map<String, Value>, to: S) -> Result<S::Ok, S::Error> {
    (!map.is_empty()).then_some(map).serialize(to)
}

impl Proxy {
    /// Fills in what agents fill in of what a definition left open; the catalog keeps what it is given.
    #[must_use]
    pub(crate) fn completed(mut self) -> Proxy {
        for upstream in self.upstreams.iter_mut().filter(|upstream| upstream.destination_type.is_empty()) {
            upstream.destination_type = "service".into();
        }
        self
    }

    pub(crate) fn into_text(self) -> Text {
        serde_json::to_string(&self).expect("strings, numbers and JSON values always serialize").into()
    }
}

pub(crate) fn read(mut object: Object) -> Result<Proxy, DefinitionError> {
    let mut proxy = Proxy {
        destination_service_name: object.text("destination_service_name")?.into(),
        destination_service_id: object.text("destination_service_id")?.into(),
        local_service_address: object.text("local_service_address")?.into(),
        local_service_port: object.integer("local_service_port")?.unwrap_or(0),
        mode: object.text("mode")?.into(),
        config: object.entries("config")?,
        ..Proxy::default()
    };
    for upstream in object.objects("upstreams")? {
        proxy.upstreams.push(read_upstream(upstream)?);
    }
    proxy.mesh_gateway = read_mesh_gateway(object.object("mesh_gateway")?)?;
    if let Some(mut expose) = object.object("expose")? {
        proxy.expose.checks = expose.flag("checks")?;
        for mut path in expose.objects("paths")? {
            proxy.expose.paths.push(ExposePath {
                listener_port: path.integer("listener_port")?.unwrap_or(0),
                path: path.text("path")?.into(),
                local_path_port: path.integer("local_path_port")?.unwrap_or(0),
                protocol: path.text("protocol")?.into(),
            });
            path.finish()?;
        }
        expose.finish()?;
    }
    object.finish()?;
    Ok(proxy)
}

fn read_upstream(mut object: Object) -> Result<Upstream, DefinitionError> {
    let upstream = Upstream {
        destination_type: object.text("destination_type")?.into(),
        destination_name: object.text("destination_name")?.into(),
        datacenter: object.text("datacenter")?.into(),
        local_bind_address: object.text("local_bind_address")?.into(),
        local_bind_port: object.integer("local_bind_port")?.unwrap_or(0),
        config: object.entries("config")?,
        mesh_gateway: read_mesh_gateway(object.object("mesh_gateway")?)?,
    };
    object.finish()?;
    Ok(upstream)
}

fn read_mesh_gateway(object: Option<Object>) -> Result<MeshGateway, DefinitionError> {
    let Some(mut object) = object else { return Ok(MeshGateway::default()) };
    let mode = object.text("mode")?.into();
    object.finish()?;
    Ok(MeshGateway { mode })
}

/// Checks a service's proxy part against its kind; gives the text to keep, empty for ordinary services.
pub(crate) fn validate(service: &Service, proxy: Option<Proxy>) -> Result<Text, DefinitionError> {
    let kind = service.kind.as_str();
    let proxy = proxy.unwrap_or_default();
    let mut wrong: Vec<String> = Vec::new();
    match service.kind {
        // It means nothing there, and is shown. One that comes back from a read may be empty.
        ServiceKind::Typical => {
            let (text, nothing) = (proxy.into_text(), Proxy::default().into_text());
            return Ok(if text == nothing { Text::default() } else { text });
        }
        ServiceKind::ConnectProxy => {
            if proxy.destination_service_name.is_empty() {
                wrong
                    .push("Proxy.DestinationServiceName must be non-empty for Connect proxy services".into());
            }
            if service.port == 0 {
                wrong.push("Port must be set for a Connect proxy".into());
            }
            if service.connect_native {
                wrong.push("A Proxy cannot also be Connect Native, only typical services".into());
            }
            wrong.extend(wrong_upstreams(&proxy));
        }
        ServiceKind::MeshGateway | ServiceKind::TerminatingGateway | ServiceKind::IngressGateway => {
            if service.port == 0 && service.kind != ServiceKind::IngressGateway {
                wrong.push(format!("Port must be non-zero for a {kind}"));
            }
            for (field, is_set) in [
                ("DestinationServiceName", !proxy.destination_service_name.is_empty()),
                ("DestinationServiceID", !proxy.destination_service_id.is_empty()),
                ("LocalServiceAddress", !proxy.local_service_address.is_empty()),
                ("LocalServicePort", proxy.local_service_port != 0),
                ("Upstreams", !proxy.upstreams.is_empty()),
            ] {
                if is_set {
                    wrong.push(format!("The Proxy.{field} configuration is invalid for a {kind}"));
                }
            }
        }
    }
    if wrong.is_empty() { Ok(proxy.into_text()) } else { Err(DefinitionError::Mesh(wrong)) }
}

/// What is wrong with the services that a proxy leads to.
fn wrong_upstreams(proxy: &Proxy) -> Vec<String> {
    let mut services = BTreeSet::new();
    let mut binds = BTreeSet::new();
    let wrong = |upstream: &Upstream| {
        let Upstream { destination_type: kind, destination_name: name, datacenter, .. } = upstream;
        let address = Some(upstream.local_bind_address.as_str()).filter(|address| !address.is_empty());
        let bind = format!("{}:{}", address.unwrap_or("127.0.0.1"), upstream.local_bind_port);
        if name.is_empty() {
            Some("upstream destination name cannot be empty".into())
        } else if upstream.local_bind_port == 0 {
            Some("upstream local bind port cannot be zero".into())
        } else if !services.insert((kind.clone(), name.clone(), datacenter.clone())) {
            Some(format!(
                "upstreams cannot contain duplicates of [type={kind:?}, name={name:?}, namespace=\"\", \
                 datacenter={datacenter:?}]"
            ))
        } else if !binds.insert(bind.clone()) {
            Some(format!(
                "upstreams cannot contain duplicates by local bind address and port; {bind:?} is specified twice"
            ))
        } else {
            None
        }
    };
    proxy.upstreams.iter().filter_map(wrong).collect()
}

/// The sidecar of a service: what its definition leaves open follows from the service. A port of zero is filled in by
/// the agent, which knows what is free; with it the default checks.
pub(crate) fn sidecar_of(
    parent: &Service,
    mut sidecar: ServiceDefinition,
    proxy: Option<Proxy>,
) -> Result<ServiceDefinition, DefinitionError> {
    let mut proxy = proxy.unwrap_or_default();
    let service = &mut sidecar.service;
    service.kind = ServiceKind::ConnectProxy;
    service.id = format!("{}-sidecar-proxy", parent.id).into();
    if service.service.is_empty() {
        service.service = format!("{}-sidecar-proxy", parent.service).into();
    }
    if service.tags.is_empty() {
        service.tags.clone_from(&parent.tags);
    }
    if service.meta.is_empty() {
        service.meta.clone_from(&parent.meta);
    }
    if proxy.destination_service_name.is_empty() {
        proxy.destination_service_name = parent.service.to_string();
    }
    if proxy.destination_service_id.is_empty() {
        proxy.destination_service_id = parent.id.to_string();
    }
    if proxy.local_service_address.is_empty() {
        proxy.local_service_address = "127.0.0.1".into();
    }
    if proxy.local_service_port == 0 {
        proxy.local_service_port = i64::from(parent.port);
    }
    let wrong = wrong_upstreams(&proxy);
    if !wrong.is_empty() {
        return Err(DefinitionError::Mesh(wrong));
    }
    service.proxy = proxy.into_text();
    Ok(sidecar)
}

/// The checks of a sidecar whose definition has none: its port, and the state of its service.
pub(crate) fn default_checks(parent_id: &str, port: u16) -> Vec<CheckDefinition> {
    let schedule = Schedule { interval: Duration::from_secs(10), timeout: None };
    let address = format!("127.0.0.1:{port}").into();
    let alias = CheckKind::Alias { node: Text::default(), service: parent_id.into() };
    let mut checks = vec![
        CheckDefinition::new("", "Connect Sidecar Listening", CheckKind::Tcp { address, schedule }),
        CheckDefinition::new("", format!("Connect Sidecar Aliasing {parent_id}"), alias),
    ];
    checks[1].status = Some(Health::Passing);
    checks
}
