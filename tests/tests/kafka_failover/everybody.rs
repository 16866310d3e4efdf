//! Clients of all kinds at once while the brokers are killed one after the other: no error
//! reaches an application, nothing that was acknowledged is missed, nothing is stored twice.
//!
//! The Python clients are run by the interpreter that `BATON_TEST_PYTHON` names, Apache Kafka's
//! by the script that `BATON_KAFKA_TOOLS` names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::{Client, skipped};
use crate::member::{self, Seen};
use crate::producer::{Sending, Told};
use crate::stage::{Stage, eventually};

const PARTITIONS: i32 = 3;
/// Between a kill and the broker's start, and from there to the next kill.
const PAUSE: Duration = Duration::from_millis(2_500);
/// Lines that the console producer is given while brokers are killed, and in all.
const LINES: usize = 1_200;
const EACH_LINE: Duration = Duration::from_millis(20);

const SCRIPTS: [(&str, &str, &str); 3] = [
    ("confluent-kafka", "confluent_kafka", include_str!("clients/confluent.py")),
    ("kafka-python", "kafka", include_str!("clients/kafka_python.py")),
    ("aiokafka", "aiokafka", include_str!("clients/aio.py")),
];

/// The Python clients that are installed here, each with a topic of its own.
fn start_python(stage: &Stage) -> Vec<Client> {
    let interpreter = std::env::var_os("BATON_TEST_PYTHON").unwrap_or_default();
    let has = |module: &str| {
        let tried = Command::new(&interpreter).args(["-c", &format!("import {module}")]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let mut started = Vec::new();
    for (name, module, script) in SCRIPTS {
        if !has(module) {
            skipped(&format!("{name} while brokers are killed: BATON_TEST_PYTHON does not name a Python that has it"));
            continue;
        }
        stage.create(name, PARTITIONS);
        started.push(Client::start(name, Path::new(&interpreter), &["-c", script, &stage.bootstrap(), name]));
    }
    started
}

/// Apache Kafka's verifiable and console clients.
struct Java {
    producer: Client,
    consumer: Client,
    console_producer: Client,
    console_consumer: Client,
    _settings: tempfile::NamedTempFile,
}

impl Java {
    fn start(stage: &Stage) -> Option<Self> {
        let script = std::env::var_os("BATON_KAFKA_TOOLS").map(std::path::PathBuf::from);
        let java = Command::new("java").arg("-version").output().is_ok_and(|output| output.status.success());
        let Some(script) = script.filter(|script| java && script.is_file()) else {
            skipped("Apache Kafka's clients while brokers are killed: no Java, or BATON_KAFKA_TOOLS names no script");
            return None;
        };
        let bootstrap = stage.bootstrap();
        for topic in ["verifiable", "console"] {
            stage.create(topic, PARTITIONS);
        }
        // The tool itself would not have anything sent again, as a user of the library has.
        let mut settings = tempfile::NamedTempFile::new().unwrap();
        settings.write_all(b"enable.idempotence=true\nretries=2147483647\n").unwrap();
        let start = |name: &str, topic: &str, arguments: &[&str]| {
            let common = [name, "--bootstrap-server", &bootstrap, "--topic", topic];
            Client::start(name, &script, &[&common[..], arguments].concat())
        };
        let (file, max) = (settings.path().to_str().unwrap(), LINES.to_string());
        Some(Self {
            producer: start("verifiable-producer", "verifiable", &["--throughput", "100", "--producer.config", file]),
            consumer: start(
                "verifiable-consumer",
                "verifiable",
                &["--group-id", "verifiable", "--reset-policy", "earliest", "--verbose"],
            ),
            console_producer: start("console-producer", "console", &["--producer-property", "linger.ms=5"]),
            console_consumer: start(
                "console-consumer",
                "console",
                &["--from-beginning", "--group", "console", "--max-messages", &max, "--timeout-ms", "90000"],
            ),
            _settings: settings,
        })
    }

    fn ready(&self) -> bool {
        self.producer.said("producer_send_success") && self.consumer.said("record_data")
    }

    /// Stops, and judges what the clients say.
    fn judge(self) {
        self.producer.terminate();
        let sent = self.producer.finished();
        assert!(!sent.contains("producer_send_error"), "an error reached the application: {sent}");
        let acknowledged = records(&sent, "producer_send_success");
        let arrived = || records(&self.consumer.output(), "record_data").len() >= acknowledged.len();
        eventually("the verifiable consumer reads everything", arrived);
        self.consumer.terminate();
        let read = self.consumer.finished();
        assert!(!read.contains("\"success\":false"), "a commit failed: {read}");
        assert_eq!(records(&read, "record_data"), acknowledged, "not what was acknowledged is there");
        let _ = self.console_producer.finished();
        let shown = self.console_consumer.finished();
        let shown: BTreeSet<&str> = shown.lines().filter(|line| line.starts_with("line ")).collect();
        assert_eq!(shown.len(), LINES, "the console's consumer shows each line once");
        println!("verifiable: {} records; console: {LINES}", acknowledged.len());
    }
}

/// By partition and offset: the values in the events of this name.
fn records(said: &str, name: &str) -> BTreeMap<(i64, i64), String> {
    let events = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let of_name = events.filter(|event| event["name"] == name);
    let mut found = BTreeMap::new();
    for event in of_name {
        let place = (event["partition"].as_i64().unwrap(), event["offset"].as_i64().unwrap());
        let value = event["value"].as_str().unwrap().to_owned();
        let before = found.insert(place, value.clone());
        assert!(before.is_none_or(|before| before == value), "{place:?} is told with two values");
    }
    let values: BTreeSet<&String> = found.values().collect();
    assert_eq!(values.len(), found.len(), "a record is stored twice");
    found
}

/// The crate `rdkafka`: an idempotent producer and two members of a group.
struct Rust {
    sending: Sending,
    seen: Arc<Seen>,
    members: Vec<std::thread::JoinHandle<()>>,
}

impl Rust {
    fn start(stage: &Stage) -> Self {
        stage.create("rdkafka", PARTITIONS);
        let seen = Arc::<Seen>::default();
        let members = (1..=2).map(|n| member::start(stage.config(), "rdkafka", n, &seen)).collect();
        let sending = Sending::start(stage.config(), "rdkafka", PARTITIONS, Duration::from_millis(20));
        Self { sending, seen, members }
    }

    fn judge(self) {
        let told = self.sending.finish();
        eventually("rdkafka reads everything", || {
            let read = self.seen.read.lock().unwrap();
            told.iter().all(|told| read.contains_key(&(told.partition, told.offset)))
        });
        self.seen.stop.store(true, Ordering::Relaxed);
        self.members.into_iter().for_each(|member| member.join().unwrap());
        let violations = self.seen.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:?}");
        let stored = |told: &Told| ((told.partition, told.offset), told.sequence);
        let read = self.seen.read.lock().unwrap();
        let read: BTreeMap<(i32, i64), u64> = read.iter().map(|(place, (sequence, _))| (*place, *sequence)).collect();
        assert_eq!(read, told.iter().map(stored).collect(), "not what was acknowledged is there");
        println!("rdkafka: {} records", told.len());
    }
}

#[test]
fn clients_of_all_kinds_run_through_the_death_of_each_broker() {
    let Some(stage) = Stage::start() else { return };
    let (mut python, mut java, rust) = (start_python(&stage), Java::start(&stage), Rust::start(&stage));
    if let Some(java) = &mut java {
        java.console_producer.feed(LINES, EACH_LINE);
        eventually("Apache Kafka's clients are at work", || java.ready());
    }
    eventually("the Python clients are at work", || python.iter().all(|client| client.said("ready")));
    eventually("the members read", || !rust.seen.read.lock().unwrap().is_empty());
    stage.kill_each(PAUSE);
    python.iter_mut().for_each(Client::end_of_input);
    if let Some(java) = java {
        java.judge();
    }
    rust.judge();
    for client in python {
        let (name, said) = (client.name.clone(), client.finished());
        assert!(said.trim_end().ends_with("done"), "{name}: {said}");
        println!("{name}: {}", said.lines().nth(1).unwrap_or_default());
    }
}
