//! Rounds that hurt the storage of real brokers: power cuts of all of them at once, and damage
//! at rest. Each round is a line of a ledger, as in a campaign.
//!
//! | module | what |
//! |---|---|
//! | [`site`] | three brokers, load, and what was promised |
//! | [`ballast`] | records that stay: what is damaged has to be worth something |
//! | [`power`] | the power of all brokers is cut at once, under load |
//! | [`rot`] | a bit or a block goes bad while a broker is stopped |

pub mod ballast;
pub mod power;
pub mod rot;
pub mod site;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::campaign::ledger::{Line, Outcome};
use crate::cluster::Shape;

/// The generous deadline within which everything has to come back by itself.
pub const COME_BACK: Duration = Duration::from_secs(60);

/// What rounds are run with.
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
    pub ledger: Option<PathBuf>,
    pub version: String,
}

impl Plan {
    /// The seed of one round.
    #[must_use]
    pub fn seed_of(&self, round: u64) -> u64 {
        self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round
    }

    /// Stamps a round, shows it and keeps it; whether it was good.
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
