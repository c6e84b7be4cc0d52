//! Reading the configuration again when its files change (Consul: «auto_reload_config»).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proconsul_io_real::process::Process as _;
use serde_json::Value;

use super::reload::Around;
use crate::config::Config;
use crate::config::load::Sources;

/// How often the files are looked at.
const PACE: Duration = Duration::from_secs(1);

/// Files, each with a hash of what it holds; without one it cannot be read.
type Contents = BTreeMap<PathBuf, Option<u64>>;

/// What configures an agent, and what it held when that was read.
pub(super) struct Changes {
    sources: Sources,
    /// Certificates, keys and authorities. Whoever renews them does not touch the files that name them.
    certificates: Vec<PathBuf>,
    seen: Seen,
}

impl Changes {
    /// As of now: nothing has changed yet.
    pub(super) fn new(config: &Config) -> Changes {
        let mut changes = Changes {
            sources: config.sources.clone(),
            certificates: certificates(config.settings.get("tls")),
            seen: Seen::default(),
        };
        let now = changes.look();
        changes.seen = Seen { read: now.clone(), before: now };
        changes
    }

    fn look(&self) -> Contents {
        let files = self.sources.files().into_iter().chain(self.certificates.iter().cloned());
        let hash = |file: &PathBuf| {
            let mut hasher = DefaultHasher::new();
            std::fs::read(file).ok()?.hash(&mut hasher);
            Some(hasher.finish())
        };
        files.map(|file| (hash(&file), file)).map(|(hash, file)| (file, hash)).collect()
    }

    /// Looks at the files for ever, and does what SIGHUP does when they have changed.
    pub(super) async fn follow(mut self, around: Arc<Around>) {
        loop {
            tokio::time::sleep(PACE).await;
            let looked = tokio::task::spawn_blocking(move || {
                let now = self.look();
                let due = self.seen.is_due(now);
                (self, due)
            });
            // It does not panic, and is cancelled only when the agent ends.
            let Ok((again, due)) = looked.await else { return };
            self = again;
            if due {
                tracing::info!("configuration files have changed");
                // It says itself what came of it.
                let _ = around.reload().await;
            }
        }
    }
}

/// What files held.
#[derive(Default)]
struct Seen {
    /// When the configuration was read last, whatever came of it: a mistake is told once.
    read: Contents,
    /// At the last look.
    before: Contents,
}

impl Seen {
    /// Whether to read the configuration again: the files differ from what was read, and somebody who was writing them has
    /// come to an end, as nothing has changed since the last look.
    fn is_due(&mut self, now: Contents) -> bool {
        let is_due = now == self.before && now != self.read;
        if is_due {
            self.read.clone_from(&now);
        }
        self.before = now;
        is_due
    }
}

/// The files that a section `tls` names.
fn certificates(tls: Option<&Value>) -> Vec<PathBuf> {
    let sections = tls.and_then(Value::as_object).into_iter().flat_map(|tls| tls.values());
    let names = ["ca_file", "cert_file", "key_file"];
    let files = sections.flat_map(|section| names.map(|name| section[name].as_str().unwrap_or_default()));
    files.filter(|file| !file.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contents(files: &[(&str, Option<u64>)]) -> Contents {
        files.iter().map(|(file, hash)| (PathBuf::from(file), *hash)).collect()
    }

    #[test]
    fn files_are_read_again_once_when_they_have_come_to_rest() {
        let first = contents(&[("a", Some(1))]);
        let mut seen = Seen { read: first.clone(), before: first.clone() };
        let half = contents(&[("a", Some(2))]);
        let whole = contents(&[("a", Some(3)), ("b", Some(1))]);
        let gone = contents(&[("a", None)]);
        for (at, (now, due)) in [
            (&first, false),
            (&half, false),
            (&whole, false),
            (&whole, true),
            (&whole, false),
            (&gone, false),
            (&gone, true),
            // Away and back again within two looks.
            (&whole, false),
            (&gone, false),
            (&gone, false),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(seen.is_due(now.clone()), due, "look {at}");
        }
    }

    #[test]
    fn certificates_are_configuration_too() {
        let tls = json!({"defaults": {"ca_file": "ca", "verify_incoming": true}, "https": {"cert_file": "c", "key_file": ""}});
        assert_eq!(certificates(Some(&tls)), [PathBuf::from("ca"), PathBuf::from("c")]);
        assert_eq!(certificates(None), Vec::<PathBuf>::new());
    }
}
