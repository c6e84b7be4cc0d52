//! A session, for as long as a command needs one.

use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::client::{Client, ClientError};

/// A session that the servers have made.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its identity.
    pub id: String,
}

impl Session {
    /// Makes a session as it is described. `server` says which servers are asked.
    ///
    /// # Errors
    /// The servers do not make one.
    pub async fn create(
        client: &Client,
        server: &[(&str, String)],
        wanted: &Value,
    ) -> Result<Session, ClientError> {
        let answer = client.ask(Method::PUT, "/v1/session/create", server, wanted.to_string()).await?;
        let id = answer.json()?["ID"].as_str().unwrap_or_default().to_owned();
        Ok(Session { id })
    }

    /// Renews it. False if it does not exist any more.
    ///
    /// # Errors
    /// Nobody knows whether it was renewed.
    pub async fn renew(&self, client: &Client, server: &[(&str, String)]) -> Result<bool, ClientError> {
        let path = format!("/v1/session/renew/{}", self.id);
        let answer = client.ask(Method::PUT, &path, server, "").await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        answer.ok()?;
        Ok(true)
    }

    /// Ends it.
    ///
    /// # Errors
    /// The servers do not; its TTL will.
    pub async fn destroy(&self, client: &Client, server: &[(&str, String)]) -> Result<(), ClientError> {
        let path = format!("/v1/session/destroy/{}", self.id);
        client.ask(Method::PUT, &path, server, "").await?.ok()?;
        Ok(())
    }
}
