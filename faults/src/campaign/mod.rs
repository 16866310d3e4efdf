//! A campaign: rounds of faults on one cluster under load that never ends, each judged, each a
//! line of the ledger.
//!
//! | module | what |
//! |---|---|
//! | [`draw`] | which faults a round has, from the seed |
//! | [`harm`], [`work`] | how they begin and end |
//! | [`load`] | the load, cut into windows |
//! | [`kafka`] | a group and transactions of Kafka's clients |
//! | [`verdict`] | the verdict on a window, and the comparison of all replicas |
//! | [`round`] | one round from its fault to its cut |
//! | [`ledger`] | what is kept |

pub mod draw;
pub mod harm;
pub mod kafka;
pub mod ledger;
pub mod load;
pub mod round;
pub mod verdict;
pub mod work;

use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;

use self::draw::Kind;
use self::ledger::{Line, Outcome};
use self::round::Site;
use self::verdict::Judged;
use crate::plan::Plan;

pub const TOPIC: &str = "orders";
/// The generous deadline within which everything has to come back by itself.
pub const COME_BACK: Duration = Duration::from_secs(60);

/// What was done and is not judged yet.
pub struct Pending {
    line: Line,
    fault_at: Duration,
    end_at: Duration,
    /// None: the window could not be ended, and nothing can be said about its records.
    judging: Option<JoinHandle<anyhow::Result<Judged>>>,
}

/// Runs the rounds, of these kinds of faults only, or of all; whatever goes wrong in one is in its
/// line.
///
/// # Errors
/// A cluster cannot be started, or the ledger not be written.
pub async fn run(plan: &Plan, only: &[Kind]) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut site: Option<Site> = None;
    let mut number = plan.first;
    while number < plan.first + plan.rounds && !plan.time_is_up() {
        let mut current = match site.take() {
            Some(site) => site,
            None => Site::open(plan).await.context("a new cluster")?,
        };
        // The verdict on the round before: a cluster that failed is no ground for another round.
        let before = current.judged().await;
        if !keep(plan, &mut lines, &mut current, before)? {
            continue;
        }
        current.round(plan, only, number).await;
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
    if line.recovered_ms > ledger::RECOVERED_MS_MAX {
        line.outcome = Outcome::Slow;
    }
    let good = plan.keep(&mut line)?;
    if !good {
        eprintln!("    kept: {}", site.keep().display());
    }
    lines.push(line);
    Ok(good)
}
