//! The disk of a broker fails while it runs: syncing, writing or reading gives EIO, or takes very
//! long. After a failed sync nothing in the page cache is to be believed (the PostgreSQL developers
//! found that in 2018), so the broker has to end, and to start on what is really on its disk.

use std::time::Duration;

use baton_faultdisk::Fault;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::series;
use super::site::Site;
use crate::campaign::ledger::Line;
use crate::cluster::Storage;
use crate::disk::DiskKind;
use crate::plan::Plan;

/// Small memtables, so that tables and blob files are written and read, too.
const STORAGE: Storage = Storage { disk: DiskKind::Layer, log_config: "memtable_bytes = 524288\n" };
const BALLAST_RECORDS: u64 = 100;

/// Runs the rounds; whatever goes wrong in one is in its line.
///
/// # Errors
/// A cluster cannot be started, or the ledger not be written.
pub async fn run(plan: &Plan) -> anyhow::Result<Vec<Line>> {
    series(plan, STORAGE, BALLAST_RECORDS, async |site, number, line| round(site, plan, number, line).await).await
}

/// What fails, under its name in the ledger.
fn draw(random: &mut StdRng) -> (&'static str, Fault) {
    let times = random.random_bool(0.5).then(|| random.random_range(1..=3));
    match random.random_range(0..5) {
        0 | 1 => ("fsync-error", Fault::FailFsync { times }),
        2 => ("write-error", Fault::FailWrite { times }),
        3 => ("read-error", Fault::FailRead { times }),
        _ => ("slow-fsync", Fault::SlowFsync(Duration::from_millis(random.random_range(100..1_500)))),
    }
}

async fn round(site: &mut Site, plan: &Plan, number: u64, line: &mut Line) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(plan.seed_of(number));
    let brokers = site.cluster.broker_count();
    let victim = random.random_range(1..=brokers);
    let (name, fault) = draw(&mut random);
    let lasts = Duration::from_millis(random.random_range(200..2_000));
    line.faults = vec![name.to_owned()];
    line.targets = vec![format!("broker {victim} {} ms: {fault:?}", lasts.as_millis())];
    sleep(Duration::from_millis(random.random_range(200..800))).await;
    let fault_at = site.loaded.load.now();
    site.cluster.disk(victim).fail(fault);
    if random.random_bool(0.4) {
        // Of two copies that are left one is on the disk that fails.
        sleep(Duration::from_millis(random.random_range(0..200))).await;
        let other = victim % brokers + 1;
        site.cluster.broker(other).kill();
        line.faults.push("kill-broker".to_owned());
        line.targets.push(format!("broker {other}"));
    }
    sleep(lasts).await;
    site.cluster.disk(victim).heal();
    let victim_name = format!("broker-{victim}");
    for (daemon, how) in site.cluster.ended() {
        if daemon == victim_name {
            line.ended.push(daemon);
        } else {
            line.failures.push(how);
        }
    }
    let end_at = site.loaded.load.now();
    site.come_back(line).await?;
    site.ballast.whole(&site.loaded.reader, super::COME_BACK).await?;
    site.judge(line, fault_at, end_at).await
}
