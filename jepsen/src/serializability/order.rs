//! Has each operation a place in the order of the modify indexes that clients saw?
//!
//! What an operation saw was there between two indexes: from the highest of the versions that it saw to the lowest that
//! replaced one of them. All that it saw must have been there together, a change must come directly after what it saw,
//! and what began after another had ended may not have its place before it.

use std::collections::BTreeMap;

use super::model::{ABSENT, Act, Model, Step};
use crate::history::Nanos;

/// What is wrong, and the operations that show it.
pub(super) type Broken = (String, Vec<usize>);

/// The cuts through the order at which a step can be: from `low` (inclusive) to `high` (exclusive, or the step's own
/// index).
struct Place<'a> {
    low: u64,
    high: u64,
    step: &'a Step,
}

pub(super) fn check(keys: &[&str], model: &Model) -> Result<(), Broken> {
    if model.snapshots > 0 {
        // What is restored comes back with its old index.
        return Ok(());
    }
    let order = Order::new(keys, model)?;
    let mut places = Vec::new();
    // What was not answered and not seen need not have happened.
    for step in model.steps.iter().filter(|step| step.failed.is_none() && step.ret.is_some()) {
        places.extend(order.place(step)?);
    }
    real_time(places)
}

struct Order<'a> {
    keys: &'a [&'a str],
    model: &'a Model,
    /// Per key: who wrote at which known index.
    writers: Vec<BTreeMap<u64, &'a Step>>,
}

impl<'a> Order<'a> {
    fn new(keys: &'a [&'a str], model: &'a Model) -> Result<Order<'a>, Broken> {
        let mut writers: Vec<BTreeMap<u64, &Step>> = vec![BTreeMap::new(); keys.len()];
        for step in model.steps.iter().filter(|step| step.failed.is_none()) {
            let mut at: Option<u64> = step.index;
            for (key, act) in &step.acts {
                let (Act::Put(version) | Act::PutIf(_, version)) = act else { continue };
                let Some(index) = model.index[*version as usize].filter(|_| *version != ABSENT) else {
                    continue;
                };
                if *at.get_or_insert(index) != index {
                    let why = format!("one operation has the indexes {} and {index}", at.unwrap_or(index));
                    return Err((why, seen_at(model, step, [at.unwrap_or(index), index])));
                }
                writers[*key].insert(index, step);
            }
        }
        Ok(Order { keys, model, writers })
    }

    fn place(&self, step: &'a Step) -> Result<Option<Place<'a>>, Broken> {
        let mut low: Option<(u64, usize)> = None;
        let mut high: Option<(u64, usize)> = None;
        for (key, version) in step.needs() {
            let Some(index) = self.model.index[version as usize].filter(|_| version != ABSENT) else {
                continue;
            };
            if low.is_none_or(|(low, _)| low < index) {
                low = Some((index, key));
            }
            let next = self.writers[key].range(index + 1..).find(|(_, writer)| writer.source != step.source);
            if let Some((next, _)) = next
                && high.is_none_or(|(high, _)| *next < high)
            {
                high = Some((*next, key));
            }
        }
        let own = if step.changes() { step.index } else { None };
        if let (Some((low, key)), Some(own)) = (low, own)
            && low >= own
        {
            let why = format!("a change at {own} found {:?} as it was written at {low}", self.keys[key]);
            return Err((why, self.proof(step, [(low, key)])));
        }
        if let (Some((high, key)), Some(own)) = (high, own)
            && high < own
        {
            let why = format!(
                "a change at {own} found {:?} as it was before {high}: the update at {high} is lost",
                self.keys[key]
            );
            return Err((why, self.proof(step, [(high, key)])));
        }
        if let (Some((low, new)), Some((high, old))) = (low, high)
            && low >= high
        {
            let why = format!(
                "one operation saw {:?} as it was written at {low}, and {:?} as it was before {high}",
                self.keys[new], self.keys[old]
            );
            return Err((why, self.proof(step, [(low, new), (high, old)])));
        }
        let place = |low, high| Some(Place { low, high, step });
        Ok(match (own, low, high) {
            (Some(own), _, _) => place(own, own),
            (None, None, _) => None,
            (None, Some((low, _)), high) => place(low, high.map_or(u64::MAX, |(high, _)| high)),
        })
    }

    fn proof(&self, step: &Step, others: impl IntoIterator<Item = (u64, usize)>) -> Vec<usize> {
        let writers = others.into_iter().filter_map(|(index, key)| self.writers[key].get(&index));
        writers.map(|writer| writer.source).chain([step.source]).collect()
    }
}

/// The step, and the steps that saw its versions at these indexes.
fn seen_at(model: &Model, step: &Step, indexes: [u64; 2]) -> Vec<usize> {
    let saw = |other: &&Step, index: u64| {
        other.needs().any(|(_, version)| {
            model.index[version as usize] == Some(index) && step.written().any(|it| it == version)
        })
    };
    let seers = indexes.into_iter().filter_map(|index| model.steps.iter().find(|other| saw(other, index)));
    seers.map(|seer| seer.source).chain([step.source]).collect()
}

/// What begins after something else has ended has no earlier place.
fn real_time(mut places: Vec<Place<'_>>) -> Result<(), Broken> {
    let mut ends: Vec<(Nanos, u64, usize)> =
        places.iter().filter_map(|place| Some((place.step.ret?, place.low, place.step.source))).collect();
    ends.sort_unstable();
    places.sort_by_key(|place| (place.step.call, place.step.source));
    let mut ended = ends.into_iter().peekable();
    let mut latest: Option<(u64, usize)> = None;
    for place in places {
        while let Some((_, low, source)) = ended.next_if(|(end, _, _)| *end < place.step.call) {
            if latest.is_none_or(|(latest, _)| latest <= low) {
                latest = Some((low, source));
            }
        }
        if let Some((latest, source)) = latest
            && latest >= place.high
        {
            let why = if place.step.changes() {
                format!(
                    "a change has its place before {}, although {latest} had been reached before it began",
                    place.high
                )
            } else {
                format!(
                    "a reading saw what was before {}, although {latest} had been reached before it began",
                    place.high
                )
            };
            return Err((why, vec![source, place.step.source]));
        }
    }
    Ok(())
}
