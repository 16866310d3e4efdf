//! What was promised, and whether it held.

use super::*;
use crate::ids::{Offset, ProducerId};

/// Something that must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// Readers see a part of a transaction, or something of one that was not to be committed.
    Torn,
    /// A batch is in another transaction than it was sent in.
    Strayed,
    /// A transaction never ends.
    Hanging,
    /// A batch of a fenced producer was taken after the next one had begun.
    Unfenced,
    /// What readers saw has changed.
    Unstable,
    /// A batch is there twice.
    Doubled,
}

/// One transaction, as its client means it.
#[derive(Clone, Debug, Default)]
struct Intended {
    client: usize,
    acknowledged: BTreeSet<u64>,
    commit_asked: bool,
    committed: bool,
}

#[derive(Default)]
pub struct Truth {
    intended: Vec<Intended>,
    /// By transactional id: who may write at the earliest. Earlier ids come first.
    taken: BTreeMap<&'static str, Vec<Producer>>,
    /// What readers saw, by partition.
    seen: [Vec<u64>; PARTITIONS],
    pub anomalies: BTreeMap<Anomaly, String>,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Truth {
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn begin(&mut self, client: usize) -> usize {
        self.intended.push(Intended { client, ..Intended::default() });
        self.intended.len() - 1
    }

    pub fn sent(&mut self, write: &Write) {
        assert_eq!(self.intended[write.tag].client, write.client);
    }

    pub fn acknowledged(&mut self, write: &Write) {
        self.intended[write.tag].acknowledged.insert(write.call);
    }

    pub fn commit_asked(&mut self, tag: usize) {
        self.intended[tag].commit_asked = true;
    }

    pub fn ended(&mut self, tag: usize, commit: bool) {
        self.intended[tag].committed = commit;
        self.count(if commit { "committed" } else { "aborted" });
    }

    pub fn taken(&mut self, id: &'static str, producer: Producer) {
        if self.taken.get(id).and_then(|taken| taken.last()).is_some_and(|last| last.id != producer.id) {
            self.count("epochs are used up");
        }
        self.taken.entry(id).or_default().push(producer);
    }

    pub fn appended(&mut self, write: &Write) {
        let taken = self.taken.get(write.id).map(Vec::as_slice).unwrap_or_default();
        let Some(last) = taken.last() else { return };
        let older = taken.iter().any(|before| before.id == write.producer.id && before.id != last.id);
        if older || (write.producer.id == last.id && write.producer.epoch < last.epoch) {
            self.found(Anomaly::Unfenced, format!("{write:?} after {last:?}"));
        }
    }

    fn found(&mut self, anomaly: Anomaly, what: String) {
        self.anomalies.entry(anomaly).or_insert(what);
    }
}

impl World {
    /// After each step: nothing undecided is shown, and what was shown stays.
    pub fn judge_partitions(&mut self) {
        for at in 0..PARTITIONS {
            let partition = &self.partitions[at];
            let high_watermark = Offset(partition.high_watermark as u64);
            let stable = partition.table.last_stable(high_watermark);
            assert_eq!(stable, naive_last_stable(&partition.log, partition.high_watermark), "partition {at}");
            let visible = visible(partition, stable);
            let seen = &self.truth.seen[at];
            if visible.get(..seen.len()) != Some(&seen[..]) {
                self.truth.found(Anomaly::Unstable, format!("partition {at}: {seen:?}, then {visible:?}"));
            }
            self.truth.seen[at] = visible;
        }
    }

    pub fn judge_end(&mut self) {
        assert_eq!(self.unanswered(), 0, "requests are never answered");
        let open = self.open_transactions();
        assert!(open.is_empty(), "{open:?}");
        let mut visible_writes: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        let mut tags: BTreeMap<Producer, usize> = BTreeMap::new();
        for at in 0..PARTITIONS {
            self.judge_log(at, &mut tags);
            let partition = &self.partitions[at];
            for call in visible(partition, Offset(partition.high_watermark as u64)) {
                let write = partition.log.iter().filter_map(|stored| stored.write).find(|write| write.call == call);
                visible_writes.entry(write.unwrap().tag).or_default().insert(call);
            }
        }
        for (tag, intended) in self.truth.intended.clone().into_iter().enumerate() {
            let seen = visible_writes.remove(&tag).unwrap_or_default();
            let all = intended.acknowledged.is_subset(&seen);
            let wanted = seen.is_empty() || intended.commit_asked && all;
            if !wanted || intended.committed && !all {
                self.truth.found(Anomaly::Torn, format!("transaction {tag}: {intended:?}, and {seen:?} is seen"));
            }
        }
    }

    fn judge_log(&mut self, at: usize, tags: &mut BTreeMap<Producer, usize>) {
        let partition = &self.partitions[at];
        let (mut calls, mut open) = (BTreeSet::new(), BTreeMap::<ProducerId, usize>::new());
        let mut found = Vec::new();
        for stored in &partition.log {
            if stored.marker.is_some() {
                open.remove(&stored.header.producer_id);
            }
            let Some(write) = stored.write else { continue };
            if !calls.insert(write.call) {
                found.push((Anomaly::Doubled, format!("partition {at}: {write:?}")));
            }
            let here = *open.entry(write.producer.id).or_insert(write.tag);
            let everywhere = match write.protocol {
                Protocol::Second => *tags.entry(write.producer).or_insert(write.tag),
                Protocol::First => here,
            };
            if (here, everywhere) != (write.tag, write.tag) {
                found.push((Anomaly::Strayed, format!("partition {at}: {write:?} in transaction {here}")));
            }
        }
        if partition.table.open().next().is_some() {
            found.push((Anomaly::Hanging, format!("partition {at}: {:?}", partition.table.open().collect::<Vec<_>>())));
        }
        found.into_iter().for_each(|(anomaly, what)| self.truth.found(anomaly, what));
    }
}

/// What a reader of committed records sees below `to`, by the index of aborted transactions.
fn visible(partition: &PartitionSim, to: Offset) -> Vec<u64> {
    let aborted: Vec<_> = partition.table.aborted().within(Offset::ZERO, to).copied().collect();
    let shown = |offset: u64, producer: ProducerId| {
        let offset = Offset(offset);
        !aborted.iter().any(|one| one.producer == producer && one.first <= offset && offset <= one.last)
    };
    let batches = partition.log.iter().zip(0..to.0);
    let batches = batches.filter(|(stored, offset)| shown(*offset, stored.header.producer_id));
    batches.filter_map(|(stored, _)| stored.write.map(|write| write.call)).collect()
}

fn naive_last_stable(log: &[partition::Stored], high_watermark: usize) -> Offset {
    let mut open = BTreeMap::new();
    let mut stable = high_watermark;
    for (offset, stored) in log.iter().enumerate() {
        if stored.write.is_some() {
            open.entry(stored.header.producer_id).or_insert(offset);
        } else if let Some(first) = open.remove(&stored.header.producer_id)
            && offset >= high_watermark
        {
            stable = stable.min(first);
        }
    }
    Offset(open.into_values().fold(stable, usize::min) as u64)
}
