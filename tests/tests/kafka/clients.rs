//! Clients of others: each produces, consumes, commits and administers as its users do.
//!
//! kcat comes from Debian. The Python clients are run by the interpreter that
//! `BATON_TEST_PYTHON` names, which has confluent-kafka, kafka-python and aiokafka.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::transactions::Client;
use crate::wire::cluster;

fn finished(what: &str, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Says that something cannot be tested here: past the harness, which keeps to itself what a
/// test prints that passes. `tests/run` counts these lines.
pub fn skipped(what: &str) {
    std::io::stderr().write_all(format!("\nSKIPPED: {what}\n").as_bytes()).unwrap();
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "nothing is skipped there: {what}");
}

fn has_kcat() -> bool {
    let there = Command::new("kcat").arg("-V").output().is_ok_and(|output| output.status.success());
    if !there {
        skipped("kcat: it is not installed");
    }
    there
}

fn kcat(arguments: &[&str], input: &str) -> String {
    // Nothing may hang for ever.
    let mut child = Command::new("timeout")
        .args(["60", "kcat", "-b", &cluster().bootstrap()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`timeout` is installed");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    finished(&format!("kcat {arguments:?}"), &child.wait_with_output().unwrap())
}

#[test]
fn kcat_lists_produces_and_consumes_with_every_codec() {
    if !has_kcat() {
        return;
    }
    let listed = kcat(&["-L"], "");
    assert!(listed.contains("3 brokers"), "{listed}");
    let lines: String = (0..3_000).map(|n| format!("{n}\n")).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("kcat-{codec}");
        kcat(&["-t", &topic, "-P", "-z", codec, "-X", "enable.idempotence=true"], &lines);
        let read = kcat(&["-t", &topic, "-C", "-e", "-q", "-X", "check.crcs=true"], "");
        assert_eq!(read, lines, "{codec}");
    }
    // A key, headers, and from the middle on.
    kcat(&["-t", "kcat-keys", "-P", "-K", ":", "-H", "a=1", "-H", "a=2"], "k1:v1\nk2:v2\n");
    let read = kcat(&["-t", "kcat-keys", "-C", "-e", "-q", "-o", "1", "-f", "%o %k %s %h\n"], "");
    assert_eq!(read, "1 k2 v2 a=1,a=2\n");
    // An empty key and no value, and the other way round.
    kcat(&["-t", "kcat-null", "-P", "-K", ":", "-Z"], ":a\nb:\n");
    let read = kcat(&["-t", "kcat-null", "-C", "-e", "-q", "-f", "%K %S\n"], "");
    assert_eq!(read, "-1 1\n1 -1\n");
    let offsets = kcat(&["-Q", "-t", "kcat-keys:0:-1"], "");
    assert!(offsets.contains("offset 2"), "{offsets}");
}

#[test]
fn kcat_reads_in_a_group() {
    if !has_kcat() {
        return;
    }
    let lines: String = (0..100).map(|n| format!("{n}\n")).collect();
    kcat(&["-t", "kcat-group", "-P"], &lines);
    let group = ["-G", "kcat-readers", "-e", "-q", "-X", "auto.offset.reset=earliest", "kcat-group"];
    assert_eq!(kcat(&group, ""), lines);
    assert_eq!(kcat(&group, ""), "", "what was committed is not read again");
}

#[test]
fn kcat_reads_and_writes_transactions() {
    if !has_kcat() {
        return;
    }
    let topic = "kcat-txn";
    let mut other = Client::new(topic);
    kcat(&["-t", topic, "-P", "-X", "transactional.id=kcat"], "a\nb\n");
    let producer = other.init(60_000).unwrap();
    assert_eq!(other.write(12, producer, 0, "aborted"), 0);
    let (code, _) = other.end(producer, false);
    assert_eq!(code, 0);
    // Two records and the marker, the aborted one and its marker.
    assert_eq!(other.settled(), (5, vec![3]));
    let read = |isolation: &str| kcat(&["-t", topic, "-C", "-e", "-q", "-X", isolation, "-f", "%o %s\n"], "");
    assert_eq!(read("isolation.level=read_committed"), "0 a\n1 b\n");
    assert_eq!(read("isolation.level=read_uncommitted"), "0 a\n1 b\n3 aborted\n");
    kcat(&["-t", topic, "-P", "-X", "transactional.id=kcat"], "c\n");
    assert_eq!(other.settled(), (7, vec![3]));
    assert_eq!(read("isolation.level=read_committed"), "0 a\n1 b\n5 c\n");
}

/// The interpreter, if it has this module.
fn interpreter(module: &str) -> Option<OsString> {
    let named = std::env::var_os("BATON_TEST_PYTHON")?;
    let has = Command::new(&named).args(["-c", &format!("import {module}")]).output();
    has.is_ok_and(|output| output.status.success()).then_some(named)
}

fn python(script: &str, name: &str, module: &str) {
    let Some(interpreter) = interpreter(module) else {
        return skipped(&format!("{name}: BATON_TEST_PYTHON does not name a Python that has it"));
    };
    let child = Command::new("timeout")
        .arg("180")
        .arg(interpreter)
        .args(["-c", script, &cluster().bootstrap()])
        .output()
        .unwrap();
    let out = finished(name, &child);
    assert!(out.trim_end().ends_with("done"), "{out}");
}

#[test]
fn confluent_kafka() {
    python(include_str!("clients/confluent.py"), "confluent-kafka", "confluent_kafka");
}

#[test]
fn transactions_of_confluent_kafka() {
    python(include_str!("clients/transactions.py"), "confluent-kafka's transactions", "confluent_kafka");
}

#[test]
fn transactions_of_kafka_python() {
    python(include_str!("clients/kafka_python_transactions.py"), "kafka-python's transactions", "kafka");
}

#[test]
fn transactions_of_aiokafka() {
    python(include_str!("clients/aio_transactions.py"), "aiokafka's transactions", "aiokafka");
}

#[test]
fn kafka_python() {
    python(include_str!("clients/kafka_python.py"), "kafka-python", "kafka");
}

#[test]
fn aiokafka() {
    python(include_str!("clients/aio.py"), "aiokafka", "aiokafka");
}
