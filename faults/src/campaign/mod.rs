//! A campaign: rounds of faults on one cluster under load that never ends, each judged, each a
//! line of the ledger.
//!
//! | module | what |
//! |---|---|
//! | [`draw`] | which faults a round has, from the seed |
//! | [`harm`], [`work`] | how they begin and end |
//! | [`load`], [`events`] | the load, cut into windows, and a window for the checker |
//! | [`verdict`] | the verdict on a window, and the comparison of all replicas |
//! | [`round`] | one round from its fault to its cut |
//! | [`ledger`] | what is kept |

pub mod draw;
pub mod events;
pub mod harm;
pub mod ledger;
pub mod load;
pub mod round;
pub mod verdict;
pub mod work;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use baton_history::report::Kind as Anomaly;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::draw::Kind;
use self::ledger::{Line, Outcome};
use self::round::Site;
use self::verdict::Judged;
use crate::cluster::Shape;

pub const TOPIC: &str = "orders";
/// The generous deadline within which everything has to come back by itself.
pub const COME_BACK: Duration = Duration::from_secs(60);

/// What a campaign is run with.
#[derive(Clone, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub seed: u64,
    /// The number of the first round.
    pub first: u64,
    pub rounds: u64,
    /// No round begins later than this.
    pub until: Option<Instant>,
    /// Rounds after which all replicas are compared and a new cluster is made.
    pub cluster_rounds: u64,
    /// Only these kinds; all if it is empty.
    pub only: Vec<Kind>,
    pub partitions: u32,
    pub producers: u32,
    /// Records per second of each partition.
    pub rate: u32,
    /// Where every round is added; none: nowhere.
    pub ledger: Option<PathBuf>,
    /// The version of the sources that the binary was built from.
    pub version: String,
}

/// What was done and is not judged yet.
pub struct Pending {
    line: Line,
    fault_at: Duration,
    end_at: Duration,
    /// None: the window could not be ended, and nothing can be said about its records.
    judging: Option<JoinHandle<anyhow::Result<Judged>>>,
}

/// Runs the rounds; whatever goes wrong in one is in its line.
///
/// # Errors
/// A cluster cannot be started, or the ledger not be written.
pub async fn run(plan: &Plan) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut site: Option<Site> = None;
    let mut number = plan.first;
    while number < plan.first + plan.rounds && plan.until.is_none_or(|until| Instant::now() < until) {
        let mut current = match site.take() {
            Some(site) => site,
            None => Site::open(plan).await.context("a new cluster")?,
        };
        // The verdict on the round before: a cluster that failed is no ground for another round.
        let before = current.judged().await;
        if !keep(plan, &mut lines, &mut current, before)? {
            continue;
        }
        current.round(plan, number).await;
        number += 1;
        if current.rounds >= plan.cluster_rounds {
            let (last, whole) = current.finish(number).await;
            keep(plan, &mut lines, &mut current, last)?;
            keep(plan, &mut lines, &mut current, Some(whole))?;
        } else {
            site = Some(current);
        }
    }
    if let Some(mut current) = site {
        let (last, whole) = current.finish(number).await;
        keep(plan, &mut lines, &mut current, last)?;
        keep(plan, &mut lines, &mut current, Some(whole))?;
    }
    Ok(lines)
}

/// Writes a line down; whether the cluster may go on.
fn keep(plan: &Plan, lines: &mut Vec<Line>, site: &mut Site, line: Option<Line>) -> anyhow::Result<bool> {
    let Some(mut line) = line else { return Ok(true) };
    line.version.clone_from(&plan.version);
    let release = plan.shape.program.components().any(|part| part.as_os_str() == "release");
    line.profile = if release { "release" } else { "dev" }.to_owned();
    line.time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    line.seed = plan.seed;
    if !line.failures.is_empty() || !line.anomalies.is_empty() {
        line.outcome = Outcome::Failed;
    } else if line.recovered_ms > ledger::RECOVERED_MS_MAX {
        line.outcome = Outcome::Slow;
    }
    eprintln!("{}", line.summary());
    let good = line.outcome != Outcome::Failed;
    if !good {
        eprintln!("    kept: {}", site.keep().display());
    }
    if let Some(ledger) = &plan.ledger {
        line.append_to(ledger)?;
    }
    lines.push(line);
    Ok(good)
}

/// Adds what the checker found.
pub(crate) fn enter(line: &mut Line, judged: &Judged) {
    let (failed, unknown) = judged.history.failed();
    line.sent = (judged.history.attempts.len() - judged.carried) as u64;
    line.acknowledged = judged.history.acknowledged() as u64;
    (line.failed, line.unknown) = (failed as u64, unknown as u64);
    line.lost = judged.report.count(Anomaly::Lost);
    line.reordered = judged.report.count(Anomaly::Reordered);
    line.duplicates = judged.report.count(Anomaly::Duplicate);
    for (anomaly, found) in &judged.report.anomalies {
        line.anomalies.insert(anomaly.to_string(), found.count);
        line.failures.extend(found.examples.iter().map(|example| format!("{anomaly}: {}", example.what)));
    }
}
