//! Transactions while the brokers that coordinate and lead are killed: each is there as a whole
//! or not at all, whoever carries it through.
//!
//! The client is confluent-kafka, run by the interpreter that `BATON_TEST_PYTHON` names.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use baton_coordinator::dev::{DevCluster, DevOptions};
use baton_tests::ports::free_block;

/// Long enough for a broker to be missed and taken back on two shared cores.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between one kill and the start of the broker, and from there to the next kill.
const PAUSE: Duration = Duration::from_secs(3);

#[test]
fn transactions_outlive_their_coordinators() {
    let Some(interpreter) = std::env::var_os("BATON_TEST_PYTHON") else {
        // Past the harness, which keeps to itself what a test prints that passes.
        let what = b"\nSKIPPED: transactions through failovers: BATON_TEST_PYTHON names no Python\n";
        std::io::stderr().write_all(what).unwrap();
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "nothing is skipped there");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let first_port = free_block();
    let options = DevOptions { dir: dir.path().to_owned(), first_port, kafka_port: Some(first_port + 20) };
    let cluster = DevCluster::start(options).unwrap();
    assert!(cluster.wait_ready(PATIENCE), "the cluster is not ready");
    let mut client = Command::new("timeout")
        .arg("200")
        .arg(interpreter)
        .args(["-c", include_str!("failover.py"), &cluster.kafka_bootstrap().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stop = client.stdin.take().unwrap();
    // Each of them coordinates or leads something of it.
    for broker in [1, 2, 3, 1, 2, 3] {
        std::thread::sleep(PAUSE);
        cluster.kill(broker).unwrap();
        std::thread::sleep(PAUSE);
        cluster.start_broker(broker).unwrap();
        assert!(cluster.wait_ready(PATIENCE), "broker {broker} does not come back");
    }
    drop(stop);
    let output = client.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim_end().ends_with("done"), "{out}\n{err}");
    eprintln!("{out}{err}");
}
