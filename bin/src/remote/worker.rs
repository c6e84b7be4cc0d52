//! An agent's part: runs a job and writes what comes of it.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hyper::Method;
use proconsul_io_real::words::io_reason;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::Instant;

use super::{CHUNK, CHUNKS_MAX, FLUSH, Job, Place};
use crate::child;
use crate::client::{Client, escape};

/// Exit status of what could not be started.
const NOT_STARTED: i32 = 255;
/// Signs of life come at least this often.
const LIFE_MAX: Duration = Duration::from_secs(60);

/// Runs the job that was told of.
///
/// # Errors
/// In words: there is none, or it cannot be answered. Nothing runs then.
pub async fn work(client: &Client, node: &str, place: &Place) -> Result<(), String> {
    let job = job(client, place).await?;
    let answers = Answers { client, place, prefix: place.of(node) };
    answers.write("ack", Vec::new()).await?;
    let mut script = None;
    let mut command = if !job.script.is_empty() {
        let text = crate::base64::decode(&job.script).ok_or("the script cannot be read")?;
        let file = Script::write(place, &text).map_err(|error| io_reason(&error))?;
        let command = child::command(&[file.0.display().to_string()], true);
        script = Some(file);
        command
    } else if job.args.is_empty() {
        child::command(std::slice::from_ref(&job.command), true)
    } else {
        child::command(&job.args, false)
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // What it starts is ended with it.
    command.process_group(0);
    let status = match run(command, &job, &answers).await? {
        Ok(status) => status.code().unwrap_or(-1),
        Err(error) => {
            tracing::warn!("cannot run what was asked for by exec: {}", io_reason(&error));
            NOT_STARTED
        }
    };
    drop(script);
    answers.write("exit", status.to_string().into_bytes()).await
}

async fn job(client: &Client, place: &Place) -> Result<Job, String> {
    let path = format!("/v1/kv/{}", escape(&place.job()));
    let answer = client.ask(Method::GET, &path, &[], "").await.map_err(|error| error.to_string())?;
    let entry: Value = answer.json().map_err(|error| error.to_string())?;
    let entry = &entry[0];
    // It is gone, or was left behind, when nobody waits for it any more.
    if entry["Session"].as_str() != Some(&place.session) {
        return Err("nobody waits for the job any more".to_owned());
    }
    let text = crate::base64::decode(entry["Value"].as_str().unwrap_or_default()).unwrap_or_default();
    serde_json::from_slice(&text).map_err(|error| format!("the job cannot be read: {error}"))
}

/// Where answers are written.
struct Answers<'a> {
    client: &'a Client,
    place: &'a Place,
    prefix: String,
}

impl Answers<'_> {
    /// Writes a key for as long as the session of who asks lives.
    async fn write(&self, name: &str, value: Vec<u8>) -> Result<(), String> {
        let path = format!("/v1/kv/{}", escape(&format!("{}{name}", self.prefix)));
        let query = [("acquire", self.place.session.clone())];
        let answer = self.client.ask(Method::PUT, &path, &query, value).await;
        match answer.and_then(crate::client::Response::json) {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(_) => Err("nobody waits for the answer any more".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Runs a program and writes what it says. The outer error means that nobody waits for it any more.
async fn run(
    mut command: Command,
    job: &Job,
    answers: &Answers<'_>,
) -> Result<io::Result<ExitStatus>, String> {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    let group = child.id();
    let told = tell(&mut child, job, answers).await;
    if told.is_err()
        && let Some(group) = group.and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?))
    {
        // It is ours and was not waited for.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let status = child.wait().await;
    told.map(|()| status)
}

/// Output of a program, from both of its ends.
struct Output {
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    part: Vec<u8>,
}

async fn some(from: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match from {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

impl Output {
    /// Takes what comes next; false when the program has closed both ends.
    async fn more(&mut self) -> bool {
        if self.out.is_none() && self.err.is_none() {
            return false;
        }
        let (mut out, mut err) = ([0; CHUNK], [0; CHUNK]);
        tokio::select! {
            length = some(&mut self.out, &mut out) => {
                self.part.extend(&out[..length]);
                if length == 0 { self.out = None; }
            }
            length = some(&mut self.err, &mut err) => {
                self.part.extend(&err[..length]);
                if length == 0 { self.err = None; }
            }
        }
        true
    }
}

async fn tell(child: &mut Child, job: &Job, answers: &Answers<'_>) -> Result<(), String> {
    let mut output = Output { out: child.stdout.take(), err: child.stderr.take(), part: Vec::new() };
    let life = Duration::from_nanos(job.wait / 2).clamp(FLUSH, LIFE_MAX);
    let (mut number, mut written) = (0, Instant::now());
    let (mut open, mut ended) = (true, false);
    while open {
        let waiting = if output.part.is_empty() { life } else { FLUSH };
        let due = written + waiting;
        tokio::select! {
            biased;
            more = output.more() => open = more,
            () = tokio::time::sleep_until(due) => {}
            // What it left running in the background may keep the ends open for ever.
            _ = child.wait(), if !ended => ended = true,
        }
        if ended && output.part.is_empty() {
            // What is in the pipes already still counts.
            match tokio::time::timeout(Duration::from_millis(50), output.more()).await {
                Ok(more) => open = more,
                Err(_) => open = false,
            }
        }
        let is_due = Instant::now() >= due;
        while output.part.len() >= CHUNK || (!output.part.is_empty() && (is_due || !open)) {
            let length = output.part.len().min(CHUNK);
            let part: Vec<u8> = output.part.drain(..length).collect();
            put(answers, &mut number, part).await?;
            written = Instant::now();
        }
        if is_due && output.part.is_empty() && written < due && open {
            put(answers, &mut number, Vec::new()).await?;
            written = Instant::now();
        }
    }
    Ok(())
}

/// Writes a part of the output. When there was too much of it, only that is told, and signs of life go on.
async fn put(answers: &Answers<'_>, number: &mut usize, part: Vec<u8>) -> Result<(), String> {
    let at = *number;
    if at > CHUNKS_MAX && !part.is_empty() {
        return Ok(());
    }
    *number += 1;
    let part =
        if at == CHUNKS_MAX && !part.is_empty() { b"(further output was left out)\n".to_vec() } else { part };
    answers.write(&format!("out/{at:05x}"), part).await
}

/// A script in a file that only this user can read; removed with the value.
struct Script(PathBuf);

impl Script {
    fn write(place: &Place, text: &[u8]) -> io::Result<Script> {
        let path = std::env::temp_dir().join(format!("proconsul-exec-{}", place.session));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
        let script = Script(path);
        io::Write::write_all(&mut file, text)?;
        Ok(script)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // One that stays behind does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}
