//! The cache of a client agent: kept new by the servers' word, and good without them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, wait_for};

const CLIENT: usize = 1;
const WEB: &str = "/v1/health/service/web?cached";
/// Nothing takes so long; it bounds a failing test.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Status, `X-Cache`, `Age`, and how many things are in the list of the body.
fn ask(address: SocketAddr, path: &str) -> (u16, String, Option<u64>, usize) {
    let mut stream = TcpStream::connect(address).expect("the agent listens");
    stream.set_read_timeout(Some(ANSWER_MAX)).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("room");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text until it closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let header = |name| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let list = serde_json::from_str::<Value>(body).ok();
    let found = list.and_then(|list| list.as_array().map(Vec::len)).unwrap_or_default();
    let age = header("Age").map(|age| age.parse().expect("seconds"));
    (status, header("X-Cache").unwrap_or_default().to_owned(), age, found)
}

#[test]
fn a_client_agent_keeps_answers_and_has_them_without_servers() {
    let mut cluster = Cluster::start(1, 1, &[]);
    cluster.formed();
    let address = cluster.agent(CLIENT).http();
    let hit = |age, found| (200, "HIT".to_owned(), Some(age), found);
    assert_eq!(ask(address, WEB), (200, "MISS".to_owned(), None, 0));
    assert_eq!(ask(address, WEB), hit(0, 0));
    for (id, found) in [("web-1", 1), ("web-2", 2)] {
        cluster.http(0).put("/v1/agent/service/register", &json!({"Name": "web", "ID": id}).to_string());
        wait_for("the kept answer is kept new", || match ask(address, WEB) {
            answer if answer == hit(0, found) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let datacenters = "/v1/catalog/datacenters?cached";
    assert_eq!(ask(address, datacenters), (200, "MISS".to_owned(), None, 1));
    assert_eq!(ask(address, datacenters).1, "HIT");

    cluster.agent(0).kill();
    wait_for("the kept answer ages", || match ask(address, WEB) {
        (200, cache, Some(1..), 2) if cache == "HIT" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(ask(address, "/v1/health/service/web").0, 500);
    cluster.start_agent(0);
    wait_for("the servers are heard again", || match ask(address, WEB) {
        (200, cache, Some(0), _) if cache == "HIT" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
