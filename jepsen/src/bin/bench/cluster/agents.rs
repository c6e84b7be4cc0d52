//! A large cluster on one machine: joining, noticing a death, and what an idle client agent costs.

use std::error::Error;
use std::time::{Duration, Instant};

use proconsul_jepsen::process::client::Client;
use proconsul_jepsen::process::cluster::{Cluster, WITHIN, alive_members, get};
use tokio::task::JoinSet;

use super::{Effort, median};
use crate::measure;
use crate::report::millis;
use crate::target::Program;

/// How long the cluster is left alone before it is watched.
const SETTLE: Duration = Duration::from_secs(10);

pub(super) async fn measure(programs: &[Program], effort: &Effort) -> Result<(), Box<dyn Error>> {
    println!(
        "| {} agents, 3 of them servers | all see all after the first join ms | after the last join ms | killed agent critical in all servers' catalogs, median of {} ms | worst ms | idle client resident MiB | idle client CPU % of a core over {} s |",
        effort.agents,
        effort.kills,
        effort.idle.as_secs()
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for program in programs {
        let line = one(program, effort).await.map_err(|error| format!("{}: {error}", program.name))?;
        println!("{line}");
    }
    println!();
    Ok(())
}

async fn one(program: &Program, effort: &Effort) -> Result<String, Box<dyn Error>> {
    let mut cluster = super::servers(program, &[]).await?;
    let quiet = vec!["-log-level=warn".to_owned()];
    for number in 1..=effort.agents.saturating_sub(3) {
        cluster.add(&program.binary, &format!("client-{number}"), quiet.clone())?.start()?;
    }
    for agent in &cluster.agents[3..] {
        cluster.until("a client agent answers", async || get(agent.http(), "/v1/agent/self").await).await?;
    }
    let (from_first, from_last) = join(&cluster).await?;
    eprintln!("measured: {}: joined after {from_first:?}", program.name);
    cluster.formed().await?;
    tokio::time::sleep(SETTLE).await;
    let (resident, cpu) = idle(&cluster, effort.idle).await?;
    let mut detections = Vec::new();
    for _ in 0..effort.kills {
        let took = kill_one(&mut cluster).await?;
        eprintln!("measured: {}: critical after {took:?}", program.name);
        detections.push(took);
        cluster.formed().await?;
    }
    let middle = median(&mut detections);
    let worst = detections.last().copied().unwrap_or_default();
    Ok(format!(
        "| {} | {} | {} | {} | {} | {:.1} | {:.3} |",
        program.name,
        millis(from_first),
        millis(from_last),
        millis(middle),
        millis(worst),
        resident / (1024.0 * 1024.0),
        cpu * 100.0
    ))
}

/// Lets all client agents join at once; until everybody sees everybody, since the first request and the last answer.
async fn join(cluster: &Cluster) -> Result<(Duration, Duration), Box<dyn Error>> {
    let server = cluster.servers()[0].address();
    let started = Instant::now();
    let mut joins = JoinSet::new();
    for agent in &cluster.agents[3..] {
        let mut client = Client::new(agent.http());
        joins.spawn(async move { client.request("PUT", &format!("/v1/agent/join/{server}"), b"").await });
    }
    while let Some(answer) = joins.join_next().await {
        let answer = answer??;
        if answer.status != 200 {
            return Err(format!("join: {answer:?}").into());
        }
    }
    let joined = started.elapsed();
    // Whoever sees all is not asked again: asking costs CPU that the agents need.
    for agent in &cluster.agents {
        loop {
            let alive = alive_members(agent.http()).await?;
            if alive.len() == cluster.agents.len() {
                break;
            }
            if started.elapsed() > WITHIN {
                return Err(format!("{} still sees only {}", agent.name(), alive.len()).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let all = started.elapsed();
    Ok((all, all - joined))
}

/// Memory in bytes and share of a core of the client agents, on average.
async fn idle(cluster: &Cluster, idle: Duration) -> Result<(f64, f64), Box<dyn Error>> {
    let clients = &cluster.agents[3..];
    let count = clients.len().max(1) as f64;
    let cpu = || -> std::io::Result<Duration> {
        clients.iter().map(|agent| measure::cpu_of_threads(agent.pid())).sum()
    };
    let before = cpu()?;
    let started = Instant::now();
    tokio::time::sleep(idle).await;
    let cpu = cpu()?.saturating_sub(before).as_secs_f64() / started.elapsed().as_secs_f64() / count;
    let mut resident = 0;
    for agent in clients {
        resident += measure::resident(agent.pid())?;
    }
    Ok((resident as f64 / count, cpu))
}

/// Kills the last client agent; until its node is critical in the catalog of every server. Starts it again.
async fn kill_one(cluster: &mut Cluster) -> Result<Duration, Box<dyn Error>> {
    let last = cluster.agents.len() - 1;
    let name = cluster.agents[last].name().to_owned();
    let started = Instant::now();
    cluster.agents[last].kill();
    for server in cluster.servers() {
        loop {
            let checks = get(server.http(), &format!("/v1/health/node/{name}?stale")).await?;
            if checks[0]["Status"] == "critical" {
                break;
            }
            if started.elapsed() > WITHIN {
                return Err(format!("{name} is still not critical: {checks}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let took = started.elapsed();
    let server = cluster.servers()[0].address();
    cluster.agents[last].start()?;
    let agent = &cluster.agents[last];
    cluster
        .until("the agent joins again", async || {
            let mut client = Client::new(agent.http());
            match client.request("PUT", &format!("/v1/agent/join/{server}"), b"").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                answer => Err(format!("{answer:?}")),
            }
        })
        .await?;
    Ok(took)
}
