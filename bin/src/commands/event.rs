//! `event`

use bytes::Bytes;
use clap::Args;
use hyper::Method;

use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, ClientError, HttpOptions, escape};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    /// Datacenter in which to fire. The default is that of the agent.
    #[arg(long, value_name = "name", default_value = "")]
    datacenter: String,
    /// Name of the event.
    #[arg(long, value_name = "name", default_value = "")]
    name: String,
    /// Only nodes whose name matches this regular expression act on it.
    #[arg(long, value_name = "expression", default_value = "")]
    node: String,
    /// Only nodes with a service whose name matches this regular expression act on it.
    #[arg(long, value_name = "expression", default_value = "")]
    service: String,
    /// Only nodes whose service has a tag that matches this regular expression act on it; needs -service.
    #[arg(long, value_name = "expression", default_value = "")]
    tag: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Fires an event and prints its identity.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if self.name.is_empty() {
            return fail("Event name must be specified");
        }
        let filters = [("node", &self.node), ("service", &self.service), ("tag", &self.tag)];
        for (what, expression) in filters {
            regex_lite::Regex::new(expression)
                .or_fail(format_args!("Failed to compile {what} filter regexp"))?;
        }
        if !self.tag.is_empty() && self.service.is_empty() {
            return fail("Cannot provide tag filter without service filter.");
        }
        let payload = match self.args.as_slice() {
            [] => Bytes::new(),
            [payload] => Bytes::from(payload.clone()),
            _ => return fail("Too many command line arguments."),
        };
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let mut query: Vec<(&str, String)> =
            filters.into_iter().map(|(name, value)| (name, value.clone())).collect();
        query.push(("dc", self.datacenter.clone()));
        query.retain(|(_, value)| !value.is_empty());
        let path = format!("/v1/event/fire/{}", escape(&self.name));
        let event = client.send(Method::PUT, &path, &query, payload).and_then(|response| response.json());
        let what = match &event {
            Err(ClientError::Transport { .. }) => "Error querying agent",
            _ => "Error firing event",
        };
        let event = event.or_fail(what)?;
        terminal.say(format!("Event ID: {}", event["ID"].as_str().unwrap_or_default()));
        Ok(())
    }
}
