//! What Kafka's clients were promised and saw, and the verdict on it.
//!
//! Books stay small: what both sides of a promise agree on is crossed out as soon as nothing later
//! can change it.

use std::collections::{BTreeMap, BTreeSet};

use crate::campaign::ledger::Kafka;

/// Partition and offset.
pub type Place = (i32, i64);

/// Violations that are told in full.
const TOLD_MAX: usize = 20;

/// What must not be, as long as it is worth telling.
#[derive(Debug, Default)]
struct Violations(Vec<String>);

impl Violations {
    fn add(&mut self, what: String) {
        if self.0.len() < TOLD_MAX {
            self.0.push(what);
        }
    }
}

/// What a group of readers was promised and did.
#[derive(Debug, Default)]
pub struct GroupBook {
    /// Records that are not crossed out, as the producer was told and as members read them.
    acknowledged: BTreeMap<Place, u64>,
    read: BTreeMap<Place, u64>,
    /// By partition: up to where everything is crossed out, and the last record there.
    settled: BTreeMap<i32, (i64, u64)>,
    /// By partition: what somebody saw to be committed, and what members were promised.
    committed: BTreeMap<i32, i64>,
    promised: BTreeMap<i32, i64>,
    /// By partition: the first record that was acknowledged since the mark.
    marked: BTreeMap<i32, i64>,
    counts: Kafka,
    violations: Violations,
}

impl GroupBook {
    pub fn violated(&mut self, what: String) {
        self.violations.add(format!("group: {what}"));
    }

    /// The producer was told where a record is.
    pub fn acknowledged(&mut self, place: Place, sequence: u64) {
        self.counts.acknowledged += 1;
        self.marked.entry(place.0).or_insert(place.1);
        if let Some(other) = self.acknowledged.insert(place, sequence) {
            self.violated(format!("{place:?} is told to be of record {other} and of {sequence}"));
        }
    }

    /// A member read a record.
    pub fn read(&mut self, place: Place, sequence: u64) {
        // What was crossed out may be read once more, by a member that took the place of another.
        if self.settled.get(&place.0).is_some_and(|(end, _)| place.1 < *end) {
            self.counts.again += 1;
            return;
        }
        match self.read.insert(place, sequence) {
            Some(before) if before != sequence => {
                self.violated(format!("{place:?} was record {before} and is {sequence}"));
            }
            Some(_) => self.counts.again += 1,
            None => {}
        }
    }

    /// A member's assignment changes.
    pub fn rebalanced(&mut self) {
        self.counts.rebalances += 1;
    }

    /// A member was told that its commit is stored.
    pub fn promised(&mut self, offsets: &BTreeMap<i32, i64>) {
        self.counts.commits += 1;
        for (partition, offset) in offsets {
            let known = self.promised.entry(*partition).or_default();
            *known = (*known).max(*offset);
        }
    }

    /// What has been promised by now.
    pub fn promises(&self) -> BTreeMap<i32, i64> {
        self.promised.clone()
    }

    /// Somebody who asked after all of `promised` saw what is committed.
    pub fn committed(&mut self, partition: i32, offset: i64, promised: &BTreeMap<i32, i64>) {
        let before = self.committed.get(&partition).copied().unwrap_or(0);
        let promised = promised.get(&partition).copied().unwrap_or(0);
        if offset < before.max(promised) {
            self.violated(format!(
                "partition {partition}: {offset} is committed, after {before} was seen and {promised} promised"
            ));
        }
        self.committed.insert(partition, offset.max(before));
    }

    /// From now on counts what [`Self::goes_on`] looks for.
    pub fn mark(&mut self) {
        self.marked.clear();
    }

    /// Whether every partition has acknowledged and committed something since the mark.
    pub fn goes_on(&self, partitions: i32) -> bool {
        let end = |partition| self.committed.get(&partition).copied().unwrap_or(0);
        (0..partitions).all(|partition| self.marked.get(&partition).is_some_and(|first| end(partition) > *first))
    }

    /// How many acknowledged records are not read and committed.
    pub fn missing(&self) -> usize {
        let done = |place: &Place| {
            self.read.contains_key(place) && self.committed.get(&place.0).is_some_and(|end| *end > place.1)
        };
        self.acknowledged.keys().filter(|place| !done(place)).count()
    }

    /// Crosses out what is acknowledged, read and committed, and tells what is wrong with it.
    pub fn settle(&mut self, counts: &mut Kafka, violations: &mut Vec<String>) {
        for (partition, end) in self.committed.clone() {
            let from = self.settled.get(&partition).map_or(0, |(end, _)| *end);
            // Another record may be there whose acknowledgement is still on its way.
            let open = |place: &&Place| !self.acknowledged.contains_key(*place);
            let open = self.read.range((partition, from)..(partition, end)).map(|(place, _)| place).find(open);
            let end = open.map_or(end, |place| place.1);
            let below: BTreeMap<Place, u64> =
                self.acknowledged.range((partition, from)..(partition, end)).map(|(p, s)| (*p, *s)).collect();
            for (place, sequence) in below {
                self.settle_one(place, sequence);
            }
        }
        counts.add(&std::mem::take(&mut self.counts));
        violations.append(&mut self.violations.0);
    }

    fn settle_one(&mut self, place: Place, sequence: u64) {
        match self.read.get(&place) {
            None => self.violated(format!("record {sequence} at {place:?} is committed, and nobody has read it")),
            Some(read) if *read != sequence => {
                self.violated(format!("record {sequence} was stored at {place:?}, where {read} is"));
            }
            Some(_) => {}
        }
        if let Some((_, last)) = self.settled.get(&place.0).filter(|(_, last)| *last >= sequence) {
            self.violated(format!("record {sequence} at {place:?} comes after {last}: doubled, or out of its order"));
        }
        self.settled.insert(place.0, (place.1 + 1, sequence));
        self.acknowledged.remove(&place);
        self.read.remove(&place);
    }

    /// What was read and never acknowledged, though its producer was told of everything.
    pub fn left_over(&self) -> Vec<String> {
        let strangers = self.read.iter().filter(|(place, _)| !self.acknowledged.contains_key(place));
        let told = |(place, sequence): (&Place, &u64)| format!("group: {place:?} holds record {sequence} once more");
        strangers.map(told).take(TOLD_MAX).collect()
    }
}

/// Records of each transaction in each partition.
pub const RECORDS: u32 = 2;
const PARTITIONS: i32 = super::TRANSACTION_PARTITIONS;

/// A record of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub number: u64,
    /// Which of those in its partition.
    pub record: u32,
}

impl Told {
    #[must_use]
    pub fn to_value(self) -> String {
        format!("{}/{}", self.number, self.record)
    }

    /// None if it is not such a value.
    #[must_use]
    pub fn of_value(value: &[u8]) -> Option<Self> {
        let (number, record) = std::str::from_utf8(value).ok()?.split_once('/')?;
        Some(Self { number: number.parse().ok()?, record: record.parse().ok()? })
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Committed,
    Aborted,
    /// Nobody was told.
    Unknown,
}

/// What transactions were promised and show.
#[derive(Debug, Default)]
pub struct TransactionBook {
    /// Transactions that were begun: the number of the next one.
    next: u64,
    /// Those that ended and are not crossed out.
    fates: BTreeMap<u64, Fate>,
    /// What was read of those that are not crossed out.
    seen: BTreeMap<u64, BTreeSet<(i32, u32)>>,
    /// Below it everything is crossed out.
    settled: u64,
    /// By partition: the last transaction that was read.
    last: BTreeMap<i32, u64>,
    mark: u64,
    /// The last one that was committed.
    committed: Option<u64>,
    counts: Kafka,
    violations: Violations,
}

impl TransactionBook {
    pub fn violated(&mut self, what: String) {
        self.violations.add(format!("transactions: {what}"));
    }

    /// A transaction begins; its number.
    pub fn begin(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub fn ended(&mut self, number: u64, fate: Fate) {
        self.counts.transactions += 1;
        match fate {
            Fate::Committed => self.committed = Some(number),
            Fate::Aborted => self.counts.aborted += 1,
            Fate::Unknown => self.counts.unknown += 1,
        }
        self.fates.insert(number, fate);
    }

    /// A zombie was kept from committing.
    pub fn fenced(&mut self) {
        self.counts.fenced += 1;
    }

    /// The reader of what is committed was shown a record.
    pub fn seen(&mut self, partition: i32, told: Told) {
        let Told { number, record } = told;
        if let Some(last) = self.last.insert(partition, number).filter(|last| *last > number) {
            self.violated(format!("partition {partition}: transaction {number} is shown after {last}"));
        }
        if number < self.settled || !self.seen.entry(number).or_default().insert((partition, record)) {
            self.violated(format!("record {record} of transaction {number} is shown twice, or too late"));
        }
    }

    pub fn mark(&mut self) {
        self.mark = self.next;
    }

    /// Whether a transaction that began since the mark is committed and shown.
    pub fn goes_on(&self) -> bool {
        self.committed.is_some_and(|number| number >= self.mark) && self.shown() >= self.mark
    }

    /// The first transaction that is not shown in all partitions yet, nor one after it.
    fn shown(&self) -> u64 {
        (0..PARTITIONS).map(|partition| self.last.get(&partition).copied().unwrap_or(0)).min().unwrap_or(0)
    }

    /// How many committed transactions are not shown to their end.
    pub fn missing(&self) -> usize {
        let whole = |number: &u64| self.seen.get(number).is_some_and(|seen| seen.len() == whole());
        self.fates.iter().filter(|(number, fate)| **fate == Fate::Committed && !whole(number)).count()
    }

    /// Crosses out the transactions before those that are shown last in every partition: nothing
    /// can be added to them.
    pub fn settle(&mut self, counts: &mut Kafka, violations: &mut Vec<String>) {
        let end = self.shown();
        while self.settled < end {
            let number = self.settled;
            // It runs yet, though a later one is shown: the books are not written to the end.
            let Some(fate) = self.fates.remove(&number) else { break };
            let seen = self.seen.remove(&number).unwrap_or_default().len();
            let good = match fate {
                Fate::Committed => seen == whole(),
                Fate::Aborted => seen == 0,
                Fate::Unknown => seen == 0 || seen == whole(),
            };
            if !good {
                self.violated(format!("{seen} of {} records of {number} are shown: {fate:?}", whole()));
            }
            self.settled += 1;
        }
        counts.add(&std::mem::take(&mut self.counts));
        violations.append(&mut self.violations.0);
    }
}

/// Records of a transaction in all partitions.
fn whole() -> usize {
    usize::try_from(PARTITIONS).unwrap_or(0) * RECORDS as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(book: &mut GroupBook) -> Vec<String> {
        let (mut counts, mut violations) = (Kafka::default(), Vec::new());
        book.settle(&mut counts, &mut violations);
        violations
    }

    /// Records 0, 6 and 12 of partition 0, all of them read and committed.
    fn group() -> GroupBook {
        let mut book = GroupBook::default();
        for offset in 0..3_i64 {
            book.acknowledged((0, offset), offset.unsigned_abs() * 6);
            book.read((0, offset), offset.unsigned_abs() * 6);
        }
        book.promised(&[(0, 3)].into());
        book.committed(0, 3, &book.promises());
        book
    }

    #[test]
    fn a_group_that_keeps_its_promises_is_crossed_out() {
        let mut book = group();
        assert_eq!(settled(&mut book), Vec::<String>::new());
        assert_eq!((book.missing(), book.acknowledged.len(), book.read.len()), (0, 0, 0));
        book.read((0, 2), 12);
        assert_eq!(book.counts.again, 1);
        assert_eq!(book.left_over(), Vec::<String>::new());
        book.mark();
        assert!(!book.goes_on(1));
        book.acknowledged((0, 3), 18);
        assert!(!book.goes_on(1));
        book.committed(0, 4, &BTreeMap::new());
        assert!(book.goes_on(1) && !book.goes_on(2));
    }

    #[test]
    fn whatever_a_group_breaks_is_told() {
        let found = |plant: fn(&mut GroupBook)| {
            let mut book = group();
            plant(&mut book);
            let mut found = settled(&mut book);
            found.extend(book.left_over());
            found
        };
        assert!(found(|book| book.committed(0, 2, &BTreeMap::new()))[0].contains("is committed, after"));
        assert!(
            found(|book| {
                book.read.remove(&(0, 1));
            })[0]
                .contains("nobody has read")
        );
        assert!(
            found(|book| {
                book.read.insert((0, 1), 7);
            })[0]
                .contains("where 7 is")
        );
        assert!(found(|book| book.read((0, 1), 7))[0].contains("was record 6 and is 7"));
        assert!(found(|book| book.read((0, 9), 12))[0].contains("once more"));
        assert!(found(|book| book.acknowledged((0, 1), 7))[0].contains("is told to be of"));
        let doubled = found(|book| {
            book.acknowledged((0, 3), 12);
            book.read((0, 3), 12);
            book.committed(0, 4, &BTreeMap::new());
        });
        assert!(doubled[0].contains("doubled"), "{doubled:?}");
        let mut behind = group();
        behind.promised(&[(0, 5)].into());
        behind.committed(0, 4, &behind.promises());
        assert!(settled(&mut behind)[0].contains("5 promised"));
    }

    fn show(book: &mut TransactionBook, number: u64) {
        for partition in 0..PARTITIONS {
            for record in 0..RECORDS {
                book.seen(partition, Told { number, record });
            }
        }
    }

    /// 0 committed, 1 aborted, 2 unknown, 3 committed and shown, by whom nothing is kept back.
    fn transactions() -> TransactionBook {
        let mut book = TransactionBook::default();
        for fate in [Fate::Committed, Fate::Aborted, Fate::Unknown, Fate::Committed] {
            let number = book.begin();
            book.ended(number, fate);
        }
        show(&mut book, 0);
        book
    }

    fn judged(mut book: TransactionBook) -> Vec<String> {
        show(&mut book, 3);
        let (mut counts, mut violations) = (Kafka::default(), Vec::new());
        book.settle(&mut counts, &mut violations);
        assert_eq!((counts.transactions, counts.aborted, counts.unknown), (4, 1, 1));
        violations
    }

    #[test]
    fn transactions_that_are_whole_are_crossed_out() {
        assert_eq!(judged(transactions()), Vec::<String>::new());
        let mut unknown = transactions();
        show(&mut unknown, 2);
        assert_eq!(judged(unknown), Vec::<String>::new());
        let mut book = transactions();
        assert_eq!(book.missing(), 1);
        book.mark();
        assert!(!book.goes_on());
        let number = book.begin();
        book.ended(number, Fate::Committed);
        assert!(!book.goes_on());
        show(&mut book, number);
        assert!(book.goes_on());
    }

    #[test]
    fn whatever_is_torn_or_shown_though_aborted_is_told() {
        let mut aborted = transactions();
        show(&mut aborted, 1);
        assert!(judged(aborted)[0].contains("4 of 4 records of 1 are shown: Aborted"));
        let mut torn = transactions();
        torn.seen(1, Told { number: 2, record: 0 });
        assert!(judged(torn)[0].contains("1 of 4 records of 2 are shown: Unknown"));
        let mut lost = transactions();
        lost.seen.clear();
        assert!(judged(lost)[0].contains("0 of 4 records of 0 are shown: Committed"));
        let mut twice = transactions();
        twice.seen(1, Told { number: 0, record: 1 });
        assert!(judged(twice)[0].contains("twice"));
        let mut late = transactions();
        show(&mut late, 3);
        late.seen(0, Told { number: 2, record: 0 });
        assert!(late.violations.0[0].contains("is shown after"));
        assert_eq!(Told::of_value(b"17/1"), Some(Told { number: 17, record: 1 }));
        assert_eq!(Told::of_value(b"17"), None);
    }
}
