//! Finding the cluster: addresses that an agent was told to join, asked again until somebody answers.
//!
//! Source: Consul's documentation, «`retry_join`», «`start_join`». Names may stand for several addresses; all are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::Text;
use crate::gossip::Pool;
use crate::time::Mono;

/// The first attempts that fail are repeated sooner than the interval says: agents of a new cluster start together.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// Whom an agent joins by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinPolicy {
    /// Hosts, with or without a port; empty: none.
    pub addresses: Vec<Text>,
    /// Time between two attempts.
    pub interval: Duration,
    /// So many attempts, then the agent halts; `None` is without end.
    pub attempts_max: Option<u32>,
    /// Port of addresses that name none.
    pub default_port: u16,
}

/// An address as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// To be used as it is.
    Address(SocketAddr),
    /// A name to be looked up, and the port.
    Name(Text, u16),
}

impl Place {
    /// Reads `host`, `host:port`, an IPv6 address with or without brackets.
    ///
    /// # Errors
    /// One line that names the text and what is wrong with it.
    pub fn parse(text: &str, default_port: u16) -> Result<Place, String> {
        let text = text.trim();
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Place::Address(SocketAddr::new(ip, default_port)));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Place::Address(address));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse().map_err(|_| format!("{text:?}: {port:?} is no port"))?;
                (host, port)
            }
            None => (text, default_port),
        };
        let named = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if named {
            Ok(Place::Name(host.into(), port))
        } else {
            Err(format!("{text:?} is neither an address nor a name of a host"))
        }
    }
}

/// What the joiner wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look up this name; tell [`Joining::on_resolved`].
    Resolve {
        /// The attempt.
        ticket: u64,
        /// The name.
        name: Text,
    },
    /// Contact these; tell [`Joining::on_joined`].
    Join {
        /// The attempt.
        ticket: u64,
        /// Which pool.
        pool: Pool,
        /// Where.
        addresses: Vec<SocketAddr>,
    },
    /// The attempt of a client has ended, with how many agents it contacted.
    Answer {
        /// The client's number.
        client: u64,
        /// What came of it.
        outcome: Result<usize, String>,
    },
    /// An attempt of a pool's policy has ended, whether it met anybody or not.
    Attempted(Pool),
    /// Try again then, and tell the operator why.
    Wait(Pool, Mono, String),
    /// All attempts are used up.
    GiveUp(String),
}

/// Who asked for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// The configuration.
    Policy,
    /// The agent itself, which has lost its servers and looks where the configuration says. What comes of it shows in gossip.
    Search,
    /// A client, with its number.
    Client(u64),
}

#[derive(Debug)]
struct Attempt {
    pool: Pool,
    asker: Asker,
    /// Names that are being looked up, with their ports.
    unresolved: BTreeMap<Text, u16>,
    found: BTreeSet<SocketAddr>,
    errors: Vec<String>,
}

/// Attempts under way, of the policies and of clients.
#[derive(Debug)]
pub struct Joining {
    policies: BTreeMap<Pool, JoinPolicy>,
    failures: BTreeMap<Pool, u32>,
    attempts: BTreeMap<u64, Attempt>,
    next_ticket: u64,
}

impl Joining {
    /// A joiner for these policies.
    #[must_use]
    pub fn new(policies: BTreeMap<Pool, JoinPolicy>) -> Joining {
        Joining { policies, failures: BTreeMap::new(), attempts: BTreeMap::new(), next_ticket: 0 }
    }

    /// Attempts what the policies say. Also when the time of [`Step::Wait`] has come.
    pub fn attempt(&mut self, pool: Pool) -> Vec<Step> {
        self.attempt_policy(pool, Asker::Policy)
    }

    fn attempt_policy(&mut self, pool: Pool, asker: Asker) -> Vec<Step> {
        let Some(policy) = self.policies.get(&pool).filter(|policy| !policy.addresses.is_empty()) else {
            return Vec::new();
        };
        let (addresses, port) = (policy.addresses.clone(), policy.default_port);
        self.begin(pool, asker, &addresses, port)
    }

    /// Whether a policy names anybody for this pool.
    #[must_use]
    pub fn has_policy(&self, pool: Pool) -> bool {
        self.policies.get(&pool).is_some_and(|policy| !policy.addresses.is_empty())
    }

    /// Attempts what the policy says once, outside of its own counting, unless such an attempt is under way. A failure
    /// has no consequences.
    pub fn search(&mut self, pool: Pool) -> Vec<Step> {
        let is_same = |attempt: &Attempt| {
            attempt.pool == pool && matches!(attempt.asker, Asker::Policy | Asker::Search)
        };
        if self.attempts.values().any(is_same) {
            return Vec::new();
        }
        self.attempt_policy(pool, Asker::Search)
    }

    /// Attempts what a client says.
    pub fn client(&mut self, pool: Pool, client: u64, address: &Text, default_port: u16) -> Vec<Step> {
        self.begin(pool, Asker::Client(client), std::slice::from_ref(address), default_port)
    }

    fn begin(&mut self, pool: Pool, asker: Asker, addresses: &[Text], default_port: u16) -> Vec<Step> {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let mut attempt =
            Attempt { pool, asker, unresolved: BTreeMap::new(), found: BTreeSet::new(), errors: Vec::new() };
        for address in addresses {
            match Place::parse(address, default_port) {
                Ok(Place::Address(address)) => {
                    attempt.found.insert(address);
                }
                Ok(Place::Name(name, port)) => {
                    attempt.unresolved.insert(name, port);
                }
                Err(error) => attempt.errors.push(error),
            }
        }
        let mut steps: Vec<Step> =
            attempt.unresolved.keys().map(|name| Step::Resolve { ticket, name: name.clone() }).collect();
        self.attempts.insert(ticket, attempt);
        steps.extend(self.go_on(ticket));
        steps
    }

    /// A name was looked up.
    pub fn on_resolved(&mut self, ticket: u64, name: &str, result: Result<Vec<IpAddr>, String>) -> Vec<Step> {
        let Some(attempt) = self.attempts.get_mut(&ticket) else { return Vec::new() };
        let Some(port) = attempt.unresolved.remove(name) else { return Vec::new() };
        match result {
            Ok(ips) => attempt.found.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, port))),
            Err(error) => attempt.errors.push(format!("{name}: {error}")),
        }
        self.go_on(ticket)
    }

    fn go_on(&mut self, ticket: u64) -> Vec<Step> {
        let Some(attempt) = self.attempts.get(&ticket) else { return Vec::new() };
        if !attempt.unresolved.is_empty() {
            return Vec::new();
        }
        let (pool, addresses) = (attempt.pool, attempt.found.iter().copied().collect());
        vec![Step::Join { ticket, pool, addresses }]
    }

    /// An attempt ended.
    pub fn on_joined(&mut self, now: Mono, ticket: u64, contacted: usize, error: Option<&str>) -> Vec<Step> {
        let Some(mut attempt) = self.attempts.remove(&ticket) else { return Vec::new() };
        attempt.errors.extend(error.map(str::to_owned));
        let error = if attempt.errors.is_empty() {
            "no agent was found there".to_owned()
        } else {
            attempt.errors.join("; ")
        };
        match attempt.asker {
            Asker::Client(client) => {
                let outcome = if contacted > 0 { Ok(contacted) } else { Err(error) };
                vec![Step::Answer { client, outcome }]
            }
            Asker::Search => Vec::new(),
            Asker::Policy if contacted > 0 => {
                self.failures.remove(&attempt.pool);
                vec![Step::Attempted(attempt.pool)]
            }
            Asker::Policy => {
                let mut steps = vec![Step::Attempted(attempt.pool)];
                steps.extend(self.after_failure(now, attempt.pool, &error));
                steps
            }
        }
    }

    fn after_failure(&mut self, now: Mono, pool: Pool, error: &str) -> Option<Step> {
        let policy = self.policies.get(&pool)?;
        let failures = self.failures.entry(pool).or_default();
        *failures += 1;
        if policy.attempts_max.is_some_and(|max| *failures > max) {
            let why = format!("cannot join the cluster after {failures} attempts: {error}");
            return Some(Step::GiveUp(why));
        }
        let sooner = FIRST_RETRY.saturating_mul(1 << (*failures - 1).min(16));
        let wait = policy.interval.min(sooner);
        let why =
            format!("could not join the cluster, attempt {failures}: {error}; trying again in {wait:?}");
        Some(Step::Wait(pool, now + wait, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(addresses: &[&str], attempts_max: Option<u32>) -> JoinPolicy {
        let addresses = addresses.iter().map(Text::new).collect();
        JoinPolicy { addresses, interval: Duration::from_secs(30), attempts_max, default_port: 8301 }
    }

    #[test]
    fn places_are_read_in_all_their_forms() {
        let address = |text: &str| Place::Address(text.parse().expect("an address"));
        for (text, expected) in [
            ("10.0.0.1", address("10.0.0.1:8301")),
            ("10.0.0.1:9301", address("10.0.0.1:9301")),
            ("::1", address("[::1]:8301")),
            ("[::1]", address("[::1]:8301")),
            ("[::1]:9301", address("[::1]:9301")),
            ("server-1", Place::Name("server-1".into(), 8301)),
            ("server-1.example.net:9301", Place::Name("server-1.example.net".into(), 9301)),
        ] {
            assert_eq!(Place::parse(text, 8301), Ok(expected), "{text}");
        }
        for text in ["", ":8301", "host:port", "provider=aws tag_key=x"] {
            assert!(Place::parse(text, 8301).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_looked_up_before_anybody_is_contacted() {
        let mut joining = Joining::new([(Pool::Lan, policy(&["10.0.0.1", "s2:9"], None))].into());
        let steps = joining.attempt(Pool::Lan);
        assert_eq!(steps, [Step::Resolve { ticket: 1, name: "s2".into() }]);
        let steps = joining.on_resolved(1, "s2", Ok(vec![IpAddr::from([10, 0, 0, 2])]));
        let addresses = vec![([10, 0, 0, 1], 8301).into(), ([10, 0, 0, 2], 9).into()];
        assert_eq!(steps, [Step::Join { ticket: 1, pool: Pool::Lan, addresses }]);
        assert_eq!(joining.on_joined(Mono(0), 1, 1, Some("one is down")), [Step::Attempted(Pool::Lan)]);
    }

    #[test]
    fn failures_are_repeated_ever_later_up_to_the_interval_and_the_maximum() {
        let mut joining = Joining::new([(Pool::Lan, policy(&["10.0.0.1"], Some(2)))].into());
        joining.attempt(Pool::Lan);
        let first = joining.on_joined(Mono(0), 1, 0, Some("refused"));
        assert!(
            matches!(&first[..], [Step::Attempted(Pool::Lan), Step::Wait(Pool::Lan, at, _)] if *at == Mono(0) + FIRST_RETRY),
            "{first:?}"
        );
        joining.attempt(Pool::Lan);
        let second = joining.on_joined(Mono(0), 2, 0, None);
        assert!(
            matches!(&second[..], [Step::Attempted(Pool::Lan), Step::Wait(Pool::Lan, at, _)] if *at == Mono(0) + FIRST_RETRY * 2),
            "{second:?}"
        );
        joining.attempt(Pool::Lan);
        let third = joining.on_joined(Mono(0), 3, 0, Some("refused"));
        let why = "cannot join the cluster after 3 attempts: refused".into();
        assert_eq!(third, [Step::Attempted(Pool::Lan), Step::GiveUp(why)]);
    }

    #[test]
    fn a_search_is_made_once_at_a_time_and_its_failure_has_no_consequences() {
        let mut joining = Joining::new([(Pool::Lan, policy(&["10.0.0.1"], Some(1)))].into());
        joining.attempt(Pool::Lan);
        assert_eq!(joining.search(Pool::Lan), [], "the policy's own attempt is under way");
        assert_eq!(joining.on_joined(Mono(0), 1, 1, None), [Step::Attempted(Pool::Lan)]);
        for ticket in 2..5 {
            let addresses = vec![([10, 0, 0, 1], 8301).into()];
            assert_eq!(joining.search(Pool::Lan), [Step::Join { ticket, pool: Pool::Lan, addresses }]);
            assert_eq!(joining.search(Pool::Lan), [], "one is under way");
            assert_eq!(joining.on_joined(Mono(0), ticket, 0, Some("refused")), []);
        }
        assert_eq!(joining.search(Pool::Wan), [], "nobody is named there");
    }

    #[test]
    fn a_client_is_told_how_many_were_contacted_or_why_none() {
        let mut joining = Joining::new(BTreeMap::new());
        joining.client(Pool::Lan, 5, &"10.0.0.1".into(), 8301);
        let ok = joining.on_joined(Mono(0), 1, 1, None);
        assert_eq!(ok, [Step::Answer { client: 5, outcome: Ok(1) }]);
        joining.client(Pool::Lan, 6, &"no such host!".into(), 8301);
        let bad = joining.on_joined(Mono(0), 2, 0, None);
        assert!(
            matches!(&bad[..], [Step::Answer { client: 6, outcome: Err(error) }] if error.contains("neither"))
        );
    }
}
