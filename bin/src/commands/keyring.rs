//! `keyring`

use bytes::Bytes;
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use crate::cli::flags::int_value;
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, HttpOptions};

/// Where the servers manage keys.
const PATH: &str = "/v1/operator/keyring";

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    /// Give every member a further key, as keygen prints it. It opens messages from then on and seals none.
    #[arg(long, value_name = "key", default_value = "")]
    install: String,
    /// List the keys that members have, and how many of them have each.
    #[arg(long)]
    list: bool,
    /// List the keys that members seal with.
    #[arg(long)]
    list_primary: bool,
    /// Ask only the agent's own datacenter. For lists only.
    #[arg(long)]
    local_only: bool,
    /// Let this many other members repeat each answer, 0 to 5.
    #[arg(long, value_name = "number", default_value = "0", value_parser = int_value)]
    relay_factor: i64,
    /// Take a key away from every member; not the one that they seal with.
    #[arg(long, value_name = "key", default_value = "")]
    remove: String,
    /// Seal with this key from now on. It must be installed everywhere.
    #[arg(long = "use", value_name = "key", default_value = "")]
    use_key: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Lists or changes the keys of the whole cluster.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let keyed = [&self.install, &self.use_key, &self.remove];
        let lists = usize::from(self.list) + usize::from(self.list_primary);
        match keyed.iter().filter(|key| !key.is_empty()).count() + lists {
            0 => {
                return fail(crate::cli::usage("keyring", &terminal.program));
            }
            1 => {}
            _ => return fail("Only a single action is allowed"),
        }
        if !(0..=5).contains(&self.relay_factor) {
            return fail("Error parsing relay factor: Relay factor must be in range: [0, 5]");
        }
        if self.local_only && lists == 0 {
            return fail("Error validating local-only: local-only can only be set for list requests");
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let mut query = Vec::new();
        if self.relay_factor > 0 {
            query.push(("relay-factor", self.relay_factor.to_string()));
        }
        if lists > 0 {
            let which = if self.list_primary { "primary encryption keys" } else { "encryption keys" };
            terminal.say(format!("==> Gathering installed {which}..."));
            query.extend(self.local_only.then(|| ("local-only", "true".to_owned())));
            let field = if self.list_primary { "PrimaryKeys" } else { "Keys" };
            let rings = client.get_json(PATH, &query).or_fail("error")?;
            for ring in rings.as_array().into_iter().flatten() {
                let text = ring_text(ring, field);
                terminal.say(text);
            }
            return Ok(());
        }
        let (doing, method, key) = if !self.install.is_empty() {
            ("Installing new gossip encryption key", Method::POST, &self.install)
        } else if !self.use_key.is_empty() {
            ("Changing primary gossip encryption key", Method::PUT, &self.use_key)
        } else {
            ("Removing gossip encryption key", Method::DELETE, &self.remove)
        };
        terminal.say(format!("==> {doing}..."));
        let body = Bytes::from(json!({ "Key": key }).to_string());
        client.send(method, PATH, &query, body).and_then(|response| response.ok()).or_fail("error")?;
        Ok(())
    }
}

/// One pool: its name, what its members said, and how many of them have each key.
fn ring_text(ring: &Value, field: &str) -> String {
    let text = |name: &str| ring[name].as_str().unwrap_or_default();
    let mut title =
        if ring["WAN"] == true { "WAN".to_owned() } else { format!("{} (LAN)", text("Datacenter")) };
    if !text("Segment").is_empty() {
        title.push_str(&format!(" [{}]", text("Segment")));
    }
    let mut lines = vec![String::new(), format!("{title}:")];
    let members = &ring["NumNodes"];
    for (node, message) in ring["Messages"].as_object().into_iter().flatten() {
        lines.push(format!("  ===> {node}: {}", message.as_str().unwrap_or_default()));
    }
    for (key, count) in ring[field].as_object().into_iter().flatten() {
        lines.push(format!("  {key} [{count}/{members}]"));
    }
    lines.join("\n")
}
