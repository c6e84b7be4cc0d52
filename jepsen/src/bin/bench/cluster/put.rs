//! Durable PUTs to the leader of three servers, beside a bare leader with two bare followers.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use proconsul_jepsen::process::cluster::Cluster;

use super::Effort;
use crate::load::{self, Sample};
use crate::measure;
use crate::report::Loads;
use crate::target::{Bare, Program};

/// Bytes of the values that are written.
const VALUE_BYTES: usize = 64;

/// Processes that are measured together, and the one among them that is asked.
struct Group {
    name: &'static str,
    pids: Vec<u32>,
    leader: SocketAddr,
}

pub(super) async fn measure(programs: &[Program], effort: &Effort) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::Builder::new().prefix("proconsul-bench-").tempdir()?;
    let file = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let followers = [
        Bare::start("bare-follower", &["--file", &file("one")]).await?,
        Bare::start("bare-follower", &["--file", &file("two")]).await?,
    ];
    let addresses = followers.iter().map(|follower| follower.address.to_string()).collect::<Vec<_>>();
    let bare =
        Bare::start("bare-leader", &["--file", &file("leader"), "--followers", &addresses.join(",")]).await?;
    let pids = [&bare, &followers[0], &followers[1]].map(Bare::pid).to_vec();
    let mut groups = vec![Group { name: "bare", pids, leader: bare.address }];
    let mut clusters: Vec<Cluster> = Vec::new();
    for program in programs {
        // By default an agent admits 200 connections per client, which is no limit that is to be measured.
        let unlimited = ["-hcl", "limits { http_max_conns_per_client = 10000 }"];
        let cluster = super::servers(program, &unlimited).await?;
        let leader = cluster.leader().await?;
        groups.push(Group {
            name: program.name,
            pids: cluster.servers().iter().map(|server| server.pid()).collect(),
            leader: cluster.servers()[leader].http(),
        });
        clusters.push(cluster);
    }
    let mut sums = vec![Sample::default(); groups.len()];
    for round in 0..=effort.rounds {
        for (group, sum) in groups.iter().zip(&mut sums) {
            // The first round only warms up.
            let length = if round == 0 { effort.turn / 4 } else { effort.turn };
            let before = cpu(&group.pids)?;
            let mut sample = put(group.leader, effort.writers, length)
                .await
                .map_err(|error| format!("{}: {error}", group.name))?;
            sample.cpu = cpu(&group.pids)? - before;
            if round > 0 {
                sum.add(sample);
            }
        }
    }
    let mut loads = Loads::default();
    for (group, sum) in groups.iter().zip(sums) {
        loads.add("durable PUT to the leader of three, CPU of all three", group.name, sum);
    }
    print!("{loads}");
    Ok(())
}

fn cpu(pids: &[u32]) -> std::io::Result<Duration> {
    pids.iter().map(|pid| measure::cpu(*pid)).sum()
}

/// Every writer writes its own key, each time with another value.
async fn put(leader: SocketAddr, writers: usize, turn: Duration) -> std::io::Result<Sample> {
    let requests = (0..writers)
        .map(|writer| load::put(&format!("/v1/kv/bench/{writer}"), &[b'v'; VALUE_BYTES]))
        .collect();
    load::http(leader, requests, turn, |request, number| {
        let end = request.len();
        request[end - 20..].copy_from_slice(format!("{number:020}").as_bytes());
    })
    .await
}
