//! `doctor`

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::{ConfigFiles, Failure, Run, Terminal, fail};
use crate::client::{Client, HttpOptions};
use crate::config::{self, Config, Inputs, Listen, load};
use crate::doctor::{Level, Report, certificates, clock, cluster, network, ports, storage};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// Directory of the agent's state, if the files do not say.
    #[arg(long, value_name = "path", default_value = "")]
    data_dir: String,
    /// How to print: pretty or json.
    #[arg(long, value_name = "format", default_value = "pretty")]
    format: String,
    #[command(flatten)]
    http: HttpOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Looks for what is wrong; the exit status is 1 if something does not work.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if !["pretty", "json"].contains(&self.format.as_str()) {
            return fail("Invalid format, valid formats are {pretty json}");
        }
        if !self.args.is_empty() {
            return fail(format!("Unexpected arguments: {}", self.args.join(" ")));
        }
        let mut report = Report::default();
        let configured = !(self.files.paths.is_empty() && self.data_dir.is_empty());
        let config = if configured { self.configuration(&mut report)? } else { None };
        let mut http = self.http;
        let named = http.http_addr.is_some() || (terminal.env)("CONSUL_HTTP_ADDR").is_some();
        if let (Some(config), false) = (&config, named) {
            http.http_addr = address_of(config);
        }
        let told = match Client::new(&http, terminal) {
            Ok(client) => cluster::look(&client, !configured, &mut report).map(|told| (client, told)),
            Err(why) => {
                report.error("agent", why, "correct the options, or the environment");
                None
            }
        };
        if let Some(config) = &config {
            let agent = config.data_dir.as_deref().and_then(|dir| storage::look(dir, &mut report));
            ports::look(config, agent, &mut report);
            network::look(config, &mut report);
            certificates::look(config, &mut report);
        }
        if let Some((client, told)) = told {
            // Servers mostly have the same ports.
            let port = config.as_ref().and_then(|config| config.ports.http).unwrap_or(8500);
            let servers: Vec<IpAddr> = told.servers.iter().map(SocketAddr::ip).collect();
            clock::look(&client, &servers, port, &mut report);
        }
        match self.format.as_str() {
            "json" => terminal.say(format!("{:#}", report.json())),
            _ => terminal.say(report.text().trim_end()),
        }
        if report.worst() == Level::Error { Err(Failure::silent(1)) } else { Ok(()) }
    }
}

impl Options {
    /// The agent's configuration; what is wrong with it is a finding like others.
    fn configuration(&self, report: &mut Report) -> Result<Option<Config>, Failure> {
        let mut flags = Map::new();
        if !self.data_dir.is_empty() {
            load::put(&mut flags, "data_dir", Value::from(self.data_dir.clone()));
        }
        let format = self.files.format().or_else(|error| fail(error.to_string()))?;
        let paths = self.files.paths.clone();
        let inputs = Inputs { paths, format, flags, ..Inputs::default() };
        const LOOK: &str = "configuration";
        let config = match config::load(&inputs) {
            Ok(config) => config,
            Err(error) => {
                report.error(LOOK, error.to_string(), "correct the file that is named");
                return Ok(None);
            }
        };
        match &config.trouble {
            Some(trouble) => {
                report.error(LOOK, trouble.to_string(), "an agent does not start with this: correct it")
            }
            None => report.ok(LOOK, format!("{} files are well formed", config.files.len())),
        }
        for warning in config.warnings.iter().chain(&config.idle) {
            report.warn(LOOK, warning.clone(), "");
        }
        Ok(Some(config))
    }
}

/// Where the configured agent would answer.
fn address_of(config: &Config) -> Option<String> {
    let (scheme, listen) = match config.http.first() {
        Some(listen) => ("", listen),
        None => ("https://", config.https.first()?),
    };
    Some(match listen {
        Listen::Unix(path) => format!("unix://{}", path.display()),
        Listen::Tcp(address) if address.ip().is_unspecified() => {
            let local = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            format!("{scheme}{local}:{}", address.port())
        }
        Listen::Tcp(address) => format!("{scheme}{address}"),
    })
}
