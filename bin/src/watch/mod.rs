//! Watches: something is read again and again by blocking queries, and a handler is told when it differs.
//!
//! One implementation for the command `watch` and for the `watches` of an agent's configuration. [`plan`] reads what is to
//! be watched, [`follow`] decides what an answer means, [`handler`] tells of it, and [`Watching`] carries.
//!
//! The rules are those of Consul's documentation, «Watches»: each watch has at most one run of its handler at a time; what
//! changes meanwhile is told as one state, the latest; after an error the state is read again.

pub mod follow;
pub mod handler;
pub mod plan;

use std::time::Duration;

use hyper::Method;

use crate::client::Client;

use self::follow::{Answer, Follower, Verdict};
use self::plan::Plan;

/// So long may a blocking query take: what it waits, its jitter, and time to answer.
const QUERY_TIMEOUT: Duration = Duration::from_secs(6 * 60);

/// A state to tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Its index; for what has none, 1.
    pub index: u64,
    /// One line of JSON, without its end.
    pub text: String,
}

/// Reads the state once.
///
/// # Errors
/// In words: nobody answers, or the agent refuses.
pub async fn once(client: &Client, plan: &Plan) -> Result<News, String> {
    let mut follower = Follower::new(plan.shape());
    let answer = ask(client, plan, &follower).await?;
    match follower.answered(answer) {
        Verdict::Tell(news) => Ok(news),
        Verdict::Again => Err("the agent's answer says nothing".to_owned()),
        Verdict::Failed { reason, .. } => Err(reason),
    }
}

/// Why a state could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In words.
    pub reason: String,
    /// How long it is waited out.
    pub pause: Duration,
}

/// Somebody who follows a state.
pub struct Watching {
    client: Client,
    plan: Plan,
    follower: Follower,
    pause: Duration,
}

impl Watching {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(client: Client, plan: Plan) -> Watching {
        let follower = Follower::new(plan.shape());
        Watching { client, plan, follower, pause: Duration::ZERO }
    }

    /// Waits for the next state to tell of.
    ///
    /// # Errors
    /// It cannot be read; the next call waits that out, and asks again.
    pub async fn next(&mut self) -> Result<News, Trouble> {
        tokio::time::sleep(std::mem::take(&mut self.pause)).await;
        loop {
            let verdict = match ask(&self.client, &self.plan, &self.follower).await {
                Ok(answer) => self.follower.answered(answer),
                Err(reason) => self.follower.failed(reason),
            };
            match verdict {
                Verdict::Tell(news) => return Ok(news),
                Verdict::Again => {}
                Verdict::Failed { reason, pause } => {
                    self.pause = pause;
                    return Err(Trouble { reason, pause });
                }
            }
        }
    }
}

async fn ask(client: &Client, plan: &Plan, follower: &Follower) -> Result<Answer, String> {
    let mut query = plan.query().to_vec();
    query.extend(follower.mark());
    let ask = client.ask(Method::GET, plan.path(), &query, "");
    let response = match tokio::time::timeout(QUERY_TIMEOUT, ask).await {
        Ok(response) => response.map_err(|error| error.to_string())?,
        Err(_) => return Err("the agent does not answer".to_owned()),
    };
    Ok(Answer {
        status: response.status.as_u16(),
        index: response.index,
        hash: response.hash,
        body: response.body.to_vec(),
    })
}
