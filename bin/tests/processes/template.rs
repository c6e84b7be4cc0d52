//! A reverse proxy that follows the catalog: a template is rendered by blocking queries, and nginx reloaded. The tour is
//! `docs/consul-template.md`.
//!
//! Where nginx is not installed, nothing is tested, and the tests say so. consul-template is looked for in `PATH`, or at
//! `PROCONSUL_TEST_CONSUL_TEMPLATE`; a poller that does the same takes its part in a test of its own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Agent, Http, wait_for};

/// Names the program consul-template.
const TEMPLATE_BINARY: &str = "PROCONSUL_TEST_CONSUL_TEMPLATE";

/// The template of the tour.
const TEMPLATE: &str = "upstream web {\n{{ range service \"web\" }}  server {{ .Address }}:{{ .Port }};\n\
                        {{ else }}  server 127.0.0.1:1;\n{{ end }}}\n";

struct Running(Child, rustix::process::Signal);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, self.1);
        }
        let _ = self.0.wait();
    }
}

fn found(name: &str) -> Option<PathBuf> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&places).chain(sbin).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// A server that answers every request with its name; gives its port.
fn backend(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        }
    });
    port
}

/// What nginx answers.
fn answer(port: u16) -> Result<String, String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = exchange().map_err(|error| error.to_string())?;
    if !text.contains(" 200 ") {
        return Err(text);
    }
    Ok(text.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned())
}

/// Waits until nginx answers with these names, and no other.
fn served_by(port: u16, names: &[&str]) {
    wait_for(&format!("{names:?} serve"), || {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..8 {
            seen.insert(answer(port)?);
        }
        if seen.iter().eq(names) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

fn register(agent: &Agent, id: &str, port: u16) {
    let body = format!(
        r#"{{"Name": "web", "ID": "{id}", "Address": "127.0.0.1", "Port": {port}, "Check": {{"TTL": "1h", "Status": "passing"}}}}"#
    );
    agent.http().put("/v1/agent/service/register", &body);
}

/// nginx in a directory, and the command that reloads it.
struct Nginx {
    program: PathBuf,
    port: u16,
    dir: PathBuf,
}

impl Nginx {
    fn prepare(dir: &Path) -> Option<Nginx> {
        let program = found("nginx")?;
        let port = proconsul_jepsen::process::ports::free_port().expect("a free port");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {name}; "))
            .collect();
        let text = format!(
            "pid nginx.pid; error_log nginx.log; events {{}} http {{ access_log off; {temporary} include upstream.conf;\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://web; proxy_next_upstream off; }} }} }}\n"
        );
        std::fs::write(dir.join("nginx.conf"), text).expect("writable");
        Some(Nginx { program, port, dir: dir.to_owned() })
    }

    /// A line that reloads it if it runs.
    fn reload(&self) -> String {
        let (dir, program) = (self.dir.display(), self.program.display());
        format!("sh -c 'test ! -s {dir}/nginx.pid || {program} -p {dir} -c nginx.conf -s reload'")
    }

    fn start(&self) -> Running {
        wait_for("the template is rendered", || {
            std::fs::read_to_string(self.dir.join("upstream.conf")).map_err(|error| error.to_string())
        });
        let mut command = Command::new(&self.program);
        command.arg("-p").arg(&self.dir).args(["-c", "nginx.conf", "-g", "daemon off;"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Its workers end with it, which a kill would leave behind.
        Running(command.spawn().expect("it runs"), rustix::process::Signal::TERM)
    }
}

/// Instances come and go, and nginx follows.
fn tour(agent: &Agent, nginx: &Nginx) {
    let (first, second) = (backend("first"), backend("second"));
    register(agent, "web-1", first);
    let _nginx = nginx.start();
    served_by(nginx.port, &["first"]);
    register(agent, "web-2", second);
    served_by(nginx.port, &["first", "second"]);
    // Its check fails.
    agent.http().put("/v1/agent/check/fail/service:web-1", "");
    served_by(nginx.port, &["second"]);
    agent.http().put("/v1/agent/check/pass/service:web-1", "");
    served_by(nginx.port, &["first", "second"]);
    agent.http().ok("PUT", "/v1/agent/service/deregister/web-2", "");
    served_by(nginx.port, &["first"]);
}

#[test]
fn consul_template_keeps_nginx_up_to_date() {
    let agent = Agent::dev();
    let Some(nginx) = Nginx::prepare(agent.dir()) else {
        println!("nothing tested: nginx is not installed");
        return;
    };
    let Some(program) =
        std::env::var_os(TEMPLATE_BINARY).map(PathBuf::from).or_else(|| found("consul-template"))
    else {
        println!("nothing tested: consul-template is not installed");
        return;
    };
    std::fs::write(agent.dir().join("upstream.tpl"), TEMPLATE).expect("writable");
    let template = format!("upstream.tpl:upstream.conf:{}", nginx.reload());
    let mut command = Command::new(program);
    command.arg("-consul-addr").arg(agent.address().to_string()).arg("-template").arg(template);
    command.current_dir(agent.dir()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _template = Running(command.spawn().expect("it runs"), rustix::process::Signal::KILL);
    tour(&agent, &nginx);
}

/// What consul-template does for this template: blocking queries, a rendering, and a reload when it differs.
fn poll(mut http: Http, file: &Path, reload: &str, stop: &AtomicBool) {
    let (mut index, mut rendered) = (0, String::new());
    while !stop.load(Ordering::Relaxed) {
        let path = format!("/v1/health/service/web?passing&wait=1s&index={index}");
        let Ok(answer) = http.request("GET", &path, "") else { continue };
        let next = answer.index.unwrap_or_default();
        index = if next < index { 0 } else { next };
        let instances: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let lines: String = instances
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| {
                format!(
                    "  server {}:{};\n",
                    one["Service"]["Address"].as_str().unwrap_or_default(),
                    one["Service"]["Port"]
                )
            })
            .collect();
        let lines = if lines.is_empty() { "  server 127.0.0.1:1;\n".to_owned() } else { lines };
        let text = format!("upstream web {{\n{lines}}}\n");
        if text != rendered {
            // As a whole or not at all.
            let new = file.with_extension("new");
            let written = std::fs::write(&new, &text).and_then(|()| std::fs::rename(&new, file));
            written.expect("writable");
            let reloaded = Command::new("sh").args(["-c", reload]).status().expect("a shell");
            assert!(reloaded.success(), "nginx does not take {text}");
            rendered = text;
        }
    }
}

#[test]
fn a_poller_keeps_nginx_up_to_date() {
    let agent = Agent::dev();
    let Some(nginx) = Nginx::prepare(agent.dir()) else {
        println!("nothing tested: nginx is not installed");
        return;
    };
    let stop = Arc::new(AtomicBool::new(false));
    let poller = {
        let (address, file) = (agent.address(), agent.dir().join("upstream.conf"));
        let (reload, stop) = (nginx.reload(), Arc::clone(&stop));
        std::thread::spawn(move || poll(Http::new(address), &file, &reload, &stop))
    };
    tour(&agent, &nginx);
    stop.store(true, Ordering::Relaxed);
    poller.join().expect("the poller does not fail");
}
