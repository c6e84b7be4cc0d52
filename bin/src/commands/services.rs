//! `services register` and `services deregister`.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{ArgAction, Args};
use hyper::Method;
use serde_json::{Map, Value, json};

use crate::cli::flags::{int_value, pair_value};
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, HttpOptions, ServerOptions, escape};
use crate::config::load;

#[derive(Args)]
pub(crate) struct RegisterOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Address of the service. The default is that of the node.
    #[arg(long, value_name = "address", default_value = "")]
    address: String,
    /// ID of the service. The default is its name.
    #[arg(long, value_name = "id", default_value = "")]
    id: String,
    /// Kind of the service: empty, connect-proxy, mesh-gateway, …
    #[arg(long, value_name = "kind", default_value = "")]
    kind: String,
    /// Metadata, as key=value.
    #[arg(long, value_name = "pair", action = ArgAction::Append, value_parser = pair_value)]
    meta: Vec<(String, String)>,
    /// Name of the service.
    #[arg(long, value_name = "name", default_value = "")]
    name: String,
    /// Port of the service.
    #[arg(long, value_name = "number", default_value = "0", value_parser = int_value)]
    port: i64,
    /// Tag.
    #[arg(long, value_name = "tag", action = ArgAction::Append)]
    tag: Vec<String>,
    /// Address under a name such as lan or wan, as name=HOST:PORT.
    #[arg(long, value_name = "pair", action = ArgAction::Append, value_parser = pair_value)]
    tagged_address: Vec<(String, String)>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct DeregisterOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// ID of the service.
    #[arg(long, value_name = "id", default_value = "")]
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<PathBuf>,
}

/// The service that flags describe, as the API takes it.
fn from_flags(options: &RegisterOptions) -> Result<Value, Failure> {
    let mut tagged = Map::new();
    for (name, address) in &options.tagged_address {
        let Some((host, port)) = address.rsplit_once(':') else {
            return fail(format!("Invalid Tagged Address: address {address}: missing port in address"));
        };
        let Ok(port) = port.parse::<u16>() else {
            return fail(format!("Invalid Tagged Address: address {address}: invalid port"));
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        tagged.insert(name.clone(), json!({"Address": host, "Port": port}));
    }
    let mut service = json!({"Name": options.name, "Port": options.port, "Address": options.address});
    let mut set = |key: &str, value: Value, present: bool| {
        if present {
            service[key] = value;
        }
    };
    set("ID", json!(options.id), !options.id.is_empty());
    set("Kind", json!(options.kind), !options.kind.is_empty());
    set("Tags", json!(options.tag), !options.tag.is_empty());
    let meta: Map<String, Value> = options.meta.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    set("Meta", Value::Object(meta), !options.meta.is_empty());
    set("TaggedAddresses", Value::Object(tagged), !options.tagged_address.is_empty());
    Ok(service)
}

/// The services that files define, in the spelling of the API.
fn from_files(paths: Vec<PathBuf>, terminal: &mut Terminal<'_>) -> Result<Vec<Value>, Failure> {
    let (services, warnings) = load::services_of(paths).or_fail("Error")?;
    for warning in warnings {
        terminal.complain(warning);
    }
    Ok(services.into_iter().map(api_form).collect())
}

/// Names of a definition in files (`enable_tag_override`) as the API spells them (`EnableTagOverride`).
fn api_form(value: Value) -> Value {
    fn name(key: &str) -> String {
        match key {
            "id" => "ID".to_owned(),
            "ttl" => "TTL".to_owned(),
            "http" => "HTTP".to_owned(),
            "tcp" => "TCP".to_owned(),
            "udp" => "UDP".to_owned(),
            "grpc" => "GRPC".to_owned(),
            "grpc_use_tls" => "GRPCUseTLS".to_owned(),
            "tcp_use_tls" => "TCPUseTLS".to_owned(),
            "h2ping" => "H2PING".to_owned(),
            "h2ping_use_tls" => "H2PingUseTLS".to_owned(),
            "tls_skip_verify" => "TLSSkipVerify".to_owned(),
            "tls_server_name" => "TLSServerName".to_owned(),
            "os_service" => "OSService".to_owned(),
            "docker_container_id" => "DockerContainerID".to_owned(),
            "service_id" => "ServiceID".to_owned(),
            "destination_service_id" => "DestinationServiceID".to_owned(),
            _ => key
                .split('_')
                .map(|word| {
                    let mut chars = word.chars();
                    chars
                        .next()
                        .map(|first| first.to_ascii_uppercase())
                        .into_iter()
                        .chain(chars)
                        .collect::<String>()
                })
                .collect(),
        }
    }
    match value {
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .map(|(key, value)| {
                    // The keys of these maps are the user's own.
                    let value = match key.as_str() {
                        "meta" | "header" | "config" => value,
                        "tagged_addresses" => match value {
                            Value::Object(map) => Value::Object(
                                map.into_iter().map(|(name, address)| (name, api_form(address))).collect(),
                            ),
                            other => other,
                        },
                        "check" => return ("Check".to_owned(), check_form(value)),
                        "checks" => {
                            let checks = match value {
                                Value::Array(list) => list.into_iter().map(check_form).collect(),
                                other => other,
                            };
                            return ("Checks".to_owned(), checks);
                        }
                        _ => api_form(value),
                    };
                    (name(&key), value)
                })
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(api_form).collect()),
        other => other,
    }
}

/// The same of a check, whose ID has another name in the API.
fn check_form(check: Value) -> Value {
    match api_form(check) {
        Value::Object(mut check) => {
            if let Some(id) = check.remove("ID") {
                check.insert("CheckID".to_owned(), id);
            }
            Value::Object(check)
        }
        other => other,
    }
}

impl Run for RegisterOptions {
    /// Registers services.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if self.args.is_empty() && self.name.is_empty() {
            return fail("Service registration requires at least one argument or flags.");
        }
        if !self.args.is_empty() && (!self.id.is_empty() || !self.name.is_empty()) {
            return fail("Service registration requires arguments or -id, not both.");
        }
        let services =
            if self.args.is_empty() { vec![from_flags(&self)?] } else { from_files(self.args, terminal)? };
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        for service in services {
            let name = service["Name"].as_str().unwrap_or_default().to_owned();
            let sent = client.send(
                Method::PUT,
                "/v1/agent/service/register",
                &self.server.query(),
                service.to_string(),
            );
            sent.and_then(|response| response.ok())
                .or_fail(format_args!("Error registering service {name:?}"))?;
            terminal.say(format!("Registered service: {name}"));
        }
        Ok(())
    }
}

impl Run for DeregisterOptions {
    /// Removes services.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if self.args.is_empty() && self.id.is_empty() {
            return fail("Service deregistration requires at least one argument or -id.");
        }
        if !self.args.is_empty() && !self.id.is_empty() {
            return fail("Service deregistration requires arguments or -id, not both.");
        }
        let ids = if self.args.is_empty() {
            vec![self.id]
        } else {
            from_files(self.args, terminal)?
                .iter()
                .filter_map(|s| s["ID"].as_str().filter(|id| !id.is_empty()).or(s["Name"].as_str()))
                .map(str::to_owned)
                .collect()
        };
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        for id in ids {
            let path = format!("/v1/agent/service/deregister/{}", escape(&id));
            let sent = client.send(Method::PUT, &path, &self.server.query(), Bytes::new());
            sent.and_then(|response| response.ok())
                .or_fail(format_args!("Error deregistering service {id:?}"))?;
            terminal.say(format!("Deregistered service: {id}"));
        }
        Ok(())
    }
}
