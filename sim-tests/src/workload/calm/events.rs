//! An event comes once to every agent that is there («eventual delivery», documentation of events; that it comes only once
//! is promised by ourselves).

use std::time::Duration;

use super::Client;
use crate::workload::Shared;
use crate::workload::event::{NAME, payloads};

/// Gossip carries an event to all within this time: at once as a rule. But each agent passes it on to a few others, drawn by
/// lot; whom they all miss is told when states are exchanged, every 30 seconds.
const SPREAD_LIMIT: Duration = Duration::from_secs(60);

/// Fires an event through every agent and looks for all of them at every agent.
pub(super) async fn prove(provers: &mut [Client], shared: &Shared) {
    let mut fired = Vec::new();
    for prover in &mut *provers {
        let payload = format!("calm{}", prover.agent);
        prover.demand("PUT", &format!("/v1/event/fire/{NAME}"), &payload).await;
        fired.push(payload);
    }
    let target = format!("/v1/event/list?name={NAME}");
    for prover in provers {
        let has_all = |seen: &std::collections::BTreeSet<String>| fired.iter().all(|it| seen.contains(it));
        let arrived = prover
            .until("events", &target, SPREAD_LIMIT, |answer| payloads(answer).is_ok_and(|it| has_all(&it)))
            .await;
        if !arrived {
            shared.audit.count("events lost", 1);
        }
    }
}
