//! One partition: a log, the tables that follow it, and a high watermark that trails.

use bytes::Bytes;

use super::*;
use crate::batch::{Attributes, BatchHeader};
use crate::ids::{Epoch, Offset};
use crate::producer::{ProducerTable, Verdict};
use crate::transaction::partition::{Admission, MarkerVerdict, Standing, TableLimits, TransactionTable, Verification};

/// A batch in the log: a client's, or a marker.
#[derive(Clone, Debug)]
pub struct Stored {
    pub header: BatchHeader,
    pub write: Option<Write>,
    pub marker: Option<EndMarker>,
}

pub struct PartitionSim {
    pub log: Vec<Stored>,
    pub high_watermark: usize,
    pub table: TransactionTable,
    producers: ProducerTable,
    verification: Verification,
    epoch: u32,
    /// What is said when everything below an offset is committed.
    waiting: Vec<(Offset, Message)>,
    snapshot: Option<(usize, ProducerTable, Bytes)>,
}

impl PartitionSim {
    pub fn new() -> Self {
        Self {
            log: Vec::new(),
            high_watermark: 0,
            table: TransactionTable::default(),
            producers: ProducerTable::default(),
            verification: Verification::new(Epoch(1), 2),
            epoch: 1,
            waiting: Vec::new(),
            snapshot: None,
        }
    }

    fn append(&mut self, mut header: BatchHeader, write: Option<Write>, marker: Option<EndMarker>) -> Offset {
        let base = Offset(self.log.len() as u64);
        header.base_offset = base;
        self.apply(&header, base, marker.as_ref());
        self.log.push(Stored { header, write, marker });
        base
    }

    fn apply(&mut self, header: &BatchHeader, base: Offset, marker: Option<&EndMarker>) {
        self.producers.applied(header, base);
        self.table.applied(header, base, marker);
    }

    pub fn take_snapshot(&mut self) {
        self.snapshot = Some((self.log.len(), self.producers.clone(), self.table.encode()));
    }

    /// Another replica leads, which has a part of what is not committed.
    fn fail_over(&mut self, keep: usize) {
        self.log.truncate(keep);
        self.waiting.clear();
        let snapshot = self.snapshot.take().filter(|(end, ..)| *end <= keep);
        let (from, producers, table) = match snapshot {
            Some((end, producers, bytes)) => {
                (end, producers, TransactionTable::decode(&bytes, TableLimits::default()).unwrap())
            }
            None => Default::default(),
        };
        (self.producers, self.table) = (producers, table);
        for offset in from..keep {
            let stored = self.log[offset].clone();
            self.apply(&stored.header, Offset(offset as u64), stored.marker.as_ref());
        }
        self.epoch += 1;
        self.verification = Verification::new(Epoch(self.epoch), 2);
    }
}

fn header(producer: Producer, sequence: i32, control: bool) -> BatchHeader {
    BatchHeader {
        base_offset: Offset::ZERO,
        length: 0,
        leader_epoch: None,
        crc: 0,
        attributes: Attributes(if control { 0b11_0000 } else { 0b1_0000 }),
        last_offset_delta: 0,
        base_timestamp_ms: 0,
        max_timestamp_ms: 0,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        base_sequence: sequence,
        record_count: 1,
    }
}

impl World {
    pub fn refuse_write(&mut self, write: &Write, code: ErrorCode) {
        let reply = Reply::Done(Err(code));
        self.wire.push(Message::Reply { client: write.client, call: write.call, reply });
    }

    pub fn produce(&mut self, write: Write, guard: Option<Guard>) {
        let partition = &mut self.partitions[write.partition];
        let header = header(write.producer, write.sequence, false);
        let done = Message::Reply { client: write.client, call: write.call, reply: Reply::Done(Ok(())) };
        match partition.producers.check(&header) {
            Verdict::Append => {}
            Verdict::Duplicate { last, .. } => return partition.waiting.push((last.plus(1), done)),
            refused => return self.refuse_write(&write, refused.code().unwrap()),
        }
        let known = partition.producers.get(write.producer.id).is_some();
        let admission = if self.mode.verifies {
            partition.verification.admit(&partition.table, known, &header, write.protocol, guard)
        } else {
            match partition.table.standing(&header) {
                Standing::Refused(code) => Admission::Refused(code),
                _ => Admission::Append,
            }
        };
        match admission {
            Admission::Append => {
                let base = partition.append(header, Some(write), None);
                partition.verification.began(&header);
                partition.waiting.push((base.plus(1), done));
                self.truth.appended(&write);
            }
            Admission::Verify(guard) => {
                self.truth.count(if guard_again(guard, &self.wire) { "asked again" } else { "asked" });
                let (id, producer, partition) = (write.id, write.producer, write.partition);
                let ask = match write.protocol {
                    Protocol::First => Ask::Verify { id, producer, partition },
                    Protocol::Second => Ask::Add { id, producer, partition },
                };
                self.wire.push(Message::Ask(Asker::Broker(write, guard), ask));
            }
            Admission::Refused(code) => self.refuse_write(&write, code),
        }
    }

    pub fn mark(&mut self, coordinator: u32, round: MarkerRound, marker: EndMarker, raised: bool, at: usize) {
        let partition = &mut self.partitions[at];
        let raised = raised && self.mode.strict_markers;
        let verdict = partition.table.check_marker(&marker, raised);
        let mut confirm = |outcome, below: Option<Offset>| {
            let message = Message::Marked { coordinator, round, at, outcome };
            match below {
                Some(below) => partition.waiting.push((below, message)),
                None => self.wire.push(message),
            }
        };
        match verdict {
            MarkerVerdict::Append => {
                let batch = marker.batch(self.now_ms).unwrap();
                let header = BatchHeader::parse(&batch).unwrap();
                assert_eq!(EndMarker::read(&header, &batch), Ok(Some(marker)));
                let base = partition.append(header, None, Some(marker));
                partition.verification.ended(&marker, raised);
                let message = Message::Marked { coordinator, round, at, outcome: MarkerOutcome::Written };
                partition.waiting.push((base.plus(1), message));
            }
            MarkerVerdict::Over { below } => {
                self.truth.count("marker is over");
                confirm(MarkerOutcome::Written, Some(below));
            }
            MarkerVerdict::Stale => {
                self.truth.count("marker is stale");
                confirm(MarkerOutcome::Written, None);
            }
            MarkerVerdict::Fenced => {
                self.truth.count("marker is fenced");
                assert!(coordinator < self.coordinator.epoch(), "the latest coordinator is fenced");
                confirm(MarkerOutcome::Fenced, None);
            }
        }
    }

    /// The high watermark rises by up to `count` batches.
    pub fn commit(&mut self, at: usize, count: usize) {
        let partition = &mut self.partitions[at];
        partition.high_watermark = partition.high_watermark.saturating_add(count).min(partition.log.len());
        let high_watermark = Offset(partition.high_watermark as u64);
        partition.table.committed(high_watermark);
        let (said, left) =
            std::mem::take(&mut partition.waiting).into_iter().partition(|(at, _)| *at <= high_watermark);
        partition.waiting = left;
        let said: Vec<(Offset, Message)> = said;
        self.wire.extend(said.into_iter().map(|(_, message)| message));
    }

    pub fn fail_over_partition(&mut self, at: usize) {
        self.truth.count("partition fails over");
        let partition = &mut self.partitions[at];
        let uncommitted = partition.log.len() - partition.high_watermark;
        let keep = partition.high_watermark + self.rng.index(uncommitted + 1);
        partition.fail_over(keep);
    }
}

fn guard_again(guard: Guard, wire: &[Message]) -> bool {
    wire.iter().any(|message| matches!(message, Message::Ask(Asker::Broker(_, other), _) if *other == guard))
}
