//! Clients that save the whole state now and then, and later put the state back to one of those that they saved: through
//! whatever agent, while everybody else goes on.
//!
//! What is restored is what was there in one moment while it was saved («a point-in-time snapshot», documentation of
//! snapshots), all of it at once. A damaged archive changes nothing, and is refused.

use std::time::Duration;

use bytes::Bytes;
use proconsul_io_sim::time::sim_sleep;
use proconsul_jepsen::history::{Op, Outcome, Reply};

use super::Client;
use super::client::PATIENCE;
use crate::http::{Lost, Response};

/// Saved states that a client keeps.
const KEPT_MAX: usize = 4;
/// It restores no more often than this: each restore ties everything that everybody does together.
const RESTORES_MAX: u32 = 4;
/// Between two operations, at most.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// An archive ends with a checksum and a length, of so many bytes together (RFC 1952, section 2.3.1).
const CHECKSUM_BYTES: usize = 8;

/// A saved state.
struct Saved {
    name: String,
    archive: Bytes,
}

pub(super) async fn run(client: &mut Client) {
    let mut kept: Vec<Saved> = Vec::new();
    let mut restores = 0;
    while !client.must_stop() && restores < RESTORES_MAX {
        let pause = client.rng.duration_below(PAUSE_MAX);
        sim_sleep(pause).await;
        if client.must_stop() {
            return;
        }
        let at = client.rng.below(kept.len().max(1) as u64);
        let chosen = kept.get(usize::try_from(at).expect("a place in it"));
        match (chosen, client.rng.below(6)) {
            (Some(saved), 0..=2) => {
                restores += 1;
                restore(client, saved).await;
            }
            (Some(saved), 3) => restore_damaged(client, saved).await,
            _ => {
                if let Some(saved) = save(client).await {
                    kept.push(saved);
                }
                if kept.len() > KEPT_MAX {
                    kept.remove(0);
                }
            }
        }
    }
}

async fn save(client: &mut Client) -> Option<Saved> {
    let name = client.fresh_value();
    let target = format!("/v1/snapshot?{}", client.shared.fresh_mode);
    let id = client.invoke("", Op::Save);
    match client.ask("GET", &target, "", PATIENCE).await {
        Ok(response) if response.status == 200 => {
            let index = Some(response.index);
            client.complete(id, Outcome::Ok(Reply::Snapshot { id: name.clone(), index }));
            client.shared.audit.count("snapshots saved", 1);
            Some(Saved { name, archive: response.body })
        }
        Ok(response) => {
            expect_trouble(&response);
            client.complete(id, Outcome::Failed);
            None
        }
        Err(_) => {
            client.complete(id, Outcome::Failed);
            None
        }
    }
}

async fn restore(client: &mut Client, saved: &Saved) {
    let id = client.invoke("", Op::Restore { snapshot: saved.name.clone() });
    let outcome = match client.ask("PUT", "/v1/snapshot", saved.archive.clone(), PATIENCE).await {
        Ok(response) if response.status == 200 => {
            client.shared.audit.count("snapshots restored", 1);
            Outcome::Ok(Reply::Done { index: None })
        }
        Ok(response) => {
            expect_trouble(&response);
            Outcome::Unknown
        }
        Err(Lost::NotSent) => Outcome::Failed,
        Err(Lost::Unknown) => Outcome::Unknown,
    };
    client.complete(id, outcome);
}

/// Sends an archive of which something was lost or altered on the way. The checkers know nothing of it: it must not have
/// an effect.
async fn restore_damaged(client: &mut Client, saved: &Saved) {
    let mut archive = saved.archive.to_vec();
    let at = usize::try_from(client.rng.below(archive.len() as u64)).expect("a place in it");
    if client.one_in(2) {
        archive.truncate(at);
    } else {
        // Compressed data has bits that mean nothing; the checksum at its end has none.
        let at = archive.len() - 1 - at % CHECKSUM_BYTES;
        archive[at] ^= 1 << client.rng.below(8);
    }
    if let Ok(response) = client.ask("PUT", "/v1/snapshot", archive, PATIENCE).await
        && response.status < 400
    {
        let what = format!("a damaged archive was restored: {} {}", response.status, response.text());
        client.shared.audit.report("restore", what);
    }
}

/// What is whole is not refused for its content.
fn expect_trouble(response: &Response) {
    assert!(response.status >= 500, "a snapshot was answered {} {}", response.status, response.text());
}
