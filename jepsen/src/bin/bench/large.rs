//! A large state: its memory, a snapshot and a restore under writes, and a restart.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::load::{self, Connection};
use crate::report::millis;
use crate::target::Program;
use crate::{Effort, measure, scenario};

/// Keys in one transaction, as many as Consul takes.
const PER_TRANSACTION: u32 = 64;

/// Connections that fill the store.
const FILLERS: u32 = 8;

/// A value of 99 bytes is so many of these in base64.
const VALUE: (&str, usize) = ("eHh4", 33);

/// A write begins this long after the last one was answered.
const PAUSE: Duration = Duration::from_millis(1);

/// How long writers are watched while nothing else happens.
const CALM: Duration = Duration::from_secs(5);

/// Fills a server on disk with keys, and measures.
pub(crate) async fn measure(programs: &[Program], effort: &Effort) -> Result<(), Box<dyn Error>> {
    println!(
        "| server with {} keys of 24 bytes, values of 99 | resident MiB | most while a snapshot is saved MiB | snapshot \
         s | archive MiB | longest write in calm ms | longest while it is saved ms | restore s | longest while it is \
         restored ms | most while it is restored MiB | kill -9 until the first write s |",
        effort.keys
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for program in programs {
        one(program, effort.keys).await?;
    }
    println!();
    Ok(())
}

async fn one(program: &Program, keys: u32) -> Result<(), Box<dyn Error>> {
    let (mut server, _) = program.start(false).await?;
    let (address, pid) = (server.http(), server.pid());
    fill(address, keys).await?;
    eprintln!("filled: {}", program.name);
    scenario::settle(pid).await?;
    let resident = measure::resident(pid)?;
    let calm = watched(address, pid, async {
        tokio::time::sleep(CALM).await;
        Ok(())
    });
    let ((), calm) = calm.await?;
    let started = Instant::now();
    let (archive, saving) = watched(address, pid, async {
        let mut archive = Vec::new();
        let mut connection = Connection::open(address).await?;
        connection.send(&load::get("/v1/snapshot")).await?;
        let answer = connection.receive(Some(&mut archive)).await?;
        match answer.status {
            200 => Ok((archive, started.elapsed())),
            status => Err(format!("the snapshot was answered with {status}").into()),
        }
    })
    .await?;
    let (archive, saved_in) = archive;
    let request = load::put("/v1/snapshot", &archive);
    scenario::settle(pid).await?;
    let started = Instant::now();
    let (restored_in, restoring) = watched(address, pid, async {
        let mut connection = Connection::open(address).await?;
        connection.send(&request).await?;
        match connection.receive(None).await?.status {
            200 => Ok(started.elapsed()),
            status => Err(format!("the restore was answered with {status}").into()),
        }
    })
    .await?;
    scenario::settle(pid).await?;
    server.kill();
    server.restart()?;
    let again = server.first_put().await?;
    println!(
        "| {} | {} | {} | {:.1} | {} | {} | {} | {:.1} | {} | {} | {:.2} |",
        program.name,
        mib(resident),
        mib(saving.most_resident),
        saved_in.as_secs_f64(),
        mib(archive.len() as u64),
        millis(calm.longest),
        millis(saving.longest),
        restored_in.as_secs_f64(),
        millis(restoring.longest),
        mib(restoring.most_resident),
        again.as_secs_f64()
    );
    Ok(())
}

/// What was seen while something happened.
struct Seen {
    /// The longest time that a write took.
    longest: Duration,
    /// The most memory.
    most_resident: u64,
}

/// Writes one key after the other while `happening` does, and watches the server's memory.
async fn watched<T>(
    address: SocketAddr,
    pid: u32,
    happening: impl Future<Output = Result<T, Box<dyn Error>>>,
) -> Result<(T, Seen), Box<dyn Error>> {
    let mut seen = Seen { longest: Duration::ZERO, most_resident: 0 };
    let watching = async {
        let mut connection = Connection::open(address).await?;
        let request = load::put("/v1/kv/bench/beside", b"x");
        loop {
            let started = Instant::now();
            connection.send(&request).await?;
            let answer = connection.receive(None).await?;
            if answer.status != 200 {
                return Err::<(), Box<dyn Error>>(
                    format!("a write was answered with {}", answer.status).into(),
                );
            }
            seen.longest = seen.longest.max(started.elapsed());
            seen.most_resident = seen.most_resident.max(measure::resident(pid)?);
            tokio::time::sleep(PAUSE).await;
        }
    };
    let happened = tokio::select! {
        happened = happening => happened?,
        stopped = watching => return Err(stopped.err().unwrap_or_else(|| "the writer ended".into())),
    };
    Ok((happened, seen))
}

async fn fill(address: SocketAddr, keys: u32) -> Result<(), Box<dyn Error>> {
    let value = VALUE.0.repeat(VALUE.1);
    let mut fillers = tokio::task::JoinSet::new();
    for filler in 0..FILLERS {
        let value = value.clone();
        fillers.spawn(async move {
            let mut connection = Connection::open(address).await.map_err(|error| error.to_string())?;
            let first = (filler * PER_TRANSACTION..keys).step_by((FILLERS * PER_TRANSACTION) as usize);
            for first in first {
                let operations: Vec<String> = (first..keys.min(first + PER_TRANSACTION))
                    .map(|key| {
                        format!(
                            r#"{{"KV":{{"Verb":"set","Key":"bench/large/{key:012}","Value":"{value}"}}}}"#
                        )
                    })
                    .collect();
                let body = format!("[{}]", operations.join(","));
                let sent = connection.send(&load::put("/v1/txn", body.as_bytes())).await;
                sent.map_err(|error| error.to_string())?;
                let answer = connection.receive(None).await.map_err(|error| error.to_string())?;
                if answer.status != 200 {
                    return Err(format!("a transaction was answered with {}", answer.status));
                }
            }
            Ok(())
        });
    }
    while let Some(filled) = fillers.join_next().await {
        filled??;
    }
    Ok(())
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / (1024.0 * 1024.0))
}
