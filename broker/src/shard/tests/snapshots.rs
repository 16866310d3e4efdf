//! What is saved beside the log: after any truncation and any restart, epochs, producers and
//! their transactions are those of the batches that are there.

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::log::contract::id;
use crate::log::memory::StoredCopy;

const SEEDS: u64 = 60;
const STEPS: usize = 60;

struct Random {
    random: StdRng,
    disk: MemoryDisk,
    bench: Bench,
    epoch: u32,
    flow: Option<Flow>,
    high: Offset,
    sequences: [i32; 4],
}

fn stored(disk: &MemoryDisk) -> StoredCopy {
    disk.copies().into_iter().next().expect("the only copy")
}

fn slow() -> MemoryOptions {
    MemoryOptions { commit_latency: Duration::from_millis(2), ..MemoryOptions::default() }
}

impl Random {
    async fn new(seed: u64) -> Self {
        let disk = MemoryDisk::new(identity());
        let mut bench = Bench::new(&disk, slow());
        bench.open(id(0)).await;
        let random = StdRng::seed_from_u64(seed);
        Self { random, disk, bench, epoch: 0, flow: None, high: Offset::ZERO, sequences: [0; 4] }
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..45 => self.append().await,
            45..65 => self.new_leader().await,
            65..80 => self.snapshot().await,
            80..88 => self.bench.settle().await,
            88..92 => drop(self.bench.complete_one().await),
            _ => self.crash().await,
        }
        self.check_idle();
    }

    async fn append(&mut self) {
        let Some(flow) = self.flow else { return self.new_leader().await };
        let end = self.bench.partition(id(0)).replica.log_end();
        let mut batches = Vec::new();
        let mut base = end.0;
        for _ in 0..self.random.random_range(1..4) {
            let (producer, count) = (self.random.random_range(0..4), self.random.random_range(1..4));
            // The last two write in transactions.
            let in_transaction = producer >= 2;
            if in_transaction && self.random.random_ratio(1, 3) {
                batches.push(ended(base, self.epoch, producer as u64, self.random.random()));
                base += 1;
                continue;
            }
            let sequence = &mut self.sequences[producer];
            let batch = produced(base, count, self.epoch, producer as u64, *sequence);
            batches.push(if in_transaction { transactional(batch) } else { batch });
            *sequence += count as i32;
            base += u64::from(count);
        }
        if self.random.random_ratio(1, 4) {
            // Only what is durable here can be committed.
            let durable = self.bench.partition(id(0)).replica.durable_end();
            self.high = Offset(self.random.random_range(self.high.0..=durable.0));
        }
        self.bench.append(id(0), Epoch(self.epoch), flow, batches, self.high);
        if self.random.random() {
            self.bench.settle().await;
        }
    }

    /// It has another tail, or none at all.
    async fn new_leader(&mut self) {
        self.epoch += 1;
        let flow = self.bench.announce(id(0), Epoch(self.epoch)).await;
        self.bench.settle().await;
        let copy = stored(&self.disk);
        let ends = copy.batches.iter().map(|b| b.base).filter(|b| *b >= self.high);
        let to = ends.chain([copy.end]).choose(&mut self.random).expect("at least the end");
        self.bench.accept(id(0), Epoch(self.epoch), flow, to);
        // Producers go on where the cut has left them.
        let (_, producers) = from_scratch(&copy.batches[..copy.batches.partition_point(|b| b.last < to)]);
        for (id, sequence) in self.sequences.iter_mut().enumerate() {
            let known = producers.get(baton_core::ProducerId(id as i64));
            *sequence = known.and_then(|p| p.batches().last().map(|b| b.next_sequence())).unwrap_or(0);
        }
        self.flow = Some(flow);
        if self.random.random() {
            self.bench.settle().await;
        }
    }

    async fn snapshot(&mut self) {
        if self.random.random() {
            let (done, _) = tokio::sync::oneshot::channel();
            return self.bench.input(ShardInput::Checkpoint { done });
        }
        if self.bench.partition(id(0)).may_save_producers() {
            self.bench.shard.save_snapshot(id(0));
        }
    }

    /// Some of what is under way reaches the disk.
    async fn crash(&mut self) {
        self.bench.shard.end_turn();
        for _ in 0..self.random.random_range(0..4) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.disk.power_off_keeping(self.random.random_range(0..4));
        self.bench = Bench::new(&self.disk, slow());
        self.bench.open(id(0)).await;
        self.flow = None;
        self.check();
    }

    fn check_idle(&self) {
        let partition = self.bench.partition(id(0));
        if partition.may_save_producers() && self.bench.shard.running.is_empty() {
            self.check();
        }
    }

    fn check(&self) {
        let copy = stored(&self.disk);
        let replica = &self.bench.partition(id(0)).replica;
        assert_eq!(replica.log_end(), copy.end);
        let (lineage, producers) = from_scratch(&copy.batches);
        assert_eq!(replica.lineage(), &lineage);
        let found = replica.producers();
        assert_eq!(found.iter().collect::<Vec<_>>(), producers.iter().collect::<Vec<_>>());
        let (found, transactions) = (found.transactions(), producers.transactions());
        assert_eq!(found.open().collect::<Vec<_>>(), transactions.open().collect::<Vec<_>>());
        assert_eq!(found.known().collect::<Vec<_>>(), transactions.known().collect::<Vec<_>>());
        assert_eq!(found.aborted(), transactions.aborted());
        let high = replica.high_watermark();
        assert_eq!(found.last_stable(high), transactions.last_stable(high));
        assert!(replica.high_watermark() <= self.high, "nothing above was committed");
    }
}

#[tokio::test(start_paused = true)]
async fn epochs_and_producers_are_those_of_the_batches() {
    let chosen = std::env::var("BATON_SEED").ok().and_then(|s| s.parse().ok());
    let seeds = chosen.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed} (BATON_SEED={seed} runs only this one)");
        let mut random = Random::new(seed).await;
        for _ in 0..STEPS {
            random.step().await;
        }
        random.crash().await;
    }
}
