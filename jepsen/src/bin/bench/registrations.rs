//! Registrations on one agent: how fast they are taken, and how soon the catalog has them.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::load::{self, Connection};
use crate::report::millis;
use crate::scenario::settle;
use crate::target::Program;
use crate::{Effort, measure};

/// Services that are registered, each with a TTL check.
const SERVICES: usize = 2_000;
/// Clients that register at the same time.
const CLIENTS: usize = 16;
/// Nobody waits for the catalog longer.
const IN_STEP_MAX: Duration = Duration::from_secs(120);

/// Registers services on a server with its state on disk.
pub(crate) async fn measure(programs: &[Program], _: &Effort) -> Result<(), Box<dyn Error>> {
    println!(
        "| {SERVICES} services with a TTL check, {CLIENTS} clients, state on disk | all answered after ms \
         | catalog in step after ms | server CPU µs per registration |"
    );
    println!("|---|--:|--:|--:|");
    for program in programs {
        let (server, _) = program.start(false).await?;
        settle(server.pid()).await?;
        let before = measure::cpu(server.pid())?;
        let started = Instant::now();
        register(server.http()).await.map_err(|error| format!("{}: {error}", program.name))?;
        let answered = started.elapsed();
        while in_catalog(server.http()).await? < SERVICES {
            if started.elapsed() > IN_STEP_MAX {
                return Err(format!("{}: the catalog does not follow", program.name).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let in_step = started.elapsed();
        let cpu = measure::cpu(server.pid())? - before;
        println!(
            "| {} | {} | {} | {:.0} |",
            program.name,
            millis(answered),
            millis(in_step),
            cpu.as_secs_f64() * 1e6 / SERVICES as f64
        );
    }
    println!();
    Ok(())
}

async fn register(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(async move {
            let mut connection = Connection::open(address).await?;
            for service in (client..SERVICES).step_by(CLIENTS) {
                let body = serde_json::json!({
                    "ID": format!("web-{service}"),
                    "Name": "web",
                    "Port": 8_000 + service % 1_000,
                    "Tags": ["v1", "primary"],
                    "Check": { "TTL": "10m", "Status": "passing" },
                });
                connection
                    .send(&load::put("/v1/agent/service/register", body.to_string().as_bytes()))
                    .await?;
                let answer = connection.receive(None).await?;
                if answer.status != 200 {
                    return Err(std::io::Error::other(format!("a registration is answered with {answer:?}")));
                }
            }
            Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}

/// How many of the services the catalog has with their checks.
async fn in_catalog(address: SocketAddr) -> Result<usize, Box<dyn Error>> {
    let (_, body) = load::ask(address, &load::get("/v1/health/checks/web")).await?;
    let checks: Value = serde_json::from_slice(&body)?;
    Ok(checks.as_array().map_or(0, Vec::len))
}
