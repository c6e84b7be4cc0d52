//! `tls ca create`, `tls cert create`, `tls cert renew`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use clap::Args;

use crate::cli::flags::int_value;
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::x509::authority::{self, Authority, AuthorityPlan, Made, Plan};
use proconsul_io_real::words::io_reason;

/// Mode of certificates: everybody may have them.
const OPEN: u32 = 0o644;
/// Mode of keys.
const SECRET: u32 = 0o600;

#[derive(Args)]
pub(crate) struct CaCreateOptions {
    /// Another domain that the authority may vouch for, with -name-constraint.
    #[arg(long, value_name = "domain", action = clap::ArgAction::Append)]
    additional_name_constraint: Vec<String>,
    /// Identity of the cluster, which the authority's URI then holds.
    #[arg(long, value_name = "id", default_value = "")]
    cluster_id: String,
    /// Name of the authority. The default is one with a random number in it.
    #[arg(long, value_name = "name", default_value = "")]
    common_name: String,
    /// For how many days it is valid from now on. The default is 1825, five years.
    #[arg(long, value_name = "number", default_value = "1825", value_parser = int_value)]
    days: i64,
    /// Domain of the cluster, for names of files and for -name-constraint. The default is consul.
    #[arg(long, value_name = "domain", default_value = "consul")]
    domain: String,
    /// Let the authority vouch for localhost and for names below -domain and -additional-name-constraint only. This
    /// cannot be changed later.
    #[arg(long)]
    name_constraint: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for CaCreateOptions {
    /// Makes an authority, as two files in the working directory.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let certificate = format!("{}-agent-ca.pem", self.domain);
        let key = format!("{}-agent-ca-key.pem", self.domain);
        if let Some(there) = [&certificate, &key].into_iter().find(|name| Path::new(name).exists()) {
            return fail(format!("{there} already exists."));
        }
        let mut names = Vec::new();
        if self.name_constraint {
            names = self.additional_name_constraint;
            names.extend([self.domain.clone(), "localhost".to_owned()]);
        }
        let uri = Some(self.cluster_id.to_ascii_lowercase()).filter(|id| !id.is_empty());
        let uri = uri.map(|id| format!("spiffe://{id}.{}", self.domain));
        let plan = AuthorityPlan { common_name: self.common_name, uri, days: self.days, names };
        let made = authority::found(&plan).or_else(fail)?;
        save(&made, &certificate, &key, terminal)
    }
}

#[derive(Args)]
pub(crate) struct CertCreateOptions {
    /// Another DNS name for the certificate; localhost is in it always.
    #[arg(long, value_name = "name", action = clap::ArgAction::Append)]
    additional_dnsname: Vec<String>,
    /// Another IP address for the certificate; 127.0.0.1 is in those of agents always.
    #[arg(long, value_name = "address", action = clap::ArgAction::Append)]
    additional_ipaddress: Vec<String>,
    /// File of the authority's certificate. The default is #DOMAIN#-agent-ca.pem.
    #[arg(long, value_name = "file", default_value = "#DOMAIN#-agent-ca.pem")]
    ca: String,
    /// Make a certificate for commands.
    #[arg(long)]
    cli: bool,
    /// Make a certificate for client agents.
    #[arg(long)]
    client: bool,
    /// For how many days it is valid from now on. The default is 365, a year.
    #[arg(long, value_name = "number", default_value = "365", value_parser = int_value)]
    days: i64,
    /// Datacenter. The default is dc1.
    #[arg(long, value_name = "name", default_value = "dc1")]
    dc: String,
    /// Domain of the cluster. The default is consul.
    #[arg(long, value_name = "domain", default_value = "consul")]
    domain: String,
    /// File of the authority's key. The default is #DOMAIN#-agent-ca-key.pem.
    #[arg(long, value_name = "file", default_value = "#DOMAIN#-agent-ca-key.pem")]
    key: String,
    /// Name of the server's node, for a further name NODE.server.DATACENTER.DOMAIN.
    #[arg(long, value_name = "name", default_value = "")]
    node: String,
    /// Make a certificate for servers.
    #[arg(long)]
    server: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for CertCreateOptions {
    /// Makes a certificate, as two files in the working directory.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let (authority, plan, names) = self.prepare(terminal)?;
        let made = authority.issue(&plan).or_else(fail)?;
        let [certificate, key] = names;
        save(&made, &certificate, &key, terminal)
    }
}

#[derive(Args)]
pub(crate) struct CertRenewOptions {
    /// File of the key that the certificate is for.
    #[arg(long = "existingkey", value_name = "file", default_value = "")]
    existing_key: String,
    #[command(flatten)]
    certificate: CertCreateOptions,
}

impl Run for CertRenewOptions {
    /// Makes a certificate for a key that there is, as a file in the working directory.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if self.existing_key.is_empty() {
            return fail("Please provide -existingkey, the file of the key that stays");
        }
        let key = read(&self.existing_key).or_fail("Error reading key")?;
        let (authority, plan, [name, _]) = self.certificate.prepare(terminal)?;
        let certificate = authority.renew(&plan, &key).or_else(fail)?;
        write(&name, &certificate, OPEN, terminal)
    }
}

impl CertCreateOptions {
    /// Who signs, what the certificate is to say, and the names of files for it and its key that are free.
    fn prepare(&self, terminal: &mut Terminal<'_>) -> Result<(Authority, Plan, [String; 2]), Failure> {
        let kind = match (self.server, self.client, self.cli) {
            (true, false, false) => "server",
            (false, true, false) => "client",
            (false, false, true) => "cli",
            _ => return fail("Please provide either -server, -client, or -cli"),
        };
        if !self.node.is_empty() && !self.server {
            return fail("-node requires -server");
        }
        let [ca, key] = [&self.ca, &self.key].map(|name| name.replace("#DOMAIN#", &self.domain));
        let stem = format!("{}-{kind}-{}", self.dc, self.domain);
        let [ca_text, key_text] =
            [read(&ca).or_fail("Error reading CA")?, read(&key).or_fail("Error reading CA key")?];
        if self.server {
            terminal.say(
                "==> WARNING: whoever has a server's certificate can act as a server and\n    \
                 read and change everything in the cluster, tokens and keys included.\n    \
                 Keep it on servers only, and as safe as the authority's own key.",
            );
        }
        terminal.say(format!("==> Using {ca} and {key}"));
        let plan = self.plan(kind)?;
        let authority = Authority::read(&ca_text, &key_text).or_else(fail)?;
        let names = |number: u32| [format!("{stem}-{number}.pem"), format!("{stem}-{number}-key.pem")];
        let free = (0..)
            .map(names)
            .find(|names| names.iter().all(|name| !Path::new(name).exists()))
            .expect("a directory does not hold that many files");
        Ok((authority, plan, free))
    }

    fn plan(&self, kind: &str) -> Result<Plan, Failure> {
        let common_name = format!("{kind}.{}.{}", self.dc, self.domain);
        let mut dns_names: Vec<String> =
            self.additional_dnsname.iter().filter(|name| !name.is_empty()).cloned().collect();
        if !self.node.is_empty() {
            dns_names.push(format!("{}.{common_name}", self.node));
        }
        dns_names.extend([common_name.clone(), "localhost".to_owned()]);
        let mut addresses = Vec::new();
        for text in &self.additional_ipaddress {
            match text.trim().parse::<IpAddr>() {
                Ok(address) => addresses.push(address),
                Err(_) => {
                    return fail(format!(
                        "failed to parse certificate\n-additional-ipaddress={text} is no IP address"
                    ));
                }
            }
        }
        if !self.cli {
            addresses.push(IpAddr::from([127, 0, 0, 1]));
        }
        Ok(Plan { common_name, dns_names, addresses, days: self.days, for_agents: !self.cli })
    }
}

fn read(name: &str) -> Result<String, String> {
    std::fs::read_to_string(name).map_err(|error| format!("open {name}: {}", io_reason(&error)))
}

/// Writes both files, neither of which may exist.
fn save(made: &Made, certificate: &str, key: &str, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    write(certificate, &made.certificate, OPEN, terminal)?;
    write(key, &made.key, SECRET, terminal)
}

/// Writes a file, which may not exist.
fn write(name: &str, text: &str, mode: u32, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(name)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| io_reason(&error)).or_fail(format!("Error writing {name}"))?;
    terminal.say(format!("==> Saved {name}"));
    Ok(())
}
