//! What was found so far.

use std::collections::BTreeMap;

use super::ids::{EventId, Names, PartitionId};
use crate::report::{Anomaly, Found, Kind};

/// One thing that was found, before names are put to it.
#[derive(Debug)]
pub struct Finding {
    pub offsets: Vec<u64>,
    pub what: String,
    pub events: Vec<EventId>,
}

#[derive(Debug, Default)]
struct Kept {
    count: u64,
    examples: Vec<(PartitionId, Finding)>,
}

/// Counts everything, keeps the first examples of each kind.
#[derive(Debug)]
pub struct Findings {
    examples_max: usize,
    anomalies: BTreeMap<Kind, Kept>,
    permitted: BTreeMap<Kind, Kept>,
}

impl Findings {
    pub fn new(examples_max: usize) -> Self {
        Self { examples_max, anomalies: BTreeMap::new(), permitted: BTreeMap::new() }
    }

    /// Adds one. It is described only if it is kept: there may be ten million.
    pub fn add(&mut self, kind: Kind, permitted: bool, partition: PartitionId, describe: impl FnOnce() -> Finding) {
        let found = if permitted { &mut self.permitted } else { &mut self.anomalies };
        let kept = found.entry(kind).or_default();
        kept.count += 1;
        if kept.examples.len() < self.examples_max {
            kept.examples.push((partition, describe()));
        }
    }

    /// Puts names to everything: the anomalies, and what was permitted.
    pub fn name(self, partitions: &Names, files: &Files) -> [BTreeMap<Kind, Found>; 2] {
        [self.anomalies, self.permitted].map(|found| {
            let named = found.into_iter().map(|(kind, kept)| {
                let named = kept.examples.into_iter().map(|(partition, finding)| Anomaly {
                    kind,
                    partition: partitions.text(partition.0).to_owned(),
                    offsets: finding.offsets,
                    what: finding.what,
                    events: finding.events.into_iter().map(|event| files.place(event)).collect(),
                });
                (kind, Found { count: kept.count, examples: named.collect() })
            });
            named.collect()
        })
    }
}

/// Which file each event came from: the first event of each file, and its name.
#[derive(Debug, Default)]
pub struct Files(Vec<(EventId, String)>);

impl Files {
    pub fn begin(&mut self, first: EventId, name: String) {
        self.0.push((first, name));
    }

    /// `file:line`; the number alone for a history that has no files.
    fn place(&self, event: EventId) -> String {
        match self.0.iter().rev().find(|(first, _)| *first <= event) {
            // The first line is the header, and lines count from 1.
            Some((first, name)) => format!("{name}:{}", event.0 - first.0 + 2),
            None => event.0.to_string(),
        }
    }
}
