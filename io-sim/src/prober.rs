//! Health checks with prescribed answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use proconsul_core::Text;
use proconsul_core::agent::{Probe, ProbeKind, ProbeOutcome};
use proconsul_core::store::model::Health;
use proconsul_io_real::ports::Prober;

use crate::time::sim_sleep;

/// Answers probes by their target, as the plan has it at that time; a target without an answer is passing.
#[derive(Clone, Debug, Default)]
pub struct ScriptedProber(Arc<Mutex<BTreeMap<Text, Health>>>);

impl ScriptedProber {
    /// From here on, probes of this URL or address find this.
    pub fn answer(&self, target: &str, health: Health) {
        self.0.lock().expect("a simulation runs on one thread").insert(target.into(), health);
    }
}

#[async_trait]
impl Prober for ScriptedProber {
    async fn probe(&self, probe: &Probe) -> ProbeOutcome {
        sim_sleep(Duration::from_millis(2)).await;
        let target = match &probe.kind {
            ProbeKind::Http { url, .. } => url,
            ProbeKind::Tcp { address, .. }
            | ProbeKind::Udp { address }
            | ProbeKind::H2Ping { address, .. } => address,
            ProbeKind::Script { args } | ProbeKind::Docker { args, .. } => &args[0],
            ProbeKind::Grpc { target, .. } => target,
            ProbeKind::OsService { name } => name,
        };
        let answers = self.0.lock().expect("a simulation runs on one thread");
        let status = answers.get(target).copied().unwrap_or(Health::Passing);
        ProbeOutcome { status, output: format!("scripted: {}", status.as_str()) }
    }
}
