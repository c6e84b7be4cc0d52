//! What a run is going to do, drawn beforehand.
//!
//! A seed alone is no regression test: a change of two lines in the driver reorders every draw after it. So a plan is
//! drawn from the seed first, with a generator of its own, and executed afterwards. It says what is done to the world
//! and when, names nothing of the code under test, and is kept as JSON when it finds something.

use proconsul_io_sim::clock::ClockError;
use proconsul_io_sim::net::{Death, LinkQuality};
use serde::{Deserialize, Serialize};

/// The bound on drift that servers are configured with, in parts per million.
pub const DRIFT_BOUND_PPM: u32 = 10_000;

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Seeds everything that is drawn while the plan is executed: latencies, scheduling, the nodes' own randomness.
    pub seed: u64,
    /// How many servers: 1, 3 or 5.
    pub servers: u8,
    /// How many client agents. Agents are numbered together, servers first.
    #[serde(default)]
    pub client_agents: u8,
    /// Agents that begin with a program that knows the first format alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old: Vec<u8>,
    /// How long the safety phase lasts; then everything is healed.
    pub safety_ms: u64,
    // What follows is not always there: a plan is read for as long as there is proconsul, also when plans say more.
    /// Clocks of the agents, by their numbers; who has none has a perfect one.
    #[serde(default)]
    pub clocks: Vec<ClockError>,
    /// How the network is while nothing is done to it.
    #[serde(default)]
    pub net: NetPlan,
    /// How the disks are.
    #[serde(default)]
    pub disk: DiskPlan,
    /// How the servers are configured.
    #[serde(default)]
    pub tuning: Tuning,
    /// Who uses the cluster, and how.
    #[serde(default)]
    pub clients: Vec<ClientPlan>,
    /// What is done to it.
    #[serde(default)]
    pub faults: Vec<TimedFault>,
    /// A defect to plant, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bug: Option<String>,
}

/// The network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetPlan {
    /// Every link.
    pub quality: LinkQuality,
    /// Whether frames between servers travel each for itself, and may be lost, doubled and overtaken.
    pub datagrams: bool,
}

/// The disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskPlan {
    /// A sync takes up to this long.
    pub sync_max_us: u64,
    /// A checkpoint takes up to this long.
    pub checkpoint_max_us: u64,
}

impl Default for DiskPlan {
    fn default() -> DiskPlan {
        DiskPlan { sync_max_us: 3_000, checkpoint_max_us: 50_000 }
    }
}

/// Settings of the servers that a run may vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tuning {
    /// Checkpoints are made after so many entries: small, so that logs are compacted within a run.
    pub snapshot_threshold: u64,
    /// Log segments hold so many bytes.
    pub segment_bytes: u64,
    /// A server that is taken up votes after it was healthy for so long.
    pub stabilization_ms: u64,
    /// A frame of the log holds so many bytes, or one record.
    pub frame_bytes: usize,
    /// Deletions are remembered for so long.
    pub tombstone_ttl_ms: u64,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            snapshot_threshold: 10_000,
            segment_bytes: 1 << 20,
            stabilization_ms: 10_000,
            frame_bytes: 4 << 20,
            tombstone_ttl_ms: 900_000,
        }
    }
}

/// A client: one sequential user of the HTTP interface, on a host of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// What it does.
    pub kind: ClientKind,
    /// Seeds its choices.
    pub seed: u64,
    /// It stops after so many operations.
    pub operations: u32,
    /// It waits up to this long between two.
    pub think_max_ms: u64,
    /// Its values are padded by up to so many bytes.
    #[serde(default)]
    pub padding_max: u32,
}

/// Kinds of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ClientKind {
    /// Sets, gets, check-and-sets and deletes keys that it shares with the others of its kind.
    Kv,
    /// Creates a session, renews it most of the time, acquires and releases locks with it.
    Lock,
    /// Reads the shared keys as fast as it may, from one server whatever happens.
    Reader,
    /// Follows a key by blocking queries.
    Watcher,
    /// Follows all keys under a prefix by blocking queries.
    PrefixWatcher,
    /// Follows some list by blocking queries: services, health, nodes, sessions, keys.
    Follower,
    /// Creates sessions that are bound to checks, or have a TTL, or neither, takes locks with them, and ends them.
    Lifetime,
    /// Registers services with checks at one agent, reports the checks' states, deregisters them.
    Registrar,
    /// Fires user events, and looks at which have arrived.
    Event,
    /// Moves amounts between accounts by transactions, and reads all accounts at once.
    Transfer,
    /// Adds elements to sets, and reads them.
    Set,
    /// Holds a lock, and changes something else in its name.
    Fence,
    /// Saves the whole state, and later restores it.
    Restorer,
    /// Keeps instances of a service in the catalog, passing or critical, and looks the service up over DNS.
    Names,
}

impl ClientKind {
    /// Whether it changes nothing, and goes on when the others have stopped.
    #[must_use]
    pub fn only_watches(self) -> bool {
        match self {
            ClientKind::Watcher | ClientKind::PrefixWatcher | ClientKind::Follower => true,
            ClientKind::Kv
            | ClientKind::Lock
            | ClientKind::Reader
            | ClientKind::Lifetime
            | ClientKind::Registrar
            | ClientKind::Event
            | ClientKind::Transfer
            | ClientKind::Set
            | ClientKind::Fence
            | ClientKind::Restorer
            | ClientKind::Names => false,
        }
    }
}

/// A fault and when it begins, in milliseconds since the safety phase began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedFault {
    /// When.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
}

/// Which agent a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// This server, counted from zero.
    Server(u8),
    /// This client agent, counted from zero. Nobody, if there is none.
    ClientAgent(u8),
    /// Whoever leads when the fault begins; the first one if nobody does.
    Leader,
}

/// What can be done to a cluster. Every fault ends by itself after its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A group of agents and the others do not reach each other.
    Partition {
        /// Their numbers.
        group: Vec<u8>,
        /// For so long.
        ms: u64,
    },
    /// One server does not reach the others, or is not reached, or both. Clients reach it.
    Isolate {
        /// The server.
        server: Target,
        /// Which way is cut.
        way: Way,
        /// For so long.
        ms: u64,
        /// Client agents do not reach it either. They never reach a client agent that is isolated.
        #[serde(default)]
        agents: bool,
    },
    /// Two servers do not reach each other; everybody else reaches both.
    CutPair {
        /// One.
        server: Target,
        /// How many servers further on the other one is, counted round.
        further: u8,
        /// For so long.
        ms: u64,
    },
    /// A server's connections to the others are reset, and then none reaches the other. Clients reach it.
    Sever {
        /// The server.
        server: Target,
        /// For so long.
        ms: u64,
    },
    /// One server does not reach its clients, or is not reached by them, or both.
    CutClients {
        /// The server.
        server: Target,
        /// Which way is cut.
        way: Way,
        /// For so long.
        ms: u64,
    },
    /// Every link between agents is of another quality.
    Weather {
        /// The quality.
        quality: LinkQuality,
        /// For so long.
        ms: u64,
    },
    /// The links from one server are of another quality.
    SlowLink {
        /// The server.
        server: Target,
        /// The quality.
        quality: LinkQuality,
        /// For so long.
        ms: u64,
    },
    /// A server's process or machine dies, and is started again.
    Kill {
        /// The server.
        server: Target,
        /// How it dies.
        death: Death,
        /// For so long.
        down_ms: u64,
    },
    /// All servers die at once, and are started again one after the other.
    KillAll {
        /// How they die.
        death: Death,
        /// Until the first one is started.
        down_ms: u64,
    },
    /// A process is stopped without its knowing.
    Pause {
        /// The server.
        server: Target,
        /// For so long.
        ms: u64,
    },
    /// A server's clocks run differently from here on.
    Drift {
        /// The server.
        server: Target,
        /// Parts per million faster than real time.
        ppm: i64,
    },
    /// A server's wall clock jumps.
    WallJump {
        /// The server.
        server: Target,
        /// By so much.
        by_ms: i64,
    },
    /// A server's syncs take long.
    SlowDisk {
        /// The server.
        server: Target,
        /// Up to so long each.
        sync_max_us: u64,
        /// For so long.
        ms: u64,
    },
    /// A server's disk fails some writes and syncs. The server halts, and is started again.
    FailingDisk {
        /// The server.
        server: Target,
        /// How many of them.
        per_thousand: u32,
        /// For so long.
        ms: u64,
    },
    /// A server is started on a disk that fails some reads, until it manages to start.
    FailingReads {
        /// The server, which is killed for it.
        server: Target,
        /// How many of them.
        per_thousand: u32,
        /// For so long.
        ms: u64,
    },
    /// A server's disk fills up, and has space again later.
    FullDisk {
        /// The server.
        server: Target,
        /// Bytes that are left.
        room: u64,
        /// For so long.
        ms: u64,
    },
    /// Bits flip in the log of a server that is down. It refuses to start, or does without what is damaged; whoever
    /// refuses loses its disk and comes back as another server. Nothing happens where one more lost disk were too many.
    Rot {
        /// The server, which is killed for it.
        server: Target,
        /// So many bits.
        bits: u8,
        /// For so long.
        down_ms: u64,
    },
    /// A server dies and its disk is replaced by an empty one: it comes back as another server, without a vote at first.
    /// Nothing happens where one more lost disk were too many.
    Wipe {
        /// The server.
        server: Target,
        /// For so long.
        down_ms: u64,
    },
    /// A further server joins; there are two of them at most.
    AddServer,
    /// An agent is asked to leave, over HTTP; a while after it has ended it is started again with what it has.
    Leave {
        /// The agent.
        server: Target,
        /// Until it is started again.
        away_ms: u64,
    },
    /// A server dies, an operator removes it from the group, and later it is started again with what it has.
    RemovePeer {
        /// The server.
        server: Target,
        /// Until it is started again.
        away_ms: u64,
    },
    /// An operator asks the leader to hand over.
    TransferLeader {
        /// To this server; to whom it likes, without one.
        to: Option<Target>,
    },
    /// All agents that began with an older program are stopped and started with the newer one, one after the other.
    Upgrade {
        /// Between two of them.
        pause_ms: u64,
    },
}

/// Directions of a cut, as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// Neither sends nor hears.
    Both,
    /// Hears, but is not heard.
    Outbound,
    /// Is heard, but does not hear.
    Inbound,
}

impl Plan {
    /// The worst drift of any clock at any time, in parts per million of real time.
    #[must_use]
    pub fn drift_max_ppm(&self) -> u64 {
        let changed = self.faults.iter().filter_map(|timed| match timed.fault {
            Fault::Drift { ppm, .. } => Some(ppm),
            _ => None,
        });
        let drifts = self.clocks.iter().map(|clock| clock.drift_ppm).chain(changed);
        drifts.map(i64::unsigned_abs).max().unwrap_or(0)
    }

    /// Whether default reads are promised to be linearizable: no clock drifts beyond what is configured.
    #[must_use]
    pub fn trusts_clocks(&self) -> bool {
        self.drift_max_ppm() < u64::from(DRIFT_BOUND_PPM)
    }

    /// Whether a node disappears from the catalog for a while: its agent leaves, or comes back as another one.
    #[must_use]
    pub fn has_nodes_go(&self) -> bool {
        let goes =
            |fault: &Fault| matches!(fault, Fault::Leave { .. } | Fault::Rot { .. } | Fault::Wipe { .. });
        self.faults.iter().any(|timed| goes(&timed.fault))
    }

    /// Reads a plan, or a failure's report that contains one.
    ///
    /// # Errors
    /// The text is neither.
    pub fn from_json(text: &str) -> Result<Plan, serde_json::Error> {
        let mut value: serde_json::Value = serde_json::from_str(text)?;
        match value.get_mut("plan") {
            Some(plan) => serde_json::from_value(plan.take()),
            None => serde_json::from_value(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_plan_that_says_less_than_plans_do_is_read() {
        let plan = Plan::from_json(r#"{ "seed": 7, "servers": 3, "safety_ms": 15000 }"#).unwrap();
        assert_eq!((plan.seed, plan.servers, plan.tuning.stabilization_ms), (7, 3, 10_000));
        assert_eq!(plan.net.quality, LinkQuality::default());
        let client = r#"{ "kind": "Kv", "seed": 1, "operations": 5, "think_max_ms": 10 }"#;
        assert_eq!(serde_json::from_str::<ClientPlan>(client).unwrap().padding_max, 0);
    }

    #[test]
    fn any_setting_of_the_surroundings_may_be_absent() {
        let whole = serde_json::to_value(Plan::from_seed(3)).unwrap();
        for part in ["net", "disk", "tuning"] {
            let names: Vec<String> = whole[part].as_object().unwrap().keys().cloned().collect();
            for name in names {
                let mut less = whole.clone();
                less[part].as_object_mut().unwrap().remove(&name);
                Plan::from_json(&less.to_string()).unwrap_or_else(|error| panic!("{part}.{name}: {error}"));
            }
        }
        let mut report = serde_json::json!({ "log": [] });
        report["plan"] = whole.clone();
        assert_eq!(Plan::from_json(&report.to_string()).unwrap(), Plan::from_seed(3), "in a report");
        assert!(Plan::from_json(&Value::Null.to_string()).is_err());
    }
}
