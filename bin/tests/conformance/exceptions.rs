//! Steps that are answered otherwise than recorded, and why. An exception that is none any more fails the test.

use super::case::Case;
use super::ground::Kind;
use super::player::Outcome;

/// Which steps of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Any of them, or the case does not begin.
    All,
    /// Those with these names; each fails.
    Named(&'static [&'static str]),
    /// Those with these names; what they answer depends on which server is asked.
    Sometimes(&'static [&'static str]),
}

/// Steps of a case.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    pub file: &'static str,
    pub steps: Steps,
    pub reason: &'static str,
}

const fn except(file: &'static str, steps: Steps, reason: &'static str) -> Exception {
    Exception { file, steps, reason }
}

impl Exception {
    /// Whether a step may fail.
    pub fn covers(&self, step: &str) -> bool {
        match self.steps {
            Steps::All => true,
            Steps::Named(names) | Steps::Sometimes(names) => names.contains(&step),
        }
    }

    /// Why it has to be removed, if it has.
    pub fn stale(&self, case: &Case, outcome: &Outcome) -> Option<String> {
        let named = |name: &str| {
            let with = case.steps.iter().zip(outcome).filter(move |(step, _)| step.name == name);
            with.map(|(_, problems)| problems.is_empty()).collect::<Vec<_>>()
        };
        let reason = self.reason;
        match self.steps {
            Steps::All => {
                let all = outcome.iter().all(Vec::is_empty);
                all.then(|| format!("passes whole, remove its exception ({reason})"))
            }
            Steps::Named(names) | Steps::Sometimes(names) => names.iter().find_map(|name| {
                let passed = named(name);
                let passes = passed.iter().all(|passed| *passed) && matches!(self.steps, Steps::Named(_));
                if passed.is_empty() {
                    Some(format!("there is no step {name:?}, remove its exception ({reason})"))
                } else {
                    passes.then(|| format!("{name:?} passes, remove its exception ({reason})"))
                }
            }),
        }
    }
}

const ACCESS_RULES: &str = "access rules are not built yet";
const MESH: &str = "the mesh's certificate authority is not built yet";
const BROWSERS: &str =
    "the interface for browsers is off unless it is asked for, as in Consul; agents in memory ask";
const PROMETHEUS: &str = "answered without the setting that Consul asks for";
const XDS: &str = "there is no gRPC interface; Consul leaves this out where its own is off";
const ANOTHER_SERVER: &str = "the servers are others than the agent that is asked";
const SERVERS_ONLY: &str = "of servers only; Consul's client agents answer so, too";
const FOLLOWER: &str = "a follower may answer, and says how long ago it heard of the leader";

/// Wherever a case is played.
const EVERYWHERE: &[Exception] = &[
    except("acl/auth.json", Steps::All, ACCESS_RULES),
    except("acl/bootstrap.json", Steps::All, ACCESS_RULES),
    except("acl/enforce-catalog.json", Steps::All, ACCESS_RULES),
    except("acl/enforce-kv.json", Steps::All, ACCESS_RULES),
    except("acl/key-list.json", Steps::All, ACCESS_RULES),
    except("acl/passing-tokens.json", Steps::All, ACCESS_RULES),
    except("acl/policies.json", Steps::All, ACCESS_RULES),
    except("acl/rules-translate.json", Steps::All, ACCESS_RULES),
    except("acl/tokens.json", Steps::All, ACCESS_RULES),
    except("agent/info.json", Steps::Named(&["version is in self"]), XDS),
    except("agent/info.json", Steps::Named(&["Prometheus format"]), PROMETHEUS),
    except("connect/ca.json", Steps::Named(CERTIFICATES), MESH),
];

const CERTIFICATES: &[&str] = &[
    "roots",
    "roots by the agent",
    "roots by the agent, again from its cache",
    "configuration",
    "the same provider with a longer leaf life",
    "the root is the same",
    "unknown provider",
    "leaf life too short",
    "leaf",
    "leaf again from the cache",
    "leaf of a service that is not there",
    "wait for a new leaf",
];

/// On an agent in memory.
const DEV: &[Exception] = &[];

/// On a client agent of three servers.
const CLIENT: &[Exception] = &[
    except("agent/info.json", Steps::Named(&["self", "members in the WAN"]), SERVERS_ONLY),
    except("agent/info.json", Steps::Named(&["leader", "peers"]), ANOTHER_SERVER),
    except("agent/membership.json", Steps::Named(&["join in the WAN"]), SERVERS_ONLY),
    except("http/requests.json", Steps::Named(&["the root leads to the UI"]), BROWSERS),
    except("http/requests.json", Steps::Named(&["host name is of no interest"]), ANOTHER_SERVER),
    except("operator/autopilot.json", Steps::Named(&["health"]), ANOTHER_SERVER),
    except("operator/keyring-off.json", Steps::Named(&["list", "install", "use", "remove"]), SERVERS_ONLY),
    except("operator/raft.json", Steps::Named(&["configuration"]), ANOTHER_SERVER),
    except("query/execute.json", Steps::Sometimes(&["stale"]), FOLLOWER),
    except("txn/read-only.json", Steps::Sometimes(&["stale"]), FOLLOWER),
];

/// The exceptions for where a case is played.
pub fn of(kind: Kind) -> impl Iterator<Item = &'static Exception> {
    let own = match kind {
        Kind::Dev => DEV,
        Kind::Client => CLIENT,
    };
    EVERYWHERE.iter().chain(own)
}
