//! How long partitions acknowledged nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{History, Outcome};

/// A time in which a partition acknowledged nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub partition: u32,
    /// The acknowledgement before it, or the beginning of the run.
    pub from: Duration,
    /// The acknowledgement after it, or the end of the run: a partition that is stuck counts.
    pub to: Duration,
}

impl Gap {
    #[must_use]
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }
}

/// The longest gap of each partition among those that touch the time from `since` to `until`,
/// the longest first. A gap counts whole, also the part of it before `since`.
#[must_use]
pub fn gaps(history: &History, since: Duration, until: Duration) -> Vec<Gap> {
    let mut times: BTreeMap<u32, Vec<Duration>> = (0..history.partitions).map(|p| (p, Vec::new())).collect();
    for attempt in &history.attempts {
        if matches!(attempt.outcome, Outcome::Acknowledged { .. }) && attempt.ended <= history.end {
            times.entry(attempt.id.partition).or_default().push(attempt.ended);
        }
    }
    let mut longest: Vec<Gap> =
        times.into_iter().map(|(p, times)| longest(p, times, history.end, since, until)).collect();
    longest.sort_by_key(|gap| std::cmp::Reverse(gap.length()));
    longest
}

/// The longest time in which a tailing consumer got nothing of some partition.
#[must_use]
pub fn reading_gap(history: &History, since: Duration) -> Duration {
    let times = |p: u32| history.tail_times.get(&p).cloned().unwrap_or_default();
    let gaps = (0..history.partitions).map(|p| longest(p, times(p), history.end, since, history.end).length());
    gaps.max().unwrap_or_default()
}

fn longest(partition: u32, mut times: Vec<Duration>, end: Duration, since: Duration, until: Duration) -> Gap {
    times.retain(|time| *time <= end);
    times.push(end);
    times.sort_unstable();
    let mut worst = Gap { partition, from: since, to: since };
    let mut from = Duration::ZERO;
    for to in times {
        let gap = Gap { partition, from, to };
        if to > since && from < until && gap.length() > worst.length() {
            worst = gap;
        }
        from = to;
    }
    worst
}

/// When the last partition acknowledged for the first time something that was sent before or
/// after `since`; none if one never did.
#[must_use]
pub fn all_acknowledge_again(history: &History, since: Duration) -> Option<Duration> {
    let mut first: BTreeMap<u32, Duration> = BTreeMap::new();
    for attempt in &history.attempts {
        if matches!(attempt.outcome, Outcome::Acknowledged { .. }) && attempt.ended > since {
            let seen = first.entry(attempt.id.partition).or_insert(attempt.ended);
            *seen = attempt.ended.min(*seen);
        }
    }
    if first.len() < history.partitions as usize {
        return None;
    }
    first.values().max().copied()
}

/// A gap this long after a fault's end means that the partition was not back yet.
const RELAPSE: Duration = Duration::from_secs(1);

/// From `end` on, how long it took until every partition acknowledged for good: until the end of
/// its last gap of more than a second, or its first acknowledgement if there is none.
#[must_use]
pub fn recovered(history: &History, end: Duration) -> Duration {
    let mut times: BTreeMap<u32, Vec<Duration>> = (0..history.partitions).map(|p| (p, Vec::new())).collect();
    for attempt in &history.attempts {
        if matches!(attempt.outcome, Outcome::Acknowledged { .. }) && attempt.ended <= history.end {
            times.entry(attempt.id.partition).or_default().push(attempt.ended);
        }
    }
    let mut latest = Duration::ZERO;
    for mut acknowledged in times.into_values() {
        acknowledged.push(history.end);
        acknowledged.sort_unstable();
        let first = acknowledged.iter().find(|at| **at > end).copied();
        let relapses = acknowledged.windows(2).filter(|gap| gap[1] > end && gap[1] - gap[0] > RELAPSE);
        let last = relapses.map(|gap| gap[1]).max();
        latest = latest.max(last.max(first).unwrap_or(history.end).saturating_sub(end));
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Attempt, RecordId};

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn acknowledged(partition: u32, at: &[u64]) -> Vec<Attempt> {
        let attempt = |time: &u64| Attempt {
            id: RecordId { producer: 0, partition, sequence: *time },
            sent: ms(time - 1),
            ended: ms(*time),
            outcome: Outcome::Acknowledged { offset: *time, epoch: 1 },
        };
        at.iter().map(attempt).collect()
    }

    fn history(partitions: &[&[u64]]) -> History {
        let attempts = (0..).zip(partitions).flat_map(|(p, times)| acknowledged(p, times));
        let partitions = u32::try_from(partitions.len()).unwrap();
        History { partitions, attempts: attempts.collect(), end: ms(1_000), ..History::default() }
    }

    fn worst(history: &History, since: u64) -> (u32, Duration, Duration) {
        let gap = gaps(history, ms(since), history.end)[0];
        (gap.partition, gap.from, gap.to)
    }

    #[test]
    fn the_longest_gap_of_any_partition_counts() {
        let steady: Vec<u64> = (1..100).map(|n| n * 10).collect();
        let broken: Vec<u64> = steady.iter().copied().filter(|t| !(500..750).contains(t)).collect();
        assert_eq!(worst(&history(&[&steady, &broken, &steady]), 505), (1, ms(490), ms(750)));
    }

    #[test]
    fn a_stuck_partition_counts_until_the_end() {
        let steady: Vec<u64> = (1..100).map(|n| n * 10).collect();
        assert_eq!(worst(&history(&[&steady, &steady[..40]]), 300), (1, ms(400), ms(1_000)));
        assert_eq!(worst(&history(&[&steady, &[]]), 300), (1, ms(0), ms(1_000)));
    }

    #[test]
    fn what_was_over_before_the_fault_does_not_count() {
        let late: Vec<u64> = (40..100).map(|n| n * 10).collect();
        assert_eq!(worst(&history(&[&late]), 405).2.as_millis(), 410);
    }

    #[test]
    fn all_acknowledge_again_when_the_last_one_does() {
        let history = history(&[&[10, 500, 600], &[20, 800]]);
        assert_eq!(all_acknowledge_again(&history, ms(100)), Some(ms(800)));
        assert_eq!(all_acknowledge_again(&history, ms(700)), None);
    }

    #[test]
    fn a_partition_is_back_after_its_last_long_gap() {
        let mut history = history(&[&[100, 500, 600, 900], &[100, 450, 2_000, 2_100]]);
        history.end = ms(2_200);
        // The first one is silent from 900 on.
        assert_eq!(recovered(&history, ms(400)), ms(1_800));
        let times: Vec<u64> = (1..22).map(|n| n * 100).collect();
        let mut history = self::history(&[&times, &times]);
        history.end = ms(2_200);
        assert_eq!(recovered(&history, ms(450)), ms(50));
    }
}
