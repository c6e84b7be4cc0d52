//! A group of keys as registers of versions, and the operations on them as steps.
//!
//! Values are unique per key, so a value names a version. What nobody was told of a step is left out of it.

use std::collections::BTreeMap;

use crate::history::{Consistency, Nanos, Op, Operation, Outcome, Reply, TxnVerb};

/// A state of one key. Versions of different keys have different numbers, except for [`ABSENT`].
pub(super) type Version = u32;

/// The key does not exist.
pub(super) const ABSENT: Version = 0;

/// In the part of the state that holds a snapshot: it has not been saved yet.
pub(super) const UNSAVED: Version = Version::MAX;

/// What a condition on the modify index expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Version(Version),
    /// The version with an index that nobody was ever told: any version of unknown index may be it.
    UnseenIndex,
}

/// What a step does with one key, given by its place in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Holds only in this version.
    Read(Version),
    /// Holds only if the key exists.
    Exists,
    /// Holds only in the expected version.
    Is(Expected),
    Put(Version),
    PutIf(Expected, Version),
    /// Holds also if the key does not exist.
    DeleteIf(Expected),
    /// Nothing is known about its condition, and it changes nothing.
    Unjudged,
    /// Keeps the state of all keys as this snapshot.
    Save(usize),
    /// Replaces the state of all keys by this snapshot.
    Restore(usize),
}

/// One operation, as the search sees it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) acts: Vec<(usize, Act)>,
    /// `None`: all conditions hold, and the changes are made. Otherwise these acts' conditions do not hold, and
    /// nothing is changed.
    pub(super) failed: Option<Vec<usize>>,
    pub(super) call: Nanos,
    /// `None`: the step may happen at any time after its call, or never.
    pub(super) ret: Option<Nanos>,
    /// The modify index of its changes, if anybody was told.
    pub(super) index: Option<u64>,
    /// Place of the operation in the list that was compiled.
    pub(super) source: usize,
}

impl Step {
    /// Whether it can change anything.
    pub(super) fn changes(&self) -> bool {
        self.failed.is_none()
            && self.acts.iter().any(|(_, act)| match act {
                Act::Put(_) | Act::PutIf(..) | Act::DeleteIf(_) | Act::Save(_) | Act::Restore(_) => true,
                Act::Read(_) | Act::Exists | Act::Is(_) | Act::Unjudged => false,
            })
    }

    /// The versions that it writes.
    pub(super) fn written(&self) -> impl Iterator<Item = Version> {
        self.acts.iter().filter_map(|(_, act)| match act {
            Act::Put(version) | Act::PutIf(_, version) => Some(*version),
            Act::Read(_)
            | Act::Exists
            | Act::Is(_)
            | Act::DeleteIf(_)
            | Act::Unjudged
            | Act::Save(_)
            | Act::Restore(_) => None,
        })
    }

    /// The snapshots that it restores.
    pub(super) fn restored(&self) -> impl Iterator<Item = usize> {
        self.acts.iter().filter_map(|(_, act)| match act {
            Act::Restore(snapshot) => Some(*snapshot),
            _ => None,
        })
    }

    /// The versions that it must find, with their keys: what its first act on each key demands.
    pub(super) fn needs(&self) -> impl Iterator<Item = (usize, Version)> {
        let acts: &[(usize, Act)] = if self.failed.is_none() { &self.acts } else { &[] };
        acts.iter().enumerate().filter_map(|(at, (key, act))| {
            let is_first = !self.acts[..at].iter().any(|(other, _)| other == key);
            match act {
                Act::Read(version)
                | Act::Is(Expected::Version(version))
                | Act::PutIf(Expected::Version(version), _)
                    if is_first =>
                {
                    Some((*key, *version))
                }
                _ => None,
            }
        })
    }
}

/// The steps of one group of keys, in order of their calls.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) steps: Vec<Step>,
    pub(super) keys: usize,
    pub(super) snapshots: usize,
    /// Per version: its modify index, if a client was told; 0 for absence.
    pub(super) index: Vec<Option<u64>>,
}

impl Model {
    /// No key exists, no snapshot has been saved.
    pub(super) fn start(&self) -> Vec<Version> {
        let mut state = vec![ABSENT; self.keys];
        state.resize(self.keys * (1 + self.snapshots), UNSAVED);
        state
    }

    /// Where in a state the keys of a snapshot begin.
    pub(super) fn snapshot_at(&self, snapshot: usize) -> usize {
        self.keys * (1 + snapshot)
    }

    fn meets(&self, version: Version, expected: Expected) -> bool {
        match expected {
            Expected::Version(expected) => version == expected,
            Expected::UnseenIndex => version != ABSENT && self.index[version as usize].is_none(),
        }
    }

    /// Whether an act's condition holds in this state.
    fn holds(&self, key: usize, act: Act, state: &[Version]) -> bool {
        match act {
            Act::Read(version) => state[key] == version,
            Act::Exists => state[key] != ABSENT,
            Act::Is(expected) | Act::PutIf(expected, _) => self.meets(state[key], expected),
            Act::DeleteIf(expected) => state[key] == ABSENT || self.meets(state[key], expected),
            Act::Restore(snapshot) => state[self.snapshot_at(snapshot)] != UNSAVED,
            Act::Put(_) | Act::Save(_) | Act::Unjudged => true,
        }
    }

    /// Whether an act's condition may fail in this state.
    fn may_fail(&self, key: usize, act: Act, state: &[Version]) -> bool {
        match act {
            Act::Unjudged => true,
            // Even a version of unknown index need not be the one.
            Act::Is(Expected::UnseenIndex) | Act::PutIf(Expected::UnseenIndex, _) => true,
            Act::DeleteIf(Expected::UnseenIndex) => state[key] != ABSENT,
            _ => !self.holds(key, act, state),
        }
    }

    /// Takes a step in `state`; false, and any state, if it is not possible there.
    pub(super) fn apply(&self, step: &Step, state: &mut [Version]) -> bool {
        let before: Option<Vec<Version>> = step.failed.as_ref().map(|_| state.to_vec());
        for (at, &(key, act)) in step.acts.iter().enumerate() {
            match &step.failed {
                Some(failed) if failed.contains(&at) => {
                    if !self.may_fail(key, act, state) {
                        return false;
                    }
                    continue;
                }
                Some(_) if !self.holds(key, act, state) => continue,
                None if !self.holds(key, act, state) => return false,
                Some(_) | None => {}
            }
            match act {
                Act::Put(version) | Act::PutIf(_, version) => state[key] = version,
                Act::DeleteIf(_) => state[key] = ABSENT,
                Act::Save(snapshot) => state.copy_within(..self.keys, self.snapshot_at(snapshot)),
                Act::Restore(snapshot) => {
                    let start = self.snapshot_at(snapshot);
                    state.copy_within(start..start + self.keys, 0);
                }
                Act::Read(_) | Act::Exists | Act::Is(_) | Act::Unjudged => {}
            }
        }
        if let Some(before) = before {
            state.copy_from_slice(&before);
        }
        true
    }
}

/// Why a group has no model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is wrong whatever the order.
    Impossible { summary: String, operations: Vec<usize> },
    /// A snapshot was restored of which the history does not say how it was saved.
    NeverSaved { snapshot: String },
}

struct Compiler<'a> {
    keys: &'a [&'a str],
    versions: BTreeMap<(usize, &'a str), Version>,
    /// Per version: its modify index, the operation that may have written it, and by when somebody had seen it.
    index: Vec<Option<u64>>,
    writer: Vec<Option<usize>>,
    seen: Vec<Option<Nanos>>,
    by_index: BTreeMap<(usize, u64), Version>,
    snapshots: BTreeMap<&'a str, usize>,
}

impl<'a> Compiler<'a> {
    fn key(&self, key: &str) -> Option<usize> {
        self.keys.binary_search(&key).ok()
    }

    fn version(&mut self, key: usize, value: &'a str) -> Version {
        let next = Version::try_from(self.index.len()).expect("fewer than 2^32 operations in a group");
        let version = *self.versions.entry((key, value)).or_insert(next);
        if version == next {
            self.index.push(None);
            self.writer.push(None);
            self.seen.push(None);
        }
        version
    }

    fn tell(&mut self, key: usize, version: Version, index: u64) {
        self.index[version as usize].get_or_insert(index);
        self.by_index.entry((key, index)).or_insert(version);
    }

    fn expected(&self, key: usize, index: u64) -> Expected {
        match index {
            0 => Expected::Version(ABSENT),
            index => {
                self.by_index.get(&(key, index)).map_or(Expected::UnseenIndex, |it| Expected::Version(*it))
            }
        }
    }

    /// Notes what an operation wrote, and at which index.
    fn note_writes(&mut self, source: usize, operation: &'a Operation) {
        if !operation.may_be_done() {
            return;
        }
        let index = match operation.reply() {
            Some(Reply::Done { index } | Reply::Txn { index, .. }) => *index,
            _ => None,
        };
        let writes: Vec<(usize, &str)> =
            operation.writes().filter_map(|(key, value)| Some((self.key(key)?, value))).collect();
        for (key, value) in writes {
            let version = self.version(key, value);
            self.writer[version as usize] = Some(source);
            if let Some(index) = index {
                self.tell(key, version, index);
            }
        }
    }

    /// Notes what an operation saw, however fresh it was.
    fn note_reads(&mut self, source: usize, operations: &[&'a Operation]) -> Result<(), Unfit> {
        let operation = operations[source];
        for (key, entry) in entries(operation) {
            let Some(key) = self.key(key) else { continue };
            let version = self.version(key, &entry.value);
            let known = self.writer[version as usize];
            match known {
                Some(writer) if operation.completed >= Some(operations[writer].invoked) => {}
                _ => {
                    return Err(Unfit::Impossible {
                        summary: format!(
                            "a client read {:?} of {:?}, which nobody had begun to write",
                            entry.value, self.keys[key]
                        ),
                        operations: known.into_iter().chain([source]).collect(),
                    });
                }
            }
            self.tell(key, version, entry.modify_index);
            let seen = &mut self.seen[version as usize];
            *seen = Some(seen.map_or(operation.effect_until(), |seen| seen.min(operation.effect_until())));
        }
        Ok(())
    }

    /// What a single action does; `entry` is what it read, if there was an answer.
    fn act(&self, key: usize, verb: &'a TxnVerb, entry: Option<Option<&crate::history::Entry>>) -> Act {
        let version = |value: &str| self.versions[&(key, value)];
        match (verb, entry) {
            (TxnVerb::Get | TxnVerb::GetOrEmpty, Some(Some(entry))) => Act::Read(version(&entry.value)),
            (TxnVerb::GetOrEmpty, Some(None)) | (TxnVerb::CheckNotExists, _) => Act::Read(ABSENT),
            (TxnVerb::Get, _) => Act::Exists,
            (TxnVerb::GetOrEmpty, None) | (TxnVerb::CheckSession { .. }, _) => Act::Unjudged,
            (TxnVerb::CheckIndex { index }, _) => Act::Is(self.expected(key, *index)),
            (TxnVerb::Set { value }, _) => Act::Put(version(value)),
            (TxnVerb::Cas { expected, value }, _) => {
                Act::PutIf(self.expected(key, *expected), version(value))
            }
            (TxnVerb::Delete, _) => Act::Put(ABSENT),
            (TxnVerb::DeleteCas { expected }, _) => Act::DeleteIf(self.expected(key, *expected)),
        }
    }

    fn step(&mut self, source: usize, operation: &'a Operation) -> Result<Option<Step>, Unfit> {
        let refused = operation.outcome == Outcome::Ok(Reply::Refused);
        let mut failed = None;
        let acts: Vec<(usize, Act)> = match &operation.op {
            Op::Txn { actions, consistency } => {
                let looks = operation.op.consistency().is_some();
                if looks && *consistency != Consistency::Linearizable {
                    return Ok(None);
                }
                let entries = match operation.reply() {
                    Some(Reply::Txn { entries, .. }) => Some(entries),
                    Some(Reply::RolledBack { failed: which }) => {
                        failed = Some(which.clone());
                        None
                    }
                    _ if looks => return Ok(None),
                    _ => None,
                };
                let mut acts = Vec::new();
                for (at, action) in actions.iter().enumerate() {
                    let Some(key) = self.key(&action.key) else {
                        // A lock: its key has no place here.
                        acts.push((0, Act::Unjudged));
                        continue;
                    };
                    if let Some(value) = action.verb.value() {
                        self.version(key, value);
                    }
                    acts.push((key, self.act(key, &action.verb, entries.map(|it| it[at].as_ref()))));
                }
                acts
            }
            Op::List { consistency: Consistency::Linearizable, .. } => {
                let Some(Reply::List { entries, .. }) = operation.reply() else { return Ok(None) };
                let found: BTreeMap<&str, &str> =
                    entries.iter().map(|(key, entry)| (key.as_str(), entry.value.as_str())).collect();
                let read = |key: usize| {
                    let value = found.get(self.keys[key]);
                    (key, Act::Read(value.map_or(ABSENT, |value| self.versions[&(key, *value)])))
                };
                below(self.keys, &operation.key).map(read).collect()
            }
            Op::DeleteTree if operation.may_be_done() => {
                below(self.keys, &operation.key).map(|key| (key, Act::Put(ABSENT))).collect()
            }
            Op::Save => match operation.reply() {
                Some(Reply::Snapshot { id, .. }) => match self.snapshots.get(id.as_str()) {
                    Some(snapshot) => vec![(0, Act::Save(*snapshot))],
                    None => return Ok(None),
                },
                _ => return Ok(None),
            },
            Op::Restore { snapshot } if operation.may_be_done() => {
                vec![(0, Act::Restore(self.snapshots[snapshot.as_str()]))]
            }
            op => {
                let Some(key) = self.key(&operation.key) else { return Ok(None) };
                let act = match op {
                    Op::Read { .. } | Op::Watch { .. } => match operation.observed_fresh() {
                        Some(Some(entry)) => Act::Read(self.version(key, &entry.value)),
                        Some(None) => Act::Read(ABSENT),
                        None => return Ok(None),
                    },
                    Op::Write { value } | Op::FencedWrite { value, .. } if operation.may_be_done() => {
                        Act::Put(self.version(key, value))
                    }
                    Op::Cas { expected, value } if operation.may_be_done() || refused => {
                        Act::PutIf(self.expected(key, *expected), self.version(key, value))
                    }
                    Op::Delete if operation.may_be_done() => Act::Put(ABSENT),
                    Op::DeleteCas { expected } if operation.may_be_done() || refused => {
                        Act::DeleteIf(self.expected(key, *expected))
                    }
                    _ => return Ok(None),
                };
                if refused {
                    failed = Some(vec![0]);
                }
                vec![(key, act)]
            }
        };
        let mut ret = operation.reply().and(operation.completed);
        let mut index = match operation.reply() {
            Some(Reply::Done { index } | Reply::Txn { index, .. } | Reply::Snapshot { index, .. }) => *index,
            _ => None,
        };
        if failed.is_none() {
            for (_, act) in &acts {
                if let Act::Put(version) | Act::PutIf(_, version) = act
                    && *version != ABSENT
                {
                    // What was seen has happened, whatever its client knows.
                    ret = ret.or(self.seen[*version as usize]);
                    index = index.or(self.index[*version as usize]);
                }
            }
        }
        Ok(Some(Step { acts, failed, call: operation.invoked, ret, index, source }))
    }
}

/// The places of the keys that begin with a prefix.
fn below(keys: &[&str], prefix: &str) -> std::ops::Range<usize> {
    let start = keys.partition_point(|key| *key < prefix);
    start..start + keys[start..].iter().take_while(|key| key.starts_with(prefix)).count()
}

/// Every entry that an operation was shown, unless it may have been one of its own.
fn entries(operation: &Operation) -> Vec<(&str, &crate::history::Entry)> {
    match (&operation.op, operation.reply()) {
        (Op::Txn { actions, .. }, Some(Reply::Txn { entries, .. })) => actions
            .iter()
            .zip(entries)
            .filter(|(action, _)| matches!(action.verb, TxnVerb::Get | TxnVerb::GetOrEmpty))
            .filter_map(|(action, entry)| Some((action.key.as_str(), entry.as_ref()?)))
            .collect(),
        (_, Some(Reply::List { entries, .. })) => {
            entries.iter().map(|(key, entry)| (key.as_str(), entry)).collect()
        }
        _ => operation
            .observed()
            .and_then(|(entry, _)| entry)
            .map(|entry| (operation.key.as_str(), entry))
            .into_iter()
            .collect(),
    }
}

/// Turns the operations of one group into steps. Stale reads prove what they saw, and are no steps themselves.
pub(super) fn compile<'a>(keys: &'a [&'a str], operations: &[&'a Operation]) -> Result<Model, Unfit> {
    let saved: Vec<&str> = operations
        .iter()
        .filter_map(|operation| match operation.reply() {
            Some(Reply::Snapshot { id, .. }) => Some(id.as_str()),
            _ => None,
        })
        .collect();
    let mut compiler = Compiler {
        keys,
        versions: BTreeMap::new(),
        index: vec![Some(0)],
        writer: vec![None],
        seen: vec![None],
        by_index: BTreeMap::new(),
        snapshots: BTreeMap::new(),
    };
    for operation in operations {
        if let Op::Restore { snapshot } = &operation.op
            && operation.may_be_done()
        {
            if !saved.contains(&snapshot.as_str()) {
                return Err(Unfit::NeverSaved { snapshot: snapshot.clone() });
            }
            let next = compiler.snapshots.len();
            compiler.snapshots.entry(snapshot).or_insert(next);
        }
    }
    for (source, operation) in operations.iter().enumerate() {
        compiler.note_writes(source, operation);
    }
    for source in 0..operations.len() {
        compiler.note_reads(source, operations)?;
    }
    let mut steps = Vec::new();
    for (source, operation) in operations.iter().enumerate() {
        steps.extend(compiler.step(source, operation)?);
    }
    steps.sort_by_key(|step| (step.call, step.source));
    Ok(Model { steps, keys: keys.len(), snapshots: compiler.snapshots.len(), index: compiler.index })
}
