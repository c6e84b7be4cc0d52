//! `watch`

use clap::{ArgAction, Args};
use hyper::Method;
use proconsul_io_real::words::io_reason;
use serde::Serialize as _;
use serde_json::{Map, Value};

use crate::child;
use crate::cli::flags::{bool_value, go_bool};
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{self, Client, HttpOptions, Response, ServerOptions};
use crate::commands::interrupt::Interrupt;
use crate::watch::plan::Plan;
use crate::watch::{self, Trouble, Watching, handler};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Key to watch, for -type=key.
    #[arg(long, value_name = "key", default_value = "")]
    key: String,
    /// Name of events to watch, for -type=event. Without it, all.
    #[arg(long, value_name = "name", default_value = "")]
    name: String,
    /// true: only instances whose checks all pass, for -type=service.
    #[arg(long, value_name = "bool", default_value = "")]
    passingonly: String,
    /// What keys begin with, for -type=keyprefix.
    #[arg(long, value_name = "prefix", default_value = "")]
    prefix: String,
    /// Name of a service, for -type=service and -type=checks.
    #[arg(long, value_name = "name", default_value = "")]
    service: String,
    /// Let a shell read the command line; =false starts the program itself.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, value_parser = bool_value, default_value = "true")]
    shell: bool,
    /// State of checks, for -type=checks: passing, warning, critical or any.
    #[arg(long, value_name = "state", default_value = "")]
    state: String,
    /// Tag that instances have, for -type=service.
    #[arg(long, value_name = "tag", action = ArgAction::Append)]
    tag: Vec<String>,
    /// What to watch: key, keyprefix, services, nodes, service, checks or event.
    #[arg(long = "type", value_name = "type", default_value = "")]
    kind: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Options {
    /// The parameters by the names that configurations use.
    fn parameters(&self) -> Result<Map<String, Value>, Failure> {
        let texts = [
            ("type", &self.kind),
            ("key", &self.key),
            ("prefix", &self.prefix),
            ("service", &self.service),
            ("state", &self.state),
            ("name", &self.name),
        ];
        let given = texts.into_iter().filter(|(_, text)| !text.is_empty());
        let mut parameters: Map<String, Value> =
            given.map(|(name, text)| (name.to_owned(), Value::from(text.as_str()))).collect();
        if let Some(datacenter) = self.server.datacenter.as_ref().filter(|dc| !dc.is_empty()) {
            parameters.insert("datacenter".to_owned(), datacenter.as_str().into());
        }
        if !self.tag.is_empty() {
            parameters.insert("tag".to_owned(), self.tag.clone().into());
        }
        if self.server.stale {
            parameters.insert("stale".to_owned(), true.into());
        }
        if !self.passingonly.is_empty() {
            let Some(on) = go_bool(&self.passingonly) else {
                return fail(format!(
                    "Failed to parse passingonly flag: {:?} is neither true nor false",
                    self.passingonly
                ));
            };
            parameters.insert("passingonly".to_owned(), on.into());
        }
        Ok(parameters)
    }
}

impl Run for Options {
    /// Prints a state, or runs a program whenever it differs.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let plan = Plan::read(&self.parameters()?).or_else(fail)?;
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let interrupt = Interrupt::catch().map_err(|error| io_reason(&error)).or_fail("Error starting")?;
        let runtime = client::runtime().or_fail("Error starting")?;
        runtime.block_on(self.watch(&client, &plan, &interrupt, terminal))
    }
}

impl Options {
    async fn watch(
        &self,
        client: &Client,
        plan: &Plan,
        interrupt: &Interrupt,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let known = client.ask(Method::GET, "/v1/agent/self", &[], "").await;
        known.and_then(Response::ok).or_fail("Error querying agent")?;
        if self.args.is_empty() {
            let news = watch::once(client, plan).await.or_fail("Error querying agent")?;
            terminal.say(indented(&news.text));
            return Ok(());
        }
        let name = if self.shell { "sh" } else { &self.args[0] };
        let handled = async {
            let mut watching = Watching::new(client.clone(), plan.clone());
            loop {
                match watching.next().await {
                    Ok(news) => {
                        handler::run(child::command(&self.args, self.shell), name, &news)
                            .await
                            .or_else(fail)?;
                    }
                    Err(Trouble { reason, pause }) => {
                        terminal.complain(format!("watch: {reason}; the next attempt follows in {pause:?}"));
                    }
                }
            }
        };
        tokio::select! {
            ended = handled => ended,
            () = interrupt.wait() => Ok(()),
        }
    }
}

/// JSON for readers: as Consul prints it, with four blanks for each level.
fn indented(text: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => text.to_owned(),
    }
}
