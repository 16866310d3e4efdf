//! Apache Kafka's own tools, and what they print: the script that `BATON_KAFKA_TOOLS` names runs
//! one of them by its name.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::clients::skipped;
use crate::wire::{PATIENCE, cluster};

/// Runs a tool that reads `input`; its code, and what it prints and complains of.
fn tool(name: &str, arguments: &[&str], input: &str) -> (bool, String) {
    let script = std::env::var_os("BATON_KAFKA_TOOLS").unwrap();
    let mut child = Command::new("timeout")
        .arg("120")
        .arg(script)
        .arg(name)
        .args(arguments)
        // They run for a second: the better compiler is not worth its time.
        .env("JAVA_TOOL_ARGS", "-XX:TieredStopAtLevel=1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let written = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(written.is_ok(), "{name} {arguments:?} does not read: {said}");
    (output.status.success(), said)
}

/// Runs a tool that is told of the cluster, and that has to succeed.
pub fn run(name: &str, arguments: &[&str]) -> String {
    fed(name, arguments, "")
}

fn fed(name: &str, arguments: &[&str], input: &str) -> String {
    let bootstrap = cluster().bootstrap();
    let all = [&["--bootstrap-server", &bootstrap], arguments].concat();
    let (succeeded, said) = tool(name, &all, input);
    assert!(succeeded, "{name} {arguments:?}: {said}");
    said
}

/// Runs a tool that has to fail, and to say why.
pub fn fails(name: &str, arguments: &[&str], why: &str) {
    let bootstrap = cluster().bootstrap();
    let (succeeded, said) = tool(name, &[&["--bootstrap-server", &bootstrap], arguments].concat(), "");
    assert!(!succeeded && said.contains(why), "{name} {arguments:?}: {said}");
}

#[track_caller]
pub fn says(said: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(said.contains(wanted), "not {wanted:?}: {said}");
    }
}

/// What stands from these words on: not every tool ends its lines.
#[track_caller]
pub fn row<'a>(said: &'a str, first: &[&str]) -> Vec<&'a str> {
    let words: Vec<&str> = said.split_whitespace().collect();
    let found = words.windows(first.len()).position(|words| words == first);
    words[found.unwrap_or_else(|| panic!("not {first:?}: {said}"))..].to_vec()
}

pub fn there() -> bool {
    let java = Command::new("java").arg("-version").output().is_ok_and(|output| output.status.success());
    let script = std::env::var_os("BATON_KAFKA_TOOLS").is_some_and(|script| std::path::Path::new(&script).is_file());
    if !(java && script) {
        skipped("Apache Kafka's tools: there is no Java, or BATON_KAFKA_TOOLS does not name their script");
    }
    java && script
}

#[test]
fn topics_and_settings() {
    if !there() {
        return;
    }
    let versions = run("broker-api-versions", &[]);
    says(&versions, &["Produce(0): 0 to 12 [usable: 11]", "DescribeLogDirs(35): 1 to 4 [usable: 4]"]);
    assert_eq!(versions.matches("(id: ").count(), 3, "{versions}");
    let create = ["--create", "--topic", "java", "--partitions", "2", "--replication-factor", "3"];
    run("topics", &[&create[..], &["--config", "retention.ms=3600000"]].concat());
    fails("topics", &create, "TopicExistsException");
    let described = run("topics", &["--describe", "--topic", "java"]);
    says(&described, &["PartitionCount: 2", "ReplicationFactor: 3", "retention.ms=3600000", "Isr: 1,2,3"]);
    run("topics", &["--alter", "--topic", "java", "--partitions", "3"]);
    assert_eq!(run("get-offsets", &["--topic", "java"]).trim(), "java:0:0\njava:1:0\njava:2:0");
    assert!(run("topics", &["--list"]).lines().any(|line| line == "java"));
    let of_topic = ["--entity-type", "topics", "--entity-name", "java"];
    let alter = |change: &[&'static str]| [&["--alter"], &of_topic[..], change].concat();
    run("configs", &alter(&["--add-config", "max.message.bytes=2000000,cleanup.policy=[compact,delete]"]));
    let set = run("configs", &[&["--describe"], &of_topic[..]].concat());
    says(&set, &["max.message.bytes=2000000 ", "cleanup.policy=compact,delete ", "retention.ms=3600000 "]);
    run("configs", &alter(&["--delete-config", "max.message.bytes,cleanup.policy"]));
    let all = run("configs", &[&["--describe", "--all"], &of_topic[..]].concat());
    says(&all, &["max.message.bytes=1048588 ", "cleanup.policy=delete ", "min.insync.replicas=2 "]);
    fails("configs", &alter(&["--add-config", "max.message.bytes=many"]), "InvalidConfigurationException");
    fails("configs", &alter(&["--add-config", "no.such=1"]), "InvalidConfigurationException");
    let broker = run("configs", &["--describe", "--all", "--entity-type", "brokers", "--entity-name", "1"]);
    says(&broker, &["broker.id=1 ", "message.max.bytes="]);
    run("topics", &["--delete", "--topic", "java"]);
    assert!(!run("topics", &["--list"]).lines().any(|line| line == "java"));
}

#[test]
fn records_and_groups() {
    if !there() {
        return;
    }
    run("topics", &["--create", "--topic", "java-records", "--partitions", "1", "--replication-factor", "3"]);
    let topic = ["--topic", "java-records"];
    let lines: String = (0..100).map(|n| format!("{n}\n")).collect();
    let settings = ["--compression-codec", "zstd", "--producer-property", "enable.idempotence=true"];
    fed("console-producer", &[&topic[..], &settings].concat(), &lines);
    let read = ["--from-beginning", "--max-messages", "100", "--timeout-ms", "60000", "--group", "java"];
    let read = run("console-consumer", &[&topic[..], &read].concat());
    assert!(read.starts_with(&lines), "{read}");
    assert!(run("consumer-groups", &["--list"]).lines().any(|line| line == "java"));
    let group = ["--group", "java"];
    let described = run("consumer-groups", &[&["--describe"], &group[..]].concat());
    assert_eq!(row(&described, &["java", "java-records", "0"])[3..6], ["100", "100", "0"]);
    let state = run("consumer-groups", &[&["--describe", "--state"], &group[..]].concat());
    assert_eq!(row(&state, &["java"])[3..5], ["Empty", "0"]);
    let reset = [&["--reset-offsets", "--to-offset", "40", "--execute"], &group[..], &topic].concat();
    assert_eq!(row(&run("consumer-groups", &reset), &["java", "java-records", "0"])[3], "40");
    let described = run("consumer-groups", &[&["--describe"], &group[..]].concat());
    assert_eq!(row(&described, &["java", "java-records", "0"])[3..6], ["40", "100", "60"]);
    says(&run("consumer-groups", &[&["--delete-offsets"], &group[..], &topic].concat()), &["Successful"]);
    says(&run("consumer-groups", &[&["--delete"], &group[..]].concat()), &["was successful"]);
    assert!(!run("consumer-groups", &["--list"]).lines().any(|line| line == "java"));
    deletions();
    run("topics", &["--delete", "--topic", "java-records"]);
}

/// What the topic takes, and that its beginning goes.
fn deletions() {
    let dirs = run("log-dirs", &["--describe", "--topic-list", "java-records"]);
    assert_eq!(dirs.matches("\"partition\":\"java-records-0\"").count(), 3, "{dirs}");
    assert!(!dirs.contains("\"size\":0"), "{dirs}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, r#"{"version":1,"partitions":[{"topic":"java-records","partition":0,"offset":60}]}"#)
        .unwrap();
    let path = file.path().to_str().unwrap();
    says(&run("delete-records", &["--offset-json-file", path]), &["partition: java-records-0", "low_watermark: 60"]);
    let at = |time| run("get-offsets", &["--topic", "java-records", "--time", time]).trim().to_owned();
    assert_eq!(at("earliest"), "java-records:0:60");
    assert_eq!(at("latest"), "java-records:0:100");
    says(&at("max-timestamp"), &["java-records:0:"]);
    // Nothing is that young: a partition without an answer is not printed.
    assert_eq!(at("99999999999999"), "");
}

#[test]
fn measuring_and_verifying() {
    if !there() {
        return;
    }
    let bootstrap = format!("bootstrap.servers={}", cluster().bootstrap());
    for acks in ["acks=all", "acks=1"] {
        let perf = ["--topic", "java-perf", "--num-records", "5000", "--record-size", "100", "--throughput", "-1"];
        let (done, said) =
            tool("producer-perf-test", &[&perf[..], &["--producer-props", &bootstrap, acks]].concat(), "");
        assert!(done, "{said}");
        says(&said, &["5000 records sent"]);
    }
    let read = run("consumer-perf-test", &["--topic", "java-perf", "--messages", "10000", "--timeout", "60000"]);
    assert_eq!(read.lines().nth(1).and_then(|line| line.split(", ").nth(4)), Some("10000"), "{read}");
    let sent = run("verifiable-producer", &["--topic", "java-verified", "--max-messages", "50", "--acks", "-1"]);
    assert_eq!(sent.matches("producer_send_success").count(), 50, "{sent}");
    let limits = ["--max-messages", "50", "--reset-policy", "earliest", "--group-id", "java-verified"];
    let seen = run("verifiable-consumer", &[&["--topic", "java-verified"], &limits[..]].concat());
    says(&seen, &["partitions_assigned", "\"offset\":50}],\"success\":true", "shutdown_complete"]);
}

#[test]
fn replicas_and_leaders() {
    if !there() {
        return;
    }
    run("topics", &["--create", "--topic", "java-moved", "--replica-assignment", "1:2"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let moved = |arguments: &[&str]| run("reassign-partitions", arguments);
    let plan = r#"{"version":1,"partitions":[{"topic":"java-moved","partition":0,"replicas":[3,2]}]}"#;
    std::fs::write(&file, plan).unwrap();
    let begun = moved(&["--reassignment-json-file", &path, "--execute"]);
    says(&begun, &[r#""replicas":[1,2]"#, "Successfully started partition reassignment for java-moved-0"]);
    let started = Instant::now();
    loop {
        let verified = moved(&["--reassignment-json-file", &path, "--verify"]);
        if verified.contains("Reassignment of partition java-moved-0 is completed") {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{verified}");
    }
    says(&moved(&["--list"]), &["No partition reassignments found"]);
    let preferred = ["--election-type", "preferred", "--topic", "java-moved", "--partition", "0"];
    // The first of the list leads, or does by now.
    says(&run("leader-election", &preferred), &["java-moved-0"]);
    says(&run("topics", &["--describe", "--topic", "java-moved"]), &["Leader: 3", "Replicas: 3,2"]);
    run("leader-election", &["--election-type", "preferred", "--all-topic-partitions"]);
    std::fs::write(&file, plan.replace("[3,2]", "[1,99]")).unwrap();
    fails("reassign-partitions", &["--reassignment-json-file", &path, "--execute"], "99");
    run("topics", &["--delete", "--topic", "java-moved"]);
}
