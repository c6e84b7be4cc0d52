//! `exec`: a command that agents run, told and answered through the key-value store.
//!
//! The layout is Consul's, so that its commands and agents take part. Below `PREFIX/SESSION/`, every key held by the
//! session of who asks, and gone with it: `job` says what to run; each agent writes `NODE/ack` when it begins,
//! `NODE/out/00000`, `00001`… (hexadecimal) with what the program says, an empty one as a sign of life, and `NODE/exit` with
//! the exit status. An event `_rexec` with prefix and session tells the agents.

pub mod collect;
pub mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Name of the event that tells agents of a job.
pub const EVENT: &str = "_rexec";
/// Bytes of output in one key.
pub const CHUNK: usize = 4096;
/// Keys of output of one agent; what comes later is left out.
pub const CHUNKS_MAX: usize = 1024;
/// What is not full is written after this time all the same.
pub const FLUSH: Duration = Duration::from_millis(500);

/// What to run: one of command, arguments and script.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Job {
    /// A command line for a shell.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// A program and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub args: Vec<String>,
    /// A script, in base64.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_empty")]
    pub script: String,
    /// For how many nanoseconds who asks waits for signs of life.
    pub wait: u64,
}

/// A value, or its default where there is null.
fn or_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Where the keys of a job are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What all jobs' keys begin with.
    pub prefix: String,
    /// The session of who asks.
    pub session: String,
}

impl Place {
    /// What the keys of this job begin with, with the slash.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}/{}/", self.prefix, self.session)
    }

    /// The key that says what to run.
    #[must_use]
    pub fn job(&self) -> String {
        format!("{}job", self.all())
    }

    /// What the keys of one agent begin with, with the slash.
    #[must_use]
    pub fn of(&self, node: &str) -> String {
        format!("{}{node}/", self.all())
    }

    /// The event's payload.
    #[must_use]
    pub fn payload(&self) -> String {
        json!({"Prefix": self.prefix, "Session": self.session}).to_string()
    }
}

/// What an agent says by a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// It has begun.
    Acknowledged,
    /// A part of the output, by its number.
    Output(u32),
    /// It has ended.
    Exited,
}

/// The signs among keys below [`Place::all`], by node, in the order in which they were given.
#[must_use]
pub fn signs(place: &Place, keys: &Value) -> BTreeMap<String, Vec<Sign>> {
    let mut found: BTreeMap<String, Vec<Sign>> = BTreeMap::new();
    let prefix = place.all();
    for key in keys.as_array().into_iter().flatten().filter_map(Value::as_str) {
        let Some((node, rest)) = key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        let sign = match rest {
            "ack" => Sign::Acknowledged,
            "exit" => Sign::Exited,
            rest => match rest.strip_prefix("out/").and_then(|number| u32::from_str_radix(number, 16).ok()) {
                Some(number) => Sign::Output(number),
                None => continue,
            },
        };
        found.entry(node.to_owned()).or_default().push(sign);
    }
    for signs in found.values_mut() {
        signs.sort();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_written_as_others_read_them() {
        let job = Job { command: "ls".into(), wait: 2_000_000_000, ..Job::default() };
        assert_eq!(serde_json::to_string(&job).expect("JSON"), r#"{"Command":"ls","Wait":2000000000}"#);
        let read: Job = serde_json::from_str(r#"{"Args":["a"],"Script":null,"Wait":5}"#).expect("a job");
        assert_eq!(read, Job { args: vec!["a".into()], wait: 5, ..Job::default() });
    }

    #[test]
    fn output_comes_before_the_end() {
        let place = Place { prefix: "_rexec".into(), session: "s".into() };
        let keys = json!([
            "_rexec/s/job",
            "_rexec/s/a/ack",
            "_rexec/s/a/exit",
            "_rexec/s/a/out/00000",
            "_rexec/s/a/out/0000a",
            "_rexec/s/a/strange",
            "_rexec/t/b/ack"
        ]);
        let expected = vec![Sign::Acknowledged, Sign::Output(0), Sign::Output(10), Sign::Exited];
        assert_eq!(signs(&place, &keys), BTreeMap::from([("a".to_owned(), expected)]));
    }
}
