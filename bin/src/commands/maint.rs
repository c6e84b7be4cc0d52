//! `maint`

use bytes::Bytes;
use clap::Args;
use hyper::Method;

use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, HttpOptions, escape};

/// The check that maintenance of a node is.
const NODE_CHECK: &str = "_node_maintenance";
/// What the checks that maintenance of services are begin with.
const SERVICE_CHECK: &str = "_service_maintenance:";

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    /// End maintenance.
    #[arg(long)]
    disable: bool,
    /// Begin maintenance.
    #[arg(long)]
    enable: bool,
    /// Why; shown as the output of a check.
    #[arg(long, value_name = "text", default_value = "")]
    reason: String,
    /// ID of a service. Without it the whole node is meant.
    #[arg(long, value_name = "id", default_value = "")]
    service: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Shows maintenance, or switches it.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if self.enable && self.disable {
            return fail("Only one of -enable or -disable may be provided");
        }
        if !self.enable && !self.reason.is_empty() {
            return fail("Reason may only be provided with -enable");
        }
        if !self.enable && !self.disable && !self.service.is_empty() {
            return fail("Service requires either -enable or -disable");
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        if self.enable || self.disable { switch(&client, &self, terminal) } else { show(&client, terminal) }
    }
}

fn switch(client: &Client, options: &Options, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let (doing, done) = if options.enable { ("enabling", "enabled") } else { ("disabling", "disabled") };
    let (path, what, text) = if options.service.is_empty() {
        ("/v1/agent/maintenance".to_owned(), "node", format!("Node maintenance is now {done}"))
    } else {
        let id = &options.service;
        let path = format!("/v1/agent/service/maintenance/{}", escape(id));
        (path, "service", format!("Service maintenance is now {done} for {id:?}"))
    };
    let mut query = vec![("enable", options.enable.to_string())];
    if !options.reason.is_empty() {
        query.push(("reason", options.reason.clone()));
    }
    let answer = client.send(Method::PUT, &path, &query, Bytes::new()).and_then(|response| response.ok());
    answer.or_fail(format_args!("Error {doing} {what} maintenance"))?;
    terminal.say(text);
    Ok(())
}

fn show(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let answers = client
        .get_json("/v1/agent/self", &[])
        .and_then(|this| Ok((this, client.get_json("/v1/agent/checks", &[])?)));
    let (this, checks) = answers.or_fail("Error querying agent")?;
    for (id, check) in checks.as_object().into_iter().flatten() {
        let (kind, label, name) = if id == NODE_CHECK {
            ("Node", "Name", this["Config"]["NodeName"].as_str().unwrap_or_default())
        } else if let Some(service) = id.strip_prefix(SERVICE_CHECK) {
            ("Service", "ID", service)
        } else {
            continue;
        };
        let reason = check["Notes"].as_str().unwrap_or_default();
        let label = format!("{label}:");
        terminal.say(format!("{kind}:\n  {label:<8}{name}\n  Reason: {reason}\n"));
    }
    Ok(())
}
