//! What rounds are run with, and what becomes of their lines.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::campaign::TOPIC;
use crate::campaign::ledger::{Line, Outcome};
use crate::cluster::Shape;
use crate::load::LoadShape;

/// A series of rounds, each a line of a ledger.
#[derive(Clone, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub seed: u64,
    /// The number of the first round: with the seed it decides what happens.
    pub first: u64,
    pub rounds: u64,
    /// No round begins later than this.
    pub until: Option<Instant>,
    /// Rounds after which all replicas are compared and a new cluster is made.
    pub cluster_rounds: u64,
    pub partitions: u32,
    pub producers: u32,
    /// Records per second of each partition.
    pub rate: u32,
    /// Where every round is added; none: nowhere.
    pub ledger: Option<PathBuf>,
    /// The version of the sources that the binary was built from.
    pub version: String,
}

impl Plan {
    /// The seed of one round.
    #[must_use]
    pub fn seed_of(&self, round: u64) -> u64 {
        self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round
    }

    #[must_use]
    pub fn time_is_up(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() > until)
    }

    #[must_use]
    pub fn load(&self) -> LoadShape {
        LoadShape {
            topic: TOPIC.to_owned(),
            partitions: self.partitions,
            producers: self.producers,
            rate: self.rate,
            first_producer: 0,
        }
    }

    /// Stamps a line, shows it and writes it down; whether it did not fail.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn keep(&self, line: &mut Line) -> anyhow::Result<bool> {
        line.version.clone_from(&self.version);
        let release = self.shape.program.components().any(|part| part.as_os_str() == "release");
        line.profile = if release { "release" } else { "dev" }.to_owned();
        line.time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        line.seed = self.seed;
        if !line.failures.is_empty() || !line.anomalies.is_empty() {
            line.outcome = Outcome::Failed;
        }
        eprintln!("{}", line.summary());
        if let Some(ledger) = &self.ledger {
            line.append_to(ledger)?;
        }
        Ok(line.outcome != Outcome::Failed)
    }
}
