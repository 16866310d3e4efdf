//! The verdict on a round: what was promised, held against what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::history::{Attempt, History, Outcome, RecordId, Stored};

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Anomaly {
    /// Acknowledged, and not there.
    Lost,
    /// Acknowledged at one offset, and there at another one.
    Displaced,
    /// Two records were acknowledged at one offset.
    AcknowledgedTwice,
    /// A record is there more than once.
    Duplicate,
    /// A producer's records of one partition are in another order than they were sent.
    Reordered,
    /// The client said that a record was not stored, and it is there.
    StoredThoughFailed,
    /// A record of a known producer that it never sent, or of another partition.
    Foreign,
    /// An offset is missing between two that are there.
    Hole,
    /// Epochs fall along the log.
    EpochFell,
    /// An acknowledgement of an epoch before the one that wrote the record, or of a record that
    /// was sent after a later leader had acknowledged.
    StaleAcknowledgement,
    /// The tailing consumer's position skipped or repeated an offset.
    TailSkipped,
    /// The tailing consumer read something else than what is there now.
    TailChanged,
    /// The tailing consumer was told an error, or did not reach the end.
    TailFailed,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// How often something was found, and the first examples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    pub count: u64,
    pub examples: Vec<String>,
}

const EXAMPLES_MAX: usize = 5;

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict(pub BTreeMap<Anomaly, Found>);

impl Verdict {
    #[must_use]
    pub fn clean(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.0.get(&anomaly).map_or(0, |found| found.count)
    }

    fn add(&mut self, anomaly: Anomaly, example: impl fmt::Display) {
        let found = self.0.entry(anomaly).or_default();
        found.count += 1;
        if found.examples.len() < EXAMPLES_MAX {
            found.examples.push(example.to_string());
        }
    }
}

/// Checks one round, or several of one topic.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let sent: BTreeMap<RecordId, &Attempt> = history.attempts.iter().map(|attempt| (attempt.id, attempt)).collect();
    let producers: BTreeSet<u32> = sent.keys().map(|id| id.producer).collect();
    let places = check_log(history, &sent, &producers, &mut verdict);
    check_outcomes(history, &places, &mut verdict);
    check_staleness(history, &mut verdict);
    check_tail(history, &mut verdict);
    verdict
}

/// Where each record is: partition, offset, epoch.
type Places = BTreeMap<RecordId, Vec<(u32, Stored)>>;

/// The log by itself: contiguous, epochs rising, each producer in order, nothing invented.
fn check_log(
    history: &History,
    sent: &BTreeMap<RecordId, &Attempt>,
    producers: &BTreeSet<u32>,
    verdict: &mut Verdict,
) -> Places {
    let mut places = Places::new();
    for (partition, log) in &history.log {
        let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
        let mut before: Option<Stored> = None;
        for stored in log {
            if let Some(before) = before {
                if stored.offset != before.offset + 1 {
                    let (left, right) = (before.offset, stored.offset);
                    verdict.add(Anomaly::Hole, format!("partition {partition}: {right} follows {left}"));
                }
                if stored.epoch < before.epoch {
                    let place = format!("partition {partition} offset {}", stored.offset);
                    verdict.add(Anomaly::EpochFell, format!("{place}: {} after {}", stored.epoch, before.epoch));
                }
            }
            before = Some(*stored);
            // Late records of producers of an earlier round are that round's.
            let Some(id) = stored.id.filter(|id| producers.contains(&id.producer)) else { continue };
            if id.partition != *partition || !sent.contains_key(&id) {
                verdict.add(Anomaly::Foreign, format!("partition {partition} offset {}: {id:?}", stored.offset));
            }
            let known = newest.entry(id.producer).or_insert(id.sequence);
            let again = places.entry(id).or_default();
            // A repetition is a duplicate, whatever it does to the order.
            if again.is_empty() && id.sequence < *known {
                verdict.add(Anomaly::Reordered, format!("offset {}: {id:?} after {known}", stored.offset));
            }
            *known = (*known).max(id.sequence);
            again.push((*partition, *stored));
        }
    }
    for (id, found) in places.iter().filter(|(_, found)| found.len() > 1) {
        let offsets: Vec<u64> = found.iter().map(|(_, stored)| stored.offset).collect();
        verdict.add(Anomaly::Duplicate, format!("{id:?} at {offsets:?}"));
    }
    places
}

/// Every promise held against the log.
fn check_outcomes(history: &History, places: &Places, verdict: &mut Verdict) {
    let mut acknowledged: BTreeMap<(u32, u64), RecordId> = BTreeMap::new();
    for Attempt { id, outcome, .. } in &history.attempts {
        let found = places.get(id);
        match outcome {
            Outcome::Acknowledged { offset, epoch } => {
                if let Some(other) = acknowledged.insert((id.partition, *offset), *id) {
                    verdict.add(Anomaly::AcknowledgedTwice, format!("{offset}: {other:?} and {id:?}"));
                }
                match found.map(Vec::as_slice) {
                    None | Some([]) => verdict.add(Anomaly::Lost, format!("{id:?} at {offset} in epoch {epoch}")),
                    Some(found) => match found.iter().find(|(_, stored)| stored.offset == *offset) {
                        None => verdict.add(Anomaly::Displaced, format!("{id:?}: {offset} became {found:?}")),
                        Some((_, stored)) if stored.epoch > *epoch => {
                            let example = format!("{id:?} at {offset}: epoch {epoch}, written in {}", stored.epoch);
                            verdict.add(Anomaly::StaleAcknowledgement, example);
                        }
                        Some(_) => {}
                    },
                }
            }
            Outcome::NotStored(why) if found.is_some() => {
                verdict.add(Anomaly::StoredThoughFailed, format!("{id:?}: {why}"));
            }
            Outcome::NotStored(_) | Outcome::Unknown(_) => {}
        }
    }
}

/// Once a later leader has acknowledged, an earlier one acknowledges nothing that is sent.
fn check_staleness(history: &History, verdict: &mut Verdict) {
    // (partition, epoch) → when it first acknowledged.
    let mut first = BTreeMap::new();
    let acknowledged = || {
        history.attempts.iter().filter_map(|attempt| match attempt.outcome {
            Outcome::Acknowledged { epoch, .. } => Some((attempt, epoch)),
            _ => None,
        })
    };
    for (attempt, epoch) in acknowledged() {
        let seen = first.entry((attempt.id.partition, epoch)).or_insert(attempt.ended);
        *seen = attempt.ended.min(*seen);
    }
    for (attempt, epoch) in acknowledged() {
        let later = first.range((attempt.id.partition, epoch + 1)..=(attempt.id.partition, u32::MAX));
        if let Some((key, _)) = later.into_iter().find(|(_, when)| **when < attempt.sent) {
            let example = format!("{:?} in epoch {epoch}, sent after {} had acknowledged", attempt.id, key.1);
            verdict.add(Anomaly::StaleAcknowledgement, example);
        }
    }
}

/// A consumer's positions neither skip nor repeat, and what it read is what is there.
fn check_tail(history: &History, verdict: &mut Verdict) {
    for error in &history.tail_errors {
        verdict.add(Anomaly::TailFailed, error);
    }
    for (partition, tail) in &history.tail {
        let base = history.base.get(partition).copied().unwrap_or(0);
        let log = history.log.get(partition).map_or(&[][..], Vec::as_slice);
        let by_offset: BTreeMap<u64, &Stored> = log.iter().map(|stored| (stored.offset, stored)).collect();
        let mut expected = base;
        for stored in tail {
            if stored.offset != expected {
                let example = format!("partition {partition}: {} instead of {expected}", stored.offset);
                verdict.add(Anomaly::TailSkipped, example);
            }
            expected = stored.offset + 1;
            match by_offset.get(&stored.offset) {
                Some(there) if *there == stored => {}
                there => {
                    verdict.add(Anomaly::TailChanged, format!("partition {partition}: {stored:?} is now {there:?}"));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
