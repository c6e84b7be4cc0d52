//! `keyring`

use bytes::Bytes;
use clap::{ArgMatches, Args, Command};
use hyper::Method;
use serde_json::{Value, json};

use crate::cli::flags::int_value;
use crate::cli::{Terminal, command_of, typed};
use crate::client::{Client, HttpOptions};

/// Where the servers manage keys.
const PATH: &str = "/v1/operator/keyring";

#[derive(Args)]
struct Options {
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

/// Flags.
#[must_use]
pub fn command() -> Command {
    command_of::<Options>()
}

/// Lists or changes the keys of the whole cluster.
pub fn run(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: Options = typed(matches);
    let keyed = [&options.install, &options.use_key, &options.remove];
    let lists = usize::from(options.list) + usize::from(options.list_primary);
    match keyed.iter().filter(|key| !key.is_empty()).count() + lists {
        0 => {
            let usage = crate::cli::usage("keyring", &terminal.program);
            return terminal.fail(usage);
        }
        1 => {}
        _ => return terminal.fail("Only a single action is allowed"),
    }
    if !(0..=5).contains(&options.relay_factor) {
        return terminal.fail("Error parsing relay factor: Relay factor must be in range: [0, 5]");
    }
    if options.local_only && lists == 0 {
        return terminal.fail("Error validating local-only: local-only can only be set for list requests");
    }
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to Consul agent: {error}")),
    };
    let mut query = Vec::new();
    if options.relay_factor > 0 {
        query.push(("relay-factor", options.relay_factor.to_string()));
    }
    if lists > 0 {
        let which = if options.list_primary { "primary encryption keys" } else { "encryption keys" };
        terminal.say(format!("==> Gathering installed {which}..."));
        query.extend(options.local_only.then(|| ("local-only", "true".to_owned())));
        let field = if options.list_primary { "PrimaryKeys" } else { "Keys" };
        return match client.get_json(PATH, &query) {
            Ok(rings) => {
                for ring in rings.as_array().into_iter().flatten() {
                    let text = ring_text(ring, field);
                    terminal.say(text);
                }
                0
            }
            Err(error) => terminal.fail(format!("error: {error}")),
        };
    }
    let (doing, method, key) = if !options.install.is_empty() {
        ("Installing new gossip encryption key", Method::POST, &options.install)
    } else if !options.use_key.is_empty() {
        ("Changing primary gossip encryption key", Method::PUT, &options.use_key)
    } else {
        ("Removing gossip encryption key", Method::DELETE, &options.remove)
    };
    terminal.say(format!("==> {doing}..."));
    let body = Bytes::from(json!({ "Key": key }).to_string());
    match client.send(method, PATH, &query, body).and_then(|response| response.ok()) {
        Ok(_) => 0,
        Err(error) => terminal.fail(format!("error: {error}")),
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
