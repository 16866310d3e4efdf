//! What must hold in the end: everybody has everything, and the history is one that a correct
//! broker could have produced.

use std::collections::BTreeMap;

use baton_broker::log::memory::StoredCopy;
use baton_core::TopicPartition;
use baton_core::batch::decode_records;
use baton_history::check::Options;
use baton_history::event::{Event, Replica, Seen, Unclean};
use baton_history::{History, Recorder, payload_id};

use super::SimCluster;
use super::keyed;
use super::topic::Place;
use super::watch::Known;

/// Records of one batch, decompressed; the load's are far smaller.
pub(super) const DECOMPRESSED_MAX: usize = 16 << 20;

/// The copies of every broker, by partition.
#[must_use]
pub fn copies(cluster: &SimCluster) -> BTreeMap<TopicPartition, BTreeMap<u32, StoredCopy>> {
    let mut all: BTreeMap<_, BTreeMap<u32, StoredCopy>> = BTreeMap::new();
    for broker in 1..=cluster.settings.brokers {
        for copy in cluster.disk(broker).copies() {
            all.entry(copy.id).or_default().insert(broker, copy);
        }
    }
    all
}

/// The first difference between two replicas of a partition, or a copy of what is not here.
///
/// # Errors
/// Says what differs.
pub fn check_copies(cluster: &SimCluster, known: &Known) -> Result<(), String> {
    for (id, copies) in copies(cluster) {
        let Some(state) = known.states.get(&id) else {
            let brokers: Vec<_> = copies.iter().filter(|(_, copy)| !copy.batches.is_empty()).map(|(b, _)| b).collect();
            if brokers.is_empty() {
                continue;
            }
            return Err(format!("brokers {brokers:?} hold data of {id}, which is deleted"));
        };
        let mut first: Option<(u32, &StoredCopy)> = None;
        for (broker, copy) in &copies {
            if !state.assignment.replicas.iter().any(|b| b.0 == *broker) {
                if copy.batches.is_empty() {
                    continue;
                }
                return Err(format!("broker {broker} holds records of {id} and is not assigned"));
            }
            let Some((other, reference)) = first else {
                first = Some((*broker, copy));
                continue;
            };
            let start = copy.start.max(reference.start);
            let bytes = |copy: &StoredCopy| {
                let kept = copy.batches.iter().filter(|b| b.last >= start);
                kept.map(|b| (b.base, b.bytes.clone())).collect::<Vec<_>>()
            };
            let bounds = |copy: &StoredCopy| (copy.start, copy.end);
            let policy = known.topics.get(&id.topic).and_then(|node| node.config.get("cleanup.policy"));
            let equal = match policy.is_some_and(|policy| policy.contains("compact")) {
                true => agree(copy, reference),
                false => bytes(copy) == bytes(reference),
            };
            if bounds(copy) != bounds(reference) || !equal {
                return Err(format!(
                    "{id}: brokers {other} and {broker} differ; they hold {:?} and {:?}",
                    bounds(reference),
                    bounds(copy)
                ));
            }
        }
        if let Some(lacking) = state.assignment.replicas.iter().find(|b| !copies.contains_key(&b.0)) {
            return Err(format!("{id}: broker {lacking} is assigned and holds nothing"));
        }
    }
    Ok(())
}

/// Whether two copies that are compacted each by itself hold the same where both hold anything.
fn agree(one: &StoredCopy, other: &StoredCopy) -> bool {
    let (one, other) = (keyed::records(one), keyed::records(other));
    one.iter().all(|(offset, record)| other.get(offset).is_none_or(|same| same == record))
}

/// Where the partitions of the load end.
#[must_use]
pub fn ends(cluster: &SimCluster, known: &Known) -> BTreeMap<Place, u64> {
    let copies = copies(cluster).into_iter().filter_map(|(id, copies)| Some((known.place(id)?, copies)));
    copies.map(|(place, copies)| (place, copies.values().map(|c| c.end.0).max().unwrap_or(0))).collect()
}

/// Writes down which elections may have lost something.
pub fn record_unclean(known: &Known, recorder: &Recorder) {
    for (id, epoch, at_us) in &known.unclean {
        let Some(place) = known.place(*id) else { continue };
        let unclean = Unclean { partition: place.to_string().into(), epoch: epoch.0, at_us: *at_us };
        recorder.record(Event::Unclean(unclean));
    }
}

/// Writes down what every replica of the load's partitions holds.
pub fn record_replicas(cluster: &SimCluster, known: &Known, recorder: &Recorder, at_us: u64) {
    for (id, copies) in copies(cluster) {
        let Some(place) = known.place(id) else { continue };
        for (broker, copy) in copies {
            let records = copy.batches.iter().flat_map(|batch| {
                let records = decode_records(&batch.bytes, DECOMPRESSED_MAX).unwrap_or_default();
                let epoch = Some(batch.epoch.0);
                records.into_iter().map(move |record| Seen {
                    offset: record.offset.0,
                    payload: record.value.as_ref().map(|value| payload_id(value)),
                    epoch,
                })
            });
            recorder.record(Event::Replica(Replica {
                broker,
                partition: place.to_string().into(),
                log_start: copy.start.0,
                high_watermark: copy.end.0,
                end: copy.end.0,
                at_us,
                from: copy.start.0,
                to: copy.end.0,
                records: records.collect(),
                blocks: Vec::new(),
            }));
        }
    }
}

/// The checker's verdict.
///
/// # Errors
/// The report, in words.
pub fn check_history(history: &History) -> Result<(), String> {
    let options = Options { skew_us: 2_000, examples_max: 5 };
    match history.check(options) {
        Ok(report) if report.clean() => Ok(()),
        Ok(report) => Err(format!("the history: {report}")),
        Err(invalid) => Err(format!("the history cannot be judged: {invalid}")),
    }
}
