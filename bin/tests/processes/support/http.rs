//! A blocking HTTP client.

use std::net::SocketAddr;

use proconsul_jepsen::process::client::{Answer, Client, RequestError};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// One client with one connection.
pub struct Http {
    runtime: Runtime,
    client: Client,
}

impl Http {
    pub fn new(address: SocketAddr) -> Http {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Http { runtime, client: Client::new(address) }
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<Answer, RequestError> {
        self.runtime.block_on(self.client.request(method, path, body.as_ref()))
    }

    /// An answer with status 200.
    pub fn ok(&mut self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        let answer = self.request(method, path, body);
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!(answer.status, 200, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        answer
    }

    pub fn put(&mut self, path: &str, body: &str) -> Value {
        let answer = self.ok("PUT", path, body);
        if answer.body.is_empty() { Value::Null } else { json(&answer) }
    }

    pub fn get(&mut self, path: &str) -> Value {
        json(&self.ok("GET", path, ""))
    }

    /// The body of an answer with status 200, where others are possible for a while.
    pub fn try_get(&mut self, path: &str) -> Result<Value, String> {
        match self.request("GET", path, "") {
            Ok(answer) if answer.status == 200 => Ok(json(&answer)),
            Ok(answer) => Err(format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body))),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The body and `X-Consul-Index`.
    pub fn get_at(&mut self, path: &str) -> (Value, u64) {
        let answer = self.ok("GET", path, "");
        (json(&answer), answer.index.expect("an index"))
    }
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&answer.body)))
}
