//! What of the agent's own state survives a restart: registrations by request, and the state of TTL checks.
//!
//! Values are postcard behind a version byte. Definitions from configuration files are not persisted.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::definition::CheckDefinition;
use crate::Text;
use crate::store::model::{Health, Service};
use crate::time::Wall;

const VERSION: u8 = 1;
const SERVICE: &str = "agent/service/";
const CHECK: &str = "agent/check/";
const TTL: &str = "agent/ttl/";

/// A persisted value that cannot be read; the agent refuses to start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadPersisted {
    /// Written by a later version.
    #[error(
        "agent state {key:?} has format {found}, this version reads up to {VERSION}; start the version that wrote it"
    )]
    Version {
        /// The key.
        key: Text,
        /// Its format.
        found: u8,
    },
    /// Damaged.
    #[error("agent state {key:?} is damaged; remove it, and register or join again")]
    Damaged {
        /// The key.
        key: Text,
    },
}

/// A service registered by request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedService {
    pub(super) service: Service,
    pub(super) sidecar_of: Option<Text>,
}

/// A check registered by request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedCheck {
    pub(super) definition: CheckDefinition,
}

/// What a client said about a TTL check, and until when it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedTtl {
    pub(super) status: Health,
    pub(super) output: Text,
    /// By the wall clock, the only one that outlives a process. A clock that jumps makes a check critical too soon or
    /// too late by that much, once.
    pub(super) until: Wall,
}

/// Everything that was persisted.
#[derive(Debug, Default)]
pub(super) struct Saved {
    pub(super) services: Vec<SavedService>,
    pub(super) checks: Vec<SavedCheck>,
    pub(super) ttls: Vec<(Text, SavedTtl)>,
}

impl Saved {
    /// Sorts and reads what a restart begins with. Keys of others are ignored.
    pub(super) fn read(persisted: &[(Text, Bytes)]) -> Result<Saved, BadPersisted> {
        let mut saved = Saved::default();
        for (key, value) in persisted {
            if key.starts_with(SERVICE) {
                saved.services.push(decode(key, value)?);
            } else if key.starts_with(CHECK) {
                saved.checks.push(decode(key, value)?);
            } else if let Some(id) = key.strip_prefix(TTL) {
                saved.ttls.push((id.into(), decode(key, value)?));
            }
        }
        Ok(saved)
    }
}

impl SavedTtl {
    /// How much longer it holds.
    pub(super) fn remaining(&self, now: Wall) -> Option<Duration> {
        (self.until > now).then(|| Duration::from_millis(self.until.0 - now.0))
    }
}

/// One change of what is persisted.
pub(super) type Change = (Text, Option<Bytes>);

pub(super) fn put_service(service: &Service, sidecar_of: Option<Text>) -> Change {
    let saved = SavedService { service: service.clone(), sidecar_of };
    (format!("{SERVICE}{}", service.id).into(), Some(encode(&saved)))
}

pub(super) fn remove_service(id: &str) -> Change {
    (format!("{SERVICE}{id}").into(), None)
}

pub(super) fn put_check(definition: &CheckDefinition) -> Change {
    (format!("{CHECK}{}", definition.id).into(), Some(encode(&SavedCheck { definition: definition.clone() })))
}

pub(super) fn remove_check(id: &str) -> Change {
    (format!("{CHECK}{id}").into(), None)
}

pub(super) fn put_ttl(id: &str, saved: &SavedTtl) -> Change {
    (format!("{TTL}{id}").into(), Some(encode(saved)))
}

pub(super) fn remove_ttl(id: &str) -> Change {
    (format!("{TTL}{id}").into(), None)
}

/// A value with the format's version before it.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    postcard::to_extend(value, vec![VERSION]).expect("no type that postcard cannot write").into()
}

/// Reads what [`encode`] made.
pub(crate) fn decode<T: DeserializeOwned>(key: &Text, value: &[u8]) -> Result<T, BadPersisted> {
    match value.split_first() {
        Some((&VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|_| BadPersisted::Damaged { key: key.clone() })
        }
        Some((&found, _)) if found > VERSION => Err(BadPersisted::Version { key: key.clone(), found }),
        _ => Err(BadPersisted::Damaged { key: key.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::CheckKind;
    use super::*;
    use crate::testing::frugal;
    use crate::testing::fuzz::{cases, hostile};

    proptest! {
        #![proptest_config(cases(128))]

        #[test]
        fn hostile_values_are_refused_or_read(
            prefix in prop::sample::select(vec![SERVICE, CHECK, TTL]),
            value in hostile("[a-z]{1,9}".prop_map(|name| {
                let kind = CheckKind::Ttl { ttl: Duration::from_secs(30) };
                put_check(&CheckDefinition::new(name.as_str(), "C", kind)).1.expect("put").to_vec()
            }), 60),
        ) {
            let persisted = [(Text::from(format!("{prefix}x")), Bytes::from(value.clone()))];
            let read = frugal(value.len(), || Saved::read(&persisted));
            if let Ok(saved) = read {
                prop_assert_eq!(saved.services.len() + saved.checks.len() + saved.ttls.len(), 1);
            }
        }
    }

    #[test]
    fn the_format_of_persisted_checks_is_stable() {
        let kind = CheckKind::Ttl { ttl: Duration::from_secs(30) };
        let (key, value) = put_check(&CheckDefinition::new("c", "C", kind));
        assert_eq!(key, "agent/check/c");
        let value = value.unwrap();
        assert_eq!(value.as_ref(), [1, 1, b'c', 1, b'C', 0, 0, 0, 0, 30, 0, 0, 0, 0, 0, 128, 32, 0]);
        assert_eq!(Saved::read(&[(key, value)]).unwrap().checks[0].definition.id, "c");
    }

    #[test]
    fn later_formats_and_damage_are_told_apart() {
        let read = |value: &'static [u8]| Saved::read(&[("agent/ttl/x".into(), value.into())]).unwrap_err();
        assert_eq!(read(&[2, 0]), BadPersisted::Version { key: "agent/ttl/x".into(), found: 2 });
        assert_eq!(read(&[1, 9]), BadPersisted::Damaged { key: "agent/ttl/x".into() });
        assert_eq!(read(&[]), BadPersisted::Damaged { key: "agent/ttl/x".into() });
        assert!(Saved::read(&[("other".into(), Bytes::new())]).is_ok());
    }
}
