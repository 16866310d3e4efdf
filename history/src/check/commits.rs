//! Committed offsets: they never go back, unless somebody meant it.

use std::collections::BTreeMap;

use super::findings::{Finding, Findings};
use super::ids::{EventId, Names, PartitionId};
use crate::report::Kind;

/// A commit that was acknowledged, or an answer to what is committed.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub offset: u64,
    /// None for an answer.
    pub generation: Option<u32>,
    pub reset: bool,
    pub sent_us: u64,
    pub received_us: u64,
    pub event: EventId,
}

/// All groups' commits.
#[derive(Debug, Default)]
pub struct Commits {
    marks: BTreeMap<(u32, PartitionId), Vec<Mark>>,
}

/// What is known to be committed at some time.
#[derive(Debug, Default)]
struct Floor {
    highest: Option<Mark>,
    newest: Option<Mark>,
    /// Nothing that was sent before it counts.
    reset_us: Option<u64>,
}

impl Commits {
    pub fn add(&mut self, group: u32, partition: PartitionId, mark: Mark) {
        self.marks.entry((group, partition)).or_default().push(mark);
    }

    /// All of one group, by partition.
    pub fn of_group(&self, group: u32) -> impl Iterator<Item = (PartitionId, &[Mark])> {
        let first = (group, PartitionId(0));
        let all = self.marks.range(first..=(group, PartitionId(u32::MAX)));
        all.map(|((_, partition), marks)| (*partition, marks.as_slice()))
    }

    /// Goes through each group's marks by the time at which they were sent, holding each against
    /// those that were answered before: O(n log n) for the sorting, commits being few.
    pub fn check(self, groups: &Names, skew_us: u64, findings: &mut Findings) {
        for ((group, partition), mut marks) in self.marks {
            let mut answered = marks.clone();
            answered.sort_by_key(|mark| mark.received_us);
            marks.sort_by_key(|mark| mark.sent_us);
            let mut answered = answered.into_iter().peekable();
            let mut floor = Floor::default();
            for mark in marks {
                let before = |earlier: &Mark| earlier.received_us.saturating_add(skew_us) < mark.sent_us;
                while let Some(earlier) = answered.next_if(before) {
                    floor.raise(earlier, skew_us);
                }
                floor.check(mark, groups.text(group), partition, findings);
            }
        }
    }
}

impl Floor {
    fn raise(&mut self, mark: Mark, skew_us: u64) {
        if mark.reset {
            self.highest = Some(mark);
            self.reset_us = Some(mark.received_us.saturating_add(skew_us));
        } else if self.reset_us.is_none_or(|reset_us| reset_us < mark.sent_us)
            && self.highest.is_none_or(|highest| highest.offset < mark.offset)
        {
            self.highest = Some(mark);
        }
        if mark.generation > self.newest.and_then(|newest| newest.generation) {
            self.newest = Some(mark);
        }
    }

    fn check(&self, mark: Mark, group: &str, partition: PartitionId, findings: &mut Findings) {
        if let Some(highest) = self.highest.filter(|highest| highest.offset > mark.offset && !mark.reset) {
            let did = if mark.generation.is_some() { "committed" } else { "was told" };
            findings.add(Kind::CommitBack, false, partition, || Finding {
                offsets: vec![highest.offset, mark.offset],
                what: format!("group {group} {did} {} after {}", mark.offset, highest.offset),
                events: vec![highest.event, mark.event],
            });
        }
        if let (Some(generation), Some(newest)) = (mark.generation, self.newest)
            && let Some(newer) = newest.generation.filter(|newer| *newer > generation)
        {
            findings.add(Kind::StaleCommit, false, partition, || Finding {
                offsets: vec![mark.offset],
                what: format!("group {group} committed in generation {generation} after generation {newer} had"),
                events: vec![newest.event, mark.event],
            });
        }
    }
}
