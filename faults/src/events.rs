//! A window, or a round, as the history checker takes it.

use std::time::Duration;

use baton_history::event::{Ack, Event, Final, Outcome as Ended, Poll, PollFailed, Seen, Send};
use baton_history::{History as Events, Options, Report, payload_id};

use crate::campaign::TOPIC;
use crate::history::{Attempt, History, Outcome, RecordId, Stored};

const EXAMPLES_MAX: usize = 5;

/// Everything that was sent, told and read in a window: by its tailing consumer, and by one that
/// read it again afterwards (`log`).
///
/// # Errors
/// The window contradicts itself: a defect of the harness.
pub fn check(history: &History) -> anyhow::Result<Report> {
    let mut events = Vec::new();
    let mut attempts: Vec<&Attempt> = history.attempts.iter().collect();
    attempts.sort_by_key(|attempt| attempt.id);
    attempts.into_iter().for_each(|attempt| tell(attempt, &mut events));
    // When each record was read is not known: no earlier than everything else counts.
    let last = history.attempts.iter().map(|attempt| attempt.ended).max().unwrap_or_default();
    let end_us = micros(last.max(history.end));
    for (consumer, read) in [("tail", &history.tail), ("reader", &history.log)] {
        for (partition, records) in read {
            events.push(Event::Poll(Poll {
                consumer: consumer.into(),
                partition: name(*partition).into(),
                from: history.base.get(partition).copied().unwrap_or(0),
                seek: false,
                high_watermark: None,
                sent_us: end_us,
                received_us: end_us,
                records: records.iter().map(seen).collect(),
            }));
        }
    }
    for reason in &history.tail_errors {
        let (consumer, partition) = ("tail".into(), name(0).into());
        let failed = PollFailed { consumer, partition, received_us: end_us, reason: reason.clone().into() };
        events.push(Event::PollFailed(failed));
    }
    for (partition, end) in &history.ends {
        events.push(Event::Final(Final {
            partition: name(*partition).into(),
            log_start: history.base.get(partition).copied().unwrap_or(0),
            end: *end,
            at_us: end_us,
        }));
    }
    Ok(Events { events }.check(Options { skew_us: 0, examples_max: EXAMPLES_MAX })?)
}

/// One record: sent, and what became of it.
fn tell(attempt: &Attempt, events: &mut Vec<Event<'static>>) {
    let RecordId { producer, partition, sequence } = attempt.id;
    let producer = || format!("producer-{producer}").into();
    let (partition, received_us) = (|| name(partition).into(), micros(attempt.ended));
    let (payload, sent_us) = (payload_id(&attempt.id.to_value()), micros(attempt.sent));
    events.push(Event::Send(Send { producer: producer(), partition: partition(), sequence, payload, sent_us }));
    let ended = |reason: &String| Ended {
        producer: producer(),
        partition: partition(),
        sequence,
        received_us,
        reason: reason.clone().into(),
    };
    events.push(match &attempt.outcome {
        Outcome::Acknowledged { offset, epoch } => {
            let (producer, partition) = (producer(), partition());
            Event::Ack(Ack { producer, partition, sequence, offset: *offset, epoch: Some(*epoch), received_us })
        }
        Outcome::NotStored(reason) => Event::Fail(ended(reason)),
        Outcome::Unknown(reason) => Event::Unknown(ended(reason)),
    });
}

fn seen(stored: &Stored) -> Seen {
    let payload = stored.id.map(|id| payload_id(&id.to_value()));
    Seen { offset: stored.offset, payload, epoch: Some(stored.epoch) }
}

fn name(partition: u32) -> String {
    format!("{TOPIC}/{partition}")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use baton_history::report::Kind;

    use super::*;

    fn id(sequence: u64) -> RecordId {
        RecordId { producer: 1, partition: 0, sequence }
    }

    /// Four records from offset 100 on, the third of unknown outcome and stored.
    fn window() -> History {
        let ms = Duration::from_millis;
        let attempt = |sequence: u64| Attempt {
            id: id(sequence),
            sent: ms(sequence * 10),
            ended: ms(sequence * 10 + 5),
            outcome: match sequence {
                2 => Outcome::Unknown("the broker went away".to_owned()),
                _ => Outcome::Acknowledged { offset: 100 + sequence, epoch: 3 },
            },
        };
        let log: Vec<Stored> = (0..4).map(|n| Stored { offset: 100 + n, epoch: 3, id: Some(id(n)) }).collect();
        History {
            partitions: 1,
            attempts: [3, 1, 0, 2].map(attempt).to_vec(),
            tail: BTreeMap::from([(0, log.clone())]),
            log: BTreeMap::from([(0, log)]),
            base: BTreeMap::from([(0, 100)]),
            ends: BTreeMap::from([(0, 104)]),
            end: ms(100),
            ..History::default()
        }
    }

    fn found(change: impl FnOnce(&mut History)) -> Vec<Kind> {
        let mut history = window();
        change(&mut history);
        check(&history).unwrap().anomalies.into_keys().collect()
    }

    #[test]
    fn a_good_window_is_clean() {
        let report = check(&window()).unwrap();
        assert!(report.clean(), "{report}");
        assert_eq!((report.counts.acknowledged, report.counts.verified, report.counts.unknown), (3, 3, 1));
    }

    #[test]
    fn what_is_wrong_is_found() {
        let lost = found(|history| {
            let swapped = Some(RecordId { producer: 9, ..id(9) });
            for read in [&mut history.tail, &mut history.log] {
                read.get_mut(&0).unwrap()[1].id = swapped;
            }
        });
        assert!(lost.contains(&Kind::Lost) && lost.contains(&Kind::Phantom), "{lost:?}");
        let skipped = found(|history| {
            history.tail.get_mut(&0).unwrap().remove(2);
        });
        assert!(skipped.contains(&Kind::Skipped), "{skipped:?}");
        let changed = found(|history| history.log.get_mut(&0).unwrap()[2].id = None);
        assert!(changed.contains(&Kind::ValuesDiffer), "{changed:?}");
        let failed = found(|history| history.tail_errors.push("OFFSET_OUT_OF_RANGE".to_owned()));
        assert_eq!(failed, [Kind::PollFailed]);
        let again = found(|history| {
            for read in [&mut history.tail, &mut history.log] {
                read.get_mut(&0).unwrap().push(Stored { offset: 104, epoch: 3, id: Some(id(3)) });
            }
            history.ends.insert(0, 105);
        });
        assert_eq!(again, [Kind::Duplicate]);
    }
}
