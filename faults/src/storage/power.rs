//! The power of all brokers is cut at the same moment, under load: what was not synced is lost,
//! and every broker has to start by itself on what is left.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::series;
use super::site::Site;
use crate::campaign::ledger::Line;
use crate::cluster::Storage;
use crate::disk::DiskKind;
use crate::plan::Plan;

/// Small memtables, so that tables and blob files are being written when the power goes.
const STORAGE: Storage = Storage { disk: DiskKind::Layer, log_config: "memtable_bytes = 524288\n" };
const BALLAST_RECORDS: u64 = 100;
/// Without the wait there would hardly ever be anything that is not synced.
const SYNC_MS_MAX: u64 = 60;
/// A broker that says this has lost what it had synced, or takes it for lost.
const ALARMS: [&str; 4] = [" is damaged: ", "copy is damaged", "was set aside", "panicked"];

/// What happens before the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prelude {
    Nothing,
    /// The brokers are killed first, and the power goes while they start: what they read again
    /// had not been synced.
    WhileStarting,
    /// The power goes a second time while they start after the first cut.
    Twice,
}

/// Runs the rounds; whatever goes wrong in one is in its line.
///
/// # Errors
/// A cluster cannot be started, or the ledger not be written.
pub async fn run(plan: &Plan) -> anyhow::Result<Vec<Line>> {
    series(plan, STORAGE, BALLAST_RECORDS, async |site, number, line| round(site, plan, number, line).await).await
}

async fn round(site: &mut Site, plan: &Plan, number: u64, line: &mut Line) -> anyhow::Result<()> {
    line.faults = vec!["power-cut".to_owned()];
    let mut random = StdRng::seed_from_u64(plan.seed_of(number));
    let brokers: Vec<u32> = (1..=site.cluster.broker_count()).collect();
    let sync = Duration::from_millis(random.random_range(1..=SYNC_MS_MAX));
    brokers.iter().for_each(|id| site.cluster.disk(*id).slow(sync));
    sleep(Duration::from_millis(random.random_range(200..1_200))).await;
    let prelude = match random.random_range(0..10) {
        0..7 => Prelude::Nothing,
        7..9 => Prelude::WhileStarting,
        _ => Prelude::Twice,
    };
    let fault_at = site.loaded.load.now();
    match prelude {
        Prelude::Nothing => {}
        Prelude::WhileStarting => site.cluster.kill_all_brokers()?,
        Prelude::Twice => cut(site, &brokers, &mut random, line)?,
    }
    if prelude != Prelude::Nothing {
        brokers.iter().for_each(|id| site.cluster.disk(*id).slow(sync));
        site.cluster.restart()?;
        sleep(Duration::from_millis(random.random_range(50..1_500))).await;
    }
    cut(site, &brokers, &mut random, line)?;
    line.targets = vec![format!("{prelude:?}: {}", line.targets.join(", "))];
    // What a broker says while its disk fails is not held against it.
    let logs: Vec<u64> = brokers.iter().map(|id| site.log_length(*id)).collect();
    let end_at = site.loaded.load.now();
    let back = site.come_back(line).await;
    for (broker, from) in brokers.iter().zip(logs) {
        let text = site.log_since(*broker, from);
        let alarms = text.lines().filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)));
        line.failures.extend(alarms.take(3).map(|alarm| format!("broker {broker}: {alarm}")));
    }
    back?;
    site.ballast.whole(&site.loaded.reader, super::COME_BACK).await?;
    site.judge(line, fault_at, end_at).await
}

/// All disks at once, then all processes, as fast as can be; then what the disks may have kept.
fn cut(site: &mut Site, brokers: &[u32], random: &mut StdRng, line: &mut Line) -> anyhow::Result<()> {
    brokers.iter().for_each(|id| site.cluster.disk(*id).power_off());
    // One that was just starting may be gone already, for its disk failed.
    if site.cluster.kill_all_brokers().is_err() {
        brokers.iter().for_each(|id| site.cluster.broker(*id).kill());
    }
    for id in brokers {
        let lost = site.cluster.disk_mut(*id).power_on(random.random())?;
        line.targets.push(format!(
            "broker {id} {}/{} changes, {}/{} names undone",
            lost.changes, lost.files, lost.names_undone, lost.names
        ));
    }
    Ok(())
}
