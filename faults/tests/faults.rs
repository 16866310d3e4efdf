//! Short forms of the faults, on real processes: what is asserted is that nothing is lost,
//! reordered or repeated, and that everything comes back. How fast is `faults run`'s business.

#![allow(clippy::unwrap_used, reason = "a test")]

use baton_faults::cluster::Shape;
use baton_faults::network::sandbox;
use baton_faults::results::report;
use baton_faults::series::{self, Plan, Row, built_program};
use baton_faults::stage::Pace;
use baton_registry::testing::process::bound_to_parent;
use baton_registry::testing::server::Version;
use tokio::sync::Mutex;

/// One round of a fault.
async fn survives(row: Row) {
    let Some(class_path) = Version::V3_8.class_path_or_skip() else { return };
    let shape = Shape {
        program: built_program().unwrap(),
        class_path,
        zookeepers: 3,
        brokers: 3,
        coordinators: 2,
        parent: std::env::temp_dir(),
        log_filter: "info".to_owned(),
        sandbox: None,
    };
    let mut plan = Plan::new(shape, Pace::short());
    // A build without optimisation shares the machine with other tests.
    (plan.partitions, plan.rate) = (12, 50);
    let results = series::run(&plan, row, 1, 1).await.unwrap();
    assert!(results.iter().all(|round| round.correct()), "\n{}{results:#?}", report(&results));
}

/// One after the other: they would take each other's processors.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_everything_comes_back() {
    let _alone = ALONE.lock().await;
    for row in [Row::Kill9, Row::Sigstop, Row::KillAll, Row::EmptyDisk, Row::Sigterm, Row::CoordinatorCreate] {
        survives(row).await;
    }
}

/// Drawn faults, alone and in pairs, every process in a network namespace: what `faults campaign`
/// does for hours, a dozen rounds of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_in_namespaces_finds_nothing() {
    let _alone = ALONE.lock().await;
    if Version::V3_8.class_path_or_skip().is_none() {
        return;
    }
    let missing = sandbox::missing();
    if !missing.is_empty() {
        assert!(std::env::var("CI").is_err(), "a campaign needs {missing:?}");
        eprintln!("SKIPPED: a campaign needs {missing:?}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut campaign = bound_to_parent("timeout");
    campaign.args([
        "--kill-after=10",
        "300",
        env!("CARGO_BIN_EXE_faults"),
        "campaign",
        "--seed",
        "4",
        "--rounds",
        "12",
    ]);
    campaign
        .args(["--partitions", "12", "--rate", "40", "--dir"])
        .arg(dir.path())
        .arg("--baton")
        .arg(built_program().unwrap());
    let out = campaign.output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}\n{told}\n{said}", out.status);
    println!("{said}");
}
