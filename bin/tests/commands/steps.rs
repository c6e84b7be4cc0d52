//! Plays the steps of a case.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::Outcome;
use super::views::{Masks, masks, matches, normal, same, view};
use super::world::{BINARY, World, grouped, send};

const PAUSE: Duration = Duration::from_millis(20);

/// Plays a case.
pub fn play(case: &Value) -> Outcome {
    let mut world = World::new(case)?;
    let mut outcome = Vec::new();
    for (number, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
        // Of versions after the one that was recorded.
        if step.get("since").is_some() || is_unseen(step) {
            continue;
        }
        let got = masks(&world, case, step).and_then(|masks| perform(&mut world, step, &masks));
        let problem = match (got, step.get("expect")) {
            (Err(why), _) => Some(why),
            (Ok(_), None) => None,
            (Ok(got), Some(expected)) => compare(step, expected, &got),
        };
        if problem.is_some() || step.get("expect").is_some() {
            outcome.push((number, described(step), problem));
        }
    }
    Ok(outcome)
}

/// What certificates say is looked at by tests of their own.
fn is_unseen(step: &Value) -> bool {
    matches!(step["inspect"].as_str(), Some("x509" | "verify"))
}

fn described(step: &Value) -> String {
    let kinds = ["run", "start", "wait", "signal", "http", "inspect", "agent_exit", "write", "until_file"];
    let kind = kinds.into_iter().find(|kind| step.get(kind).is_some()).unwrap_or("step");
    format!("{kind} {}", step[kind])
}

fn compare(step: &Value, expected: &Value, got: &Value) -> Option<String> {
    let problems: Vec<String> = expected
        .as_object()?
        .iter()
        .filter_map(|(name, wanted)| {
            let how = match name.as_str() {
                "stdout" => step["as"].as_str(),
                "stderr" => step["err_as"].as_str(),
                _ => step["inspect"].as_str(),
            };
            match same(wanted, &got[name], how.unwrap_or_default()) {
                Ok(true) => None,
                Ok(false) => Some(format!("{name}: expected {wanted}\n    got {}", got[name])),
                Err(why) => Some(why),
            }
        })
        .collect();
    if problems.is_empty() { None } else { Some(problems.join("\n    ")) }
}

fn text(step: &Value, name: &str) -> String {
    step[name].as_str().unwrap_or_default().to_owned()
}

fn seconds(value: &Value, default: f64) -> Duration {
    Duration::from_secs_f64(value.as_f64().unwrap_or(default))
}

/// Waits for something.
fn until<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return Ok(found);
        }
        if began.elapsed() > limit {
            return Err(format!("{what}: not within {limit:?}"));
        }
        std::thread::sleep(PAUSE);
    }
}

fn perform(world: &mut World, step: &Value, masks: &Masks) -> Result<Value, String> {
    if step.get("start").is_some() {
        return start(world, step);
    }
    if step.get("run").is_some() {
        return run(world, step, masks);
    }
    if step.get("wait").is_some() || step.get("signal").is_some() {
        return end(world, step, masks);
    }
    if step.get("http").is_some() {
        return ask(world, step, masks);
    }
    if let Some(file) = step["until_file"].as_str() {
        let (path, pattern) = (world.path(file), world.filled(&text(step, "matches"))?);
        until(seconds(&step["within"], 15.0), file, || {
            matches(&pattern, &fs::read_to_string(&path).ok()?).ok()?.then_some(())
        })?;
        return Ok(Value::Null);
    }
    if let Some(file) = step["write"].as_str() {
        world.write(file, &step["text"])?;
        return Ok(Value::Null);
    }
    if let Some(name) = step["agent_exit"].as_str() {
        let agent = world.agents.get_mut(name).ok_or("no such agent")?;
        let status = until(seconds(&step["timeout"], 30.0), "the agent ends", || agent.try_wait().ok()?)?;
        return Ok(json!({"exit": exit(status)}));
    }
    if let Some(name) = step["start_agent"].as_str() {
        world.start_agent(name)?;
        return Ok(Value::Null);
    }
    if step.get("inspect").is_some() {
        return Ok(json!({"value": inspect(world, step, masks)?}));
    }
    if let Some(name) = step["kill_agent"].as_str() {
        let agent = world.agents.get_mut(name).ok_or("no such agent")?;
        let killed = agent.kill().and_then(|()| agent.wait());
        return killed.map(|_| Value::Null).map_err(|error| error.to_string());
    }
    if let (Some(name), Some(signal)) = (step["signal_agent"][0].as_str(), step["signal_agent"][1].as_str()) {
        send(world.agents.get(name).ok_or("no such agent")?, named(signal)?);
        return Ok(Value::Null);
    }
    if step.get("sleep").is_some() {
        std::thread::sleep(seconds(&step["sleep"], 0.0));
        return Ok(Value::Null);
    }
    Err(format!("unknown step {step}"))
}

fn named(signal: &str) -> Result<Signal, String> {
    match signal {
        "TERM" => Ok(Signal::TERM),
        "INT" => Ok(Signal::INT),
        "HUP" => Ok(Signal::HUP),
        "KILL" => Ok(Signal::KILL),
        other => Err(format!("unknown signal {other}")),
    }
}

fn exit(status: ExitStatus) -> Value {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    json!(status.code().unwrap_or_else(|| -signal.unwrap_or_default()))
}

/// The program with a step's arguments, or a line for a shell.
fn command(world: &World, step: &Value) -> Result<Command, String> {
    if let Some(line) = step["run"].as_str() {
        let mut command = world.command("sh", step)?;
        command.arg("-c").arg(world.filled(line)?);
        return Ok(command);
    }
    let mut command = world.command(BINARY, step)?;
    for argument in step["run"].as_array().into_iter().flatten() {
        let argument = argument.as_str().map_or_else(|| argument.to_string(), str::to_owned);
        command.arg(world.filled(&argument)?);
    }
    Ok(command)
}

fn start(world: &mut World, step: &Value) -> Result<Value, String> {
    let name = text(step, "start");
    let file = |end: &str| {
        File::create(world.path(&format!("agent-proc-{name}.{end}"))).map_err(|error| error.to_string())
    };
    let mut command = command(world, step)?;
    command.stdout(file("out")?).stderr(file("err")?);
    grouped(&mut command);
    let child = spawned(world, step, &mut command)?;
    world.background.insert(name, child);
    Ok(Value::Null)
}

/// Starts a command, and gives it the step's input.
fn spawned(world: &World, step: &Value, command: &mut Command) -> Result<Child, String> {
    let input = step["stdin"].as_str().map(|input| world.filled(input)).transpose()?;
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A program that does not read it is none the worse.
        let _ = pipe.write_all(input.as_bytes());
    }
    Ok(child)
}

fn run(world: &mut World, step: &Value, masks: &Masks) -> Result<Value, String> {
    let wanted = step["until"].as_str().map(|pattern| world.filled(pattern)).transpose()?;
    let (limit, began) = (seconds(&step["within"], 15.0), Instant::now());
    loop {
        let mut command = command(world, step)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawned(world, step, &mut command)?;
        let reader = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    let _ = pipe.read_to_end(&mut bytes);
                }
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let out = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let err = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
        let ended = until(seconds(&step["timeout"], 40.0), "the command ends", || child.try_wait().ok()?);
        let status = ended.inspect_err(|_| {
            let _ = child.kill().and_then(|()| child.wait());
        })?;
        let out = out.join().map_err(|_| "the reader of the output panicked")?;
        let err = err.join().map_err(|_| "the reader of the errors panicked")?;
        let is_there = match &wanted {
            Some(pattern) => matches(pattern, &format!("{out}{err}"))?,
            None => true,
        };
        if is_there || began.elapsed() > limit {
            capture(world, step, &format!("{out}{err}"))?;
            return observed(world, step, status, &out, &err, masks);
        }
        std::thread::sleep(PAUSE * 5);
    }
}

fn end(world: &mut World, step: &Value, masks: &Masks) -> Result<Value, String> {
    let name = step["wait"].as_str().or_else(|| step["signal"][0].as_str()).unwrap_or_default().to_owned();
    let child = world.background.get_mut(&name).ok_or("no such program")?;
    if let Some(signal) = step["signal"][1].as_str() {
        send(child, named(signal)?);
    }
    let status = until(seconds(&step["timeout"], 30.0), "the program ends", || child.try_wait().ok()?)?;
    let read = |end: &str| {
        fs::read_to_string(world.path(&format!("agent-proc-{name}.{end}"))).map_err(|error| error.to_string())
    };
    let (out, err) = (read("out")?, read("err")?);
    capture(world, step, &format!("{out}{err}"))?;
    observed(world, step, status, &out, &err, masks)
}

fn ask(world: &mut World, step: &Value, masks: &Masks) -> Result<Value, String> {
    let first = world.specs.keys().next().cloned().unwrap_or_default();
    let agent = step["agent"].as_str().unwrap_or(&first).to_owned();
    let method = step["http"][0].as_str().unwrap_or("GET").to_owned();
    let path = world.filled(step["http"][1].as_str().unwrap_or_default())?;
    let body = match &step["http"][2] {
        Value::Null => String::new(),
        Value::String(text) => world.filled(text)?,
        other => world.filled_in(other)?.to_string(),
    };
    let token = step["token"].as_str().map(|token| world.filled(token)).transpose()?;
    let pattern = step["until"].as_str().map(|pattern| world.filled(pattern)).transpose()?;
    let (status, answer) = until(seconds(&step["within"], 15.0), &path, || {
        let (status, answer) = world.http(&agent, &method, &path, &body, token.as_deref()).ok()?;
        match &pattern {
            Some(pattern) if !matches(pattern, &answer).ok()? => None,
            _ => Some((status, answer)),
        }
    })?;
    capture(world, step, &answer)?;
    if let Some(how) = step["as"].as_str() {
        let shown = view(world, &answer, how, masks, step["sort"] == true)?;
        return Ok(json!({"status": status, "stdout": shown}));
    }
    if status == 200 { Ok(Value::Null) } else { Err(format!("{method} {path}: {status} {answer}")) }
}

fn capture(world: &mut World, step: &Value, text: &str) -> Result<(), String> {
    for (name, pattern) in step["capture"].as_object().into_iter().flatten() {
        let pattern = pattern.as_str().unwrap_or_default();
        let expression =
            regex_lite::Regex::new(&format!("(?m){pattern}")).map_err(|error| error.to_string())?;
        let found = expression.captures(text).ok_or_else(|| format!("{pattern} is not in {text}"))?;
        let last = found.iter().flatten().last().map_or("", |found| found.as_str());
        world.variables.insert(name.clone(), last.to_owned());
    }
    Ok(())
}

fn observed(
    world: &World,
    step: &Value,
    status: ExitStatus,
    out: &str,
    err: &str,
    masks: &Masks,
) -> Result<Value, String> {
    let mut got = json!({"exit": exit(status)});
    let how = step["as"].as_str().unwrap_or("text");
    if how != "none" {
        got["stdout"] = view(world, out, how, masks, step["sort"] == true)
            .map_err(|why| format!("{why}\n    status {status}, errors {err}"))?;
    }
    let how = step["err_as"].as_str().unwrap_or("head");
    if how != "none" {
        got["stderr"] = view(world, err, how, masks, false)?;
    }
    Ok(got)
}

fn inspect(world: &World, step: &Value, masks: &Masks) -> Result<Value, String> {
    let name = world.filled(step["path"].as_str().unwrap_or("."))?;
    let path = world.path(&name);
    let kind = step["inspect"].as_str().unwrap_or_default();
    Ok(match kind {
        "exists" => path.exists().into(),
        "files" => {
            let files = fs::read_dir(&path).map_err(|error| error.to_string())?.flatten();
            let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
            let mut names: Vec<String> = names
                .filter(|name| !name.starts_with("agent-"))
                .map(|name| normal(world, &name, masks))
                .collect();
            names.sort();
            json!(names)
        }
        "mode" => {
            let about = fs::metadata(&path).map_err(|error| error.to_string())?;
            format!("{:04o}", about.permissions().mode() & 0o7777).into()
        }
        "tar" => {
            let output =
                Command::new("tar").arg("-tf").arg(&path).output().map_err(|error| error.to_string())?;
            let names = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut names: Vec<String> =
                names.lines().map(|name| normal(world, name.trim_end_matches('/'), masks)).collect();
            names.sort();
            names.dedup();
            json!(names)
        }
        "key" => {
            let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            text.lines().next().unwrap_or_default().into()
        }
        other => {
            let text = fs::read(&path).map_err(|error| error.to_string())?;
            view(world, &String::from_utf8_lossy(&text), other, masks, false)?
        }
    })
}
