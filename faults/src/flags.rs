//! What the programs of this package take alike.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use baton_history::version;
use baton_registry::testing::server::Version;
use clap::Args;
use tokio::time::Instant;

use crate::cluster::Shape;
use crate::plan::Plan;
use crate::series::default_program;

/// Which binary runs, and where.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// The binary `baton`; the one beside this program if it is absent
    #[arg(long, env = "BATON_BIN")]
    pub baton: Option<PathBuf>,
    /// Where the data goes
    #[arg(long, overrides_with = "dir")]
    pub dir: Option<PathBuf>,
    /// What the daemons log
    #[arg(long, default_value = "info")]
    pub log: String,
}

impl Which {
    /// Where the data goes.
    #[must_use]
    pub fn parent(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Three brokers, and what belongs to them.
    ///
    /// # Errors
    /// There is no such binary, or no ZooKeeper.
    pub fn shape(&self) -> anyhow::Result<Shape> {
        let program = self.baton.clone().unwrap_or_else(default_program);
        anyhow::ensure!(program.exists(), "there is no {}: build it, or name it with --baton", program.display());
        Ok(Shape {
            program: program.canonicalize()?,
            class_path: Version::V3_8.class_path().map_err(anyhow::Error::msg).context("ZooKeeper 3.8")?,
            zookeepers: 3,
            brokers: 3,
            coordinators: 2,
            parent: self.parent(),
            log_filter: self.log.clone(),
            sandbox: None,
        })
    }
}

/// A series of rounds for a ledger.
#[derive(Clone, Debug, Args)]
pub struct Rounds {
    /// What is drawn depends on it and on the number of the round alone
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of the first round
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Begin no round later than so many minutes from now
    #[arg(long)]
    minutes: Option<u64>,
    /// Records per second of each partition
    #[arg(long, default_value_t = 80)]
    rate: u32,
    /// Every round is added to this file
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// The workspace that the binary was built from: its sources are the version
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    sources: PathBuf,
    #[command(flatten)]
    pub which: Which,
}

/// What differs from one kind of series to the other.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub rounds: u64,
    pub cluster_rounds: u64,
    pub partitions: u32,
    pub producers: u32,
}

impl Rounds {
    /// The series. Its time begins now.
    ///
    /// # Errors
    /// The sources cannot be read.
    pub fn plan(&self, shape: Shape, size: Size) -> anyhow::Result<Plan> {
        Ok(Plan {
            shape,
            seed: self.seed,
            first: self.first,
            rounds: size.rounds,
            until: self.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes)),
            cluster_rounds: size.cluster_rounds,
            partitions: size.partitions,
            producers: size.producers,
            rate: self.rate,
            ledger: self.ledger.clone(),
            version: version::of_sources(&self.sources)?,
        })
    }
}
