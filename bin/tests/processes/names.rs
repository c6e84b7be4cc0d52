//! DNS of a client agent: answered from what it keeps, which servers keep new.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, dns, wait_for};

const CLIENT: usize = 1;
/// Lookups of the burst.
const LOOKUPS: u32 = 20_000;
/// Of them, so many are under way at a time.
const WINDOW: u32 = 64;
/// So much may the client ask of servers meanwhile, its own upkeep included.
const REQUESTS_MAX: f64 = 40.0;
const TELEMETRY: &str = r#"telemetry { prometheus_retention_time = "1h" }"#;

/// A total of the client agent.
fn total(cluster: &Cluster, at: usize, name: &str) -> f64 {
    let answer = cluster.http(at).ok("GET", "/v1/agent/metrics?format=prometheus", "");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let of = |line: &str| {
        let (full, value) = line.rsplit_once(' ')?;
        let bare = full.split('{').next()?;
        (bare == name).then(|| value.parse::<f64>().expect("a number"))
    };
    lines.filter_map(of).sum()
}

/// Asks for a service's addresses again and again, and returns how many answers came.
fn burst(server: SocketAddr) -> u32 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    socket.connect(server).expect("an address");
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\x07service\x06consul\0\0\x01\0\x01";
    let mut answered = 0;
    let mut answer = [0; 512];
    let mut asked = 0;
    while asked < LOOKUPS {
        for _ in 0..WINDOW {
            socket.send(question).expect("loopback takes it");
        }
        asked += WINDOW;
        for _ in 0..WINDOW {
            match socket.recv(&mut answer) {
                Ok(length) => {
                    assert_eq!((answer[3] & 15, answer[7]), (0, 1), "{:?}", &answer[..length]);
                    answered += 1;
                }
                Err(_) => break,
            }
        }
    }
    answered
}

#[test]
fn a_burst_of_lookups_costs_the_servers_nothing_and_changes_are_seen() {
    let mut cluster = Cluster::start(1, 1, &["-hcl", TELEMETRY]);
    cluster.formed();
    let register = |cluster: &Cluster, id: &str, port: u16| {
        let service = json!({"Name": "web", "ID": id, "Port": port});
        cluster.http(0).put("/v1/agent/service/register", &service.to_string());
    };
    let find = |cluster: &Cluster, wanted: &[u16]| {
        wait_for("the client agent knows it", || {
            let mut found = dns::services(cluster.dns(CLIENT), "web.service.consul")?;
            found.ports.sort_unstable();
            let code = if wanted.is_empty() { 3 } else { 0 };
            if found.ports == wanted && found.code == code { Ok(()) } else { Err(format!("{found:?}")) }
        });
    };
    find(&cluster, &[]);
    register(&cluster, "web-1", 1);
    find(&cluster, &[1]);
    let (before, asked) =
        (total(&cluster, CLIENT, "consul_client_rpc"), total(&cluster, 0, "consul_rpc_query"));
    let answered = burst(cluster.dns(CLIENT));
    assert!(answered > LOOKUPS / 2, "{answered}");
    let (after, served) =
        (total(&cluster, CLIENT, "consul_client_rpc"), total(&cluster, 0, "consul_rpc_query"));
    assert!(after - before < REQUESTS_MAX, "{} requests for {answered} lookups", after - before);
    assert!(served - asked < REQUESTS_MAX, "{} questions for {answered} lookups", served - asked);
    register(&cluster, "web-2", 2);
    find(&cluster, &[1, 2]);
    cluster.http(0).put("/v1/agent/service/deregister/web-1", "");
    find(&cluster, &[2]);

    // Without servers what is known goes on being answered; what is not, cannot be.
    cluster.agent(0).kill();
    wait_for("the client agent has noticed", || {
        let unknown = dns::services(cluster.dns(CLIENT), "other.service.consul")?;
        if unknown.code == 2 { Ok(()) } else { Err(format!("{unknown:?}")) }
    });
    find(&cluster, &[2]);
    cluster.start_agent(0);
    wait_for("the server is heard again", || {
        let unknown = dns::services(cluster.dns(CLIENT), "other.service.consul")?;
        if unknown.code == 3 { Ok(()) } else { Err(format!("{unknown:?}")) }
    });
}
