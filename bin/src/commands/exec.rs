//! `exec`

use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use hyper::{Method, StatusCode};
use proconsul_io_real::words::io_reason;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::flags::{bool_value, duration_value};
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{self, Client, ClientError, HttpOptions, Response, ServerOptions, escape};
use crate::commands::interrupt::Interrupt;
use crate::remote::collect::{Collector, Step};
use crate::remote::{EVENT, Job, Place, signs};
use crate::session::Session;

/// How long the session lives without renewals.
const TTL: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
/// Most bytes of a script.
const SCRIPT_MAX: u64 = 384 << 10;
/// Exit status if the command failed on a node.
const FAILED_SOMEWHERE: u8 = 2;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Only nodes whose name matches this regular expression.
    #[arg(long, value_name = "expression", default_value = "")]
    node: String,
    /// What the keys of jobs begin with.
    #[arg(long, value_name = "prefix", default_value = "_rexec")]
    prefix: String,
    /// Only nodes with a service whose name matches this regular expression.
    #[arg(long, value_name = "expression", default_value = "")]
    service: String,
    /// Let a shell read the command line; =false starts the program itself.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, value_parser = bool_value, default_value = "true")]
    shell: bool,
    /// Only nodes whose service has a tag that matches this regular expression; needs -service.
    #[arg(long, value_name = "expression", default_value = "")]
    tag: String,
    /// Tell each step.
    #[arg(long)]
    verbose: bool,
    /// End when nothing was heard for so long.
    #[arg(long, value_name = "duration", value_parser = duration_value, default_value = "2s")]
    wait: String,
    /// How long the job may take to reach all servers before agents are told.
    #[arg(long, value_name = "duration", value_parser = duration_value, default_value = "200ms")]
    wait_repl: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

fn duration(text: &str) -> Duration {
    let nanoseconds = proconsul_core::duration::parse(text).unwrap_or_default();
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default())
}

impl Run for Options {
    /// Runs a command on nodes.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let wait = duration(&self.wait);
        let mut job = Job { wait: u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX), ..Job::default() };
        if self.args.is_empty() {
            return fail("Must specify a command to execute");
        }
        if self.prefix.is_empty() {
            return fail("Prefix must not be empty");
        }
        for (what, expression) in [("node", &self.node), ("service", &self.service), ("tag", &self.tag)] {
            regex_lite::Regex::new(expression)
                .or_fail(format_args!("Failed to compile {what} filter regexp"))?;
        }
        if !self.tag.is_empty() && self.service.is_empty() {
            return fail("Cannot provide tag filter without service filter.");
        }
        if self.args == ["-"] {
            let mut script = Vec::new();
            let read = terminal.input.take(SCRIPT_MAX + 1).read_to_end(&mut script);
            read.map_err(|error| io_reason(&error)).or_fail("Failed to read stdin")?;
            if script.len() as u64 > SCRIPT_MAX {
                return fail(format!(
                    "Failed to read stdin: the script is longer than {SCRIPT_MAX} bytes; install it on the nodes, and \
                     call it by its name"
                ));
            }
            job.script = STANDARD.encode(script);
        } else if self.shell {
            job.command = self.args.join(" ");
        } else {
            job.args.clone_from(&self.args);
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let interrupt = Interrupt::catch().map_err(|error| io_reason(&error)).or_fail("Error starting")?;
        let runtime = client::runtime().or_fail("Error starting")?;
        runtime.block_on(self.execute(&client, &job, wait, &interrupt, terminal))
    }
}

/// A job under way.
struct Errand<'a> {
    client: &'a Client,
    query: Vec<(&'static str, String)>,
    stale: bool,
    session: Session,
    place: Place,
    wait: Duration,
}

impl Options {
    async fn execute(
        &self,
        client: &Client,
        job: &Job,
        wait: Duration,
        interrupt: &Interrupt,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let known = client.ask(Method::GET, "/v1/agent/self", &[], "").await.and_then(Response::json);
        let known = known.or_fail("Failed to query Consul agent")?;
        let own = known["Config"]["Datacenter"].as_str().unwrap_or_default();
        let foreign = self.server.datacenter.clone().filter(|dc| !dc.is_empty() && dc != own);
        let query: Vec<(&'static str, String)> = foreign.iter().map(|dc| ("dc", dc.clone())).collect();
        let wanted = session(client, &query, foreign.is_some(), &known).await;
        let wanted = wanted.or_fail("Failed to create session")?;
        let session = Session::create(client, &query, &wanted).await.or_fail("Failed to create session")?;
        let place = Place { prefix: self.prefix.trim_matches('/').to_owned(), session: session.id.clone() };
        let errand = Errand { client, query, stale: self.server.stale, session, place, wait };
        if self.verbose {
            terminal.say(format!("Created remote execution session: {}", errand.place.session));
        }
        let outcome = tokio::select! {
            outcome = errand.run(self, job, terminal) => outcome,
            () = errand.renew() => fail("The session of this job has ended"),
            () = interrupt.wait() => fail("Interrupted"),
        };
        errand.clean(terminal).await;
        if self.verbose && outcome.is_ok() {
            terminal.say(format!("Completed in {:.2} seconds", began.elapsed().as_secs_f64()));
        }
        match outcome? {
            false => Ok(()),
            true => Err(Failure::silent(FAILED_SOMEWHERE)),
        }
    }
}

/// The session to ask for. In another datacenter it belongs to one of its servers: this node is not in that catalog.
async fn session(
    client: &Client,
    query: &[(&'static str, String)],
    foreign: bool,
    known: &Value,
) -> Result<Value, String> {
    let mut wanted =
        json!({"Name": "Remote Exec", "Behavior": "delete", "TTL": format!("{}s", TTL.as_secs())});
    if foreign {
        let mut passing = query.to_vec();
        passing.push(("passing", "1".to_owned()));
        let servers = client.ask(Method::GET, "/v1/health/service/consul", &passing, "").await;
        let servers = servers.and_then(Response::json).map_err(|error| error.to_string())?;
        let name = servers[0]["Node"]["Node"].as_str().ok_or("no server there is healthy")?;
        wanted["Node"] = name.into();
        let me = known["Config"]["NodeName"].as_str().unwrap_or_default();
        wanted["Name"] = format!("Remote Exec via {name}, for {me}").into();
    }
    Ok(wanted)
}

impl Errand<'_> {
    /// Renews the session until it is gone.
    async fn renew(&self) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            // Whether it failed or not is seen by the next attempt, before the session ends.
            if let Ok(false) = self.session.renew(self.client, &self.query).await {
                return;
            }
        }
    }

    /// Tells agents of the job, and prints what they say; whether it failed anywhere.
    async fn run(&self, options: &Options, job: &Job, terminal: &mut Terminal<'_>) -> Result<bool, Failure> {
        let mut query = self.query.clone();
        query.push(("acquire", self.place.session.clone()));
        let path = format!("/v1/kv/{}", escape(&self.place.job()));
        let text = serde_json::to_string(job).or_fail("Failed to create job file")?;
        let written = self.client.ask(Method::PUT, &path, &query, text).await.and_then(Response::json);
        if written.or_fail("Failed to create job file")? != Value::Bool(true) {
            return fail("Failed to create job file: somebody else has its key");
        }
        if options.verbose {
            terminal.say("Uploaded remote execution spec");
        }
        tokio::time::sleep(duration(&options.wait_repl)).await;
        let mut query = self.query.clone();
        let filters = [("node", &options.node), ("service", &options.service), ("tag", &options.tag)];
        query.extend(
            filters
                .into_iter()
                .filter(|(_, filter)| !filter.is_empty())
                .map(|(name, filter)| (name, filter.clone())),
        );
        let path = format!("/v1/event/fire/{EVENT}");
        let fired = self.client.ask(Method::PUT, &path, &query, self.place.payload()).await;
        let fired = fired.and_then(Response::json).or_fail("Failed to fire event")?;
        if options.verbose {
            let id = fired["ID"].as_str().unwrap_or_default();
            terminal.say(format!("Fired remote execution event: {id}"));
        }
        self.listen(options.verbose, terminal).await
    }

    async fn listen(&self, verbose: bool, terminal: &mut Terminal<'_>) -> Result<bool, Failure> {
        let mut collector = Collector::new(verbose);
        let mut index = 0;
        let mut heard = Instant::now();
        loop {
            let left = self.wait.saturating_sub(heard.elapsed());
            let mut query = self.reading();
            query.push(("keys", String::new()));
            if index > 0 {
                query.push(("index", index.to_string()));
                query.push(("wait", format!("{}ms", left.as_millis().max(1))));
            }
            let path = format!("/v1/kv/{}", escape(&self.place.all()));
            let answer = self.client.ask(Method::GET, &path, &query, "").await;
            let answer = answer.or_fail("Failed to watch for results")?;
            let next = answer.index.unwrap_or_default();
            index = if next < index { 0 } else { next.max(1) };
            let keys = if answer.status == StatusCode::NOT_FOUND { Value::Null } else { self.json(answer)? };
            let steps = collector.take(signs(&self.place, &keys));
            if !steps.is_empty() {
                heard = Instant::now();
            }
            for step in steps {
                match step {
                    Step::Say(line) => terminal.say(line),
                    Step::Output { node, number } => {
                        let part = self.read(&node, &format!("out/{number:05x}")).await?;
                        for line in collector.lines(&node, &part) {
                            terminal.say(line);
                        }
                    }
                    Step::Exit { node } => {
                        let status = self.read(&node, "exit").await?;
                        let line = collector.exited(&node, &String::from_utf8_lossy(&status));
                        terminal.say(line);
                    }
                }
            }
            if heard.elapsed() >= self.wait {
                terminal.say(collector.summary());
                return Ok(collector.failed());
            }
        }
    }

    fn json(&self, answer: Response) -> Result<Value, Failure> {
        answer.json().or_fail("Failed to watch for results")
    }

    fn reading(&self) -> Vec<(&'static str, String)> {
        let mut query = self.query.clone();
        query.extend(self.stale.then(|| ("stale", String::new())));
        query
    }

    /// The value of a key of a node.
    async fn read(&self, node: &str, name: &str) -> Result<Vec<u8>, Failure> {
        let path = format!("/v1/kv/{}", escape(&format!("{}{name}", self.place.of(node))));
        let mut query = self.reading();
        query.push(("raw", String::new()));
        let answer = self.client.ask(Method::GET, &path, &query, "").await;
        Ok(answer.and_then(Response::ok).or_fail("Failed to read results")?.to_vec())
    }

    /// Removes what the job left behind.
    async fn clean(&self, terminal: &mut Terminal<'_>) {
        let mut query = self.query.clone();
        query.push(("recurse", String::new()));
        let path = format!("/v1/kv/{}", escape(&self.place.all()));
        let removed = self.client.ask(Method::DELETE, &path, &query, "").await.and_then(Response::ok);
        let destroyed = self.session.destroy(self.client, &self.query).await;
        let failed: Vec<ClientError> = [removed.err(), destroyed.err()].into_iter().flatten().collect();
        if let Some(error) = failed.first() {
            terminal.complain(format!("Failed to clean up, the session's end will: {error}"));
        }
    }
}
