//! Names of hosts, from a table.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use proconsul_io_real::ports::Resolver;

use crate::time::sim_sleep;

/// A table of names. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimResolver(Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>);

impl SimResolver {
    /// From here on, a name has these addresses; without any, there is no such host.
    pub fn set(&self, name: &str, addresses: Vec<IpAddr>) {
        self.0.lock().expect("a simulation runs on one thread").insert(name.to_owned(), addresses);
    }
}

#[async_trait]
impl Resolver for SimResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        sim_sleep(Duration::from_millis(2)).await;
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let names = self.0.lock().expect("a simulation runs on one thread");
        match names.get(name) {
            Some(addresses) if !addresses.is_empty() => Ok(addresses.clone()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such host")),
        }
    }
}
