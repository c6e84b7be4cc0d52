//! Service and check definitions of configuration files, read by the core's parser, with errors that say where.

use proconsul_core::agent::definition::{
    self, CheckDefinition, DefinitionError, OUTPUT_MAX_SIZE, ServiceDefinition,
};
use serde_json::Value;

use super::ConfigError;

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

/// Reads service definitions.
pub(crate) fn services(found: &[Found], rules: Rules) -> Result<Vec<ServiceDefinition>, ConfigError> {
    let read = |found: &Found| {
        let mut service = definition::service_from_config(&found.path, &found.value)
            .map_err(|error| found.refuse(service_error(found.name(), error)))?;
        for check in &mut service.checks {
            scripts(check, rules)
                .map_err(|why| found.refuse(format!("service {:?}: {why}", found.name())))?;
            limit(check, rules);
        }
        Ok(service)
    };
    found.iter().map(read).collect()
}

/// Reads check definitions. Those of a service must name one of `services`.
pub(crate) fn checks(
    found: &[Found],
    services: &[ServiceDefinition],
    rules: Rules,
) -> Result<Vec<CheckDefinition>, ConfigError> {
    let read = |found: &Found| {
        let refuse =
            |reason: &str| found.refuse(format!("Failed to register check '{}': {reason}", found.name()));
        let mut check =
            definition::check_from_config(&found.path, &found.value).map_err(|error| match error {
                DefinitionError::CheckName => refuse("CheckID missing"),
                DefinitionError::Check(reason) => refuse(&format!("Check is not valid: {reason}")),
                other => refuse(&plain(&other)),
            })?;
        let known = |service: &ServiceDefinition| {
            let service = &service.service;
            service.id == check.service_id || (service.id.is_empty() && service.service == check.service_id)
        };
        if !check.service_id.is_empty() && !services.iter().any(known) {
            return Err(refuse(&format!("ServiceID {:?} does not exist", check.service_id.as_str())));
        }
        scripts(&check, rules).map_err(refuse)?;
        limit(&mut check, rules);
        Ok(check)
    };
    found.iter().map(read).collect()
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
