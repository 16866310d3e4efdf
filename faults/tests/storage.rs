//! Short forms of the rounds that hurt the storage: `storage power` and `storage damage` run more.
//! They need root and `/dev/fuse`, and fail where these are missing.

#![allow(clippy::unwrap_used, reason = "a test")]

use baton_faults::campaign::ledger::{Line, Outcome};
use baton_faults::cluster::Shape;
use baton_faults::plan::Plan;
use baton_faults::series::built_program;
use baton_faults::storage::{errors, power, rot};
use baton_registry::testing::server::Version;

fn plan(class_path: String, rounds: u64) -> Plan {
    let shape = Shape {
        program: built_program().unwrap(),
        class_path,
        zookeepers: 1,
        brokers: 3,
        coordinators: 1,
        parent: std::env::temp_dir(),
        log_filter: "info".to_owned(),
        sandbox: None,
    };
    Plan {
        shape,
        seed: 7,
        first: 0,
        rounds,
        until: None,
        cluster_rounds: 100,
        partitions: 6,
        producers: 2,
        rate: 40,
        ledger: None,
        version: String::new(),
    }
}

fn all_good(lines: &[Line]) {
    let bad: Vec<&Line> = lines.iter().filter(|line| line.outcome == Outcome::Failed).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// One after the other: they would take each other's processors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_errors_and_damage_lose_nothing_and_serve_nothing_wrong() {
    let Some(class_path) = Version::V3_8.class_path_or_skip() else { return };
    all_good(&power::run(&plan(class_path.clone(), 5)).await.unwrap());
    all_good(&errors::run(&plan(class_path.clone(), 5)).await.unwrap());
    all_good(&rot::run(&plan(class_path, 6)).await.unwrap());
}
