//! `lock`

use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use hyper::Method;
use proconsul_io_real::words::io_reason;
use rustix::process::Signal;
use tokio::process::Child;
use tokio::signal::unix::{self, SignalKind};
use tokio::task::JoinSet;

use crate::child;
use crate::cli::flags::{bool_value, duration_value, int_value};
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{self, Client, HttpOptions, ServerOptions};
use crate::lock::claim::{Claim, ClaimError, Query};
use crate::lock::clock;
use crate::lock::holder::{Holder, Input, Moment, Output, Reason};
use crate::session::Session;

/// How long a session lives without renewals.
const TTL: Duration = Duration::from_secs(15);
/// How long to wait for the acknowledgement of a renewal.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait before a lock that could not be looked at is looked at again.
const LOOK_RETRY: Duration = Duration::from_secs(1);
/// How long giving back may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
/// Exit status of a failed child, where the child's end counts.
const CHILD_FAILED: u8 = 2;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// End with status 2 if the child fails.
    #[arg(long)]
    child_exit_code: bool,
    /// How often in a row the lock may not be seen, such as while the servers elect a leader, before it counts as lost.
    #[arg(long, value_name = "number", value_parser = int_value, default_value = "3")]
    monitor_retry: i64,
    /// How many holders there may be at a time. 1 is a lock, more is a semaphore.
    #[arg(long = "n", value_name = "number", value_parser = int_value, default_value = "1")]
    limit: i64,
    /// Name of the session, for those who look at it.
    #[arg(long, value_name = "text", default_value = "")]
    name: String,
    /// Pass standard input on to the child.
    #[arg(long)]
    pass_stdin: bool,
    /// Let a shell read the command line; =false starts the program itself.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, value_parser = bool_value, default_value = "true")]
    shell: bool,
    /// How long to wait for the lock, such as 30s. Without it, for ever.
    #[arg(long, value_name = "duration", value_parser = duration_value, default_value = "0s")]
    timeout: String,
    /// Old name of -timeout.
    #[arg(long = "try", value_name = "duration", value_parser = duration_value, default_value = "0s")]
    attempt: String,
    /// Tell each step.
    #[arg(long)]
    verbose: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// The work of a command whose options are right.
struct Work {
    client: Client,
    server: Query,
    claim: Claim,
    options: Options,
    /// How long to wait for the lock.
    patience: Option<Duration>,
    limit: u64,
    unseen_max: u32,
}

impl Run for Options {
    /// Runs a command while a lock is held.
    fn run(mut self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let Some(limit) = u64::try_from(self.limit).ok().filter(|limit| *limit > 0) else {
            return fail("Lock holder limit must be positive");
        };
        if self.args.len() < 2 {
            return fail("Key prefix and child command must be specified");
        }
        let mut patience = None;
        for text in [&self.attempt, &self.timeout] {
            match u64::try_from(proconsul_core::duration::parse(text).unwrap_or_default()) {
                Err(_) => return fail("Timeout must be positive"),
                Ok(0) => {}
                Ok(nanoseconds) => patience = Some(Duration::from_nanos(nanoseconds)),
            }
        }
        let Ok(unseen_max) = u32::try_from(self.monitor_retry) else {
            return fail("Number for 'monitor-retry' must be >= 0");
        };
        let prefix = self.args.remove(0);
        let claim = Claim::new(&prefix, limit);
        if self.name.is_empty() {
            self.name = format!("Consul lock for '{}' at '{prefix}'", self.args.join(" "));
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let server = Query { datacenter: self.server.datacenter.clone().filter(|dc| !dc.is_empty()) };
        let work = Work { client, server, claim, options: self, patience, limit, unseen_max };
        let runtime = client::runtime().or_fail("Error starting")?;
        runtime.block_on(work.run(&prefix, terminal))
    }
}

/// Signals that are meant to end this program, and those for the child.
struct Signals {
    ending: Vec<(Signal, unix::Signal)>,
    other: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    fn catch() -> std::io::Result<Signals> {
        let caught = |(signal, kind): (Signal, SignalKind)| Ok((signal, unix::signal(kind)?));
        let ending = [
            (Signal::INT, SignalKind::interrupt()),
            (Signal::TERM, SignalKind::terminate()),
            (Signal::HUP, SignalKind::hangup()),
            (Signal::QUIT, SignalKind::quit()),
        ];
        let other =
            [(Signal::USR1, SignalKind::user_defined1()), (Signal::USR2, SignalKind::user_defined2())];
        Ok(Signals {
            ending: ending.into_iter().map(caught).collect::<std::io::Result<_>>()?,
            other: other.into_iter().map(caught).collect::<std::io::Result<_>>()?,
        })
    }

    /// The next one, and whether it is meant to end this program.
    async fn next(&mut self) -> (Signal, bool) {
        let all = self.ending.iter_mut().map(|one| (one, true));
        let mut all: Vec<_> = all.chain(self.other.iter_mut().map(|one| (one, false))).collect();
        std::future::poll_fn(|context| {
            for ((signal, source), ends) in &mut all {
                if source.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready((*signal, *ends));
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// The next one that is meant to end this program.
    async fn end(&mut self) {
        while !self.next().await.1 {}
    }
}

impl Work {
    fn tell(&self, terminal: &mut Terminal<'_>, text: &str) {
        if self.options.verbose {
            terminal.say(text);
            // The child writes to the same place, past this program's buffer.
            let _ = terminal.out.flush();
        }
    }

    async fn run(&self, prefix: &str, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let mut signals = Signals::catch().map_err(|error| io_reason(&error)).or_fail("Error starting")?;
        let known = self.client.ask(Method::GET, "/v1/agent/self", &[], "").await;
        known.and_then(crate::client::Response::ok).or_fail("Error querying agent")?;
        self.tell(
            terminal,
            &match &self.claim {
                Claim::Lock { key } => format!("Setting up lock at path: {key}"),
                Claim::Semaphore { .. } => {
                    format!("Setting up semaphore (limit {}) at prefix: {prefix}", self.limit)
                }
            },
        );
        self.tell(terminal, "Attempting lock acquisition");
        let sent = clock::now();
        let wanted = self.claim.session(&self.options.name, TTL);
        let session = Session::create(&self.client, &self.server.writing(), &wanted).await;
        let session = session.or_fail("Lock acquisition failed")?;
        let confirmed = match self.acquire(&session, sent, &mut signals).await {
            Ok(Some(confirmed)) => confirmed,
            other => {
                self.give_up(&session).await;
                return match other {
                    Err(error) => fail(format!("Lock acquisition failed: {error}")),
                    Ok(_) => fail("Shutdown triggered or timeout during lock acquisition"),
                };
            }
        };
        self.tell(terminal, "Starting handler");
        let failed = self.hold(&session, confirmed, &mut signals, terminal).await;
        match self.release(&session).await {
            Ok(true) => self.tell(terminal, "Cleanup succeeded"),
            Ok(false) => self.tell(terminal, "Cleanup aborted, lock in use"),
            Err(error) => {
                // What the child did is done: the lock comes free with its session.
                terminal.complain(format!("Lock cleanup failed: {error}"));
            }
        }
        if failed && self.options.child_exit_code { Err(Failure::silent(CHILD_FAILED)) } else { Ok(()) }
    }

    /// Waits for the lock, and renews the session meanwhile. Gives the time at which the last acknowledged renewal was
    /// sent; nothing if the user or the time limit ended the wait.
    async fn acquire(
        &self,
        session: &Session,
        mut confirmed: Moment,
        signals: &mut Signals,
    ) -> Result<Option<Moment>, ClaimError> {
        let mut acquire = pin!(self.claim.acquire(&self.client, &self.server, session));
        let limit = async {
            match self.patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        let mut limit = pin!(limit);
        loop {
            let renewal = async {
                clock::until(Some(confirmed + TTL / 3)).await;
                let sent = clock::now();
                if sent < confirmed + TTL / 3 {
                    return None;
                }
                let server = self.server.writing();
                let renewed = session.renew(&self.client, &server);
                match tokio::time::timeout(RENEWAL_TIMEOUT, renewed).await {
                    Ok(Ok(true)) => Some(Ok(sent)),
                    Ok(Ok(false)) => Some(Err(ClaimError::SessionGone(session.id.clone()))),
                    // The next attempt follows; a lock that is granted late is not used.
                    Ok(Err(_)) | Err(_) => {
                        tokio::time::sleep(LOOK_RETRY).await;
                        None
                    }
                }
            };
            tokio::select! {
                biased;
                () = signals.end() => return Ok(None),
                done = &mut acquire => {
                    done?;
                    // The time until now was waited: what is left has to be enough to begin with.
                    return self.confirm(session, confirmed).await.map(Some);
                }
                () = &mut limit => return Ok(None),
                renewed = renewal => match renewed {
                    Some(Ok(sent)) => confirmed = sent,
                    Some(Err(gone)) => return Err(gone),
                    None => {}
                },
            }
        }
    }

    /// Renews the session once more, so that the child begins with all of the time that there is.
    async fn confirm(&self, session: &Session, confirmed: Moment) -> Result<Moment, ClaimError> {
        let sent = clock::now();
        if sent < confirmed + TTL / 3 {
            return Ok(confirmed);
        }
        if session.renew(&self.client, &self.server.writing()).await? {
            Ok(sent)
        } else {
            Err(ClaimError::SessionGone(session.id.clone()))
        }
    }

    /// Runs the child until it ends; whether it failed.
    async fn hold(
        &self,
        session: &Session,
        confirmed: Moment,
        signals: &mut Signals,
        terminal: &mut Terminal<'_>,
    ) -> bool {
        child::adopt_orphans();
        let stdin = if self.options.pass_stdin { Stdio::inherit() } else { Stdio::null() };
        let started = child::bound(child::command(&self.options.args, self.options.shell))
            .and_then(|mut command| command.env("CONSUL_LOCK_HELD", "true").stdin(stdin).spawn());
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                let why = child::unstarted(&self.options.args, &error);
                terminal.complain(format!("Error starting handler: {why}"));
                self.tell(terminal, "Child terminated, releasing lock");
                return true;
            }
        };
        let process = child.id().unwrap_or_default();
        let holder = Holder::new(TTL, confirmed, self.unseen_max);
        let (holder, status) = self.accompany(session, holder, &mut child, signals, terminal).await;
        let reason = match &status {
            Ok(status) => child::failure(*status),
            Err(error) => Some(io_reason(error)),
        };
        if holder.reason().is_some() {
            // What it left behind must not go on without the lock.
            child::kill_tree();
        }
        if let Some(reason) = &reason {
            terminal.complain(format!("Error running handler: {reason}"));
        }
        match holder.reason() {
            None => self.tell(terminal, "Child terminated, releasing lock"),
            Some(Reason::Stopped) => self.tell(terminal, "Child terminated"),
            Some(Reason::Lost) => {
                terminal.complain(format!("The lock was lost, so child {process} was ended"));
                self.tell(terminal, "Child terminated");
            }
            Some(Reason::Deadline) => {
                terminal.complain(format!(
                    "No renewal was acknowledged in time, so child {process} was ended before the lock could be lost"
                ));
                self.tell(terminal, "Child terminated");
            }
        }
        reason.is_some()
    }

    /// Carries what the holder decides.
    async fn accompany(
        &self,
        session: &Session,
        mut holder: Holder,
        child: &mut Child,
        signals: &mut Signals,
        terminal: &mut Terminal<'_>,
    ) -> (Holder, std::io::Result<ExitStatus>) {
        let process = child.id().unwrap_or_default();
        let mut renewals: JoinSet<Input> = JoinSet::new();
        let look = self.look(session, 0, Duration::ZERO);
        let mut look = Box::pin(look);
        loop {
            let mut ended = None;
            let input = tokio::select! {
                biased;
                status = child.wait() => {
                    ended = Some(status);
                    Input::Exited
                }
                () = clock::until(holder.next()) => Input::Wake,
                (signal, ends) = signals.next() => {
                    child::send(process, signal);
                    if ends { Input::Stop } else { Input::Wake }
                }
                Some(done) = renewals.join_next() => done.unwrap_or(Input::NotRenewed),
                seen = &mut look => {
                    let (input, next) = match seen {
                        Ok(Some(index)) => (Input::Seen, self.look(session, index, Duration::ZERO)),
                        // Nothing to look at any more; it is not asked often.
                        Ok(None) => (Input::Lost, self.look(session, 0, TTL)),
                        Err(_) => (Input::Unseen, self.look(session, 0, LOOK_RETRY)),
                    };
                    look.set(next);
                    input
                }
            };
            for output in holder.step(clock::now(), input) {
                match output {
                    Output::Renew => {
                        let (client, server) = (self.client.clone(), self.server.clone());
                        let session = session.clone();
                        renewals.spawn(async move { renew(&client, &server, &session).await });
                    }
                    Output::Terminate => {
                        let why = match holder.reason() {
                            Some(Reason::Stopped) => "Shutdown triggered, killing child",
                            Some(Reason::Lost | Reason::Deadline) | None => "Lock lost, killing child",
                        };
                        self.tell(terminal, why);
                        self.tell(terminal, &format!("Terminating child pid {process}"));
                        child::send(process, Signal::TERM);
                    }
                    Output::Kill => {
                        child::send(process, Signal::KILL);
                        child::kill_tree();
                    }
                    Output::Release => {}
                }
            }
            if let Some(status) = ended {
                return (holder, status);
            }
        }
    }

    /// Looks at the lock, after a pause.
    async fn look(&self, session: &Session, index: u64, pause: Duration) -> Result<Option<u64>, ClaimError> {
        tokio::time::sleep(pause).await;
        self.claim.look(&self.client, &self.server, session, index).await
    }

    async fn release(&self, session: &Session) -> Result<bool, String> {
        let release = async {
            let released = self.claim.release(&self.client, &self.server, session).await;
            // Also if the keys could not be given back: without the session they come free by themselves.
            let destroyed = session.destroy(&self.client, &self.server.writing()).await;
            let released = released.map_err(|error| error.to_string())?;
            destroyed.map_err(|error| error.to_string())?;
            Ok(released)
        };
        match tokio::time::timeout(RELEASE_TIMEOUT, release).await {
            Ok(released) => released,
            Err(_) => Err("the agent does not answer".to_owned()),
        }
    }

    /// Takes back what was claimed and not had.
    async fn give_up(&self, session: &Session) {
        let server = self.server.writing();
        let destroyed = session.destroy(&self.client, &server);
        // If that fails, the session ends by itself.
        let _ = tokio::time::timeout(RENEWAL_TIMEOUT, destroyed).await;
    }
}

async fn renew(client: &Client, server: &Query, session: &Session) -> Input {
    let sent = clock::now();
    match tokio::time::timeout(RENEWAL_TIMEOUT, session.renew(client, &server.writing())).await {
        Ok(Ok(true)) => Input::Renewed { sent },
        Ok(Ok(false)) => Input::SessionGone,
        Ok(Err(_)) | Err(_) => Input::NotRenewed,
    }
}
