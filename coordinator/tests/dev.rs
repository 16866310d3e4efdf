//! The quick start, as a newcomer types it: `baton dev`, a topic, records in and out, a broker
//! that is killed and comes back.
// Helpers of an integration test are not test functions to clippy, which allows it there.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// A free first port, with everything that `baton dev` counts from it, and the control port.
/// No two callers of this process get the same.
fn free_ports() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let offsets = [0, 1, 2, 10, 11, 12, 80, 81, 82, 90];
    let process = u16::try_from(std::process::id() % 50).unwrap();
    loop {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        assert!(tried < 150, "no free ports");
        // Below the ports that the kernel gives to connections.
        let first = 12_000 + (process * 3 + tried) % 150 * 100;
        if offsets.iter().all(|offset| TcpListener::bind(("127.0.0.1", first + offset)).is_ok()) {
            return first;
        }
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BATON_")) {
        command.env_remove(name);
    }
    command.args(args).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

/// A `baton dev` that runs.
struct Dev {
    process: Child,
    bootstrap: String,
    control: String,
}

impl Dev {
    /// Returns when it says that it is up.
    async fn start(first_port: u16, args: &[&str], temporary: &Path) -> Self {
        let (port, control) = (first_port.to_string(), format!("127.0.0.1:{}", first_port + 90));
        let mut command = command(&["dev", "--port", &port, "--kafka-port", "0", "--control", &control]);
        let mut process = command.args(args).env("TMPDIR", temporary).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let up = async {
            let mut seen = Vec::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                seen.push(line);
                if seen.last().is_some_and(|line| line.starts_with("Ctrl-C stops the cluster")) {
                    return seen.join("\n");
                }
            }
            panic!("it ended: {}", seen.join("\n"));
        };
        let greeting = timeout(PATIENCE, up).await.expect("it is not up in time");
        let bootstrap = (0..3).map(|n| format!("127.0.0.1:{}", first_port + n)).collect::<Vec<_>>().join(",");
        assert!(greeting.contains("Three brokers and a coordinator are up"), "{greeting}");
        assert!(greeting.contains(&bootstrap) && greeting.contains("baton topic create"), "{greeting}");
        // Nobody reads the rest; the pipe stays open.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { process, bootstrap, control }
    }

    async fn run(&self, line: &str, input: &str) -> Done {
        let mut args: Vec<&str> = line.split_whitespace().collect();
        if args[0] == "dev" {
            args.extend(["--control", &self.control]);
        } else {
            args.extend(["--bootstrap", &self.bootstrap]);
        }
        let mut child = command(&args).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feeding = async move { stdin.write_all(input.as_bytes()).await };
        let (_, output) = timeout(PATIENCE, async { tokio::join!(feeding, child.wait_with_output()) })
            .await
            .unwrap_or_else(|_| panic!("baton {line} does not end"));
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Done { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Runs what has to succeed.
    async fn ok(&self, line: &str, input: &str) -> Done {
        let done = self.run(line, input).await;
        assert_eq!(done.code, 0, "baton {line}: {}", done.stderr);
        done
    }

    async fn partitions(&self, topic: &str) -> Vec<Value> {
        let listed = self.ok(&format!("partition list {topic} --output json"), "").await.json();
        listed["partitions"].as_array().unwrap().clone()
    }

    /// Asks again and again until the answer is as wanted.
    async fn until(&self, what: &str, line: &str, wanted: impl Fn(&Done) -> bool) -> Done {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let done = self.run(line, "").await;
            if wanted(&done) {
                return done;
            }
            assert!(Instant::now() < deadline, "not in time: {what}: {} {}{}", done.code, done.stdout, done.stderr);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn signal(&mut self, signal: &str) -> Option<i32> {
        let id = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
        timeout(PATIENCE, self.process.wait()).await.expect("it does not end").unwrap().code()
    }
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|n| format!("{n}\n")).collect()
}

fn sorted(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn isr_of_each(done: &Done) -> Vec<usize> {
    let json = done.json();
    json["partitions"].as_array().unwrap().iter().map(|p| p["isr"].as_array().unwrap().len()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_sees_a_failover_in_the_first_minute() {
    let temporary = TempDir::new().unwrap();
    let mut dev = Dev::start(free_ports(), &["--ephemeral"], temporary.path()).await;
    let made = dev.ok("topic create hello --partitions 3", "").await;
    assert!(made.stderr.contains("hello created: 3 partitions, replication 3"), "{}", made.stderr);
    let produced = dev.ok("produce hello", &lines(0..10_000)).await;
    assert!(produced.stderr.starts_with("10000 records acknowledged"), "{}", produced.stderr);
    let partitions = dev.partitions("hello").await;
    assert_eq!(partitions.len(), 3);
    let leader = partitions[0]["leader"].as_u64().unwrap();

    let killed = dev.ok(&format!("dev kill {leader}"), "").await;
    assert!(killed.stderr.contains(&format!("broker {leader} killed")), "{}", killed.stderr);
    dev.ok("produce hello", &lines(10_000..20_000)).await;
    let consumed = dev.ok("consume hello --from start --exit-at-end", "").await;
    assert!(sorted(&consumed.stdout).into_iter().eq(0..20_000), "{} lines", consumed.stdout.lines().count());
    for partition in dev.partitions("hello").await {
        assert_ne!(partition["leader"].as_u64(), Some(leader), "{partition}");
    }
    let again = dev.run(&format!("dev kill {leader}"), "").await;
    assert!(again.code == 1 && again.stderr.contains("not running"), "{} {}", again.code, again.stderr);
    let told = |done: &Done| done.stdout.contains("broker_gone") && done.stdout.contains("leader_moved");
    dev.until("the history tells it", "events --output json", told).await;
    dev.until("the cluster is unhealthy", "cluster status", |done| done.code == 10).await;

    dev.ok(&format!("dev start {leader}"), "").await;
    let back = |done: &Done| done.code == 0 && isr_of_each(done) == [3, 3, 3];
    dev.until("all are in sync again", "partition list hello --output json", back).await;
    dev.until("the cluster is healthy", "cluster status", |done| done.code == 0).await;
    assert_eq!(dev.signal("-TERM").await, Some(0));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "something was left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_end_of_the_process() {
    let (temporary, ports) = (TempDir::new().unwrap(), free_ports());
    let dir = temporary.path().join("data");
    let args = ["--dir", dir.to_str().unwrap()];
    let mut dev = Dev::start(ports, &args, temporary.path()).await;
    dev.ok("topic create kept --partitions 2 --config max.message.bytes=65536", "").await;
    dev.ok("produce kept", &lines(0..1_000)).await;
    assert_eq!(dev.signal("-KILL").await, None);

    let mut dev = Dev::start(ports, &args, temporary.path()).await;
    let led = |done: &Done| done.code == 0 && isr_of_each(done) == [3, 3];
    dev.until("it is led again", "partition list kept --output json", led).await;
    dev.ok("produce kept", &lines(1_000..1_100)).await;
    let consumed = dev.ok("consume kept --from start --exit-at-end", "").await;
    assert!(sorted(&consumed.stdout).into_iter().eq(0..1_100), "{} lines", consumed.stdout.lines().count());
    let described = dev.ok("topic describe kept --output json", "").await.json();
    assert_eq!(described["config"]["max.message.bytes"], "65536");
    assert_eq!(dev.signal("-TERM").await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named() {
    let (temporary, ports) = (TempDir::new().unwrap(), free_ports());
    let taken = TcpListener::bind(("127.0.0.1", ports + 1)).unwrap();
    let child = command(&["dev", "--ephemeral", "--port", &ports.to_string(), "--kafka-port", "0"])
        .env("TMPDIR", temporary.path())
        .spawn();
    let output = timeout(PATIENCE, child.unwrap().wait_with_output()).await.expect("it does not end").unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&taken.local_addr().unwrap().to_string()), "{stderr}");
}
