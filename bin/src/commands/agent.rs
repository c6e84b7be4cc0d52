//! `agent`: flags, configuration, and the start of the daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use proconsul_io_real::driver::End;
use proconsul_io_real::words::io_reason;

use crate::cli::flags::{bool_value, int_value};
use crate::cli::{ConfigFiles, Terminal, typed};
use crate::config::schema::Kind;
use crate::config::{self, Config, ConfigError, Inputs, keys, load};
use crate::daemon::{Daemon, Reread, StopSignal};

/// Flags that set a key: name, key, description.
#[rustfmt::skip]
const FLAGS: &[(&str, &str, &str)] = &[
    ("advertise", "advertise_addr", "Address to tell the other agents."),
    ("advertise-wan", "advertise_addr_wan", "Address to tell other datacenters."),
    ("allow-write-http-from", "http_config.allow_write_http_from", "Networks from which writes are accepted."),
    ("alt-domain", "alt_domain", "A second domain for DNS."),
    ("auto-reload-config", "auto_reload_config", "Read configuration files again when they change."),
    ("bind", "bind_addr", "Address of the cluster's listeners."),
    ("bootstrap", "bootstrap", "Make this server the first of a new cluster."),
    ("bootstrap-expect", "bootstrap_expect", "Form the cluster when this many servers have met."),
    ("check_output_max_size", "check_output_max_size", "Longest output of a check that is kept, in bytes."),
    ("client", "client_addr", "Addresses of the listeners for clients (HTTP, DNS)."),
    ("data-dir", "data_dir", "Directory for the agent's state."),
    ("datacenter", "datacenter", "Datacenter of this agent."),
    ("default-query-time", "default_query_time", "How long a blocking query waits if it does not say."),
    ("disable-host-node-id", "disable_host_node_id", "Use a random node ID instead of one of the machine."),
    ("disable-keyring-file", "disable_keyring_file", "Do not keep gossip keys in a file."),
    ("dns-port", "ports.dns", "Port of DNS; -1 switches it off."),
    ("domain", "domain", "Domain for DNS."),
    ("enable-local-script-checks", "enable_local_script_checks", "Allow script checks in configuration files."),
    ("enable-script-checks", "enable_script_checks", "Allow script checks in files and over HTTP."),
    ("encrypt", "encrypt", "Key of gossip encryption, as keygen prints it."),
    ("grpc-port", "ports.grpc", "Port of gRPC; -1 switches it off."),
    ("grpc-tls-port", "ports.grpc_tls", "Port of gRPC over TLS; -1 switches it off."),
    ("http-port", "ports.http", "Port of the HTTP API; -1 switches it off."),
    ("https-port", "ports.https", "Port of the API over HTTPS; -1 switches it off."),
    ("join", "start_join", "Agent to join at start. Old: use -retry-join."),
    ("join-wan", "start_join_wan", "Server to join in another datacenter. Old: use -retry-join-wan."),
    ("log-file", "log_file", "File or directory to log to."),
    ("log-json", "log_json", "Log one JSON object per line."),
    ("log-level", "log_level", "Lowest level to log: trace, debug, info, warn or err."),
    ("log-rotate-bytes", "log_rotate_bytes", "Begin a new log file at this size."),
    ("log-rotate-duration", "log_rotate_duration", "Begin a new log file after this time."),
    ("log-rotate-max-files", "log_rotate_max_files", "How many old log files to keep."),
    ("max-query-time", "max_query_time", "The longest wait that a blocking query may ask for."),
    ("node", "node_name", "Name of this node, unique in the cluster. The default is the host name."),
    ("node-id", "node_id", "Identity of this node, a UUID."),
    ("node-meta", "node_meta", "Metadata of this node, as key:value."),
    ("non-voting-server", "non_voting_server", "Old name of -read-replica."),
    ("pid-file", "pid_file", "File to write the process ID to."),
    ("primary-gateway", "primary_gateways", "Mesh gateway of the primary datacenter."),
    ("protocol", "protocol", "Version of the gossip protocol to speak."),
    ("raft-protocol", "raft_protocol", "Version of the Raft protocol to speak."),
    ("read-replica", "read_replica", "Serve reads without a vote (Consul Enterprise)."),
    ("recursor", "recursors", "DNS server for all other names."),
    ("rejoin", "rejoin_after_leave", "Join the known members again even after a leave."),
    ("retry-interval", "retry_interval", "Time between attempts to join."),
    ("retry-interval-wan", "retry_interval_wan", "Time between attempts to join other datacenters."),
    ("retry-join", "retry_join", "Agent to join, tried until it works."),
    ("retry-join-wan", "retry_join_wan", "Server of another datacenter to join, tried until it works."),
    ("retry-max", "retry_max", "How often to try to join; 0 is without end."),
    ("retry-max-wan", "retry_max_wan", "How often to try to join other datacenters; 0 is without end."),
    ("segment", "segment", "Network segment (Consul Enterprise)."),
    ("serf-lan-allowed-cidrs", "serf_lan_allowed_cidrs", "Networks from which members are accepted."),
    ("serf-lan-bind", "serf_lan", "Address of gossip within the datacenter."),
    ("serf-lan-port", "ports.serf_lan", "Port of gossip within the datacenter."),
    ("serf-wan-allowed-cidrs", "serf_wan_allowed_cidrs", "Networks from which servers of other datacenters are accepted."),
    ("serf-wan-bind", "serf_wan", "Address of gossip between datacenters."),
    ("serf-wan-port", "ports.serf_wan", "Port of gossip between datacenters; -1 switches it off."),
    ("server", "server", "Be a server."),
    ("server-port", "ports.server", "Port of RPC between agents."),
    ("syslog", "enable_syslog", "Log to syslog too."),
    ("ui", "ui_config.enabled", "Serve the web pages."),
    ("ui-content-path", "ui_config.content_path", "Path of the web pages."),
    ("ui-dir", "ui_config.dir", "Directory of web pages of your own."),
];

#[derive(clap::Args)]
struct Sources {
    #[command(flatten)]
    files: ConfigFiles,
    /// Development mode: a server that keeps everything in memory, on 127.0.0.1.
    #[arg(long)]
    dev: bool,
    /// Configuration in HCL, stronger than files and flags.
    #[arg(long, value_name = "text", action = ArgAction::Append)]
    hcl: Vec<String>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    extra: Vec<String>,
}

fn kind_of(key: &str) -> Kind {
    let row = keys::AGENT.iter().find(|row| row.path == key);
    row.map(|row| row.kind).expect("a test looks every flag's key up")
}

/// Flags.
#[must_use]
pub fn command() -> Command {
    let mut command = crate::cli::command_of::<Sources>();
    for &(name, key, help) in FLAGS {
        let arg = Arg::new(name).long(name).help(help);
        command = command.arg(match kind_of(key) {
            Kind::Bool => arg.num_args(0..=1).require_equals(true).value_parser(bool_value),
            Kind::Int => arg.value_name("number").value_parser(int_value),
            Kind::StrList | Kind::StrMap => arg.action(ArgAction::Append),
            _ => arg,
        });
    }
    command
}

/// What the flags set, in the schema's normal form.
fn settings(matches: &ArgMatches) -> Map<String, Value> {
    let mut settings = Map::new();
    for &(name, key, _) in FLAGS {
        let texts = || matches.get_many::<String>(name).into_iter().flatten().cloned();
        let value = match kind_of(key) {
            Kind::Bool => matches.get_one::<bool>(name).copied().map(Value::from),
            Kind::Int => matches.get_one::<i64>(name).copied().map(Value::from),
            Kind::StrList => {
                Some(texts().map(Value::from).collect::<Vec<_>>()).filter(|l| !l.is_empty()).map(Value::from)
            }
            Kind::StrMap => {
                let pair = |text: String| match text.split_once(':') {
                    Some((key, value)) => (key.to_owned(), Value::from(value)),
                    None => (text, Value::from("")),
                };
                Some(texts().map(pair).collect::<Map<_, _>>()).filter(|m| !m.is_empty()).map(Value::from)
            }
            _ => texts().next_back().map(Value::from),
        };
        if let Some(value) = value {
            load::put(&mut settings, key, value);
        }
    }
    settings
}

/// The configuration that the arguments ask for, if an agent can start with it.
///
/// # Errors
/// Files or flags are not well formed, or ask for what cannot be.
pub fn configuration(matches: &ArgMatches) -> Result<Config, ConfigError> {
    let config = read(matches)?;
    match config.trouble {
        None => Ok(config),
        Some(trouble) => Err(trouble),
    }
}

/// The same, also if no agent can start with it.
fn read(matches: &ArgMatches) -> Result<Config, ConfigError> {
    let sources: Sources = typed(matches);
    if !sources.extra.is_empty() {
        return Err(ConfigError::new(format!("Unexpected extra arguments: [{}]", sources.extra.join(" "))));
    }
    config::load(&Inputs {
        dev: sources.dev,
        format: sources.files.format()?,
        paths: sources.files.paths,
        flags: settings(matches),
        fragments: sources.hcl,
    })
}

/// Runs an agent to its end.
pub fn main(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let config = match read(matches) {
        Ok(config) => config,
        Err(error) => return terminal.fail(format!("==> {error}")),
    };
    if let Some(trouble) = &config.trouble {
        if config.log_is_usable {
            // If there is none after all, it is said below nevertheless.
            let _ = crate::log::start(&config.log);
        }
        return unstarted(trouble, terminal);
    }
    // Kept until the agent has ended: dropping it removes the file.
    let _pid_file = match config.pid_file.as_deref().map(PidFile::create).transpose() {
        Ok(pid_file) => pid_file,
        Err(error) => return terminal.fail(format!("==> {error}")),
    };
    let again = matches.clone();
    run(config, Arc::new(move || configuration(&again)), terminal)
}

/// A file that holds the process ID while the agent runs.
struct PidFile(PathBuf);

impl PidFile {
    fn create(path: &Path) -> Result<PidFile, ConfigError> {
        std::fs::write(path, std::process::id().to_string()).map_err(|error| {
            let reason = io_reason(&error);
            ConfigError::new(format!("Could not open pid file: {}: {reason}", path.display()))
        })?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A file that somebody removed already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Starts the daemon and runs it until it is told to stop; the result is the exit status. `reread` reads the
/// configuration again when that is asked for.
pub fn run(config: Config, reread: Reread, terminal: &mut Terminal<'_>) -> u8 {
    // Before anything is recovered: what was repaired must be told.
    if let Err(error) = crate::log::start(&config.log) {
        return terminal.fail(format!("==> Failed to setup logging: {error}"));
    }
    let mut daemon = match Daemon::start(&config, reread) {
        Ok(daemon) => daemon,
        Err(error) => return unstarted(&error, terminal),
    };
    crate::banner::announce(&config, &daemon.id.to_string(), terminal);
    let signal = daemon.wait();
    if let Some(signal) = signal {
        terminal.say(format!("==> Caught signal: {}", signal.name()));
        let leaves = match signal {
            StopSignal::Interrupt => !config.skip_leave_on_interrupt,
            StopSignal::Terminate => config.leave_on_terminate,
        };
        if leaves {
            terminal.say("==> Leaving the cluster in good order; a second signal ends this...");
            if !daemon.leave() {
                terminal
                    .complain("==> The leave did not come to its end: to the others this agent has failed");
            }
        }
    }
    // Status 1 for an end without a leave is Consul's.
    match daemon.stop() {
        End::Left => {
            terminal.say("==> The agent has left the cluster");
            0
        }
        End::Stopped => 1,
        End::Halted(reason) => terminal.fail(format!("==> {reason}")),
    }
}

/// Says why an agent does not start, where it would have logged, as Consul does, and on standard error.
fn unstarted(error: &dyn std::fmt::Display, terminal: &mut Terminal<'_>) -> u8 {
    tracing::error!("Error starting agent: {error}");
    terminal.fail(format!("==> {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_sets_a_known_key() {
        for (name, key, _) in FLAGS {
            assert!(keys::AGENT.iter().any(|row| row.path == *key), "-{name} sets {key}");
        }
    }
}
