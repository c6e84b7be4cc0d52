//! Clients that fire user events and look at which of them have arrived.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::Client;
use super::client::PATIENCE;
use crate::http::Response;

/// What the events of workloads are called.
pub(super) const NAME: &str = "deploy";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EventJson {
    name: String,
    payload: Option<String>,
}

pub(super) async fn run(client: &mut Client) {
    for _ in 0..client.operations {
        if client.must_stop() {
            return;
        }
        if client.one_in(3) {
            let target = format!("/v1/event/fire/{NAME}");
            let payload = client.fresh_value();
            let _ = client.ask("PUT", &target, payload, PATIENCE).await;
        } else {
            let target = format!("/v1/event/list?name={NAME}");
            let answer = client.ask("GET", &target, String::new(), PATIENCE).await;
            if let Some(response) = answer.ok().filter(|response| response.status == 200)
                && let Err(what) = payloads(&response)
            {
                let what = format!("agent {}: {what}", client.agent);
                client.shared.audit.report("events once", what);
            }
        }
        client.think().await;
    }
}

/// The payloads of an agent's events, which are all different.
///
/// # Errors
/// They are not.
pub(super) fn payloads(response: &Response) -> Result<BTreeSet<String>, String> {
    let events: Vec<EventJson> = serde_json::from_slice(&response.body)
        .map_err(|error| format!("/v1/event/list: {error}: {}", response.text()))?;
    let mut payloads = BTreeSet::new();
    for event in events {
        let payload = BASE64_STANDARD.decode(event.payload.unwrap_or_default()).expect("payloads are base64");
        let payload = String::from_utf8(payload).expect("workloads write text");
        if event.name != NAME {
            return Err(format!("an event {} is among those called {NAME}", event.name));
        }
        if !payloads.insert(payload.clone()) {
            return Err(format!("the event with {payload} is there twice"));
        }
    }
    Ok(payloads)
}
