//! Service and check definitions of configuration files, read by the core's parser, with errors that say where.

use proconsul_core::agent::definition::{
    self, CheckDefinition, DefinitionError, OUTPUT_MAX_SIZE, ServiceDefinition,
};
use serde_json::Value;

use super::ConfigError;
use super::build::Trouble;

/// A definition and the source that holds it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The file or fragment.
    pub(crate) source: String,
    /// The path inside it: `service`, `services[1]`.
    pub(crate) path: String,
    /// Keys are canonical.
    pub(crate) value: Value,
}

/// Settings of the agent that definitions depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Longest output of a check that does not set a limit itself.
    pub(crate) output_max_size: usize,
    /// Whether checks of configuration files may run programs.
    pub(crate) scripts_enabled: bool,
}

impl Found {
    fn name(&self) -> &str {
        self.value["name"].as_str().unwrap_or_default()
    }

    fn refuse(&self, message: String) -> ConfigError {
        ConfigError::new(message).hint(format!("{} in {}", self.path, self.source))
    }
}

/// Reads service definitions. Some mistakes refuse the files; others stop an agent that is to start with them, and are
/// noted as trouble; those that Consul puts up with are mended, with a warning.
pub(super) fn services(
    found: Vec<Found>,
    rules: Rules,
    trouble: &mut Trouble,
    warnings: &mut Vec<String>,
) -> Result<Vec<ServiceDefinition>, ConfigError> {
    let mut services = Vec::with_capacity(found.len());
    for mut found in found {
        mend(&mut found, warnings);
        let mut service = match definition::service_from_config(&found.path, &found.value) {
            Ok(service) => service,
            Err(
                error @ (DefinitionError::ServiceName
                | DefinitionError::Check(_)
                | DefinitionError::CheckName),
            ) => {
                trouble.note(Some(found.refuse(service_error(found.name(), error))));
                continue;
            }
            Err(error) => return Err(found.refuse(service_error(found.name(), error))),
        };
        for check in &mut service.checks {
            let refused = scripts(check, rules).err();
            trouble.note(refused.map(|why| {
                found.refuse(format!(
                    "Failed to register service {:?}: Check is not valid: {why}",
                    found.name()
                ))
            }));
            limit(check, rules);
        }
        services.push(service);
    }
    Ok(services)
}

/// Corrects what Consul starts with although it makes no sense.
fn mend(found: &mut Found, warnings: &mut Vec<String>) {
    let name = found.name().to_owned();
    let service = &mut found.value;
    if let Some(port) = service["port"].as_i64().filter(|port| !(0..=65_535).contains(port)) {
        warnings.push(format!(
            "service {name:?}: port {port} is none: write a number from 0 to 65535; 0 is used"
        ));
        service["port"] = Value::from(0);
    }
    let unspecified = |text: &str| text.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    if let Some(address) = service["address"].as_str().filter(|text| unspecified(text)) {
        warnings.push(format!("service {name:?}: {address} is nobody's address: the node's is used"));
        service["address"] = Value::from("");
    }
    let upstreams =
        service.pointer_mut("/connect/sidecar_service/proxy/upstreams").and_then(Value::as_array_mut);
    if let Some(upstreams) = upstreams {
        upstreams.retain(|upstream| {
            let socket = upstream["local_bind_socket_path"].as_str().unwrap_or_default();
            let has_port = upstream["local_bind_port"].as_i64().unwrap_or(0) != 0 || !socket.is_empty();
            let to = upstream["destination_name"].as_str().unwrap_or_default();
            if !has_port || to.is_empty() {
                warnings.push(format!(
                    "service {name:?}: the sidecar's upstream {to:?} is left out: it needs destination_name and local_bind_port"
                ));
            }
            has_port && !to.is_empty()
        });
    }
}

/// Reads check definitions. Those of a service must name one of `services`.
pub(super) fn checks(
    found: &[Found],
    services: &[ServiceDefinition],
    rules: Rules,
    trouble: &mut Trouble,
) -> Result<Vec<CheckDefinition>, ConfigError> {
    let read = |found: &Found| -> Result<CheckDefinition, (bool, ConfigError)> {
        let refuse =
            |reason: &str| found.refuse(format!("Failed to register check '{}': {reason}", found.name()));
        let mut check =
            definition::check_from_config(&found.path, &found.value).map_err(|error| match error {
                DefinitionError::CheckName => (false, refuse("CheckID missing")),
                DefinitionError::Check(reason) => (false, refuse(&format!("Check is not valid: {reason}"))),
                other => (true, refuse(&plain(&other))),
            })?;
        let known = |service: &ServiceDefinition| {
            let service = &service.service;
            service.id == check.service_id || (service.id.is_empty() && service.service == check.service_id)
        };
        if !check.service_id.is_empty() && !services.iter().any(known) {
            return Err((
                false,
                refuse(&format!("ServiceID {:?} does not exist", check.service_id.as_str())),
            ));
        }
        scripts(&check, rules).map_err(|why| (false, refuse(&format!("Check is not valid: {why}"))))?;
        limit(&mut check, rules);
        Ok(check)
    };
    let mut checks = Vec::with_capacity(found.len());
    for found in found {
        match read(found) {
            Ok(check) => checks.push(check),
            Err((true, error)) => return Err(error),
            Err((false, error)) => trouble.note(Some(error)),
        }
    }
    Ok(checks)
}

/// The agent's limit counts for checks that do not set one.
fn limit(check: &mut CheckDefinition, rules: Rules) {
    let agents = u32::try_from(rules.output_max_size).unwrap_or(u32::MAX);
    if check.output_max_size as usize == OUTPUT_MAX_SIZE {
        check.output_max_size = agents;
    }
}

/// A refusal of a service, in the words that Consul's users know.
fn service_error(name: &str, error: DefinitionError) -> String {
    match error {
        DefinitionError::ServiceName => "Failed to register service \"\": Service name missing".to_owned(),
        DefinitionError::Weights(reason) => {
            format!("1 error occurred: * Invalid weight definition for service {name}: {reason}")
        }
        DefinitionError::Check(reason) => {
            format!("Failed to register service {name:?}: Check is not valid: {reason}")
        }
        DefinitionError::Mesh(ref reasons)
            if reasons.iter().any(|why| why.starts_with("sidecar_service")) =>
        {
            plain(&error)
        }
        other => format!("service {name:?}: {}", plain(&other)),
    }
}

/// Any other refusal, in one line.
fn plain(error: &DefinitionError) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Programs are run only where that is allowed.
fn scripts(check: &CheckDefinition, rules: Rules) -> Result<(), &'static str> {
    if check.kind.is_script() && !rules.scripts_enabled {
        return Err("Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or \
                    'enable_local_script_checks' to true");
    }
    Ok(())
}
