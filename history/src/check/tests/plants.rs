//! One way, or several, to spoil a correct history for every kind of anomaly.

use crate::event::{Ack, Commit, Committed, Event, Final, Joined, Outcome, Poll, PollFailed, Resumed, Seen};
use crate::report::Kind;
use crate::synthetic::Numbers;

type Events = Vec<Event<'static>>;

/// Plants one anomaly somewhere. Returns which other kinds it may entail.
pub fn plant(kind: Kind, events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    match kind {
        Kind::Lost => lost(events, numbers),
        Kind::Displaced => displaced(events, numbers),
        Kind::AcknowledgedTwice => acknowledged_twice(events, numbers),
        Kind::AcknowledgedOver => acknowledged_over(events, numbers),
        Kind::Duplicate => duplicate(events, numbers),
        Kind::Reordered => reordered(events, numbers),
        Kind::RealTime => real_time(events, numbers),
        Kind::ReadLost => read_lost(events, numbers),
        Kind::ReadFailed => read_failed(events, numbers),
        Kind::Phantom => phantom(events, numbers),
        Kind::Misplaced => misplaced(events, numbers),
        Kind::ValuesDiffer => values_differ(events, numbers),
        Kind::ReplicasDiffer => replicas_differ(events, numbers),
        Kind::Hole => hole(events, numbers),
        Kind::EpochBack => epoch_back(events, numbers),
        Kind::StaleAcknowledgement => stale_acknowledgement(events, numbers),
        Kind::Skipped => skipped(events, numbers),
        Kind::Repeated => repeated(events, numbers),
        Kind::HighWatermarkBack => high_watermark_back(events, numbers),
        Kind::BeyondHighWatermark => beyond_high_watermark(events, numbers),
        Kind::PollFailed => poll_failed(events, numbers),
        Kind::CommitBack => commit_back(events, numbers),
        Kind::StaleCommit => stale_commit(events, numbers),
        Kind::Redelivered => redelivered(events, numbers),
        Kind::PassedOver => passed_over(events, numbers),
        Kind::SharedPartition => shared_partition(events, numbers),
        Kind::GenerationBack => generation_back(events, numbers),
    }
}

/// An acknowledged record, by what both its events say.
#[derive(Clone, Debug)]
struct Acknowledged {
    at: usize,
    ack: Ack<'static>,
    payload: u64,
    sent_us: u64,
}

fn acknowledged(events: &Events) -> Vec<Acknowledged> {
    let send = |ack: &Ack<'_>| {
        events.iter().find_map(|event| match event {
            Event::Send(send)
                if (&send.producer, &send.partition, send.sequence)
                    == (&ack.producer, &ack.partition, ack.sequence) =>
            {
                Some((send.payload, send.sent_us))
            }
            _ => None,
        })
    };
    let acks = events.iter().enumerate().filter_map(|(at, event)| match event {
        Event::Ack(ack) => send(ack).map(|(payload, sent_us)| Acknowledged { at, ack: ack.clone(), payload, sent_us }),
        _ => None,
    });
    acks.collect()
}

fn pick<'a, T>(from: &'a [T], numbers: &mut Numbers) -> &'a T {
    &from[numbers.index(from.len())]
}

fn pick_acknowledged(events: &Events, numbers: &mut Numbers) -> Acknowledged {
    pick(&acknowledged(events), numbers).clone()
}

/// Everything that anybody saw of a partition.
fn sights<'a>(events: &'a mut Events, partition: &'a str) -> impl Iterator<Item = &'a mut Seen> {
    events.iter_mut().flat_map(move |event| match event {
        Event::Poll(poll) if poll.partition == partition => poll.records.iter_mut(),
        Event::Replica(replica) if replica.partition == partition => replica.records.iter_mut(),
        _ => [].iter_mut(),
    })
}

fn last_final<'a>(events: &'a mut Events, partition: &str) -> &'a mut Final<'static> {
    events
        .iter_mut()
        .find_map(|event| match event {
            Event::Final(end) if end.partition == partition => Some(end),
            _ => None,
        })
        .unwrap()
}

/// Somebody reads one more record, at the end of the partition.
fn append(events: &mut Events, partition: &str, payload: Option<u64>) {
    let end = last_final(events, partition);
    let (offset, at_us) = (end.end, end.at_us);
    end.end += 1;
    read_one(events, partition, offset, payload, at_us);
}

fn read_one(events: &mut Events, partition: &str, offset: u64, payload: Option<u64>, at_us: u64) {
    events.push(Event::Poll(Poll {
        consumer: "late".into(),
        partition: partition.to_owned().into(),
        from: offset,
        seek: true,
        high_watermark: Some(offset + 1),
        sent_us: at_us,
        received_us: at_us,
        records: vec![Seen { offset, payload, epoch: None }],
    }));
}

fn partitions(events: &Events) -> Vec<String> {
    let ends = events.iter().filter_map(|event| match event {
        Event::Final(end) => Some(end.partition.clone().into_owned()),
        _ => None,
    });
    ends.collect()
}

fn pick_partition(events: &Events, numbers: &mut Numbers) -> String {
    pick(&partitions(events), numbers).clone()
}

fn polls(events: &Events, is: impl Fn(&Poll<'_>) -> bool) -> Vec<usize> {
    let found = events.iter().enumerate().filter(|(_, event)| matches!(event, Event::Poll(poll) if is(poll)));
    found.map(|(at, _)| at).collect()
}

fn poll_at(events: &mut Events, at: usize) -> &mut Poll<'static> {
    match &mut events[at] {
        Event::Poll(poll) => poll,
        other => panic!("{other:?}"),
    }
}

fn lost(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let Acknowledged { ack, payload, .. } = pick_acknowledged(events, numbers);
    if numbers.below(2) == 0 {
        // Something else is there.
        sights(events, &ack.partition)
            .filter(|seen| seen.payload == Some(payload))
            .for_each(|seen| seen.payload = None);
        return &[];
    }
    // The log ends before it.
    last_final(events, &ack.partition).end = ack.offset;
    &[Kind::ReadLost]
}

fn displaced(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let Acknowledged { at, ack, .. } = pick_acknowledged(events, numbers);
    let offset = numbers.below(1_000);
    events[at] = Event::Ack(Ack { offset, ..ack });
    &[]
}

fn acknowledged_twice(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let Acknowledged { at, ack, .. } = pick_acknowledged(events, numbers);
    let offset = ack.offset + 1 + numbers.below(1_000);
    events.insert(at + 1, Event::Ack(Ack { offset, ..ack }));
    &[Kind::Hole]
}

fn acknowledged_over(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    loop {
        let (one, other) = (pick_acknowledged(events, numbers), pick_acknowledged(events, numbers));
        if one.at != other.at && one.ack.partition == other.ack.partition {
            events[one.at] = Event::Ack(Ack { offset: other.ack.offset, ..one.ack });
            return &[Kind::Displaced];
        }
    }
}

fn duplicate(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let Acknowledged { ack, payload, .. } = pick_acknowledged(events, numbers);
    append(events, &ack.partition, Some(payload));
    &[]
}

/// Exchanges two records of one partition, as if they had been stored the other way round.
fn exchange(events: &mut Events, one: &Acknowledged, other: &Acknowledged) {
    for (at, with) in [(one, other), (other, one)] {
        let Ack { offset, epoch, .. } = with.ack;
        events[at.at] = Event::Ack(Ack { offset, epoch, ..at.ack.clone() });
    }
    let (first, second) = (Some(one.payload), Some(other.payload));
    for seen in sights(events, &one.ack.partition) {
        match seen.payload {
            payload if payload == first => seen.payload = second,
            payload if payload == second => seen.payload = first,
            _ => {}
        }
    }
}

fn exchange_any(events: &mut Events, numbers: &mut Numbers, are: impl Fn(&Acknowledged, &Acknowledged) -> bool) {
    let all = acknowledged(events);
    let pairs: Vec<(&Acknowledged, &Acknowledged)> = all
        .iter()
        .flat_map(|one| all.iter().map(move |other| (one, other)))
        .filter(|(one, other)| are(one, other))
        .collect();
    let (one, other) = *pick(&pairs, numbers);
    exchange(events, one, other);
}

fn reordered(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    exchange_any(events, numbers, |one, other| {
        (&one.ack.producer, &one.ack.partition) == (&other.ack.producer, &other.ack.partition)
            && one.ack.sequence < other.ack.sequence
    });
    &[Kind::RealTime, Kind::StaleAcknowledgement]
}

fn real_time(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    exchange_any(events, numbers, |one, other| {
        one.ack.partition == other.ack.partition
            && one.ack.producer != other.ack.producer
            && one.ack.received_us < other.sent_us
    });
    &[Kind::Reordered, Kind::StaleAcknowledgement]
}

fn read_lost(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let partition = pick_partition(events, numbers);
    let end = last_final(events, &partition).clone();
    read_one(events, &partition, end.end + numbers.below(100), None, end.at_us);
    &[]
}

fn read_failed(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let Acknowledged { at, ack, .. } = pick_acknowledged(events, numbers);
    let Ack { producer, partition, sequence, received_us, .. } = ack;
    events[at] = Event::Fail(Outcome { producer, partition, sequence, received_us, reason: "refused".into() });
    &[]
}

fn phantom(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let partition = pick_partition(events, numbers);
    append(events, &partition, Some(numbers.below(1 << 40)));
    &[]
}

fn misplaced(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let Acknowledged { ack, payload, .. } = pick_acknowledged(events, numbers);
    let other = partitions(events).into_iter().find(|partition| *partition != ack.partition).unwrap();
    append(events, &other, Some(payload));
    &[]
}

fn values_differ(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let at = *pick(&polls(events, |poll| !poll.records.is_empty()), numbers);
    let records = &mut poll_at(events, at).records;
    let seen = numbers.index(records.len());
    let seen = &mut records[seen];
    if numbers.below(2) == 0 {
        seen.payload = None;
        return &[Kind::Lost, Kind::ReplicasDiffer];
    }
    seen.epoch = seen.epoch.map(|epoch| epoch + 1);
    &[Kind::ReplicasDiffer, Kind::EpochBack, Kind::StaleAcknowledgement]
}

fn replicas_differ(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let dumps = events.iter_mut().filter_map(|event| match event {
        Event::Replica(replica) if replica.broker == 2 => Some(replica),
        _ => None,
    });
    let mut dumps: Vec<_> = dumps.collect();
    let at = numbers.index(dumps.len());
    let dump = &mut dumps[at];
    let seen = numbers.index(dump.records.len());
    match numbers.below(3) {
        0 => dump.records[seen].payload = Some(1),
        1 => dump.blocks[0].hash ^= 1,
        _ => {
            dump.records.remove(seen);
            dump.blocks.clear();
        }
    }
    &[]
}

fn hole(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let partition = pick_partition(events, numbers);
    last_final(events, &partition).end += 1 + numbers.below(1 << 40);
    &[]
}

fn epoch_back(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let partition = pick_partition(events, numbers);
    let end = last_final(events, &partition).clone();
    let offset = end.log_start + 1 + numbers.below(end.end - end.log_start - 1);
    let all = sights(events, &partition).filter(|seen| seen.offset == offset);
    // The first epoch of every partition is 2 at least.
    all.for_each(|seen| seen.epoch = Some(1));
    &[]
}

fn stale_acknowledgement(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let Acknowledged { at, ack, .. } = pick_acknowledged(events, numbers);
    events[at] = Event::Ack(Ack { epoch: ack.epoch.map(|epoch| epoch - 1), ..ack });
    &[]
}

fn skipped(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    if numbers.below(2) == 0 {
        let at = *pick(&polls(events, |poll| poll.records.len() > 1), numbers);
        let records = &mut poll_at(events, at).records;
        let left_out = numbers.index(records.len() - 1);
        records.remove(left_out);
    } else {
        let at = *pick(&polls(events, |poll| !poll.records.is_empty()), numbers);
        poll_at(events, at).from -= 1;
        // The consumer asks for what it had, and gets it from later on: one repeats, one skips.
        return &[Kind::Repeated];
    }
    &[]
}

fn repeated(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let at = *pick(&polls(events, |poll| !poll.records.is_empty()), numbers);
    if numbers.below(2) == 0 {
        let again = events[at].clone();
        events.insert(at + 1, again);
    } else {
        let records = &mut poll_at(events, at).records;
        let again = numbers.index(records.len());
        records.insert(again, records[again]);
    }
    &[]
}

fn high_watermark_back(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let at = *pick(&polls(events, |_| true), numbers);
    let after = Event::Poll(Poll { records: Vec::new(), ..poll_at(events, at).clone() });
    let poll = poll_at(events, at);
    poll.high_watermark = poll.high_watermark.map(|high_watermark| high_watermark + 1 + numbers.below(1_000));
    let next = poll.from + poll.records.len() as u64;
    events.insert(at + 1, after);
    poll_at(events, at + 1).from = next;
    &[]
}

fn beyond_high_watermark(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let at = *pick(&polls(events, |poll| !poll.records.is_empty()), numbers);
    let poll = poll_at(events, at);
    poll.high_watermark = poll.records.last().map(|last| last.offset);
    &[Kind::HighWatermarkBack]
}

fn poll_failed(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let partition = pick_partition(events, numbers).into();
    let at = numbers.index(events.len());
    let failed = PollFailed { consumer: "consumer-0".into(), partition, received_us: 1, reason: "it broke".into() };
    events.insert(at, Event::PollFailed(failed));
    &[]
}

/// Commits and asks after everything else, so that there is something to fall behind.
fn commits(events: &mut Events, numbers: &mut Numbers, after: (u64, u32), asks: bool) {
    let (group, partition) = ("late group", pick_partition(events, numbers));
    let mut at_us = last_final(events, &partition).at_us;
    let mut commit = |(offset, generation): (u64, u32)| {
        at_us += 2;
        Event::Commit(Commit {
            group: group.into(),
            partition: partition.clone().into(),
            offset,
            generation,
            reset: false,
            sent_us: at_us,
            received_us: at_us + 1,
        })
    };
    let first = commit((100, 7));
    let mut second = commit(after);
    if asks {
        second = Event::Committed(Committed {
            group: group.into(),
            partition: partition.clone().into(),
            offset: Some(after.0).filter(|offset| *offset > 0),
            sent_us: at_us,
            received_us: at_us + 1,
        });
    }
    // In whatever order they are told.
    events.extend(if numbers.below(2) == 0 { [first, second] } else { [second, first] });
}

fn commit_back(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let (offset, generation) = (numbers.below(100), 7 + u32::try_from(numbers.below(2)).unwrap());
    let asks = numbers.below(2) == 0;
    commits(events, numbers, (offset, generation), asks);
    &[]
}

fn stale_commit(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    if numbers.below(2) == 0 {
        // Nobody committed in the newer one, but there is a member in it.
        let partition = pick_partition(events, numbers);
        let at_us = last_final(events, &partition).at_us + 10;
        let generation = u32::try_from(numbers.below(7)).unwrap();
        events.push(joined("m1", 7, &partition, at_us));
        events.push(late_commit(&partition, 100, generation, at_us + 2));
        return &[];
    }
    let generation = u32::try_from(numbers.below(7)).unwrap();
    commits(events, numbers, (100, generation), false);
    &[]
}

const LATE: &str = "late members";

/// A member of a group of its own.
fn joined(member: &'static str, generation: u32, partition: &str, at_us: u64) -> Event<'static> {
    let (group, partitions) = (LATE.into(), vec![partition.to_owned().into()]);
    let (sent_us, received_us) = (at_us, at_us);
    Event::Joined(Joined { group, member: member.into(), generation, partitions, sent_us, received_us })
}

fn late_commit(partition: &str, offset: u64, generation: u32, at_us: u64) -> Event<'static> {
    Event::Commit(Commit {
        group: LATE.into(),
        partition: partition.to_owned().into(),
        offset,
        generation,
        reset: false,
        sent_us: at_us,
        received_us: at_us,
    })
}

fn resumed(partition: &str, offset: u64, generation: u32, received_us: u64) -> Event<'static> {
    let (group, member, partition) = (LATE.into(), "m1".into(), partition.to_owned().into());
    Event::Resumed(Resumed { group, member, partition, generation, offset, log_start: 7, received_us })
}

/// A member of generation 7 that commits 100, and one of generation 8 that goes on at 100 or
/// where it was not to.
fn goes_on(events: &mut Events, numbers: &mut Numbers, at: u64) {
    let partition = pick_partition(events, numbers);
    let at_us = last_final(events, &partition).at_us + 10;
    let commit = late_commit(&partition, 100, 7, at_us + 1);
    let start = resumed(&partition, at, 8, at_us + 3);
    events.push(joined("m1", 7, &partition, at_us));
    events.push(joined("m2", 8, &partition, at_us + 2));
    events.extend(if numbers.below(2) == 0 { [commit, start] } else { [start, commit] });
}

fn redelivered(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let at = numbers.below(100);
    goes_on(events, numbers, at);
    &[]
}

fn passed_over(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    if numbers.below(2) == 0 {
        let at = 101 + numbers.below(100);
        goes_on(events, numbers, at);
        return &[];
    }
    goes_on(events, numbers, 100);
    let partition = pick_partition(events, numbers);
    let at_us = last_final(events, &partition).at_us + 20;
    events.push(Event::Committed(Committed {
        group: LATE.into(),
        partition: partition.into(),
        offset: Some(101 + numbers.below(1_000)),
        sent_us: at_us,
        received_us: at_us + 1,
    }));
    &[]
}

fn shared_partition(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let partition = pick_partition(events, numbers);
    let (generation, at_us) = (u32::try_from(numbers.below(9)).unwrap(), numbers.below(1_000_000));
    let both = ["m1", "m2"].map(|member| joined(member, generation, &partition, at_us));
    let at = numbers.index(events.len());
    events.splice(at..at, both);
    &[]
}

fn generation_back(events: &mut Events, numbers: &mut Numbers) -> &'static [Kind] {
    let partition = pick_partition(events, numbers);
    let (generation, at_us) = (u32::try_from(numbers.below(7)).unwrap(), numbers.below(1_000_000));
    let first = joined("m1", 7, &partition, at_us);
    let second = joined("m2", generation, &partition, at_us + 1);
    events.extend(if numbers.below(2) == 0 { [first, second] } else { [second, first] });
    &[]
}
