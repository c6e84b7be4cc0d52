//! Resolvers that people put in front of an agent, configured as the documentation says (`docs/dns.md`).
//!
//! Where a program is not installed, its tour is left out, and that is said.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use proconsul_jepsen::process::ports::free_port;
use serde_json::json;

use crate::support::{Agent, dns, wait_for};

/// Where Debian keeps servers, which is not in everybody's path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A resolver; ended when it goes out of scope.
struct Resolver {
    child: Child,
    address: SocketAddr,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // If it ended by itself there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Resolver {
    /// Starts a program that listens on `port`; `None` if it is not installed.
    fn start(program: &str, port: u16, arguments: &[String], dir: &Path) -> Option<Resolver> {
        let child = Command::new(program)
            .args(arguments)
            .env("PATH", PATH)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Resolver { child, address: (Ipv4Addr::LOCALHOST, port).into() }),
            Err(error) => {
                eprintln!("left out: the tour needs {program} (Debian: apt-get install {program}): {error}");
                None
            }
        }
    }
}

fn agent() -> Agent {
    let agent = Agent::dev();
    for (id, port) in [("web-1", 8001), ("web-2", 8002)] {
        let service = json!({"Name": "web", "ID": id, "Port": port, "Tags": ["v1"], "Address": "10.1.2.3"});
        agent.http().put("/v1/agent/service/register", &service.to_string());
    }
    wait_for("the agent answers", || two_instances(agent.dns()));
    agent
}

fn two_instances(server: SocketAddr) -> Result<(), String> {
    let mut found = dns::services(server, "web.service.consul")?;
    found.ports.sort_unstable();
    if found.ports == [8001, 8002] { Ok(()) } else { Err(format!("{found:?}")) }
}

/// What every resolver passes on.
fn tour(server: SocketAddr, agent: &Agent) {
    wait_for("both instances are found", || two_instances(server));
    let code = |name: &str| dns::services(server, name).map(|found| (found.code, found.ports));
    assert_eq!(code("none.service.consul"), Ok((3, Vec::new())), "what is not there");
    assert_eq!(code("v1.web.service.consul").map(|found| found.1.len()), Ok(2), "a tag");
    agent.http().put("/v1/agent/service/deregister/web-1", "");
    // Answers have no time to live unless one is configured: nobody keeps them.
    wait_for("a change is seen", || {
        let found = dns::services(server, "web.service.consul")?;
        if found.ports == [8002] { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

#[test]
fn dnsmasq_passes_the_domain_on() {
    let agent = agent();
    let dir = tempfile::tempdir().expect("a directory");
    let port = free_port().expect("a free port");
    let arguments = [
        "--keep-in-foreground".to_owned(),
        "--conf-file=/dev/null".to_owned(),
        "--no-resolv".to_owned(),
        "--no-hosts".to_owned(),
        "--pid-file=".to_owned(),
        "--user=".to_owned(),
        "--listen-address=127.0.0.1".to_owned(),
        "--bind-interfaces".to_owned(),
        format!("--port={port}"),
        format!("--server=/consul/127.0.0.1#{}", agent.ports().dns),
    ];
    if let Some(resolver) = Resolver::start("dnsmasq", port, &arguments, dir.path()) {
        tour(resolver.address, &agent);
    }
}

#[test]
fn unbound_passes_the_domain_on() {
    let agent = agent();
    let dir = tempfile::tempdir().expect("a directory");
    let port = free_port().expect("a free port");
    let file = dir.path().join("unbound.conf");
    let text = format!(
        "server:\n  interface: 127.0.0.1\n  port: {port}\n  do-daemonize: no\n  use-syslog: no\n  chroot: \"\"\n  username: \"\"\n  \
         directory: \"{dir}\"\n  pidfile: \"\"\n  do-not-query-localhost: no\n  domain-insecure: \"consul\"\n\
         stub-zone:\n  name: \"consul\"\n  stub-addr: 127.0.0.1@{agent}\n\
         remote-control:\n  control-enable: no\n",
        dir = dir.path().display(),
        agent = agent.ports().dns
    );
    std::fs::write(&file, text).expect("written");
    let arguments = ["-d".to_owned(), "-c".to_owned(), file.display().to_string()];
    if let Some(resolver) = Resolver::start("unbound", port, &arguments, dir.path()) {
        tour(resolver.address, &agent);
    }
}

#[test]
fn stub_resolvers_of_all_kinds_are_answered() {
    let agent = agent();
    // (flags, size that is offered, DNSSEC is wanted): the C library; the same with options edns0 and trust-ad;
    // systemd-resolved; Go; a validating forwarder.
    let kinds: [(u16, Option<u16>, bool); 6] = [
        (0x0100, None, false),
        (0x0120, Some(1_200), false),
        (0x0100, Some(65_494), false),
        (0x0100, Some(1_472), true),
        (0x0100, Some(1_232), false),
        (0x0110, Some(4_096), true),
    ];
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a socket");
    socket.connect(agent.dns()).expect("an address");
    for (flags, size, dnssec) in kinds {
        let mut packet = vec![0x12, 0x34];
        packet.extend(flags.to_be_bytes());
        packet.extend([0, 1, 0, 0, 0, 0, 0, u8::from(size.is_some())]);
        packet.extend(b"\x03wEb\x07service\x06consul\0\0\x01\0\x01");
        let question = packet.len();
        if let Some(size) = size {
            packet.extend([0, 0, 41]);
            packet.extend(size.to_be_bytes());
            packet.extend([0, 0, if dnssec { 0x80 } else { 0 }, 0, 0, 0]);
        }
        socket.send(&packet).expect("sent");
        let mut answer = [0; 2_048];
        let length = socket.recv(&mut answer).expect("an answer");
        let answer = &answer[..length];
        assert_eq!(answer[..2], packet[..2]);
        assert_eq!(answer[2], 0x85, "an authoritative answer, recursion desired, nothing cut");
        assert_eq!(answer[3] & 15, 0);
        assert_eq!(answer[12..question], packet[12..question], "the question comes back letter for letter");
        assert_eq!(
            answer[4..12],
            [0, 1, 0, 1, 0, 0, 0, u8::from(size.is_some())],
            "one address, and OPT for OPT"
        );
        assert_eq!(answer[question..question + 16], *b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x0a\x01\x02\x03");
    }
}

/// `dig`, as operators use it.
#[test]
fn dig_shows_what_there_is() {
    let agent = agent();
    let port = agent.ports().dns.to_string();
    let dig = |arguments: &[&str]| {
        let mut command = Command::new("dig");
        command.env("PATH", PATH).args([
            "@127.0.0.1",
            "-p",
            &port,
            "+noall",
            "+answer",
            "+tries=3",
            "+time=10",
        ]);
        let output = command.args(arguments).stdin(Stdio::null()).output().ok()?;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(said) = dig(&["web.service.consul", "SRV"]) else {
        eprintln!("left out: the tour needs dig (Debian: apt-get install bind9-dnsutils)");
        return;
    };
    assert_eq!(said.matches("0a010203.addr.dc1.consul.").count(), 2, "{said}");
    for more in [
        &["+tcp"][..],
        &["+bufsize=1232"],
        &["+nocookie"],
        &["+noedns"],
        &["+dnssec"],
        &["+subnet=10.0.0.0/8"],
    ] {
        let said = dig(&[&["web.service.consul", "A"], more].concat()).expect("it is installed");
        assert!(said.contains("10.1.2.3"), "{more:?}: {said}");
    }
    let said = dig(&["-x", "10.1.2.3"]).expect("it is installed");
    assert!(said.contains("web.service.dc1.consul."), "{said}");
}

#[test]
fn dig_asks_over_tls_and_over_https() {
    let mut agent = Agent::new(&["-dev", "-config-dir", "conf"]);
    for command in [&["tls", "ca", "create"][..], &["tls", "cert", "create", "-server"]] {
        let (status, _, errors) = agent.cli(command);
        assert_eq!(status, Some(0), "{command:?}: {errors}");
    }
    let (tls, https) = (free_port().expect("a free port"), free_port().expect("a free port"));
    let file = |name: &str| agent.dir().join(name).display().to_string();
    let config = json!({
        "ports": {"dns_tls": tls, "dns_https": https},
        "tls": {"https": {
            "cert_file": file("dc1-server-consul-0.pem"), "key_file": file("dc1-server-consul-0-key.pem"),
        }},
    });
    agent.configure("tls.json", &config.to_string());
    agent.start();
    let ask = |port: u16, how: &str| {
        let mut command = Command::new("dig");
        command.env("PATH", PATH).args(["@127.0.0.1", "-p", &port.to_string(), how, "+short"]);
        let output =
            command.args(["consul.service.consul", "+time=20"]).stdin(Stdio::null()).output().ok()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() == Some(1) {
            eprintln!("left out: this dig does not know {how}");
            return None;
        }
        assert_eq!(said, "127.0.0.1\n", "{how}: {output:?}");
        Some(())
    };
    if ask(tls, "+tls").is_none() || ask(https, "+https").is_none() {
        eprintln!(
            "left out: DNS over TLS and over HTTPS need dig 9.18 (Debian: apt-get install bind9-dnsutils)"
        );
    }
}

#[test]
fn dns_over_tls_needs_a_certificate() {
    let agent = Agent::new(&["-dev", "-config-dir", "conf"]);
    agent
        .configure("tls.json", &json!({"ports": {"dns_tls": free_port().expect("a free port")}}).to_string());
    let refusal = agent.refusal();
    assert!(refusal.line().contains("tls.https.cert_file"), "{}", refusal.text());
}
