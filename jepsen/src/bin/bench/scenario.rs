//! The measurements.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proconsul_jepsen::process::server::Server;

use crate::load::{self, Connection, Sample};
use crate::report::{Loads, kib, millis};
use crate::target::{Bare, Program};
use crate::{Effort, measure};

/// Bytes of the values that are written and read.
const VALUE_BYTES: usize = 64;

/// Starts per program, of which the median is reported.
const STARTS: usize = 5;

/// Rounds of waking all blocked queries.
const WAKES: u32 = 3;

/// Something to put under load: name, process, address.
type Target<'a> = (&'a str, u32, SocketAddr);

/// Lets the targets take turns, and adds what came out.
async fn take_turns<F>(
    scenario: &str,
    targets: &[Target<'_>],
    effort: &Effort,
    loads: &mut Loads,
    load: impl Fn(SocketAddr, Duration) -> F,
) -> Result<(), Box<dyn Error>>
where
    F: Future<Output = io::Result<Sample>>,
{
    let mut sums = vec![Sample::default(); targets.len()];
    for round in 0..=effort.rounds {
        for ((name, pid, address), sum) in targets.iter().zip(&mut sums) {
            // The first round only warms up.
            let length = if round == 0 { effort.turn / 4 } else { effort.turn };
            let before = measure::cpu(*pid)?;
            let mut sample =
                load(*address, length).await.map_err(|error| format!("{scenario}, {name}: {error}"))?;
            sample.cpu = measure::cpu(*pid)? - before;
            if round > 0 {
                sum.add(sample);
            }
        }
    }
    for ((name, _, _), sum) in targets.iter().zip(sums) {
        loads.add(scenario, name, sum);
    }
    Ok(())
}

async fn start_all(programs: &[Program], dev: bool) -> Result<Vec<(&str, Server)>, Box<dyn Error>> {
    let mut servers = Vec::new();
    for program in programs {
        servers.push((program.name, program.start(dev).await?.0));
    }
    Ok(servers)
}

fn with_bare<'a>(bare: &Bare, servers: &[(&'a str, Server)]) -> Vec<Target<'a>> {
    let mut targets = vec![("bare", bare.pid(), bare.address)];
    targets.extend(servers.iter().map(|(name, server)| (*name, server.pid(), server.http())));
    targets
}

/// Sends a request that must succeed; returns the body.
pub(crate) async fn must(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let (answer, body) = load::ask(address, request).await?;
    if answer.status == 200 {
        return Ok(body);
    }
    let request = String::from_utf8_lossy(request);
    let line = request.lines().next().unwrap_or_default();
    Err(format!("{line}: status {}: {}", answer.status, String::from_utf8_lossy(&body)).into())
}

/// A bare server with the body that the first program answers with.
async fn bare_of(servers: &[(&str, Server)], request: &[u8]) -> Result<(Bare, usize), Box<dyn Error>> {
    let (_, server) = servers.first().expect("there is a program to measure");
    let body = must(server.http(), request).await?;
    let file = server.directory().join("body");
    std::fs::write(&file, &body)?;
    let bare = Bare::start("bare-http", &["--body-file", &file.to_string_lossy()]).await?;
    Ok((bare, body.len()))
}

async fn load_get(
    scenario: &str,
    path: &str,
    servers: &[(&str, Server)],
    effort: &Effort,
    loads: &mut Loads,
) -> Result<(), Box<dyn Error>> {
    let request = load::get(path);
    let (bare, bytes) = bare_of(servers, &request).await?;
    let scenario = format!("{scenario}, {bytes} B");
    take_turns(&scenario, &with_bare(&bare, servers), effort, loads, |address, duration| {
        let requests = vec![request.clone(); effort.connections as usize];
        load::http(address, requests, duration, |_, _| {})
    })
    .await
}

/// GET of one key.
pub(crate) async fn get(
    programs: &[Program],
    effort: &Effort,
    loads: &mut Loads,
) -> Result<(), Box<dyn Error>> {
    let servers = start_all(programs, true).await?;
    for (_, server) in &servers {
        must(server.http(), &load::put("/v1/kv/bench", &[b'v'; VALUE_BYTES])).await?;
    }
    load_get("GET of a key", "/v1/kv/bench", &servers, effort, loads).await
}

/// Durable PUTs: every connection writes its own key, each time with another value.
pub(crate) async fn put(
    programs: &[Program],
    effort: &Effort,
    loads: &mut Loads,
) -> Result<(), Box<dyn Error>> {
    let servers = start_all(programs, false).await?;
    let directory = tempfile::Builder::new().prefix("proconsul-bench-").tempdir()?;
    let bare = Bare::start("bare-log", &["--file", &directory.path().join("log").to_string_lossy()]).await?;
    take_turns("durable PUT", &with_bare(&bare, &servers), effort, loads, |address, duration| {
        let requests = (0..effort.connections)
            .map(|writer| load::put(&format!("/v1/kv/bench/{writer}"), &[b'v'; VALUE_BYTES]))
            .collect();
        load::http(address, requests, duration, |request, number| {
            let end = request.len();
            request[end - 20..].copy_from_slice(format!("{number:020}").as_bytes());
        })
    })
    .await
}

/// The instances of a service.
pub(crate) async fn health(
    programs: &[Program],
    effort: &Effort,
    loads: &mut Loads,
) -> Result<(), Box<dyn Error>> {
    let servers = start_all(programs, true).await?;
    let mut registered = 0;
    for instances in [10, 100, 1_000] {
        for (_, server) in &servers {
            for instance in registered..instances {
                register(server.http(), "web", instance).await?;
            }
        }
        registered = instances;
        let scenario = format!("health of {instances} instances");
        load_get(&scenario, "/v1/health/service/web", &servers, effort, loads).await?;
    }
    Ok(())
}

async fn register(address: SocketAddr, service: &str, instance: u32) -> Result<(), Box<dyn Error>> {
    let node = format!("node-{instance}");
    let id = format!("{service}-{instance}");
    let body = serde_json::json!({
        "Node": node,
        "Address": format!("10.0.{}.{}", instance / 250, instance % 250 + 1),
        "Service": { "ID": id, "Service": service, "Port": 8_000, "Tags": ["v1", "primary"] },
        "Checks": [
            { "Node": node, "CheckID": format!("service:{id}"), "Name": "alive", "Status": "passing", "ServiceID": id }
        ],
    });
    must(address, &load::put("/v1/catalog/register", body.to_string().as_bytes())).await?;
    Ok(())
}

/// Services of several sizes over UDP, beside a bare server that answers with the bytes of the first program.
pub(crate) async fn dns(
    programs: &[Program],
    effort: &Effort,
    loads: &mut Loads,
) -> Result<(), Box<dyn Error>> {
    let servers = start_all(programs, true).await?;
    let sizes = [("one", 1), ("three", 3), ("fifty", 50)];
    for (_, server) in &servers {
        for (service, instances) in sizes {
            for instance in 0..instances {
                register(server.http(), service, instance).await?;
            }
        }
    }
    let cases = [
        ("A, 1 instance", "one", load::A, None),
        ("A, 3 instances", "three", load::A, None),
        ("A, 3 of 50 instances", "fifty", load::A, None),
        ("A, 50 instances", "fifty", load::A, Some(DNS_SIZE)),
        ("SRV, 3 instances", "three", load::SRV, Some(DNS_SIZE)),
        ("SRV, 50 instances", "fifty", load::SRV, Some(DNS_SIZE)),
    ];
    for (name, service, kind, size) in cases {
        let question = load::dns_question(&[service, "service", "consul"], kind, size);
        let (_, first) = servers.first().expect("there is a program to measure");
        let answer = load::ask_dns(first.dns(), &question).await?;
        let file = first.directory().join("answer");
        std::fs::write(&file, &answer)?;
        let bare = Bare::start("bare-udp", &["--answer-file", &file.to_string_lossy()]).await?;
        let mut targets = vec![("bare", bare.pid(), bare.address)];
        targets.extend(servers.iter().map(|(name, server)| (*name, server.pid(), server.dns())));
        let name = format!("DNS {name}, {} B", answer.len());
        take_turns(&name, &targets, effort, loads, |address, duration| {
            let question = question.clone();
            async move { load::dns(address, &question, effort.connections, duration).await }
        })
        .await?;
    }
    Ok(())
}

/// What clients with EDNS take.
const DNS_SIZE: u16 = 4_096;

/// Many blocked queries on one key: their memory, and the cost of waking them.
pub(crate) async fn blocked(programs: &[Program], effort: &Effort) -> Result<(), Box<dyn Error>> {
    println!(
        "| {} blocked queries on a key | KiB per query | server CPU µs per wake | all answered after ms |",
        effort.blocked
    );
    println!("|---|--:|--:|--:|");
    for program in programs {
        let (server, _) = program.start(true).await?;
        let write = |value: &str| load::put("/v1/kv/watched", value.as_bytes());
        must(server.http(), &write("start")).await?;
        let mut index = load::ask(server.http(), &load::get("/v1/kv/watched")).await?.0.index;
        let before = measure::resident(server.pid())?;
        let mut connections = Vec::new();
        for _ in 0..effort.blocked {
            connections.push(Connection::open(server.http()).await?);
        }
        block(&mut connections, index).await?;
        settle(server.pid()).await?;
        let per_query =
            measure::resident(server.pid())?.saturating_sub(before) as f64 / f64::from(effort.blocked);
        let mut cpu = Duration::ZERO;
        let mut slowest = Duration::ZERO;
        for wake in 0..WAKES {
            let before = measure::cpu(server.pid())?;
            let started = Instant::now();
            must(server.http(), &write(&wake.to_string())).await?;
            for connection in &mut connections {
                let answer = connection.receive(None).await?;
                if answer.status != 200 || answer.index <= index {
                    return Err(format!("{}: a blocked query woke up to {answer:?}", program.name).into());
                }
            }
            slowest = slowest.max(started.elapsed());
            cpu += measure::cpu(server.pid())? - before;
            index = load::ask(server.http(), &load::get("/v1/kv/watched")).await?.0.index;
            if wake + 1 < WAKES {
                block(&mut connections, index).await?;
                settle(server.pid()).await?;
            }
        }
        let wakes = f64::from(WAKES) * f64::from(effort.blocked);
        println!(
            "| {} | {} | {:.1} | {} |",
            program.name,
            kib(per_query),
            cpu.as_secs_f64() * 1e6 / wakes,
            millis(slowest)
        );
    }
    println!();
    Ok(())
}

async fn block(connections: &mut [Connection], index: u64) -> Result<(), Box<dyn Error>> {
    let request = load::get(&format!("/v1/kv/watched?index={index}&wait=5m"));
    for connection in connections {
        connection.send(&request).await?;
    }
    Ok(())
}

/// Waits until a process has nothing to do: less than 2 % of a core for half a second, but at most 30 s.
pub(crate) async fn settle(pid: u32) -> Result<(), Box<dyn Error>> {
    for _ in 0..60 {
        let before = measure::cpu(pid)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if measure::cpu(pid)? - before <= Duration::from_millis(10) {
            return Ok(());
        }
    }
    Err("the server does not come to rest".into())
}

/// A development agent at rest.
pub(crate) async fn idle(programs: &[Program], effort: &Effort) -> Result<(), Box<dyn Error>> {
    println!("| dev agent at rest, {} s | resident MiB | CPU % of a core |", effort.idle.as_secs());
    println!("|---|--:|--:|");
    for program in programs {
        let (server, _) = program.start(true).await?;
        settle(server.pid()).await?;
        let before = measure::cpu_of_threads(server.pid())?;
        tokio::time::sleep(effort.idle).await;
        let cpu = measure::cpu_of_threads(server.pid())?.saturating_sub(before);
        println!(
            "| {} | {:.1} | {:.3} |",
            program.name,
            measure::resident(server.pid())? as f64 / (1024.0 * 1024.0),
            cpu.as_secs_f64() / effort.idle.as_secs_f64() * 100.0
        );
    }
    println!();
    Ok(())
}

/// From exec to the first acknowledged write.
pub(crate) async fn start(programs: &[Program], _: &Effort) -> Result<(), Box<dyn Error>> {
    println!("| exec to first PUT, median of {STARTS} | ms |");
    println!("|---|--:|");
    for (what, dev) in [("agent -dev", true), ("server with data-dir", false)] {
        for program in programs {
            let mut times = Vec::new();
            for _ in 0..STARTS {
                times.push(program.start(dev).await?.1);
            }
            times.sort_unstable();
            println!("| {what}, {} | {} |", program.name, millis(times[STARTS / 2]));
        }
    }
    println!();
    Ok(())
}
