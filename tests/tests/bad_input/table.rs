//! The table: every kind of bad input, what comes of it, and the test that shows it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where a row is shown.
enum Test {
    /// `module::function` of this binary.
    Here(&'static str),
    /// A function in another file of the workspace.
    In(&'static str, &'static str),
}

use Test::{Here, In};

struct Row {
    /// What comes in.
    input: &'static str,
    /// The code that is answered, or what happens.
    outcome: &'static str,
    test: Test,
}

const fn row(input: &'static str, outcome: &'static str, test: Test) -> Row {
    Row { input, outcome, test }
}

const BATCH_RULES: &str = "core/src/batch/tests/rules.rs";
const BATCH_CODEC: &str = "core/src/batch/tests/codec.rs";
const CONFIG: &str = "broker/src/config/load_tests.rs";
const DIRECTORY: &str = "broker/src/log/fjall/directory.rs";
const DAMAGE: &str = "broker/src/log/fjall/tests/damage.rs";
const JOURNAL: &str = "broker/src/log/fjall/tests/journal.rs";
const CONSUMER: &str = "client/src/consumer/tests.rs";
const HTTP: &str = "broker/src/http_tests.rs";

const TABLE: &[Row] = &[
    row("an unknown topic", "UNKNOWN_TOPIC", Here("requests::unknown_topic")),
    row("an unknown partition", "UNKNOWN_PARTITION", Here("requests::unknown_partition")),
    row(
        "a partition that the topic of a consumer has not",
        "UNKNOWN_PARTITION",
        In(CONSUMER, "unknown_partitions_are_refused"),
    ),
    row("a topic name: empty", "INVALID_TOPIC_NAME", Here("requests::topic_name_empty")),
    row("a topic name: `.`", "INVALID_TOPIC_NAME", Here("requests::topic_name_dot")),
    row("a topic name: `..`", "INVALID_TOPIC_NAME", Here("requests::topic_name_two_dots")),
    row("a topic name: under `__`", "INVALID_TOPIC_NAME", Here("requests::topic_name_internal")),
    row("a topic name: over 249 characters", "INVALID_TOPIC_NAME", Here("requests::topic_name_too_long")),
    row("a topic name: outside [a-zA-Z0-9._-]", "INVALID_TOPIC_NAME", Here("requests::topic_name_bad_characters")),
    row(
        "replication above the live brokers",
        "INVALID_REPLICATION_FACTOR",
        Here("requests::replication_above_live_brokers"),
    ),
    row("min in-sync above replication", "INVALID_CONFIG", Here("requests::min_insync_above_replication")),
    row("a batch: wrong CRC", "CORRUPT_BATCH", Here("batches::wrong_crc")),
    row(
        "a batch: wrong CRC, before anything else is judged",
        "CORRUPT_BATCH",
        In(BATCH_RULES, "a_wrong_crc_is_refused_before_the_meaning_of_the_bytes"),
    ),
    row("a batch: wrong count", "INVALID_BATCH", Here("batches::wrong_count")),
    row(
        "a batch: records that are not as many as its header says",
        "INVALID_BATCH",
        In(BATCH_CODEC, "the_number_of_records_has_to_be_the_headers"),
    ),
    row("a batch: control bit", "INVALID_BATCH", Here("batches::control_bit")),
    row("a batch: unknown codec", "UNSUPPORTED_COMPRESSION", Here("batches::unknown_codec")),
    row("a batch: over the limit", "BATCH_TOO_LARGE", Here("batches::batch_over_the_limit")),
    row(
        "none, half, two, or a batch of an old format",
        "INVALID_BATCH, CORRUPT_BATCH, UNSUPPORTED_FORMAT",
        Here("batches::not_one_batch"),
    ),
    row(
        "a decompression bomb",
        "stored and served as it came; INVALID_BATCH for whoever inflates it",
        Here("batches::decompression_bomb"),
    ),
    row("a bomb, by every codec", "inflating stops at the cap", In(BATCH_CODEC, "bombs_are_refused_by_every_codec")),
    row(
        "a bomb, for a consumer",
        "INVALID_BATCH; its partition rests, others go on",
        In(CONSUMER, "a_bomb_stops_its_partition_only_and_nothing_is_skipped_unasked"),
    ),
    row("a fetch beyond the end", "OFFSET_OUT_OF_RANGE", Here("requests::fetch_beyond_the_end")),
    row("a fetch below the start", "OFFSET_OUT_OF_RANGE", Here("requests::fetch_below_the_start")),
    row(
        "a consumer's position below the start",
        "its policy decides",
        In(CONSUMER, "a_position_below_the_log_follows_the_policy"),
    ),
    row("a fetch at a negative offset", "OFFSET_OUT_OF_RANGE", Here("requests::fetch_negative")),
    row("a frame over the limit", "FRAME_TOO_LARGE", Here("requests::frame_over_the_limit")),
    row(
        "a request without partitions, batch or question",
        "INVALID_REQUEST, INVALID_BATCH",
        Here("requests::produce_against_the_protocol"),
    ),
    row("a request to a broker that does not lead", "NOT_LEADER, with the leader", Here("requests::not_the_leader")),
    row("garbage on the clients' port", "closed; others are served", Here("ports::garbage_for_clients_port")),
    row("half-open connections on the clients' port", "closed in time", Here("ports::half_open_on_clients_port")),
    row(
        "garbage and half-open connections on the peers' port",
        "closed; replication goes on",
        Here("ports::garbage_and_half_open_on_peers_port"),
    ),
    row(
        "strangers and malformed messages on the peers' port",
        "WRONG_CLUSTER, INVALID_REQUEST, or the link ends",
        Here("ports::strangers_on_peers_port"),
    ),
    row(
        "garbage and half-open connections on the monitoring port",
        "closed in time",
        Here("ports::garbage_and_half_open_on_http_port"),
    ),
    row(
        "endless headers and bodies on the monitoring port",
        "closed in time",
        In(HTTP, "endless_headers_and_endless_bodies_are_closed"),
    ),
    row(
        "garbage and half-open connections on the coordinator's ports",
        "closed; it administers",
        Here("ports::garbage_and_half_open_on_coordinators_ports"),
    ),
    row(
        "garbage and half-open connections on the control port of dev",
        "closed; it obeys",
        Here("ports::garbage_and_half_open_on_dev_control_port"),
    ),
    row(
        "/p/…: truncated, newer, not ours",
        "logged; led as before; recovers",
        Here("znodes::partition_state_unreadable"),
    ),
    row(
        "/p/…: contradicts itself",
        "refused as unreadable",
        In("registry/src/znode/partition.rs", "a_state_that_contradicts_itself_is_refused"),
    ),
    row("/p/…: a state of the past", "others go on; recovers", Here("znodes::partition_state_from_the_past")),
    row(
        "/t/…: truncated, newer, not ours",
        "logged; a starting broker serves all others; recovers",
        Here("znodes::topic_unreadable"),
    ),
    row(
        "/t/…: a number of partitions that cannot be",
        "refused as unreadable",
        In("registry/src/znode/topic.rs", "a_count_of_partitions_that_cannot_be_is_refused"),
    ),
    row(
        "/topics/…: truncated, newer, not ours",
        "TOPIC_EXISTS, INTERNAL with the cause; recovers",
        Here("znodes::topic_link_unreadable"),
    ),
    row(
        "/brokers/…: truncated, newer, not ours",
        "logged; the broker counts as before and writes it again",
        Here("znodes::broker_registration_unreadable"),
    ),
    row("/brokers/…: nobody's", "logged; passed over", Here("znodes::broker_registration_of_a_stranger")),
    row(
        "candidates: truncated, newer, not ours",
        "logged; passed over; the broker queues again",
        Here("znodes::candidate_unreadable"),
    ),
    row(
        "/cluster: truncated, newer, not ours",
        "what runs goes on; what starts says why it does not",
        Here("znodes::cluster_identity_unreadable"),
    ),
    row(
        "/coordinator/epoch: newer",
        "NO_COORDINATOR; records and elections go on; recovers",
        Here("znodes::coordinators_epoch_unreadable"),
    ),
    row("any znode: any bytes", "a typed error", In("registry/src/znode/codec.rs", "garbage_never_panics")),
    row(
        "a data directory of another cluster",
        "refused: WRONG_CLUSTER in words",
        Here("directories::directory_of_another_cluster"),
    ),
    row("a data directory of another broker", "refused", Here("directories::directory_of_another_broker")),
    row("a data directory in use", "refused", Here("directories::directory_in_use")),
    row("a data directory that is read-only", "refused", Here("directories::directory_read_only")),
    row(
        "a data directory that cannot be made",
        "refused",
        In("broker/src/log/fjall/tests.rs", "a_directory_that_cannot_be_written_is_refused"),
    ),
    row("a data directory of a newer version", "refused", Here("directories::directory_of_a_newer_version")),
    row(
        "a data directory whose identity has another byte",
        "refused",
        In(DIRECTORY, "every_change_of_the_identity_is_noticed"),
    ),
    row(
        "a journal damaged in the middle, in a cluster",
        "another member, refilled before it counts",
        Here("directories::journal_damaged_in_the_middle"),
    ),
    row("a journal damaged anywhere", "noticed", In(JOURNAL, "damage_in_the_synced_part_is_noticed")),
    row("an older journal damaged", "noticed", In(JOURNAL, "damage_in_an_older_journal_leaves_no_hole_unnoticed")),
    row(
        "a file of the store damaged",
        "its partitions are damaged, the process goes on",
        In(DAMAGE, "a_damaged_file_of_the_store_damages_a_partition_not_the_process"),
    ),
    row("a configuration with an unknown key", "refused, with the nearest key", Here("starts::unknown_key")),
    row(
        "an unknown key in a file, a variable, a flag",
        "refused",
        In(CONFIG, "unknown_keys_are_refused_everywhere_and_the_nearest_is_named"),
    ),
    row(
        "two brokers with one id",
        "the second ends; the first is not disturbed",
        Here("starts::two_brokers_with_one_id"),
    ),
    row(
        "questions to a broker that has just started and knows no topic yet",
        "it waits until it does, and never says UNKNOWN_TOPIC",
        Here("starts::a_broker_that_has_just_started_says_nothing_wrong"),
    ),
    row("an address that cannot be bound", "refused, with the address", Here("starts::address_that_cannot_be_bound")),
    row(
        "ZooKeeper not reachable at the start",
        "waits, says so, goes on",
        Here("starts::zookeeper_not_reachable_at_start"),
    ),
    row("the disk is full", "DISK_FULL; reading goes on; recovers", Here("disk::full_disk_refuses_and_recovers")),
    row(
        "the disk gets full in the middle of a write",
        "the process ends; nothing acknowledged is lost",
        Here("disk::full_disk_in_the_middle_of_a_write"),
    ),
    row(
        "a failed fsync",
        "the directory is tainted, the process ends",
        In("broker/src/log/fjall/tests/crash.rs", "a_failed_fsync_taints_the_directory_and_ends_the_process"),
    ),
];

/// The names of the test functions of one of this binary's modules.
fn tests_of(module: &str) -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/bad_input/{module}.rs"));
    let text = fs::read_to_string(file).unwrap();
    let mut tests = BTreeSet::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[test]" {
            let signature = lines.next().expect("a function follows");
            let name =
                signature.trim().strip_prefix("fn ").and_then(|rest| rest.split_once('(')).expect("a function").0;
            tests.insert(format!("{module}::{name}"));
        }
    }
    tests
}

#[test]
fn every_row_names_its_test_and_every_test_is_a_row() {
    let mut tests = BTreeSet::new();
    for module in ["requests", "batches", "ports", "znodes", "directories", "starts", "disk"] {
        tests.extend(tests_of(module));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut named, mut inputs) = (BTreeSet::new(), BTreeSet::new());
    for Row { input, outcome, test } in TABLE {
        assert!(inputs.insert(*input), "{input:?} is there twice");
        assert!(!outcome.is_empty(), "{input:?}");
        match test {
            Here(test) => {
                assert!(named.insert((*test).to_owned()), "{test} is named twice");
            }
            In(file, function) => {
                let text = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
                assert!(text.contains(&format!("fn {function}(")), "{file} has no {function}");
            }
        }
    }
    assert_eq!(named, tests, "left: the table, right: the tests");
}
