//! Every decoder of bytes from outside, and recovery on damaged data directories, as functions
//! that a fuzzer calls with whatever bytes it likes.
//!
//! | module | what it decodes |
//! |---|---|
//! | [`targets::batch`] | record batches, and what is packed into them |
//! | [`targets::wire`] | frames of peers and requests of clients |
//! | [`targets::kafka`] | frames and requests of Kafka's clients |
//! | [`targets::znodes`] | what is in ZooKeeper |
//! | [`targets::disk`] | keys and values of the log, the witness, snapshots of producers |
//! | [`targets::text`] | configurations and histories |
//! | [`targets::recovery`] | whole data directories, damaged |
//!
//! A target panics when something is wrong: a decoder that panics, takes more memory than
//! [`GROWTH_BYTES_MAX`], or decodes something that it would not encode in that way.
//!
//! `fuzz/run` searches for such bytes; the tests go through what was found so far,
//! `fuzz/corpus/<target>/`.
#![forbid(unsafe_code)]

pub mod seeds;
pub mod targets;

use std::alloc::System;
use std::panic::{set_hook, take_hook};
use std::sync::{Mutex, Once, PoisonError};

use cap::Cap;

/// Counts what is allocated, and refuses more than the limit: the process is aborted then.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What the decoding of one input may allocate beyond what there is. Inputs are of some
/// kilobytes: a length in them that is believed is far above it.
pub const GROWTH_BYTES_MAX: usize = 16 << 20;

/// One thing to fuzz.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also the name of its corpus.
    pub name: &'static str,
    run: fn(&[u8]),
    growth_bytes_max: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target::new("batch", targets::batch::record_batch),
    Target::new("decompress", targets::batch::decompress),
    Target::new("peer", targets::wire::peer),
    Target::new("produce", targets::wire::produce),
    Target::new("requests", targets::wire::requests),
    Target::new("kafka_frames", targets::kafka::frames),
    Target::new("kafka_requests", targets::kafka::requests),
    Target::new("znodes", targets::znodes::znodes),
    Target::new("producers", targets::disk::producers),
    Target::new("records", targets::disk::records),
    Target::new("witness", targets::disk::witness),
    Target::new("lineage", targets::disk::lineage),
    Target::new("config", targets::text::config),
    Target::new("history", targets::text::history),
    Target { name: "recovery", run: targets::recovery::recovery, growth_bytes_max: 1 << 30 },
];

/// Inputs run one at a time: the limit is the process's.
static RUNNING: Mutex<()> = Mutex::new(());

impl Target {
    const fn new(name: &'static str, run: fn(&[u8])) -> Self {
        Self { name, run, growth_bytes_max: GROWTH_BYTES_MAX }
    }

    /// The target of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.iter().copied().find(|target| target.name == name)
    }

    /// Runs one input.
    ///
    /// # Panics
    /// Something is wrong.
    pub fn run(&self, input: &[u8]) {
        // A panic is told, which takes memory as well.
        static LIFTED: Once = Once::new();
        LIFTED.call_once(|| {
            let before = take_hook();
            set_hook(Box::new(move |panic| {
                let _ = MEMORY.set_limit(usize::MAX);
                before(panic);
            }));
        });
        let _one = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        MEMORY.set_limit(MEMORY.allocated().saturating_add(self.growth_bytes_max)).expect("it is above what there is");
        (self.run)(input);
        MEMORY.set_limit(usize::MAX).expect("it is above what there is");
    }
}
