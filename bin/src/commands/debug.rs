//! `debug`

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Args;
use hyper::Method;
use proconsul_core::duration;
use proconsul_io_real::words::io_reason;
use serde_json::{Value, json};

use crate::cli::flags::{bool_value, duration_value};
use crate::cli::progress::Progress;
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{self, Client, HttpOptions};
use crate::commands::interrupt::Interrupt;

mod archive;

/// The shortest duration and interval that are taken.
const SHORTEST: Duration = Duration::from_secs(10);
const SHORTEST_INTERVAL: Duration = Duration::from_secs(5);

/// How often to show how far it is.
const PROGRESS_PACE: Duration = Duration::from_secs(1);

/// What can be collected, in the order of Consul's list. Profiles of a Go program do not exist here: `pprof` collects
/// the figures of the process instead.
const TARGETS: &[&str] = &["metrics", "logs", "pprof", "host", "agent", "cluster"];

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    /// Make one compressed file of what is collected; with -archive=false it stays a directory.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_parser = bool_value)]
    archive: bool,
    /// What to collect: agent, host, cluster, metrics, logs, pprof. The default is all of it.
    #[arg(long, value_name = "what", action = clap::ArgAction::Append)]
    capture: Vec<String>,
    /// For how long to collect. The default is 2m0s.
    #[arg(long, value_name = "duration", default_value = "2m0s", value_parser = duration_value)]
    duration: String,
    /// How often to collect what changes. The default is 30s.
    #[arg(long, value_name = "duration", default_value = "30s", value_parser = duration_value)]
    interval: String,
    /// Where to write: the directory, and the file with .tar.gz behind it. The default is consul-debug- with the time.
    #[arg(long, value_name = "path", default_value = "")]
    output: String,
    /// Refused: an agent keeps nothing of the past but its log, which -log-file writes into files.
    #[arg(long, value_name = "duration", default_value = "")]
    since: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// What is to be done, checked.
struct Plan {
    duration: Duration,
    interval: Duration,
    captures: Vec<String>,
    dir: PathBuf,
}

impl Run for Options {
    /// Collects what helps to find a fault. What was collected before an interruption is kept.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let began = SystemTime::now();
        if !self.since.is_empty() {
            return fail(
                "==> -since is not available: an agent keeps nothing of the past but its log. \
                 Set log_file to have that in files.",
            );
        }
        let plan = self.plan(began).or_else(|why| fail(format!("==> Capture validation failed: {why}")))?;
        if !self.args.is_empty() {
            return fail("==> debug: Too many arguments provided, expected 0");
        }
        let client = Client::new(&self.http, terminal).or_fail("==> Error connecting to Consul agent")?;
        let this = client
            .get_json("/v1/agent/self", &[])
            .or_fail("==> Capture validation failed: error querying target agent: verify connectivity and agent address")?;
        let interrupt = Interrupt::catch().or_fail("==> Error catching signals")?;
        fs::create_dir(&plan.dir).map_err(|error| io_reason(&error)).or_fail(format!(
            "==> Capture validation failed: cannot make the directory {}",
            plan.dir.display()
        ))?;
        let version = this["Config"]["Version"].as_str().unwrap_or("unknown").to_owned();
        let shown = |duration| duration::format(duration);
        terminal.say("==> Starting debugger and capturing static information...");
        for (name, value) in [
            ("Agent Version", version.clone()),
            ("Interval", shown(plan.interval)),
            ("Duration", shown(plan.duration)),
            (
                "Output",
                if self.archive { archive_name(&plan.dir) } else { plan.dir.clone() }.display().to_string(),
            ),
            ("Capture", plan.captures.join(", ")),
        ] {
            terminal.say(format!("{name:>17}: {value:?}"));
        }
        let mut collected = Collected { plan: &plan, client: &client, interrupt, errors: Vec::new() };
        collected.once(this);
        let finished = if plan.captures.iter().any(|what| DYNAMIC.contains(&what.as_str())) {
            terminal.say("==> Beginning capture interval...");
            collected.for_a_while(terminal)
        } else {
            true
        };
        let Collected { errors, .. } = collected;
        let index = json!({
            "version": "1",
            "agentVersion": version,
            "interval": shown(plan.interval),
            "duration": shown(plan.duration),
            "targets": plan.captures,
            "interrupted": !finished,
            "errors": errors,
            "pprof": "this agent has no profiles of a Go program; metrics and process.txt hold its figures",
        });
        write(&plan.dir.join("index.json"), &pretty(&index)).or_fail("==> Error writing index.json")?;
        for error in &errors {
            terminal.complain(format!("==> {error}"));
        }
        if !finished {
            terminal.say("==> Interrupted: what was collected so far is kept");
        }
        if self.archive {
            let file = archive_name(&plan.dir);
            archive::pack(&plan.dir, &file)
                .and_then(|()| fs::remove_dir_all(&plan.dir))
                .map_err(|error| io_reason(&error))
                .or_fail("==> Error creating archive")?;
            terminal.say(format!("==> Saved debug archive: {}", file.display()));
        } else {
            terminal.say(format!("==> Saved debug directory: {}", plan.dir.display()));
        }
        Ok(())
    }
}

/// What changes while it is looked at.
const DYNAMIC: &[&str] = &["metrics", "logs", "pprof"];

impl Options {
    fn plan(&self, now: SystemTime) -> Result<Plan, String> {
        let read = |text: &str| {
            let nanos = duration::parse(text).and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0);
            Duration::from_nanos(nanos)
        };
        let (duration, interval) = (read(&self.duration), read(&self.interval));
        // The arguments are looked at later: these messages come first with Consul, too.
        if duration < SHORTEST {
            return Err(format!("duration must be longer than {}", duration::format(SHORTEST)));
        }
        if interval < SHORTEST_INTERVAL {
            // Consul names the limit of the duration here.
            return Err(format!("interval must be longer than {}", duration::format(SHORTEST)));
        }
        if duration < interval {
            return Err(format!(
                "duration ({}) must be longer than interval ({})",
                self.duration, self.interval
            ));
        }
        if let Some(unknown) =
            self.capture.iter().find(|what| !TARGETS.contains(&what.as_str()) && *what != "members")
        {
            return Err(format!("target not found: {unknown}"));
        }
        let captures = match self.capture.as_slice() {
            [] => TARGETS.iter().map(|what| (*what).to_owned()).collect(),
            some => {
                // The name of `cluster` since Consul 1.10.
                let name =
                    |what: &String| if what == "members" { "cluster".to_owned() } else { what.clone() };
                let mut some: Vec<String> = some.iter().map(name).collect();
                some.sort();
                some.dedup();
                some
            }
        };
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let dir = match self.output.as_str() {
            "" => format!("consul-debug-{seconds}"),
            path => path.strip_suffix(".tar.gz").unwrap_or(path).to_owned(),
        };
        let dir = PathBuf::from(dir);
        for taken in [dir.clone(), archive_name(&dir)] {
            if taken.exists() {
                return Err(format!(
                    "output path {} exists already: name another one with -output",
                    taken.display()
                ));
            }
        }
        Ok(Plan { duration, interval, captures, dir })
    }
}

/// The archive of a directory.
fn archive_name(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".tar.gz");
    PathBuf::from(name)
}

/// The work of collecting.
struct Collected<'a> {
    plan: &'a Plan,
    client: &'a Client,
    interrupt: Interrupt,
    /// What could not be had.
    errors: Vec<String>,
}

impl Collected<'_> {
    fn wants(&self, what: &str) -> bool {
        self.plan.captures.iter().any(|capture| capture == what)
    }

    /// Collects what does not change.
    fn once(&mut self, this: Value) {
        if self.wants("agent") {
            self.keep("agent.json", Ok(this));
        }
        if self.wants("host") {
            let host = self.client.get_json("/v1/agent/host", &[]).map_err(|error| error.to_string());
            self.keep("host.json", host);
        }
        if self.wants("cluster") {
            // As a flat file for those who know Consul 1.8, and as today's directory.
            let wan = [("wan", "1".to_owned())];
            let members = self.client.get_json("/v1/agent/members", &wan).map_err(|error| error.to_string());
            self.keep("cluster.json", members);
            let lan = self.client.get_json("/v1/agent/members", &[]).map_err(|error| error.to_string());
            self.keep("cluster/members.json", lan);
            let raft = self.client.get_json("/v1/operator/raft/configuration", &[("stale", String::new())]);
            self.keep("cluster/raft.json", raft.map_err(|error| error.to_string()));
        }
    }

    /// Collects at every interval, and the log all the time; false if somebody interrupted.
    fn for_a_while(&mut self, terminal: &mut Terminal<'_>) -> bool {
        let began = Instant::now();
        let mut log = Vec::new();
        let mut interval = 0_u32;
        loop {
            let from = Instant::now();
            interval += 1;
            if self.wants("metrics") || self.wants("pprof") {
                terminal.say(format!(
                    "==> Capture of interval {interval} ({} s since the start)",
                    began.elapsed().as_secs()
                ));
            }
            self.interval(interval);
            let end = (from + self.plan.interval).min(began + self.plan.duration);
            let finished = self.listen_until((began, end), &mut log, terminal);
            if self.wants("logs") {
                let name = format!("{interval}/consul.log");
                let written = write(&self.plan.dir.join(&name), &log);
                self.errors.extend(written.err().map(|error| format!("{name}: {error}")));
                log.clear();
            }
            if !finished {
                return false;
            }
            if began.elapsed() >= self.plan.duration {
                return true;
            }
        }
    }

    fn interval(&mut self, number: u32) {
        if self.wants("metrics") {
            let metrics = self.client.get_json("/v1/agent/metrics", &[]).map_err(|error| error.to_string());
            self.keep(&format!("{number}/metrics.json"), metrics);
        }
        if self.wants("pprof") {
            let query = [("format", "prometheus".to_owned())];
            let reply = self.client.send(Method::GET, "/v1/agent/metrics", &query, Bytes::new());
            let text = reply.and_then(crate::client::Response::ok).map_err(|error| error.to_string());
            let name = format!("{number}/process.txt");
            let written = text.and_then(|text| write(&self.plan.dir.join(&name), &text));
            self.errors.extend(written.err().map(|error| format!("{name}: {error}")));
        }
    }

    /// Reads the log until then; false if somebody interrupted.
    fn listen_until(
        &mut self,
        (began, end): (Instant, Instant),
        log: &mut Vec<u8>,
        terminal: &mut Terminal<'_>,
    ) -> bool {
        let mut progress = Progress::new("Capturing, seconds", Some(self.plan.duration.as_secs()));
        let interrupt = &self.interrupt;
        let mut until = async || loop {
            progress.show(began.elapsed().as_secs(), terminal);
            let next = end.min(Instant::now() + PROGRESS_PACE);
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = interrupt.wait() => return,
            }
            if Instant::now() >= end {
                return;
            }
        };
        let mut failed = None;
        if self.wants("logs") {
            let query = [("loglevel", "TRACE".to_owned())];
            let read = self.client.stream("/v1/agent/monitor", &query, until(), |piece| {
                log.extend_from_slice(piece);
                true
            });
            failed = read.err().map(|error| format!("consul.log: {error}"));
        }
        // The agent may have ended before, and with it its log.
        if !self.interrupt.happened() && Instant::now() < end {
            match client::runtime() {
                Ok(runtime) => runtime.block_on(until()),
                Err(error) => failed = Some(format!("cannot wait: {error}")),
            }
        }
        progress.clear(terminal);
        self.errors.extend(failed);
        !self.interrupt.happened()
    }

    fn keep(&mut self, name: &str, value: Result<Value, String>) {
        let written = value.and_then(|value| write(&self.plan.dir.join(name), &pretty(&value)));
        self.errors.extend(written.err().map(|error| format!("{name}: {error}")));
    }
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("values can be written");
    text.push(b'\n');
    text
}

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    let dir = path.parent().expect("files lie in the directory");
    let write = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::File::create(path)?.write_all(content)
    };
    write().map_err(|error| io_reason(&error))
}
