//! Apache Kafka's tool for transactions: what is open, who wrote, and how an administrator ends it.

use crate::java::{fails, row, run, says, there};
use crate::transactions::Client;

const TOPIC: &str = "java-txn";
const AT: [&str; 4] = ["--topic", TOPIC, "--partition", "0"];

fn tool(command: &str, arguments: &[&str]) -> String {
    run("transactions", &[&[command], arguments].concat())
}

#[test]
fn transactions_of_apache_kafka() {
    if !there() {
        return;
    }
    let mut client = Client::new(TOPIC);
    let producer = client.init(600_000).unwrap();
    assert_eq!(client.write(12, producer, 0, "held open"), 0);
    let (id, epoch) = (producer.id.to_string(), producer.epoch.to_string());

    let listed = tool("list", &[]);
    assert_eq!(row(&listed, &[TOPIC])[2..4], [&id, "Ongoing"]);
    assert_eq!(row(&tool("list", &["--duration-filter", "1"]), &[TOPIC])[2], id);
    assert!(!tool("list", &["--duration-filter", "3600000"]).contains(TOPIC), "it is not open that long");
    let described = tool("describe", &["--transactional-id", TOPIC]);
    let described = row(&described, &[TOPIC]);
    assert_eq!(described[1..5], [&id, &epoch, "Ongoing", "600000"]);
    assert_eq!(described[7], "java-txn-0");
    fails("transactions", &["describe", "--transactional-id", "java-nobody"], "could not be found");

    // Coordinator's epoch, sequence, time and where it began: the copies know the same.
    let wanted = [id.as_str(), &epoch, "-1", "0", "1000", "0"];
    assert_eq!(row(&tool("describe-producers", &AT), &[&id])[..6], wanted);
    for broker in ["1", "2", "3"] {
        let of_copy = tool("describe-producers", &[&AT[..], &["--broker-id", broker]].concat());
        assert_eq!(row(&of_copy, &[&id])[..6], wanted, "broker {broker}");
    }
    hanging_ones(&id);

    assert_eq!(client.read(), (1, 0, Vec::new()));
    let from_start = [&AT[..], &["--start-offset", "0"]].concat();
    tool("abort", &from_start);
    assert_eq!(client.settled(), (2, vec![0]));
    let ended = tool("describe-producers", &AT);
    assert_eq!(row(&ended, &[&id])[5], "None", "{ended}");
    fails("transactions", &[&["abort"], &from_start[..]].concat(), "Could not find any open transactions");
    the_old_way(&mut client, producer);
}

/// Its last record is of 1970, and its coordinator knows it: it is slow, and does not hang.
fn hanging_ones(id: &str) {
    for place in [&["--topic", TOPIC][..], &AT, &["--broker-id", "1"], &["--broker-id", "2"], &["--broker-id", "3"]] {
        let found = tool("find-hanging", &[place, &["--max-transaction-timeout", "1"]].concat());
        says(&found, &["StartOffset"]);
        assert!(!found.split_whitespace().any(|word| word == id || word == TOPIC), "{found}");
    }
}

/// As with brokers that cannot describe producers: every number is given.
fn the_old_way(client: &mut Client, producer: crate::transactions::Producer) {
    // The coordinator goes on with what it holds open.
    assert_eq!(client.write(12, producer, 1, "the rest"), 0);
    let (code, next) = client.end(producer, true);
    assert_eq!(code, 0);
    assert_eq!(client.settled(), (4, vec![0]));
    assert_eq!(client.write(12, next, 0, "held open again"), 0);
    let known = tool("describe-producers", &AT);
    let id = next.id.to_string();
    let known = row(&known, &[&id]);
    assert_eq!((known[1], known[5]), (next.epoch.to_string().as_str(), "4"));
    let abort = |epoch: i16, coordinator: &str| {
        let epoch = epoch.to_string();
        let numbers = ["--producer-id", &id, "--producer-epoch", &epoch, "--coordinator-epoch", coordinator];
        [&["abort"], &AT[..], &numbers].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let words = abort(next.epoch, "0");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    fails("transactions", &words, "coordinator epoch");
    let words = abort(next.epoch - 1, known[2]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    fails("transactions", &words, "epoch");
    let words = abort(next.epoch, known[2]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run("transactions", &words);
    assert_eq!(client.settled(), (6, vec![0, 4]));
}
