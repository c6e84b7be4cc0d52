//! Many clients that wait: for keys that are not there while others write, and for a service.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::load::{self, Connection};
use crate::report::{kib, millis};
use crate::target::Program;
use crate::{Effort, measure, scenario};

/// Keys that nobody writes.
const KEYS: usize = 1_000;
/// Unrelated writes per second.
const WRITES_PER_SECOND: u32 = 1_000;
/// Writes come in bursts, so many per second.
const BURSTS_PER_SECOND: u32 = 100;
/// Instances of the service.
const INSTANCES: usize = 10;
/// Rounds of waking all who wait for the service.
const WAKES: usize = 3;

/// Blocked queries on absent keys, asleep under unrelated writes.
pub(crate) async fn asleep(programs: &[Program], effort: &Effort) -> Result<(), Box<dyn Error>> {
    println!(
        "| {} blocked queries on {KEYS} absent keys | KiB per query | unrelated writes/s | server CPU µs per write, nobody \
         waiting | all waiting | woken |",
        effort.blocked
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for program in programs {
        let (server, _) = program.start(true).await?;
        let address = server.http();
        let mut writer = Connection::open(address).await?;
        // Once to warm up, once to measure.
        write_for(&mut writer, effort.turn).await?;
        let before = measure::cpu(server.pid())?;
        let (alone, _) = write_for(&mut writer, effort.turn).await?;
        let alone = micros(measure::cpu(server.pid())? - before, alone);
        let resident = measure::resident(server.pid())?;
        let index = load::ask(address, &load::get("/v1/kv/absent/0")).await?.0.index;
        let mut waiting = Vec::new();
        for at in 0..effort.blocked as usize {
            let mut connection = Connection::open(address).await?;
            let path = format!("/v1/kv/absent/{}?index={index}&wait=10m", at % KEYS);
            connection.send(&load::get(&path)).await?;
            waiting.push(connection);
        }
        scenario::settle(server.pid()).await?;
        let grown = measure::resident(server.pid())?.saturating_sub(resident);
        let before = measure::cpu(server.pid())?;
        let (writes, took) = write_for(&mut writer, effort.turn).await?;
        let cpu = micros(measure::cpu(server.pid())? - before, writes);
        let mut woken = 0;
        for connection in &mut waiting {
            let now = tokio::time::timeout(Duration::ZERO, connection.receive(None));
            woken += usize::from(now.await.is_ok());
        }
        println!(
            "| {} | {} | {:.0} | {alone:.1} | {cpu:.1} | {woken} |",
            program.name,
            kib(grown as f64 / f64::from(effort.blocked)),
            f64::from(writes) / took.as_secs_f64(),
        );
    }
    println!();
    Ok(())
}

fn micros(cpu: Duration, writes: u32) -> f64 {
    cpu.as_secs_f64() * 1e6 / f64::from(writes.max(1))
}

/// Writes to keys that nobody waits for, at a steady rate; how many, and how long that took.
async fn write_for(
    connection: &mut Connection,
    duration: Duration,
) -> Result<(u32, Duration), Box<dyn Error>> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / BURSTS_PER_SECOND);
    let started = Instant::now();
    let mut writes = 0;
    while started.elapsed() < duration {
        ticks.tick().await;
        for _ in 0..WRITES_PER_SECOND / BURSTS_PER_SECOND {
            connection.send(&load::put(&format!("/v1/kv/other/{}", writes % 100), b"value")).await?;
            let answer = connection.receive(None).await?;
            if answer.status != 200 {
                return Err(format!("a write was answered by {answer:?}").into());
            }
            writes += 1;
        }
    }
    Ok((writes, started.elapsed()))
}

/// Blocked queries on the health of one service.
pub(crate) async fn service(programs: &[Program], effort: &Effort) -> Result<(), Box<dyn Error>> {
    println!(
        "| {} blocked queries on a service of {INSTANCES} instances | KiB per query | server CPU µs per wake | all answered \
         after ms |",
        effort.blocked
    );
    println!("|---|--:|--:|--:|");
    for program in programs {
        let (server, _) = program.start(true).await?;
        let address = server.http();
        for instance in 0..INSTANCES {
            register(address, instance, "as it began").await?;
        }
        let path = "/v1/health/service/web";
        let mut index = load::ask(address, &load::get(path)).await?.0.index;
        scenario::settle(server.pid()).await?;
        let resident = measure::resident(server.pid())?;
        let mut waiting = Vec::new();
        for _ in 0..effort.blocked {
            waiting.push(Connection::open(address).await?);
        }
        let mut grown = 0;
        let mut cpu = Duration::ZERO;
        let mut slowest = Duration::ZERO;
        for wake in 0..WAKES {
            let request = load::get(&format!("{path}?index={index}&wait=10m"));
            for connection in &mut waiting {
                connection.send(&request).await?;
            }
            scenario::settle(server.pid()).await?;
            if wake == 0 {
                grown = measure::resident(server.pid())?.saturating_sub(resident);
            }
            let before = measure::cpu(server.pid())?;
            let started = Instant::now();
            register(address, 0, &format!("change {wake}")).await?;
            for connection in &mut waiting {
                let answer = connection.receive(None).await?;
                if answer.status != 200 || answer.index <= index {
                    return Err(format!("{}: a blocked query woke up to {answer:?}", program.name).into());
                }
            }
            slowest = slowest.max(started.elapsed());
            cpu += measure::cpu(server.pid())? - before;
            index = load::ask(address, &load::get(path)).await?.0.index;
        }
        println!(
            "| {} | {} | {:.1} | {} |",
            program.name,
            kib(grown as f64 / f64::from(effort.blocked)),
            cpu.as_secs_f64() * 1e6 / (WAKES as f64 * f64::from(effort.blocked)),
            millis(slowest)
        );
    }
    println!();
    Ok(())
}

async fn register(address: SocketAddr, instance: usize, output: &str) -> Result<(), Box<dyn Error>> {
    let body = format!(
        r#"{{"Node":"n{instance}","Address":"10.0.0.{instance}","Service":{{"ID":"web{instance}","Service":"web","Port":80}},
            "Check":{{"CheckID":"c{instance}","Name":"c","Status":"passing","ServiceID":"web{instance}","Output":"{output}"}}}}"#
    );
    scenario::must(address, &load::put("/v1/catalog/register", body.as_bytes())).await?;
    Ok(())
}
