//! Members of groups: who had what in which generation, and where they went on.

use std::collections::BTreeMap;

use super::commits::{Commits, Mark};
use super::findings::{Finding, Findings};
use super::ids::{EventId, Names, PartitionId};
use crate::event::{Joined, Resumed};
use crate::report::Kind;

/// Somebody wanted to commit this, whatever became of it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub offset: u64,
    pub sent_us: u64,
}

#[derive(Debug)]
struct Place {
    member: u32,
    generation: u32,
    partitions: Vec<PartitionId>,
    sent_us: u64,
    received_us: u64,
    event: EventId,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    generation: u32,
    offset: u64,
    log_start: u64,
    received_us: u64,
    event: EventId,
}

#[derive(Debug, Default)]
struct Group {
    places: Vec<Place>,
    attempts: BTreeMap<PartitionId, Vec<Attempt>>,
    starts: BTreeMap<PartitionId, Vec<Start>>,
}

/// All groups whose members are told of.
#[derive(Debug, Default)]
pub struct Groups(BTreeMap<u32, Group>);

impl Groups {
    pub fn attempt(&mut self, group: u32, partition: PartitionId, attempt: Attempt) {
        self.0.entry(group).or_default().attempts.entry(partition).or_default().push(attempt);
    }

    pub fn joined(&mut self, group: u32, member: u32, partitions: Vec<PartitionId>, e: &Joined<'_>, event: EventId) {
        let (sent_us, received_us) = (e.sent_us, e.received_us);
        let place = Place { member, generation: e.generation, partitions, sent_us, received_us, event };
        self.0.entry(group).or_default().places.push(place);
    }

    pub fn resumed(&mut self, group: u32, partition: PartitionId, e: &Resumed<'_>, event: EventId) {
        let Resumed { generation, offset, log_start, received_us, .. } = *e;
        let start = Start { generation, offset, log_start, received_us, event };
        self.0.entry(group).or_default().starts.entry(partition).or_default().push(start);
    }

    /// O(n log n) in what is told of groups, which is little beside the records.
    pub fn check(self, commits: &Commits, groups: &Names, members: &Names, skew_us: u64, findings: &mut Findings) {
        // Of the others only commits are told.
        for (id, mut group) in self.0.into_iter().filter(|(_, group)| !group.places.is_empty()) {
            let name = groups.text(id);
            group.shared(name, members, findings);
            let known = group.generations();
            group.generations_back(&known, name, skew_us, findings);
            for (partition, marks) in commits.of_group(id) {
                stale(&known, partition, marks, name, skew_us, findings);
                let attempts = group.attempts.entry(partition).or_default();
                beyond_attempts(attempts, partition, marks, name, skew_us, findings);
            }
            for (partition, starts) in &group.starts {
                let marks = commits.of_group(id).find(|(of, _)| of == partition).map_or(&[][..], |(_, marks)| marks);
                redelivered(starts, *partition, marks, name, findings);
                let attempts = group.attempts.entry(*partition).or_default();
                passed_over(attempts, *partition, starts, name, skew_us, findings);
            }
        }
    }
}

/// When somebody was first in this generation or a later one, and the event; by generation.
type Generations = Vec<(u32, u64, EventId)>;

/// The first moment at which a generation later than this one was known.
fn later(known: &Generations, generation: u32) -> Option<(u32, u64, EventId)> {
    known.get(known.partition_point(|(of, ..)| *of <= generation)).copied()
}

impl Group {
    fn generations(&self) -> Generations {
        let mut known: Generations = self.places.iter().map(|p| (p.generation, p.received_us, p.event)).collect();
        known.sort_unstable();
        known.dedup_by_key(|(generation, ..)| *generation);
        let mut earliest: Option<(u64, EventId)> = None;
        for (_, at_us, event) in known.iter_mut().rev() {
            let first = earliest.map_or((*at_us, *event), |earliest| earliest.min((*at_us, *event)));
            (*at_us, *event) = first;
            earliest = Some(first);
        }
        known
    }

    fn shared(&self, name: &str, members: &Names, findings: &mut Findings) {
        let mut owners: BTreeMap<(u32, PartitionId), &Place> = BTreeMap::new();
        for place in &self.places {
            for partition in &place.partitions {
                let owner = *owners.entry((place.generation, *partition)).or_insert(place);
                if owner.member == place.member {
                    continue;
                }
                findings.add(Kind::SharedPartition, false, *partition, || Finding {
                    offsets: Vec::new(),
                    what: format!(
                        "{} and {} had it in generation {} of group {name}",
                        members.text(owner.member),
                        members.text(place.member),
                        place.generation
                    ),
                    events: vec![owner.event, place.event],
                });
            }
        }
    }

    fn generations_back(&self, known: &Generations, name: &str, skew_us: u64, findings: &mut Findings) {
        for place in &self.places {
            let before = later(known, place.generation);
            let Some((newer, _, event)) = before.filter(|(_, at, _)| at.saturating_add(skew_us) < place.sent_us) else {
                continue;
            };
            let partition = place.partitions.first().copied().unwrap_or(PartitionId(0));
            findings.add(Kind::GenerationBack, false, partition, || Finding {
                offsets: Vec::new(),
                what: format!("group {name} was in generation {newer}, then in {}", place.generation),
                events: vec![event, place.event],
            });
        }
    }
}

/// Who is in a generation has left the one before to nobody.
fn stale(
    known: &Generations,
    partition: PartitionId,
    marks: &[Mark],
    name: &str,
    skew_us: u64,
    findings: &mut Findings,
) {
    for mark in marks {
        let Some(generation) = mark.generation else { continue };
        let before = later(known, generation).filter(|(_, at, _)| at.saturating_add(skew_us) < mark.sent_us);
        let Some((newer, _, event)) = before else { continue };
        findings.add(Kind::StaleCommit, false, partition, || Finding {
            offsets: vec![mark.offset],
            what: format!("group {name} committed in generation {generation} when {newer} had begun"),
            events: vec![event, mark.event],
        });
    }
}

/// The furthest that was committed, or perhaps committed, by each time.
fn furthest(attempts: &mut [Attempt]) {
    attempts.sort_unstable_by_key(|attempt| (attempt.sent_us, attempt.offset));
    let mut most = 0;
    for attempt in attempts {
        most = most.max(attempt.offset);
        attempt.offset = most;
    }
}

fn furthest_by(attempts: &[Attempt], at_us: u64) -> u64 {
    let before = attempts.partition_point(|attempt| attempt.sent_us <= at_us);
    before.checked_sub(1).and_then(|last| attempts.get(last)).map_or(0, |attempt| attempt.offset)
}

/// What is told to be committed was committed by somebody.
fn beyond_attempts(
    attempts: &mut [Attempt],
    partition: PartitionId,
    marks: &[Mark],
    name: &str,
    skew_us: u64,
    findings: &mut Findings,
) {
    furthest(attempts);
    for told in marks.iter().filter(|mark| mark.generation.is_none()) {
        let most = furthest_by(attempts, told.received_us.saturating_add(skew_us));
        if told.offset > most {
            findings.add(Kind::PassedOver, false, partition, || Finding {
                offsets: vec![most, told.offset],
                what: format!("group {name} was told {}, and nobody committed beyond {most}", told.offset),
                events: vec![told.event],
            });
        }
    }
}

/// What was committed in an earlier generation was in the log before this one began.
fn redelivered(starts: &[Start], partition: PartitionId, marks: &[Mark], name: &str, findings: &mut Findings) {
    let mut committed: Vec<(u32, u64, EventId)> = marks
        .iter()
        .filter(|mark| !mark.reset)
        .filter_map(|mark| Some((mark.generation?, mark.offset, mark.event)))
        .collect();
    committed.sort_unstable();
    let mut most: Option<(u64, EventId)> = None;
    for (_, offset, event) in &mut committed {
        let furthest = most.map_or((*offset, *event), |most| most.max((*offset, *event)));
        (*offset, *event) = furthest;
        most = Some(furthest);
    }
    for start in starts {
        let earlier = committed.partition_point(|(generation, ..)| *generation < start.generation);
        let Some((_, offset, event)) = earlier.checked_sub(1).and_then(|last| committed.get(last)) else { continue };
        if start.offset < *offset {
            findings.add(Kind::Redelivered, false, partition, || Finding {
                offsets: vec![*offset, start.offset],
                what: format!(
                    "group {name} had committed {offset}, and generation {} began at {}",
                    start.generation, start.offset
                ),
                events: vec![*event, start.event],
            });
        }
    }
}

/// Nobody begins beyond what was committed, but for what is not there any more.
fn passed_over(
    attempts: &mut [Attempt],
    partition: PartitionId,
    starts: &[Start],
    name: &str,
    skew_us: u64,
    findings: &mut Findings,
) {
    furthest(attempts);
    for start in starts {
        let most = furthest_by(attempts, start.received_us.saturating_add(skew_us)).max(start.log_start);
        if start.offset > most {
            findings.add(Kind::PassedOver, false, partition, || Finding {
                offsets: vec![most, start.offset],
                what: format!(
                    "group {name} went on at {} in generation {}, and nobody committed beyond {most}",
                    start.offset, start.generation
                ),
                events: vec![start.event],
            });
        }
    }
}
