//! The kinds of health checks, and what definitions say about them.
//!
//! Source: Consul's documentation, «Define health checks» and «Health check configuration reference».

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::decode::Object;
use super::definition::DefinitionError;
use crate::Text;

/// How a check is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckKind {
    /// Clients report; silence for this long is critical.
    Ttl {
        /// The time to live.
        ttl: Duration,
    },
    /// An HTTP request.
    Http {
        /// URL.
        url: Text,
        /// Method; empty is `GET`.
        method: Text,
        /// Headers.
        headers: BTreeMap<Text, Vec<Text>>,
        /// Body.
        body: Text,
        /// Whether redirects are results, not followed.
        disable_redirects: bool,
        /// Whether certificates are not verified.
        tls_skip_verify: bool,
        /// Name expected in the certificate.
        tls_server_name: Text,
        /// How often.
        schedule: Schedule,
    },
    /// A TCP connection.
    Tcp {
        /// `host:port`
        address: Text,
        /// How often.
        schedule: Schedule,
    },
    /// The state of another service on the same agent, or of the node.
    Alias {
        /// Node; empty for this one.
        node: Text,
        /// Service id; empty for the node's own checks.
        service: Text,
    },
    /// Maintenance mode: critical until it is removed. Not from definitions.
    Maintenance,
    /// A datagram that must not be refused.
    Udp {
        /// `host:port`
        address: Text,
        /// How often.
        schedule: Schedule,
    },
    /// A program: its exit status is the state.
    Script {
        /// The program and its arguments; never empty.
        args: Vec<Text>,
        /// How often.
        schedule: Schedule,
    },
    /// A program inside a Docker container.
    Docker {
        /// The container.
        container: Text,
        /// What runs the arguments; empty: they are run as they are.
        shell: Text,
        /// The program and its arguments; never empty.
        args: Vec<Text>,
        /// How often.
        schedule: Schedule,
    },
    /// gRPC's health protocol.
    Grpc {
        /// `host:port`, with `/service` behind it if it is about one service.
        target: Text,
        /// How often.
        schedule: Schedule,
    },
    /// A ping of HTTP/2.
    H2Ping {
        /// `host:port`
        address: Text,
        /// How often.
        schedule: Schedule,
    },
    /// A service of the operating system.
    OsService {
        /// Its name.
        name: Text,
        /// How often.
        schedule: Schedule,
    },
    /// A TCP, gRPC or HTTP/2 check over TLS.
    OverTls {
        /// The check.
        kind: Box<CheckKind>,
        /// How the connection is made.
        tls: Tls,
    },
}

/// What is asked of the other side of a connection by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Whether its certificate is not verified.
    pub skip_verify: bool,
    /// Name expected in its certificate; empty: the one that it was called by.
    pub server_name: Text,
}

/// How often a check is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Time between two runs, as asked for.
    pub interval: Duration,
    /// Limit of one run.
    pub timeout: Option<Duration>,
}

impl CheckKind {
    /// `Type` of the HTTP API.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            CheckKind::Ttl { .. } => "ttl",
            CheckKind::Http { .. } => "http",
            CheckKind::Tcp { .. } => "tcp",
            CheckKind::Alias { .. } => "alias",
            CheckKind::Maintenance => "maintenance",
            CheckKind::Udp { .. } => "udp",
            CheckKind::Script { .. } => "script",
            CheckKind::Docker { .. } => "docker",
            CheckKind::Grpc { .. } => "grpc",
            CheckKind::H2Ping { .. } => "h2ping",
            CheckKind::OsService { .. } => "os_service",
            CheckKind::OverTls { kind, .. } => kind.as_str(),
        }
    }

    /// Whether it runs programs, which has to be allowed.
    #[must_use]
    pub fn is_script(&self) -> bool {
        matches!(self, CheckKind::Script { .. } | CheckKind::Docker { .. })
    }

    /// How often it is run, if it is run at intervals.
    #[must_use]
    pub fn schedule(&self) -> Option<Schedule> {
        match self {
            CheckKind::Http { schedule, .. }
            | CheckKind::Tcp { schedule, .. }
            | CheckKind::Udp { schedule, .. }
            | CheckKind::Script { schedule, .. }
            | CheckKind::Docker { schedule, .. }
            | CheckKind::Grpc { schedule, .. }
            | CheckKind::H2Ping { schedule, .. }
            | CheckKind::OsService { schedule, .. } => Some(*schedule),
            CheckKind::OverTls { kind, .. } => kind.schedule(),
            CheckKind::Ttl { .. } | CheckKind::Alias { .. } | CheckKind::Maintenance => None,
        }
    }

    /// The same check, over TLS if that is asked for.
    #[must_use]
    pub fn over(self, tls: Option<Tls>) -> CheckKind {
        match tls {
            Some(tls) => CheckKind::OverTls { kind: Box::new(self), tls },
            None => self,
        }
    }
}

/// What a definition says about the kinds of checks besides HTTP, TCP, TTL and alias.
pub(super) struct FurtherKinds {
    args: Vec<Text>,
    container: Text,
    shell: Text,
    grpc: Text,
    udp: Text,
    h2ping: Text,
    os_service: Text,
    grpc_over_tls: bool,
    h2ping_over_tls: bool,
    pub(super) tcp_over_tls: bool,
}

impl FurtherKinds {
    pub(super) fn read(object: &mut Object) -> Result<FurtherKinds, DefinitionError> {
        let args = object.texts("args")?;
        let script_args = object.texts("script_args")?;
        Ok(FurtherKinds {
            args: if args.is_empty() { script_args } else { args },
            container: object.text("docker_container_id")?,
            shell: object.text("shell")?,
            grpc: object.text("grpc")?,
            udp: object.text("udp")?,
            h2ping: object.text("h2ping")?,
            os_service: object.text("os_service")?,
            grpc_over_tls: object.flag("grpc_use_tls")?,
            // Unless it is said otherwise, as in Consul.
            h2ping_over_tls: !object.has("h2ping_use_tls") || object.flag("h2ping_use_tls")?,
            tcp_over_tls: object.flag("tcp_use_tls")?,
        })
    }

    pub(super) fn is_any(&self) -> bool {
        let texts = [&self.container, &self.grpc, &self.udp, &self.h2ping, &self.os_service];
        !self.args.is_empty() || texts.iter().any(|text| !text.is_empty())
    }

    pub(super) fn kind(self, schedule: Schedule, tls: Tls) -> Result<Option<CheckKind>, DefinitionError> {
        let FurtherKinds { args, container, shell, grpc, udp, h2ping, os_service, .. } = self;
        let kind = if !container.is_empty() {
            if args.is_empty() {
                return Err(DefinitionError::Check("Args of a Docker check must not be empty".into()));
            }
            CheckKind::Docker { container, shell, args, schedule }
        } else if !args.is_empty() {
            CheckKind::Script { args, schedule }
        } else if !grpc.is_empty() {
            CheckKind::Grpc { target: grpc, schedule }.over(self.grpc_over_tls.then_some(tls))
        } else if !udp.is_empty() {
            CheckKind::Udp { address: udp, schedule }
        } else if !h2ping.is_empty() {
            CheckKind::H2Ping { address: h2ping, schedule }.over(self.h2ping_over_tls.then_some(tls))
        } else if !os_service.is_empty() {
            CheckKind::OsService { name: os_service, schedule }
        } else {
            return Ok(None);
        };
        Ok(Some(kind))
    }
}
