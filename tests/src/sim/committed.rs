//! What a reader of what is committed finds, as a Kafka client does, and whether that is what the
//! producers were told.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::Offset;
use baton_core::batch::{BatchHeader, decode_records};
use bytes::Bytes;
use kafka_protocol::messages::fetch_response::PartitionData;
use serde::{Deserialize, Serialize};

use super::kafka::Part;
use super::verdict::DECOMPRESSED_MAX;

/// The type of a control record that ends a transaction without its records being read.
const ABORT: [u8; 4] = [0, 0, 0, 0];

/// What became of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody has asked for it to be committed.
    #[default]
    Open,
    Committed,
    Aborted,
    /// Its commit was refused: another has its producer's place, or it was aborted.
    Fenced,
    Unknown,
}

/// One transaction, as its producer knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Transaction {
    /// Where each record went, in order; the offset, if it was acknowledged.
    pub(super) records: Vec<(Part, Option<i64>)>,
    pub(super) fate: Fate,
    /// Of those that were begun when all was mended.
    pub(super) last: bool,
}

/// The transactions by producer and number.
pub(super) type Log = BTreeMap<(u32, u64), Transaction>;

/// A record that a reader was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) offset: i64,
    pub(super) value: String,
}

/// How many transactions of a run ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// While things went wrong.
    pub committed: u64,
    pub aborted: u64,
    pub fenced: u64,
    pub unknown: u64,
    /// When all was mended.
    pub last: u64,
}

impl Counts {
    pub(super) fn of(log: &Log) -> Self {
        let mut counts = Self::default();
        for transaction in log.values() {
            let count = match transaction.fate {
                Fate::Committed if transaction.last => &mut counts.last,
                Fate::Committed => &mut counts.committed,
                Fate::Open | Fate::Aborted => &mut counts.aborted,
                Fate::Fenced => &mut counts.fenced,
                Fate::Unknown => &mut counts.unknown,
            };
            *count += 1;
        }
        counts
    }

    pub fn add(&mut self, other: &Self) {
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.fenced += other.fenced;
        self.unknown += other.unknown;
        self.last += other.last;
    }
}

/// Reads one partition.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) next: i64,
    pub(super) seen: Vec<Seen>,
}

impl Reader {
    /// Takes what is committed out of an answer.
    pub(super) fn take(&mut self, answer: PartitionData) -> Result<(), String> {
        let mut begun: Vec<(i64, i64)> = answer
            .aborted_transactions
            .unwrap_or_default()
            .iter()
            .map(|one| (one.first_offset, one.producer_id.0))
            .collect();
        begun.sort_unstable_by(|one, other| other.cmp(one));
        let mut aborted = BTreeSet::new();
        let mut rest = answer.records.unwrap_or_default();
        // The last batch may be cut off.
        while let Ok(header) = BatchHeader::parse(&rest) {
            if rest.len() < header.total_len() {
                break;
            }
            let batch = rest.split_to(header.total_len());
            let (last, producer) = (offset(header.last_offset()), header.producer_id.0);
            while begun.last().is_some_and(|(first, _)| *first <= last) {
                aborted.extend(begun.pop().map(|(_, producer)| producer));
            }
            if header.attributes.control() {
                if is_abort(&batch)? {
                    aborted.remove(&producer);
                }
            } else if !(header.attributes.transactional() && aborted.contains(&producer)) {
                self.read(&batch)?;
            }
            self.next = self.next.max(last + 1);
        }
        let behind = self.seen.iter().find(|seen| seen.offset >= answer.last_stable_offset);
        behind.map_or(Ok(()), |seen| {
            Err(format!(
                "{} at {} was read, and what is below {} is stable",
                seen.value, seen.offset, answer.last_stable_offset
            ))
        })
    }

    fn read(&mut self, batch: &Bytes) -> Result<(), String> {
        for record in decode_records(batch, DECOMPRESSED_MAX).map_err(|error| error.to_string())? {
            let (offset, value) = (offset(record.offset), record.value.unwrap_or_default());
            if offset >= self.next {
                self.seen.push(Seen { offset, value: String::from_utf8_lossy(&value).into_owned() });
            }
        }
        Ok(())
    }
}

fn offset(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

fn is_abort(batch: &Bytes) -> Result<bool, String> {
    let records = decode_records(batch, DECOMPRESSED_MAX).map_err(|error| error.to_string())?;
    Ok(records.first().and_then(|record| record.key.as_ref()).is_some_and(|key| key[..] == ABORT))
}

/// A record's producer, transaction, and number in the transaction.
fn parse(value: &str) -> Option<(u32, u64, usize)> {
    let mut words = value.split('/');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Holds what was read to the end against what the producers were told.
///
/// # Errors
/// The first transaction that is not there as it has to be, with partition and offset.
pub(super) fn check(log: &Log, visible: &BTreeMap<Part, Vec<Seen>>) -> Result<(), String> {
    let mut found: BTreeMap<(u32, u64), BTreeMap<usize, i64>> = BTreeMap::new();
    for (part, records) in visible {
        let mut before: BTreeMap<u32, (u64, usize)> = BTreeMap::new();
        for Seen { offset, value } in records {
            let at = format!("the record at {}/{} offset {offset}", part.0, part.1);
            let Some((producer, number, index)) = parse(value) else { return Err(format!("{at}: nobody wrote it")) };
            let whose = format!("{at}, number {index} of transaction {producer}/{number}");
            let Some(transaction) = log.get(&(producer, number)) else {
                return Err(format!("{whose}: nobody began it"));
            };
            let Some((sent, told)) = transaction.records.get(index).filter(|(sent, _)| sent == part) else {
                return Err(format!("{whose}: it was not written there"));
            };
            if let Some(told) = told.filter(|told| told != offset) {
                return Err(format!("{whose}: it was acknowledged at {}/{} offset {told}", sent.0, sent.1));
            }
            if !matches!(transaction.fate, Fate::Committed | Fate::Unknown) {
                return Err(format!("{whose} is read, and its transaction is {:?}", transaction.fate));
            }
            if found.entry((producer, number)).or_default().insert(index, *offset).is_some() {
                return Err(format!("{whose}: it is there twice"));
            }
            if before.insert(producer, (number, index)).is_some_and(|before| before >= (number, index)) {
                return Err(format!("{whose}: it is not in the order in which it was sent"));
            }
        }
    }
    for ((producer, number), transaction) in log {
        let whole = found.get(&(*producer, *number));
        let needed = transaction.fate == Fate::Committed || whole.is_some();
        let lacks = |index: &usize| !whole.is_some_and(|found| found.contains_key(index));
        if let Some(index) = (0..transaction.records.len()).find(lacks).filter(|_| needed) {
            let (part, told) = transaction.records[index];
            let there = whole.map_or(0, BTreeMap::len);
            return Err(format!(
                "transaction {producer}/{number} is {:?}, and record {index} at {}/{} offset {told:?} is not read; {there} of {} are",
                transaction.fate,
                part.0,
                part.1,
                transaction.records.len()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Part = ("payments", 0);
    const OTHER: Part = ("refunds", 1);

    /// Two records, one in each partition, at offset 0.
    fn judged(fate: Fate, one: &[&str], other: &[&str]) -> Result<(), String> {
        let transaction = Transaction { records: vec![(ONE, Some(0)), (OTHER, Some(0))], fate, last: false };
        let seen = |values: &[&str]| {
            let values = (0..).zip(values);
            values.map(|(offset, value)| Seen { offset, value: (*value).to_owned() }).collect::<Vec<_>>()
        };
        let visible = BTreeMap::from([(ONE, seen(one)), (OTHER, seen(other))]);
        check(&BTreeMap::from([((1, 7), transaction)]), &visible)
    }

    #[test]
    fn a_transaction_is_there_as_a_whole_or_not_at_all() {
        let (one, other) = (["1/7/0/x"], ["1/7/1/x"]);
        for (fate, whole, half, nothing) in [
            (Fate::Committed, true, false, false),
            (Fate::Unknown, true, false, true),
            (Fate::Aborted, false, false, true),
            (Fate::Fenced, false, false, true),
            (Fate::Open, false, false, true),
        ] {
            assert_eq!(judged(fate, &one, &other).is_ok(), whole, "{fate:?}");
            assert_eq!(judged(fate, &one, &[]).is_ok(), half, "{fate:?}");
            assert_eq!(judged(fate, &[], &[]).is_ok(), nothing, "{fate:?}");
        }
    }

    #[test]
    fn records_are_there_once_and_where_they_were_acknowledged() {
        let why = judged(Fate::Committed, &["1/7/0/x", "1/7/0/x"], &["1/7/1/x"]).unwrap_err();
        assert!(why.contains("payments/0 offset 1") && why.contains("transaction 1/7"), "{why}");
        assert!(judged(Fate::Committed, &["1/7/1/x"], &["1/7/0/x"]).is_err(), "elsewhere");
        assert!(judged(Fate::Committed, &["2/7/0/x"], &[]).is_err(), "of nobody");
        assert!(judged(Fate::Committed, &["?"], &[]).is_err(), "of nobody");
    }

    #[test]
    fn the_order_of_sending_is_kept() {
        let transaction = |_| Transaction { records: vec![(ONE, None)], fate: Fate::Committed, last: false };
        let log: Log = (1..3).map(|number| ((1, number), transaction(number))).collect();
        let seen = |offset, value: &str| Seen { offset, value: value.to_owned() };
        let check =
            |values: [&str; 2]| check(&log, &BTreeMap::from([(ONE, vec![seen(0, values[0]), seen(2, values[1])])]));
        assert!(check(["1/1/0/", "1/2/0/"]).is_ok());
        assert!(check(["1/2/0/", "1/1/0/"]).is_err());
    }
}
