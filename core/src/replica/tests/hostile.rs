//! A peer may send anything: no message makes a replica panic or forget its own invariants,
//! which `step` asserts itself.

use bytes::Bytes;

use crate::batch::BatchHeader;
use crate::ids::*;
use crate::lineage::Lineage;
use crate::partition::{Assignment, LeaderId, PartitionState, VersionedState};
use crate::producer::ProducerTable;
use crate::replica::tests::cluster::{batch, config};
use crate::replica::tests::rng::Rng;
use crate::replica::*;

const ME: u32 = 1;

fn member(broker: u32) -> Member {
    Member { broker: BrokerId(broker), disk: DiskId(u128::from(broker)), generation: Generation(0) }
}

struct Attack {
    rng: Rng,
    replica: Replica,
    now_ms: u64,
    version: i32,
}

impl Attack {
    fn new(seed: u64) -> Self {
        let id = TopicPartition::default();
        let found = RecoveredLog::default();
        let replica = Replica::new(id, member(ME), Incarnation(1), config(Mutations::default()), found);
        Self { rng: Rng::new(seed), replica, now_ms: 0, version: 0 }
    }

    fn number(&mut self, near: u64) -> u64 {
        match self.rng.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => near.saturating_add(1),
            3 => near.saturating_sub(1),
            4 => self.rng.next(),
            5 => self.rng.next() % 8,
            _ => near,
        }
    }

    fn epoch(&mut self) -> Epoch {
        let near = u64::from(self.replica.epoch().0);
        // Rarely out of reach, or nothing would happen after the first message.
        if self.rng.percent(2) {
            return Epoch(u32::MAX);
        }
        Epoch(self.number(near).min(near + 1) as u32)
    }

    fn offset(&mut self) -> Offset {
        let near = [self.replica.log_end().0, self.replica.high_watermark().0][self.rng.below(2)];
        Offset(self.number(near))
    }

    fn flow(&mut self) -> Flow {
        let near = self.replica.flow.0;
        Flow(self.number(near))
    }

    fn member(&mut self) -> Member {
        let mut member = member(self.rng.below(4) as u32);
        if self.rng.percent(10) {
            member.generation = Generation(self.number(0) as u32);
        }
        member
    }

    fn lineage(&mut self) -> Lineage {
        let mut entries: Vec<(Epoch, Offset)> = Vec::new();
        for _ in 0..self.rng.below(4) {
            entries.push((self.epoch(), self.offset()));
        }
        Lineage::from_entries(entries).unwrap_or_else(|_| self.replica.lineage().clone())
    }

    fn stored(&mut self, at: Offset) -> StoredBatch {
        let epoch = self.epoch();
        let mut bytes = batch((ProducerId(1), self.rng.below(5) as i32), 1 + self.rng.below(3)).to_vec();
        bytes[0..8].copy_from_slice(&at.to_wire().to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.0.to_be_bytes());
        for _ in 0..self.rng.below(3) {
            let at = self.rng.below(bytes.len());
            if self.rng.percent(30) {
                bytes[at] = self.rng.next() as u8;
            }
        }
        if self.rng.percent(10) {
            bytes.truncate(self.rng.below(bytes.len()));
        }
        let header = BatchHeader::parse(&bytes);
        let last = header.map_or(at, |h| h.last_offset());
        let wrong = self.rng.percent(10);
        StoredBatch {
            base: if wrong { self.offset() } else { at },
            last: if wrong { self.offset() } else { last },
            epoch,
            max_timestamp_ms: 0,
            bytes: Bytes::from(bytes),
        }
    }

    fn batches(&mut self, mut at: Offset) -> Vec<StoredBatch> {
        let mut batches = Vec::new();
        for _ in 0..self.rng.below(3) {
            let stored = self.stored(at);
            at = stored.end();
            batches.push(stored);
        }
        batches
    }

    fn message(&mut self) -> Message {
        match self.rng.below(5) {
            0 => Message::Announce(Announce { epoch: self.epoch(), leader: self.leader() }),
            1 => Message::Hello(Hello {
                epoch: self.epoch(),
                member: self.member(),
                incarnation: Incarnation(self.rng.next() % 3),
                flow: self.flow(),
                lineage: self.lineage(),
                end: self.offset(),
            }),
            2 => Message::HelloReply(HelloReply { epoch: self.epoch(), flow: self.flow(), verdict: self.verdict() }),
            3 => {
                let base = if self.rng.percent(80) { self.replica.log_end() } else { self.offset() };
                Message::Append(Append {
                    epoch: self.epoch(),
                    flow: self.flow(),
                    base,
                    previous_epoch: self.epoch(),
                    batches: self.batches(base),
                    high_watermark: self.offset(),
                    log_start: self.offset(),
                })
            }
            _ => Message::Ack(Ack {
                epoch: self.epoch(),
                flow: self.flow(),
                member: self.member(),
                incarnation: Incarnation(self.rng.next() % 3),
                durable_end: self.offset(),
                log_start: self.offset(),
            }),
        }
    }

    fn verdict(&mut self) -> HelloVerdict {
        match self.rng.below(6) {
            0 => HelloVerdict::RestartAt { start: self.offset(), producers: ProducerTable::default() },
            1 => HelloVerdict::Damaged,
            2 => HelloVerdict::NotYet,
            3 => HelloVerdict::Fenced,
            _ => HelloVerdict::Accepted {
                truncate_to: self.offset(),
                high_watermark: self.offset(),
                log_start: self.offset(),
            },
        }
    }

    fn leader(&mut self) -> LeaderId {
        LeaderId {
            broker: BrokerId(self.rng.below(4) as u32),
            disk: DiskId(self.rng.below(4) as u128),
            incarnation: Incarnation(1),
            candidate: CandidateSeq(0),
        }
    }

    /// What the registry says is true; it may name this replica.
    fn state(&mut self) -> Input {
        self.version += 1;
        let mut leader = self.leader();
        leader.disk = DiskId(u128::from(leader.broker.0));
        let state = PartitionState {
            leader: Some(leader),
            epoch: self.replica.epoch().next(),
            isr: (1..=3).map(member).collect(),
            assignment: Assignment { replicas: (1..=3).map(BrokerId).collect(), ..Assignment::default() },
            ..PartitionState::default()
        };
        Input::State(VersionedState { state, version: self.version })
    }

    fn input(&mut self) -> Input {
        match self.rng.below(20) {
            0 => self.state(),
            1 => {
                self.now_ms += 100;
                Input::Tick
            }
            2 => {
                let bytes = batch((ProducerId(2), 0), 1);
                Input::Produce(Produce {
                    request: RequestId(self.rng.next()),
                    acks: Acks::All,
                    header: BatchHeader::parse(&bytes).unwrap(),
                    bytes,
                    wall_ms: 0,
                })
            }
            4 => Input::Trim { to: self.offset() },
            5 => Input::Compacted { to: self.offset().min(self.replica.high_watermark()) },
            3 => Input::LinkReset(BrokerId(self.rng.below(4) as u32)),
            _ => Input::Message { from: BrokerId(self.rng.below(4) as u32), message: self.message() },
        }
    }

    fn step(&mut self, input: Input) {
        let env = Env { now_ms: self.now_ms, ..Env::default() };
        let mut out = Vec::new();
        self.replica.step(input, &env, &mut out);
        for effect in out {
            let done = match effect {
                Effect::SaveEpoch(epoch) => Input::EpochSaved(epoch),
                Effect::Append { term, batches } => {
                    Input::Durable { term, end: batches.last().map_or(Offset::ZERO, StoredBatch::end) }
                }
                Effect::Truncate { term, .. } | Effect::Restart { term, .. } => {
                    Input::LogChanged { term, producers: self.replica.producers().clone() }
                }
                Effect::Trim { term, start } => Input::Trimmed { term, start, floor: self.offset() },
                Effect::ReadForFollower { to, flow, from, .. } => {
                    Input::ReadForFollower { to, flow, batches: self.batches(from) }
                }
                _ => continue,
            };
            self.step(done);
        }
    }
}

#[test]
fn no_message_makes_a_replica_panic() {
    let (mut followed, mut led, mut appended) = (0, 0, 0);
    for seed in 0..5_000 {
        let mut attack = Attack::new(seed);
        for _ in 0..80 {
            let input = attack.input();
            let end = attack.replica.log_end();
            attack.step(input);
            match attack.replica.role() {
                RoleView::Follower { greeted: true, .. } => followed += 1,
                RoleView::Leader { .. } => led += 1,
                _ => {}
            }
            appended += usize::from(attack.replica.log_end() > end);
        }
    }
    assert!(followed > 0 && led > 0 && appended > 0, "{followed} {led} {appended}");
}
