//! One key as a register of versions, and the operations on it as steps of that register.
//!
//! Workloads write unique values, so a value names a version, and the modify index that a reader saw with a value is
//! the index of that version. A compare-and-set by index therefore is a compare-and-set of versions.

use std::collections::BTreeMap;

use crate::history::{Nanos, Op, Operation, Outcome, Reply};

/// A state of the register.
pub(super) type Version = u32;

/// The key does not exist: the initial state, and the one after a delete.
pub(super) const ABSENT: Version = 0;

/// What a compare-and-set expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Exactly this version.
    Version(Version),
    /// The version with an index that nobody was ever told: any version of unknown index may be it.
    UnseenIndex,
}

/// What a step does to the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Possible only in this state; changes nothing.
    Read(Version),
    /// Possible only where the state is not the expected one; changes nothing.
    CasRefused(Version),
    /// Possible in every state.
    Put(Version),
    /// Possible only where the state is the expected one.
    Cas(Expected, Version),
}

/// One operation, as the search sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) action: Action,
    pub(super) call: Nanos,
    /// `None`: the outcome is unknown, the step may happen at any time after its call, or never.
    pub(super) ret: Option<Nanos>,
    /// Place of the operation in the list that was compiled.
    pub(super) source: usize,
}

/// The steps of one key, in order of their calls.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) steps: Vec<Step>,
    /// Per version: whether a client was told its index. Absence has the index 0, so it is known.
    pub(super) index_known: Vec<bool>,
}

/// A history that is wrong whatever the order: what is wrong, and the operations that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Impossible {
    pub(super) summary: String,
    pub(super) operations: Vec<usize>,
}

/// The state after an action, or `None` if the action is not possible in this state.
pub(super) fn apply(action: Action, state: Version, index_known: &[bool]) -> Option<Version> {
    match action {
        Action::Read(version) => (state == version).then_some(state),
        Action::CasRefused(version) => (state != version).then_some(state),
        Action::Put(version) => Some(version),
        Action::Cas(Expected::Version(expected), version) => (state == expected).then_some(version),
        Action::Cas(Expected::UnseenIndex, version) => (!index_known[state as usize]).then_some(version),
    }
}

struct Compiler {
    versions: BTreeMap<String, Version>,
    /// Per version: its index, and the operation that told it.
    told: Vec<Option<(u64, usize)>>,
    by_index: BTreeMap<u64, Version>,
}

impl Compiler {
    fn version(&mut self, value: &str) -> Version {
        if let Some(&version) = self.versions.get(value) {
            return version;
        }
        let version = Version::try_from(self.told.len()).expect("fewer than 2^32 operations on a key");
        self.versions.insert(value.to_owned(), version);
        self.told.push(None);
        version
    }

    fn tell(&mut self, version: Version, index: u64, source: usize) -> Result<(), Impossible> {
        if let Some((other, by)) = self.told[version as usize] {
            if other == index {
                return Ok(());
            }
            return Err(Impossible {
                summary: format!("one write has two modify indexes, {other} and {index}"),
                operations: vec![by, source],
            });
        }
        if let Some(&other) = self.by_index.get(&index) {
            let (_, by) = self.told[other as usize].expect("a version is listed by index once it was told");
            return Err(Impossible {
                summary: format!("two values have one modify index, {index}"),
                operations: vec![by, source],
            });
        }
        self.told[version as usize] = Some((index, source));
        self.by_index.insert(index, version);
        Ok(())
    }
}

/// Turns the operations of one key into steps. Stale reads, reads without an answer and operations without effect are
/// left out.
pub(super) fn compile(operations: &[&Operation]) -> Result<Model, Impossible> {
    let mut compiler =
        Compiler { versions: BTreeMap::new(), told: vec![Some((0, usize::MAX))], by_index: BTreeMap::new() };
    let mut written = BTreeMap::new();
    for (source, operation) in operations.iter().enumerate() {
        if let Some(value) = operation.op.value() {
            let version = compiler.version(value);
            if operation.may_be_done() {
                written.insert(version, source);
            }
            if let Some(Reply::Done { index: Some(index) }) = operation.reply() {
                compiler.tell(version, *index, source)?;
            }
        }
    }
    for (source, operation) in operations.iter().enumerate() {
        if let Some((Some(entry), _)) = operation.observed() {
            let version = compiler.version(&entry.value);
            match written.get(&version) {
                None => {
                    return Err(Impossible {
                        summary: format!("a client read {:?}, which nobody wrote", entry.value),
                        operations: operations
                            .iter()
                            .enumerate()
                            .filter(|(at, other)| {
                                *at == source || other.op.value() == Some(entry.value.as_str())
                            })
                            .map(|(at, _)| at)
                            .collect(),
                    });
                }
                Some(&writer) if operation.completed < Some(operations[writer].invoked) => {
                    return Err(Impossible {
                        summary: format!("a client read {:?} before it was written", entry.value),
                        operations: vec![writer, source],
                    });
                }
                Some(_) => compiler.tell(version, entry.modify_index, source)?,
            }
        }
    }
    let expected = |index: u64| match index {
        0 => Expected::Version(ABSENT),
        index => compiler.by_index.get(&index).map_or(Expected::UnseenIndex, |v| Expected::Version(*v)),
    };
    let mut steps = Vec::new();
    for (source, operation) in operations.iter().enumerate() {
        let refused = operation.outcome == Outcome::Ok(Reply::Refused);
        let action = match &operation.op {
            Op::Read { .. } | Op::Watch { .. } => match operation.observed_fresh() {
                Some(Some(entry)) => Action::Read(compiler.versions[&entry.value]),
                Some(None) => Action::Read(ABSENT),
                None => continue,
            },
            Op::Write { value } | Op::FencedWrite { value, .. } if operation.may_be_done() => {
                Action::Put(compiler.versions[value])
            }
            Op::Delete if operation.may_be_done() => Action::Put(ABSENT),
            Op::DeleteCas { expected: index } => match expected(*index) {
                Expected::Version(version) if refused => Action::CasRefused(version),
                // Done where the key did not exist, too: all that is known is that it does not exist afterwards.
                _ if operation.may_be_done() => Action::Put(ABSENT),
                _ => continue,
            },
            Op::Cas { expected: index, value } => match expected(*index) {
                // An index that nobody knows can differ from any other.
                Expected::UnseenIndex if refused => continue,
                Expected::Version(version) if refused => Action::CasRefused(version),
                expected if operation.may_be_done() => Action::Cas(expected, compiler.versions[value]),
                _ => continue,
            },
            _ => continue,
        };
        let ret = operation.reply().and(operation.completed);
        steps.push(Step { action, call: operation.invoked, ret, source });
    }
    steps.sort_by_key(|step| (step.call, step.source));
    Ok(Model { steps, index_known: compiler.told.iter().map(Option::is_some).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::{DONE, at};

    fn impossible(operations: &[Operation]) -> String {
        compile(&operations.iter().collect::<Vec<_>>()).unwrap_err().summary
    }

    #[test]
    fn a_compare_and_set_by_index_is_one_of_versions() {
        let operations = [
            at(1, "k", 1, 2).write("a"),
            at(1, "k", 3, 4).read("a", 5),
            at(1, "k", 5, 6).cas(5, "b", DONE),
            at(1, "k", 7, 8).cas(99, "c", Reply::Refused),
            at(1, "k", 7, 8).cas(99, "d", DONE),
            at(1, "k", 7, 8).cas(0, "e", Reply::Refused),
        ];
        let model = compile(&operations.iter().collect::<Vec<_>>()).unwrap();
        let actions: Vec<Action> = model.steps.iter().map(|step| step.action).collect();
        assert_eq!(
            actions,
            [
                Action::Put(1),
                Action::Read(1),
                Action::Cas(Expected::Version(1), 2),
                Action::Cas(Expected::UnseenIndex, 4),
                Action::CasRefused(ABSENT),
            ]
        );
    }

    #[test]
    fn a_phantom_is_found_without_a_search() {
        assert!(impossible(&[at(1, "k", 1, 2).read("ghost", 4)]).contains("which nobody wrote"));
        let failed = at(1, "k", 0, 1).is(Op::Write { value: "x".into() }, Outcome::Failed);
        assert!(impossible(&[failed, at(1, "k", 1, 2).read("x", 4)]).contains("which nobody wrote"));
        assert!(
            impossible(&[at(1, "k", 1, 2).read("x", 4), at(2, "k", 3, 4).write("x")])
                .contains("before it was written")
        );
    }

    #[test]
    fn an_index_belongs_to_one_version() {
        let two = [
            at(1, "k", 1, 2).write("a"),
            at(1, "k", 1, 2).write("b"),
            at(1, "k", 3, 4).read("a", 5),
            at(1, "k", 3, 4).read("b", 5),
        ];
        assert!(impossible(&two).contains("two values have one modify index"));
        let moved =
            [at(1, "k", 1, 2).write("a"), at(1, "k", 3, 4).read("a", 5), at(1, "k", 3, 4).read("a", 6)];
        assert!(impossible(&moved).contains("two modify indexes"));
    }
}
