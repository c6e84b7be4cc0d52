//! The watches of the agent's configuration.

use std::sync::{Arc, Mutex, PoisonError};

use proconsul_io_real::probe::SocketProber;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::config::ConfigError;
use crate::watch::handler::Handler;
use crate::watch::plan::Plan;
use crate::watch::{Trouble, Watching};

/// Something that is watched, and whom to tell.
pub(super) struct Watch {
    plan: Plan,
    handler: Handler,
}

/// Reads the watches of a configuration.
pub(super) fn read(settings: &Map<String, Value>) -> Result<Vec<Watch>, ConfigError> {
    let all = settings.get("watches").and_then(Value::as_array).into_iter().flatten();
    let read = |(at, parameters): (usize, &Value)| {
        let empty = Map::new();
        let mut plan = Plan::read(parameters.as_object().unwrap_or(&empty))
            .map_err(|why| ConfigError::new(why).hint(format!("watches[{at}]")))?;
        match plan.handler.take() {
            Some(handler) => Ok(Watch { plan, handler }),
            None => Err(ConfigError::new("Must define a watch handler").hint(format!("watches[{at}]"))),
        }
    };
    all.enumerate().map(read).collect()
}

/// The watches that run.
pub(super) struct Watches {
    runtime: Handle,
    client: Client,
    prober: Arc<SocketProber>,
    running: Mutex<JoinSet<()>>,
}

impl Watches {
    pub(super) fn new(runtime: Handle, client: Client) -> Watches {
        Watches { runtime, client, prober: Arc::default(), running: Mutex::default() }
    }

    /// Begins these watches, and ends all others with their handlers.
    pub(super) fn replace(&self, watches: Vec<Watch>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropping the former set aborts its tasks.
        *running = JoinSet::new();
        for Watch { plan, handler } in watches {
            let client = self.client.clone().with_token(plan.token.clone());
            let prober = Arc::clone(&self.prober);
            running.spawn_on(follow(client, plan, handler, prober), &self.runtime);
        }
    }
}

async fn follow(client: Client, plan: Plan, handler: Handler, prober: Arc<SocketProber>) {
    let kind = plan.kind().to_owned();
    let mut watching = Watching::new(client, plan);
    loop {
        match watching.next().await {
            Ok(news) => match handler.tell(&news, &*prober).await {
                Ok(said) => tracing::debug!(watch = kind, output = said.trim_end(), "watch handler output"),
                Err(why) => tracing::error!(watch = kind, "Failed to run watch handler: {why}"),
            },
            Err(Trouble { reason, pause }) => {
                tracing::warn!(watch = kind, ?pause, "Watch errored, it is tried again: {reason}");
            }
        }
    }
}
