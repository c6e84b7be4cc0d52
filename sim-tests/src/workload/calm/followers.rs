//! Whoever follows a list sees its last state soon, without asking anew.

use proconsul_io_sim::time::sim_sleep;

use super::{Client, WAKE_LIMIT};
use crate::workload::Shared;

/// Until nothing changes by itself any more.
const TRIES: u32 = 10;

/// Changes something of everything that can be followed, and looks who has noticed.
pub(super) async fn prove(prover: &mut Client, shared: &Shared) {
    let service = r#"{"ID":"calm-web","Name":"web0","Port":80,"Check":{"TTL":"300s"}}"#;
    prover.demand("PUT", "/v1/agent/service/register", service).await;
    prover.put("k-calm", "changed").await;
    prover.demand("PUT", "/v1/session/create", "{}").await;
    let targets = shared.followed.lock().targets();
    for target in targets {
        prove_target(prover, shared, target).await;
    }
}

async fn prove_target(prover: &mut Client, shared: &Shared, target: &'static str) {
    let separator = if target.contains('?') { '&' } else { '?' };
    let question = format!("{target}{separator}consistent");
    for _ in 0..TRIES {
        let Some(before) = prover.demand("GET", &question, "").await else { return };
        let agrees = shared.followed.lock().answer(target, before.index, before.text());
        if let Err(what) = agrees {
            prover.violation("watch completeness", what);
            return;
        }
        sim_sleep(WAKE_LIMIT).await;
        let Some(after) = prover.demand("GET", &question, "").await else { return };
        if after.body != before.body {
            continue;
        }
        let behind = shared.followed.lock().behind(target, &before.text());
        for (client, seen) in behind {
            let rows = before.text();
            let what = format!("client {client} follows {target} and has seen {seen}, not {rows}");
            prover.violation("watch completeness", what);
        }
        return;
    }
    shared.audit.count("lists that never settled", 1);
}
