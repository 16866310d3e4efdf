//! The binary from outside, against a cluster inside this process: what it prints where, and
//! how it exits.
// Helpers of an integration test are not test functions to clippy, which allows it there.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{process::Stdio, time::Duration};

use baton_client::{
    BrokerId,
    fake::{Cluster, ProduceFault},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Done {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Done {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.text(), self.stderr))
    }

    fn error(&self) -> Value {
        serde_json::from_str::<Value>(&self.stderr).unwrap_or_else(|error| panic!("{error}: {}", self.stderr))["error"]
            .clone()
    }
}

fn command(bootstrap: &str, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    let inherited = std::env::vars().filter(|(name, _)| name.starts_with("BATON_"));
    inherited.for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.env("BATON_BOOTSTRAP", bootstrap).args(line.split_whitespace()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn finish(mut command: Command, input: &[u8]) -> Done {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Verbs that do not read it have gone before.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it does not end").unwrap();
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

async fn baton(cluster: &Cluster, line: &str) -> Done {
    with_input(cluster, line, b"").await
}

async fn with_input(cluster: &Cluster, line: &str, input: &[u8]) -> Done {
    finish(command(&cluster.bootstrap().join(","), line), input).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_goes_through_its_life() {
    let cluster = Cluster::start(3).await.unwrap();
    let made =
        baton(&cluster, "topic create t --partitions 2 --replication 3 --config retention.ms=5 --output json").await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert_eq!(made.json(), serde_json::json!({"name": "t", "id": "00000001", "partitions": 2, "replication": 3}));
    let again = baton(&cluster, "topic create t").await;
    assert_eq!(again.code, 1);
    assert!(again.stdout.is_empty());
    for part in ["TOPIC_EXISTS", "retry:", "next:"] {
        assert!(again.stderr.contains(part), "{}", again.stderr);
    }
    let listed = baton(&cluster, "topic list").await;
    assert_eq!(listed.text().lines().count(), 2);
    assert!(listed.text().starts_with("TOPIC"), "{}", listed.text());
    let altered = baton(&cluster, "topic alter t --config retention.ms=6 --partitions 3 --output json").await;
    assert_eq!(altered.json()["partitions"], 3);
    let described = baton(&cluster, "topic describe t --output json").await.json();
    assert_eq!(described["config"]["retention.ms"], "6");
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(baton(&cluster, "topic alter t").await.code, 2);
    assert_eq!(baton(&cluster, "topic delete t").await.code, 0);
    for line in ["topic delete t", "topic describe t", "partition list t", "consume t --from start --exit-at-end"] {
        let gone = baton(&cluster, line).await;
        assert_eq!(gone.code, 4, "{line}: {}", gone.stderr);
        assert!(gone.stdout.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_listed_in_the_shape_that_programs_rely_on() {
    let cluster = Cluster::start(3).await.unwrap();
    cluster.create_topic("t", 2);
    cluster.lead("t", 1, None);
    with_input(&cluster, "produce t --partition 0", b"a\nb\n").await;
    let listed = baton(&cluster, "partition list t --output json").await;
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert_eq!(
        listed.text(),
        concat!(
            r#"{"partitions":["#,
            r#"{"partition":0,"leader":1,"epoch":1,"isr":[1,2,3],"replicas":[1,2,3],"high_watermark":2,"#,
            r#""log_start":0,"adding":[],"removing":[]},"#,
            r#"{"partition":1,"leader":null,"epoch":2,"isr":[1,2,3],"replicas":[1,2,3],"high_watermark":null,"#,
            r#""log_start":null,"adding":[],"removing":[]}"#,
            "]}\n"
        )
    );
    assert_eq!(baton(&cluster, "partition reassign t 0 --replicas 1,2").await.code, 0);
    assert_eq!(baton(&cluster, "partition elect t 0").await.code, 0);
    assert_eq!(baton(&cluster, "partition elect t 0 --unclean 1").await.code, 1);
    assert_eq!(baton(&cluster, "partition elect t 7").await.code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_go_in_and_come_out_byte_for_byte() {
    let cluster = Cluster::start(3).await.unwrap();
    cluster.create_topic("t", 1);
    let input = b"one\n\xff\x00two\r\n\nlast";
    let produced = with_input(&cluster, "produce t --compression lz4", input).await;
    assert_eq!(produced.code, 0, "{}", produced.stderr);
    assert!(produced.stdout.is_empty());
    assert!(produced.stderr.starts_with("4 records acknowledged"), "{}", produced.stderr);
    let consumed = baton(&cluster, "consume t --from start --exit-at-end").await;
    assert_eq!((consumed.code, &consumed.stdout[..]), (0, &b"one\n\xff\x00two\r\n\nlast\n"[..]));
    let consumed = baton(&cluster, "consume t --from 1 --count 2 --format {partition}:{offset}:{key}").await;
    assert_eq!(consumed.text(), "0:1:\n0:2:\n");
    let consumed = baton(&cluster, "consume t --from start --count 2 --output json").await;
    let objects: Vec<Value> = consumed.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[0]["value"], "one");
    assert_eq!(objects[1]["value"]["base64"], "/wB0d28N");
    let empty = baton(&cluster, "consume t --from end --exit-at-end").await;
    assert_eq!((empty.code, empty.text().as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_headers_are_kept() {
    let cluster = Cluster::start(1).await.unwrap();
    cluster.create_topic("t", 4);
    let line = "produce t --key-delimiter : --header source=test --output json";
    let produced = with_input(&cluster, line, b"a:1\nb:2\na:3\nnone\n").await;
    assert_eq!(produced.code, 0, "{}", produced.stderr);
    let json = produced.json();
    assert_eq!((&json["acknowledged"], &json["failed"]), (&Value::from(4), &Value::from(0)));
    assert!(produced.stderr.is_empty(), "{}", produced.stderr);
    let consumed = baton(&cluster, "consume t --from start --exit-at-end --format {key}={value};{headers}").await;
    let mut lines: Vec<String> = consumed.text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["=none;source=test", "a=1;source=test", "a=3;source=test", "b=2;source=test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_is_counted_and_fails() {
    let cluster = Cluster::start(1).await.unwrap();
    cluster.create_topic("t", 1);
    cluster.produce_faults([ProduceFault::StoreAndForget]);
    let produced = with_input(&cluster, "produce t --delivery-timeout 500ms --output json", b"a\nb\n").await;
    assert_eq!(produced.code, 1, "{}", produced.stderr);
    let json = produced.json();
    assert_eq!((&json["failed"], &json["maybe_stored"]), (&Value::from(2), &Value::from(2)));
    assert_eq!(produced.error()["exit_code"], 1);
    assert!(produced.stderr.contains("2 records were not acknowledged"), "{}", produced.stderr);
    let nowhere = with_input(&cluster, "produce t --partition 9", b"a\n").await;
    assert_eq!(nowhere.code, 4, "{}", nowhere.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_falls_is_not_noticed_by_who_produces_and_consumes() {
    let cluster = Cluster::start(3).await.unwrap();
    cluster.create_topic("t", 1);
    let mut producer = command(&cluster.bootstrap().join(","), "produce t").spawn().unwrap();
    let mut consumer = command(&cluster.bootstrap().join(","), "consume t --from start --count 20").spawn().unwrap();
    let mut input = producer.stdin.take().unwrap();
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    for n in 0..20 {
        if n == 10 {
            cluster.kill(1);
            cluster.take_over(1, 2);
        }
        input.write_all(format!("{n}\n").as_bytes()).await.unwrap();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("nothing came").unwrap();
        assert_eq!(line, Some(n.to_string()));
    }
    drop(input);
    assert!(timeout(PATIENCE, producer.wait()).await.unwrap().unwrap().success());
    assert!(timeout(PATIENCE, consumer.wait()).await.unwrap().unwrap().success());
    assert_eq!(cluster.leader("t", 0).0, Some(BrokerId(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_of_the_cluster_is_in_the_exit_code() {
    let cluster = Cluster::start(2).await.unwrap();
    let healthy = baton(&cluster, "cluster status --output json").await;
    assert_eq!(healthy.code, 0, "{}", healthy.stderr);
    assert_eq!(healthy.json()["healthy"], true);
    cluster.kill(1);
    let ill = baton(&cluster, "cluster status").await;
    assert_eq!(ill.code, 10);
    assert!(ill.stderr.contains("broker 1 is absent"), "{}", ill.stderr);
    assert!(ill.text().contains("absent"), "{}", ill.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_be_reached_is_told_with_every_address() {
    let unreachable = finish(command("127.0.0.1:1,127.0.0.1:2", "topic list --output json"), b"").await;
    assert_eq!(unreachable.code, 3);
    assert!(unreachable.stdout.is_empty());
    let error = unreachable.error();
    assert_eq!((&error["name"], &error["retriable"]), (&Value::from("UNREACHABLE"), &Value::from(true)));
    let cause = error["cause"].as_str().unwrap();
    assert!(cause.contains("127.0.0.1:1") && cause.contains("127.0.0.1:2"), "{cause}");
}

/// A listener of Kafka's protocol takes HTTP/2's preface for a frame that is too long.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_for_kafkas_clients_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 14];
            if stream.read_exact(&mut request).await.is_ok() && request.starts_with(&[0, 0, 0]) {
                let _ = stream.write_all(&[&[0, 0, 0, 10][..], &request[8..12], &[0; 6]].concat()).await;
            }
        }
    });
    let refused = finish(command(&format!("{address},127.0.0.1:2"), "topic list"), b"").await;
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    let told = format!("{address}: this is a port for Kafka's clients");
    assert!(refused.stderr.contains("UNREACHABLE") && refused.stderr.contains(&told), "{}", refused.stderr);
    assert_eq!(refused.stderr.matches("Kafka").count(), 1, "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_errors_exit_with_2_and_help_with_0() {
    let cluster = Cluster::start(1).await.unwrap();
    for line in ["", "topic", "consume t --from nowhere", "topic create t --config x", "frobnicate"] {
        let done = baton(&cluster, line).await;
        assert_eq!(done.code, 2, "{line}: {}", done.stderr);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty());
        assert!(!done.stderr.contains('\x1b'), "colour though it is not a terminal");
    }
    assert_eq!(baton(&cluster, "--help").await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_printed_one_event_a_line() {
    let cluster = Cluster::start(1).await.unwrap();
    cluster.event("broker_gone");
    cluster.event("leader_moved");
    let events = baton(&cluster, "events --output json").await;
    let kinds: Vec<Value> =
        events.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].clone()).collect();
    assert_eq!(kinds, ["broker_gone", "leader_moved"]);
    let mut follow = command(&cluster.bootstrap().join(","), "events --follow").spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    for kind in ["broker_gone", "leader_moved", "broker_back"] {
        if kind == "broker_back" {
            cluster.event(kind);
        }
        let line = timeout(PATIENCE, lines.next_line()).await.expect("nothing came").unwrap().unwrap();
        assert!(line.contains(kind), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_it_quietly() {
    let cluster = Cluster::start(1).await.unwrap();
    cluster.create_topic("t", 1);
    let input: Vec<u8> = (0..50_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    assert_eq!(with_input(&cluster, "produce t", &input).await.code, 0);
    let mut consumer = command(&cluster.bootstrap().join(","), "consume t --from start").spawn().unwrap();
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap(), Some("0".to_owned()));
    drop(lines);
    // The next record finds that nobody reads.
    let produced = with_input(&cluster, "produce t", b"more\n").await;
    assert_eq!(produced.code, 0);
    let output = timeout(PATIENCE, consumer.wait_with_output()).await.expect("it goes on").unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_printed_or_refused_with_its_reason() {
    let cluster = Cluster::start(1).await.unwrap();
    let line = "config print --set broker_id=3 --set registry.connect=zk:2181/baton";
    let printed = baton(&cluster, line).await;
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    assert!(printed.text().contains("broker_id = 3"), "{}", printed.text());
    let printed = baton(&cluster, &format!("{line} --output json")).await;
    assert_eq!(printed.json()["registry"]["connect"], "zk:2181/baton");
    for (line, named) in [("config print", "broker_id"), ("config print --set brokr_id=3", "brokr_id")] {
        let refused = baton(&cluster, line).await;
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(named), "{}", refused.stderr);
    }
    assert_eq!(baton(&cluster, "config print --config /nowhere.toml").await.code, 1);
}
