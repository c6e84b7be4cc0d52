//! What a case is played in: a directory, ports, agents, and programs in the background.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proconsul_jepsen::process::ports::free_port;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Map, Value, json};

/// The program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_proconsul");
/// Ports of an agent; the last two are free.
pub const PORTS: [&str; 8] = ["http", "dns", "grpc", "server", "serf_lan", "serf_wan", "x", "y"];
/// The longest wait for an agent.
const PATIENCE: Duration = Duration::from_secs(30);

/// The world of one case; processes end with it.
pub struct World {
    dir: tempfile::TempDir,
    pub variables: BTreeMap<String, String>,
    pub specs: Map<String, Value>,
    first: Option<String>,
    pub agents: BTreeMap<String, Child>,
    pub background: BTreeMap<String, Child>,
}

impl World {
    pub fn new(case: &Value) -> Result<World, String> {
        let dir = tempfile::Builder::new().prefix("cli-").tempdir().map_err(|error| error.to_string())?;
        let specs = match case.get("agents") {
            Some(Value::Object(specs)) => specs.clone(),
            _ => Map::from_iter([("a".to_owned(), json!({}))]),
        };
        let mut variables = BTreeMap::from([
            ("dir".to_owned(), dir.path().display().to_string()),
            ("binary".to_owned(), BINARY.to_owned()),
        ]);
        let reserved = case["reserve"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for name in specs.keys().map(String::as_str).chain(reserved) {
            for port in PORTS {
                let number = free_port().map_err(|error| error.to_string())?;
                variables.insert(format!("{name}.{port}"), number.to_string());
            }
        }
        let mut world = World {
            dir,
            variables,
            specs,
            first: None,
            agents: BTreeMap::new(),
            background: BTreeMap::new(),
        };
        for (name, content) in case["files"].as_object().into_iter().flatten() {
            world.write(name, content)?;
        }
        let now: Vec<String> = world
            .specs
            .iter()
            .filter(|(_, spec)| spec["later"] != true)
            .map(|(name, _)| name.clone())
            .collect();
        for name in now {
            world.start_agent(&name)?;
        }
        Ok(world)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file; what is no text is written as JSON, in which ports are numbers.
    pub fn write(&mut self, name: &str, content: &Value) -> Result<(), String> {
        let text = match content {
            Value::String(text) => self.filled(text)?,
            other => numbers(self.filled_in(other)?).to_string(),
        };
        let path = self.path(name);
        let made = fs::create_dir_all(path.parent().expect("it is in the directory"));
        made.and_then(|()| fs::write(&path, text)).map_err(|error| format!("{name}: {error}"))
    }

    /// A text with the values of its variables.
    pub fn filled(&self, text: &str) -> Result<String, String> {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find("${") {
            let end = rest[at..].find('}').ok_or_else(|| format!("{text}: no end"))? + at;
            let name = &rest[at + 2..end];
            out.push_str(&rest[..at]);
            // What is no variable of ours belongs to a shell.
            match self.variables.get(name) {
                Some(value) => out.push_str(value),
                None => return Err(format!("there is no {name}")),
            }
            rest = &rest[end + 1..];
        }
        Ok(out + rest)
    }

    pub fn filled_in(&self, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => self.filled(text)?.into(),
            Value::Array(list) => list.iter().map(|one| self.filled_in(one)).collect::<Result<_, _>>()?,
            Value::Object(map) => {
                let filled = map.iter().map(|(key, one)| Ok((key.clone(), self.filled_in(one)?)));
                Value::Object(filled.collect::<Result<_, String>>()?)
            }
            other => other.clone(),
        })
    }

    /// A command with the environment that all have.
    pub fn command(&self, program: &str, step: &Value) -> Result<Command, String> {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CONSUL_")) {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path()).env("HOME", self.dir.path()).env("TZ", "UTC").env("LC_ALL", "C");
        if let Some(first) = &self.first {
            for (variable, port) in [("CONSUL_HTTP_ADDR", "http"), ("CONSUL_GRPC_ADDR", "grpc")] {
                command.env(variable, format!("127.0.0.1:{}", self.variables[&format!("{first}.{port}")]));
            }
        }
        for (name, value) in step["env"].as_object().into_iter().flatten() {
            match value {
                Value::String(value) => command.env(name, self.filled(value)?),
                _ => command.env_remove(name),
            };
        }
        Ok(command)
    }

    pub fn start_agent(&mut self, name: &str) -> Result<(), String> {
        let spec = self.filled_in(&self.specs.get(name).cloned().unwrap_or_default())?;
        let ports: Map<String, Value> = PORTS[..6]
            .iter()
            .map(|port| ((*port).to_owned(), port_number(&self.variables[&format!("{name}.{port}")])))
            .collect();
        let mut config = json!({"node_name": format!("node-{name}"), "bind_addr": "127.0.0.1", "log_level": "warn",
            "disable_update_check": true, "ports": ports});
        let dev = spec["dev"] != false;
        if !dev {
            config["data_dir"] = self.path(&format!("data-{name}")).display().to_string().into();
        }
        for (key, value) in spec["config"].as_object().into_iter().flatten() {
            if let (true, Some(ports)) = (key == "ports", value.as_object()) {
                for (port, number) in ports {
                    config["ports"][port] = number.as_str().map_or_else(|| number.clone(), port_number);
                }
            } else {
                config[key] = value.clone();
            }
        }
        let file = self.path(&format!("agent-{name}.json"));
        fs::write(&file, config.to_string()).map_err(|error| error.to_string())?;
        let log = self.path(&format!("agent-{name}.log"));
        let out = File::create(&log).map_err(|error| error.to_string())?;
        let err = out.try_clone().map_err(|error| error.to_string())?;
        self.first.get_or_insert_with(|| name.to_owned());
        let mut command = self.command(BINARY, &Value::Null)?;
        command.arg("agent").args(dev.then_some("-dev")).arg("-config-file").arg(file);
        command.args(spec["args"].as_array().into_iter().flatten().filter_map(Value::as_str));
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().map_err(|error| error.to_string())?;
        self.agents.insert(name.to_owned(), child);
        let leads = json!(if dev { "leader" } else { "http" });
        let path = match spec.get("wait").unwrap_or(&leads).as_str() {
            Some("none") => return Ok(()),
            Some("http") => "/v1/agent/self",
            _ => "/v1/catalog/nodes",
        };
        let began = Instant::now();
        let token = spec["token"].as_str();
        loop {
            let ended = self.agents.get_mut(name).expect("started just now").try_wait();
            if !matches!(ended, Ok(None)) {
                return Err(format!("agent {name} ended: {}", fs::read_to_string(&log).unwrap_or_default()));
            }
            let (status, body) = self.http(name, "GET", path, "", token).unwrap_or_default();
            let complete = path != "/v1/catalog/nodes" || body.contains("\"lan\"");
            if status == 403 || status == 200 && body.len() > 4 && complete {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("agent {name} is not ready: {status} {body}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Status and body of an agent's answer.
    pub fn http(
        &self,
        agent: &str,
        method: &str,
        path: &str,
        body: &str,
        token: Option<&str>,
    ) -> Result<(u16, String), String> {
        let port = self.variables.get(&format!("{agent}.http")).ok_or("no such agent")?;
        let exchange = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(15)))?;
            let token = token.map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
            let length = body.len();
            write!(
                stream,
                "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{token}Content-Length: {length}\r\n\r\n{body}"
            )?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        };
        let answer = exchange().map_err(|error| error.to_string())?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
        Ok((status, body.to_owned()))
    }
}

fn port_number(text: impl AsRef<str>) -> Value {
    text.as_ref().parse::<i64>().map_or_else(|_| text.as_ref().into(), Value::from)
}

/// Ports inside JSON files are numbers.
fn numbers(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| {
                let value = match &value {
                    Value::String(text) if PORTS.contains(&&*key) => port_number(text),
                    _ => numbers(value),
                };
                (key, value)
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.into_iter().map(numbers).collect(),
        other => other,
    }
}

/// Sends a signal to a child that was not waited for.
pub fn send(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Makes a command the leader of a group, which [`World`] ends with all that it has started.
pub fn grouped(command: &mut Command) {
    command.process_group(0);
}

impl Drop for World {
    fn drop(&mut self) {
        for child in self.background.values_mut() {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let _ = child.wait();
        }
        for child in self.agents.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
