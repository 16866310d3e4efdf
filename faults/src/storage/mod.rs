//! Rounds that hurt the storage of real brokers: power cuts of all of them at once, errors of
//! their disks, and damage at rest. Each round is a line of a ledger, as in a campaign.
//!
//! | module | what |
//! |---|---|
//! | [`site`] | three brokers, load, and what was promised |
//! | [`ballast`] | records that stay: what is damaged has to be worth something |
//! | [`power`] | the power of all brokers is cut at once, under load |
//! | [`errors`] | a broker's disk fails: syncing, writing, reading; alone, and with another broker killed |
//! | [`rot`] | a bit or a block goes bad while a broker is stopped |

pub mod ballast;
pub mod errors;
pub mod power;
pub mod rot;
pub mod site;

use std::time::Duration;

use anyhow::Context;

use self::site::Site;
use crate::campaign::ledger::Line;
use crate::cluster::Storage;
use crate::plan::Plan;

/// The generous deadline within which everything has to come back by itself.
pub const COME_BACK: Duration = Duration::from_secs(60);

/// Runs rounds on one cluster until one fails or its time has come; whatever goes wrong in a
/// round is in its line.
///
/// # Errors
/// A cluster cannot be started, or the ledger not be written.
async fn series<R>(plan: &Plan, storage: Storage, ballast_records: u64, mut round: R) -> anyhow::Result<Vec<Line>>
where
    R: AsyncFnMut(&mut Site, u64, &mut Line) -> anyhow::Result<()>,
{
    let mut lines = Vec::new();
    let mut site: Option<Site> = None;
    for number in plan.first..plan.first + plan.rounds {
        if plan.time_is_up() {
            break;
        }
        let mut current = match site.take() {
            Some(site) => site,
            None => Site::open(plan, storage, ballast_records).await.context("a new cluster")?,
        };
        let mut line = Line { round: number, ..Line::default() };
        let result = round(&mut current, number, &mut line).await;
        current.end_round(&mut line, result);
        let mut good = plan.keep(&mut line)?;
        lines.push(line);
        if good && (current.rounds >= plan.cluster_rounds || number + 1 == plan.first + plan.rounds) {
            let mut whole = current.finish(number).await;
            good = plan.keep(&mut whole)?;
            lines.push(whole);
        } else if good {
            site = Some(current);
            continue;
        }
        if !good {
            eprintln!("    kept: {}", current.cluster.keep().display());
        }
    }
    Ok(lines)
}
