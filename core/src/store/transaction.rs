//! Transactions: several operations that take effect together or not at all (Consul: «Txn»).
//!
//! Each operation sees what the ones before it did. All of them are tried even if one fails, so that a client learns
//! of every failure at once.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Store;
use super::change::Change;
use super::command::{Deregistration, KvCommand, KvVerb, Refusal, Registration, Response};
use super::model::{Check, KvEntry, Node, Service};
use crate::Text;
use crate::ids::Uuid;

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Reads, or demands that something holds.
    Look(Lookup),
    /// Changes keys.
    Kv(KvCommand),
    /// Writes one row of the catalog: the service if the registration has one, else its check if it has one, else the
    /// node. The node of a service or a check must be there, and stays as it is.
    Put {
        /// The row with its node.
        registration: Box<Registration>,
        /// Only if the row was last changed at this index; zero: only if it is absent.
        cas: Option<u64>,
    },
    /// Removes one row of the catalog and what depends on it; removing what is absent is fine.
    Remove {
        /// Which one.
        deregistration: Deregistration,
        /// Only if the row is there and was last changed at this index.
        cas: Option<u64>,
    },
}

/// An operation that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lookup {
    /// One key, which must be there.
    Kv(Text),
    /// One key; one that is absent reads as empty, with indexes of zero.
    KvOrEmpty(Text),
    /// Every entry under a prefix, in byte order.
    KvTree(Text),
    /// The key was last changed at this index.
    KvIndex {
        /// The key.
        key: Text,
        /// Its modify index.
        index: u64,
    },
    /// The key is locked by this session.
    KvSession {
        /// The key.
        key: Text,
        /// The session as it was written; empty: by none.
        session: Text,
    },
    /// The key is not there.
    KvAbsent(Text),
    /// A node, by its identity if one is given.
    Node {
        /// Identity.
        id: Option<Uuid>,
        /// Name.
        name: Text,
    },
    /// One service on a node.
    Service {
        /// Name of the node.
        node: Text,
        /// Identity of the instance.
        id: Text,
    },
    /// One check on a node.
    Check {
        /// Name of the node.
        node: Text,
        /// Identity of the check.
        id: Text,
    },
    /// Does nothing: keeps the place of an operation that is not tried, because others make no sense.
    Untried,
    /// Cannot succeed, for this reason.
    Fails(Text),
}

/// A row that an operation read or wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionRow {
    /// An entry; one that was written or only compared comes without its value.
    Kv(Arc<KvEntry>),
    /// A node.
    Node(Arc<Node>),
    /// An instance.
    Service(Arc<Service>),
    /// A check.
    Check(Arc<Check>),
}

/// Why an operation of a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationError {
    /// Its place in the transaction, from zero.
    pub operation: u32,
    /// In words, those of Consul's HTTP API.
    pub what: Text,
}

/// What a transaction came to: its rows in the order of the operations, or all that failed; then nothing was changed.
pub type Outcome = Result<Vec<TransactionRow>, Vec<OperationError>>;

/// What one operation came to.
type Step = Result<Vec<TransactionRow>, String>;

impl Store {
    /// Applies all operations, or none. They are tried on a copy, which shares all rows that they leave alone.
    pub(super) fn transact(&mut self, change: &mut Change, operations: &[Operation]) -> Outcome {
        // As in Consul, lock-delays are looked at first, and nothing is tried if there is one.
        let delayed = run(operations, |operation| match operation {
            Operation::Kv(command) if matches!(command.verb, KvVerb::Acquire(_)) => self.not_delayed(command),
            _ => Ok(Vec::new()),
        });
        delayed?;
        let mut next = self.clone();
        let mut done = Change::new(change.index);
        let rows = run(operations, |operation| next.operate(&mut done, operation))?;
        *self = next;
        *change = done;
        Ok(rows)
    }

    /// Answers a transaction that only reads.
    pub fn look_up(&self, lookups: &[Lookup]) -> Outcome {
        run(lookups, |lookup| self.look(lookup))
    }

    fn operate(&mut self, change: &mut Change, operation: &Operation) -> Step {
        match operation {
            Operation::Look(lookup) => self.look(lookup),
            Operation::Kv(command) => self.operate_on_keys(change, command),
            Operation::Put { registration, cas } => self.put(change, registration, *cas),
            Operation::Remove { deregistration, cas } => self.remove(change, deregistration, *cas),
        }
    }

    fn look(&self, lookup: &Lookup) -> Step {
        let entry =
            |key: &Text, or: &str| self.kv(key).ok_or_else(|| format!("{or}key {key:?} doesn't exist"));
        match lookup {
            Lookup::Kv(key) => Ok(vec![TransactionRow::Kv(entry(key, "")?)]),
            Lookup::KvOrEmpty(key) => {
                Ok(vec![TransactionRow::Kv(self.kv(key).unwrap_or_else(|| absent(key)))])
            }
            Lookup::KvTree(prefix) => Ok(self.kv.tree(prefix).into_iter().map(TransactionRow::Kv).collect()),
            Lookup::KvIndex { key, index } => {
                let entry = entry(key, "failed to check index, ")?;
                if entry.modify_index != *index {
                    let current = entry.modify_index;
                    return Err(format!(
                        "failed index check for key {key:?}, current modify index {current} != {index}"
                    ));
                }
                Ok(vec![without_value(entry)])
            }
            Lookup::KvSession { key, session } => {
                let entry = entry(key, "failed to check session, ")?;
                let current = entry.session.map(|id| id.to_string()).unwrap_or_default();
                if current != session.as_str() {
                    return Err(format!(
                        "failed session check for key {key:?}, current session {current:?} != {session:?}"
                    ));
                }
                Ok(vec![without_value(entry)])
            }
            Lookup::KvAbsent(key) => match self.kv(key) {
                Some(_) => Err(format!("key {key:?} exists")),
                None => Ok(Vec::new()),
            },
            Lookup::Node { id, name } => self
                .node_named(*id, name)
                .map(|node| vec![TransactionRow::Node(Arc::clone(node))])
                .ok_or_else(|| format!("node {name:?} doesn't exist")),
            Lookup::Service { node, id } => self
                .service(node, id)
                .map(|service| vec![TransactionRow::Service(Arc::clone(service))])
                .ok_or_else(|| format!("service {id:?} on node {node:?} doesn't exist")),
            Lookup::Check { node, id } => self
                .check(node, id)
                .map(|check| vec![TransactionRow::Check(Arc::clone(check))])
                .ok_or_else(|| format!("check {id:?} on node {node:?} doesn't exist")),
            Lookup::Untried => Ok(Vec::new()),
            Lookup::Fails(why) => Err(why.to_string()),
        }
    }

    /// A node by its identity if one is given, else by its name.
    fn node_named(&self, id: Option<Uuid>, name: &str) -> Option<&Arc<Node>> {
        match id {
            Some(id) => self.node_by_id(id),
            None => self.node(name),
        }
    }

    fn not_delayed(&self, command: &KvCommand) -> Step {
        match self.sessions.lock_delay(&command.key) {
            Some(_) => Err(format!("failed to lock key {:?} due to lock delay", command.key)),
            None => Ok(Vec::new()),
        }
    }

    fn operate_on_keys(&mut self, change: &mut Change, command: &KvCommand) -> Step {
        let key = &command.key;
        match self.kv.apply(&self.sessions, &mut self.indexes, change, command) {
            Response::Held(true) => {}
            Response::Refused(refusal) => return Err(refusal.to_string()),
            Response::Held(false) => {
                return Err(match command.verb {
                    KvVerb::Acquire(_) => {
                        self.not_delayed(command)?;
                        format!("failed to lock key {key:?}, lock is already held")
                    }
                    KvVerb::Release(_) => {
                        format!(
                            "failed to unlock key {key:?}, lock isn't held, or is held by another session"
                        )
                    }
                    KvVerb::DeleteCas(_) => format!("failed to delete key {key:?}, index is stale"),
                    KvVerb::Set | KvVerb::Cas(_) | KvVerb::Delete | KvVerb::DeleteTree => {
                        format!("failed to set key {key:?}, index is stale")
                    }
                });
            }
            other => unreachable!("{other:?} is no answer about a key"),
        }
        Ok(match command.verb {
            KvVerb::Set | KvVerb::Cas(_) | KvVerb::Acquire(_) | KvVerb::Release(_) => {
                vec![without_value(self.kv(key).expect("it was just written"))]
            }
            KvVerb::Delete | KvVerb::DeleteCas(_) | KvVerb::DeleteTree => Vec::new(),
        })
    }

    fn put(&mut self, change: &mut Change, registration: &Registration, cas: Option<u64>) -> Step {
        let name = &registration.node;
        let present = self.node(name).is_some();
        let (row, current) = if let Some(service) = &registration.service {
            let old = self.service(name, &service.id).map_or(0, |old| old.modify_index);
            (format!("service {:?} on node {name:?}", service.id), old)
        } else if let Some(check) = registration.checks.first() {
            let old = self.check(name, &check.id).map_or(0, |old| old.modify_index);
            (format!("check {:?} on node {name:?}", check.id), old)
        } else {
            let old = registration.id.and_then(|id| self.node_by_id(id)).or_else(|| self.node(name));
            (format!("node {name:?}"), old.map_or(0, |old| old.modify_index))
        };
        if cas.is_some_and(|expected| expected != current) {
            return Err(format!("failed to set {row}, index is stale"));
        }
        if !present && (registration.service.is_some() || !registration.checks.is_empty()) {
            return Err(Refusal::MissingNode.to_string());
        }
        self.try_register(change, registration).map_err(in_transaction)?;
        let written = "it was just written";
        Ok(vec![if let Some(service) = &registration.service {
            TransactionRow::Service(Arc::clone(self.service(name, &service.id).expect(written)))
        } else if let Some(check) = registration.checks.first() {
            TransactionRow::Check(Arc::clone(self.check(name, &check.id).expect(written)))
        } else {
            TransactionRow::Node(Arc::clone(self.node(name).expect(written)))
        }])
    }

    fn remove(&mut self, change: &mut Change, command: &Deregistration, cas: Option<u64>) -> Step {
        let name = &command.node;
        let (row, current) = if let Some(id) = &command.service_id {
            let old = self.service(name, id).map(|old| old.modify_index);
            (format!("service {id:?} on node {name:?}"), old)
        } else if let Some(id) = &command.check_id {
            (format!("check {id:?} on node {name:?}"), self.check(name, id).map(|old| old.modify_index))
        } else {
            (format!("node {name:?}"), self.node(name).map(|old| old.modify_index))
        };
        if cas.is_some_and(|expected| current != Some(expected)) {
            return Err(format!("failed to delete {row}, index is stale"));
        }
        self.deregister(change, command);
        Ok(Vec::new())
    }
}

/// Tries all operations in their order and collects their rows, or all that fail.
fn run<T>(operations: &[T], mut operate: impl FnMut(&T) -> Step) -> Outcome {
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for (operation, at) in operations.iter().zip(0..) {
        match operate(operation) {
            Ok(found) => rows.extend(found),
            Err(what) => errors.push(OperationError { operation: at, what: what.into() }),
        }
    }
    if errors.is_empty() { Ok(rows) } else { Err(errors) }
}

fn without_value(entry: Arc<KvEntry>) -> TransactionRow {
    let mut entry = Arc::unwrap_or_clone(entry);
    entry.value = Bytes::new();
    TransactionRow::Kv(Arc::new(entry))
}

fn absent(key: &Text) -> Arc<KvEntry> {
    Arc::new(KvEntry {
        key: key.clone(),
        value: Bytes::new(),
        flags: 0,
        lock_index: 0,
        session: None,
        create_index: 0,
        modify_index: 0,
    })
}

/// The words for a refusal by the catalog, which in a transaction come without saying what failed.
fn in_transaction(refusal: Refusal) -> String {
    match refusal {
        Refusal::MissingService { .. } => "Missing service registration".to_owned(),
        Refusal::Other(text) => {
            text.strip_prefix("failed inserting node: ").map(str::to_owned).unwrap_or(text)
        }
        refusal @ (Refusal::InvalidSession(_)
        | Refusal::MissingNode
        | Refusal::MissingCheck(_)
        | Refusal::CriticalCheck(_)) => refusal.to_string(),
    }
}
